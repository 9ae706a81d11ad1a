//! Summarizes a custom Lua file: its hosts, its storage options, and the environment variables that it reads.
//!
//! This reads tokens (Lua 5.4 manual, 3.1) and runs nothing. So comments and strings are not mistaken for code, but
//! values that a program computes are not found.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::lua::tokens::{Token, Tokens};

/// The summary of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether it calls `VirtualHost`, `Component` or one of their aliases.
    pub defines_host: bool,
    /// The names of hosts that are string literals.
    pub hosts: BTreeSet<String>,
    /// Whether the name of a host is not a string literal.
    pub has_unnamed_host: bool,
    /// Whether it defines an external component: `Component "…"` without a module.
    pub has_external_component: bool,
    /// A digest of the values assigned to each of [`PLACES`].
    pub places: BTreeMap<&'static str, u64>,
    pub sets_plugin_paths: bool,
    /// Whether it assigns `contact_info`, or `admins`.
    pub sets_contacts: bool,
    pub sets_admins: bool,
    /// Whether it assigns an option for ports or addresses, such as `c2s_ports` or `interfaces`.
    pub sets_ports: bool,
    /// The files of certificates and keys that its options name.
    pub tls_files: BTreeSet<TlsFile>,
    /// The variables that it reads, as `ENV_NAME` or as `os.getenv("NAME")`.
    pub environment: BTreeSet<String>,
    /// Whether it is another image's template, with markers such as `${NAME:-default}`, and not Lua.
    pub has_markers: bool,
}

/// A certificate's or key's file that an option names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsFile {
    /// The host whose TLS depends on it. Empty if all do. `None` for a single service, and for unknown hosts.
    pub host: Option<String>,
    /// The file, absolute or relative to the configuration directory.
    pub path: String,
}

impl TlsFile {
    /// The certificate of an option, and its key, which Prosody finds by the name (`core/certmanager.lua`).
    pub fn with_key(host: Option<String>, path: &str) -> impl Iterator<Item = Self> {
        let key = path.strip_suffix(".crt").map(|stem| format!("{stem}.key"));
        let beside = || path.strip_suffix("/fullchain.pem").map(|stem| format!("{stem}/privkey.pem"));
        let files = [Some(path.to_owned()), key.or_else(beside)].into_iter().flatten();
        files.map(move |path| Self { host: host.clone(), path })
    }
}

/// The functions in Prosody's configuration that begin a host (`core/configmanager.lua`).
const HOST_FUNCTIONS: [&[u8]; 5] = [b"VirtualHost", b"Host", b"host", b"Component", b"component"];

/// Prosody's options for the place of data (`core/storagemanager.lua`, `mod_storage_sql`).
pub const PLACES: [&str; 4] = ["data_path", "default_storage", "sql", "storage"];

/// Summarizes Lua source, or a template for it, of any bytes and in linear time.
pub fn summarize(source: &[u8]) -> Summary {
    let mut summary = Summary::default();
    let mut tokens = Tokens::new(source);
    // Whether the next name is a field (`x.host`), a method or a defined function, and not a function of Prosody.
    let mut is_other = false;
    // The number of open brackets. Names in tables or arguments are not options.
    let mut depth = 0_usize;
    // The host of the current options: empty in the global section, `None` if its name is not a string literal.
    let mut host = Some(String::new());
    // Within a table for TLS (`ssl = { key = … }`), the host that it is for.
    let mut tls_table = None;
    while let Some(token) = tokens.next() {
        match token {
            Token::Symbol(b'{' | b'(') => depth += 1,
            Token::Symbol(b'}' | b')') => depth = depth.saturating_sub(1),
            Token::Name(_) if depth == 0 => tls_table = None,
            // Lua has no dollar sign.
            Token::Symbol(b'$') if tokens.rest().starts_with(b"{") => summary.has_markers = true,
            _ => {}
        }
        if let Token::Name(name) = token {
            if let Some(variable) = name.strip_prefix(b"ENV_") {
                add(&mut summary.environment, variable);
            } else if name == b"getenv" {
                let mut following = tokens.clone().filter(|token| *token != Token::Symbol(b'('));
                if let Some(Token::Text(variable)) = following.next() {
                    add(&mut summary.environment, variable);
                }
            } else if !is_other && HOST_FUNCTIONS.contains(&name) {
                let mut following = tokens.clone();
                if is_call(following.clone()) {
                    summary.defines_host = true;
                    let is_component = name.eq_ignore_ascii_case(b"component");
                    let name = match following.next() {
                        Some(Token::Symbol(b'(')) => following.next(),
                        first => first,
                    };
                    host = None;
                    match name {
                        Some(Token::Text(name)) => {
                            add(&mut summary.hosts, name);
                            host =
                                std::str::from_utf8(name).ok().map(|name| name.trim_matches('*').to_owned());
                            // A module is another argument, or the argument of another call.
                            let next = following.find(|token| *token != Token::Symbol(b')'));
                            let has_module =
                                matches!(next, Some(Token::Text(_) | Token::Symbol(b',' | b'(' | b'{')));
                            summary.has_external_component |= is_component && !has_module;
                        }
                        _ => summary.has_unnamed_host = true,
                    }
                }
            } else if !is_other && depth == 0 && name == b"plugin_paths" {
                summary.sets_plugin_paths |= tokens.assigned().is_some();
            } else if !is_other && depth == 0 && name == b"contact_info" {
                summary.sets_contacts |= tokens.assigned().is_some();
            } else if !is_other && depth == 0 && name == b"admins" {
                summary.sets_admins |= tokens.assigned().is_some();
            } else if !is_other && depth == 0 && (name == b"ssl" || name.ends_with(b"_ssl")) {
                tls_table = Some(host.clone().filter(|_| name == b"ssl"));
            } else if !is_other && depth == 0 && (name == b"certificate" || name.ends_with(b"_certificate")) {
                // Rendered hosts have an option of their own.
                let host = host.clone().filter(|host| name == b"certificate" && !host.is_empty());
                let path = assigned_text(tokens.clone());
                summary
                    .tls_files
                    .extend(path.into_iter().flat_map(|path| TlsFile::with_key(host.clone(), path)));
            } else if !is_other
                && depth == 1
                && tls_table.is_some()
                && [&b"certificate"[..], b"key"].contains(&name)
            {
                let path = assigned_text(tokens.clone()).map(str::to_owned);
                let file = path.zip(tls_table.clone()).map(|(path, host)| TlsFile { host, path });
                summary.tls_files.extend(file);
            } else if !is_other && depth == 0 && is_of_ports(name) {
                summary.sets_ports |= tokens.assigned().is_some();
            } else if let Some(place) =
                PLACES.into_iter().find(|place| !is_other && depth == 0 && place.as_bytes() == name)
            {
                if let Some(value) = tokens.assigned() {
                    let mut digest = Digest::default();
                    digest.add(&summary.places.get(place).copied().unwrap_or_default().to_be_bytes());
                    digest.add(value);
                    summary.places.insert(place, digest.finish());
                }
            }
        }
        is_other = matches!(token, Token::Symbol(b'.' | b':') | Token::Name(b"function"));
    }
    summary
}

/// Whether an option decides where a service listens (`core/portmanager.lua`).
fn is_of_ports(option: &[u8]) -> bool {
    let endings: [&[u8]; 5] = [b"_ports", b"_interfaces", b"_interface", b"interfaces", b"interface"];
    endings[..3].iter().any(|ending| option.ends_with(ending)) || endings[3..].contains(&option)
}

/// The assigned string, if the tokens after a name assign a literal without escape sequences.
fn assigned_text<'a>(mut following: Tokens<'a>) -> Option<&'a str> {
    let text = match (following.next(), following.next()) {
        (Some(Token::Symbol(b'=')), Some(Token::Text(text))) => std::str::from_utf8(text).ok()?,
        _ => return None,
    };
    (!text.is_empty() && !text.contains('\\')).then_some(text)
}

/// Whether the tokens after a name form a call: `f "x"`, `f [[x]]`, `f(x)`, or a template's `f {{ x }}`.
fn is_call(mut following: Tokens) -> bool {
    match following.next() {
        Some(Token::Text(_) | Token::Symbol(b'(')) => true,
        Some(Token::Symbol(b'{')) => following.next() == Some(Token::Symbol(b'{')),
        _ => false,
    }
}

/// Adds a name, unless it is empty or has escape sequences.
fn add(environment: &mut BTreeSet<String>, name: &[u8]) {
    if let Ok(name) = std::str::from_utf8(name) {
        if !name.is_empty() && !name.contains('\\') {
            environment.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defines_host(source: &str) -> bool {
        summarize(source.as_bytes()).defines_host
    }

    fn environment(source: &str) -> Vec<String> {
        summarize(source.as_bytes()).environment.into_iter().collect()
    }

    #[test]
    fn hosts_are_found_in_every_notation() {
        for source in [
            "VirtualHost \"a.example\"",
            "VirtualHost'a.example'",
            "VirtualHost [[a.example]]",
            "VirtualHost --[==[ ]] ]==] [=[a.example]=]",
            "VirtualHost\n\t(\"a.example\")",
            "Component \"rooms.example\" \"muc\"",
            "admins = {}\nHost \"a.example\"",
            "host 'a.example'",
            "component(name)",
            "x = \"\\\"\" VirtualHost \"a\"",
            "x = 'a\\z\n\n  b' VirtualHost \"a\"",
            "x = 'unfinished\nVirtualHost \"a\"",
            "x = 0x1p4 VirtualHost \"a\"",
            "for _, d in ipairs(t) do VirtualHost(d) end",
            "VirtualHost {{ domain }}",
            "x = a[1] --]]\nVirtualHost \"a\"",
        ] {
            assert!(defines_host(source), "{source}");
        }
    }

    #[test]
    fn comments_strings_and_other_uses_of_the_words_are_not_hosts() {
        for source in [
            "-- VirtualHost \"a.example\"",
            "--[[ VirtualHost \"a.example\"\n VirtualHost \"b.example\" ]]",
            "--[==[ ]] VirtualHost \"a\" ]=] ]==]",
            "--[[ never closed VirtualHost \"a\"",
            "x = \"VirtualHost 'a'\"",
            "x = [[\nVirtualHost \"a\"\n]]",
            "x = 'it\\'s VirtualHost \"a\"'",
            "x = 'a\\\nVirtualHost \"a\"'",
            "x = 'a\\\r\nVirtualHost \"a\"'",
            "sql = { host = \"localhost\" }",
            "turn.host \"x\"",
            "proxy:host(\"x\")",
            "function host(name) end",
            "component = true",
            "VirtualHosts = { 'a' }",
            "MyVirtualHost \"a\"",
            "host {}",
            "",
        ] {
            assert!(!defines_host(source), "{source}");
        }
    }

    #[test]
    fn names_of_hosts_are_found_in_string_literals() {
        let source =
            "VirtualHost \"a.example\" Component(\"b.example\") \"muc\" VirtualHost(name) -- Host 'c'";
        let hosts = summarize(source.as_bytes()).hosts;
        assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["a.example", "b.example"]);
    }

    #[test]
    fn contacts_and_administrators_are_assigned() {
        let found = |source: &str| {
            let summary = summarize(source.as_bytes());
            (summary.sets_contacts, summary.sets_admins)
        };
        assert_eq!(found("contact_info = { abuse = { \"mailto:a@example.org\" } }"), (true, false));
        assert_eq!(found("VirtualHost \"a.example\"\nadmins = { \"a@a.example\" }"), (false, true));
        assert_eq!(found("-- contact_info = {}\nother = { admins = {} }; print(admins)"), (false, false));
    }

    #[test]
    fn storage_options_are_found_with_their_values() {
        let plugin_paths = |source: &str| summarize(source.as_bytes()).sets_plugin_paths;
        assert!(plugin_paths("x = 1\nplugin_paths = { '/x' }") && plugin_paths("plugin_paths={}"));
        assert!(!plugin_paths("print(plugin_paths)") && !plugin_paths("x = { plugin_paths = {} }"));
        assert!(!plugin_paths("-- plugin_paths = {}") && !plugin_paths("x.plugin_paths = {}"));
        let places = |source: &str| summarize(source.as_bytes()).places;
        let value = |source: &str, place: &str| places(source)[place];
        assert_eq!(
            places("storage = 'sql'\nsql = { driver = 'x' }").keys().collect::<Vec<_>>(),
            [&"sql", &"storage"]
        );
        for source in [
            "-- storage = 'sql'",
            "x = { storage = 'sql' }",
            "f(function() storage = 'sql' end)",
            "x.storage = 'sql'",
            "if storage == 'sql' then end",
            "x = 'storage = 1'",
        ] {
            assert!(places(source).is_empty() || source.contains("=="), "{source}");
        }
        let one = value("storage = { a = 'x', b = { 'y' } } z = 1", "storage");
        assert_eq!(one, value("z = 2 storage = { a = 'x', b = { 'y' } }\n", "storage"));
        assert_ne!(one, value("storage = { a = 'x', b = { 'z' } }", "storage"));
        assert_ne!(value("storage = 'a'", "storage"), value("storage = 'b'", "storage"));
        assert_ne!(value("storage = 'a'", "storage"), value("storage = 'a'\nstorage = 'a'", "storage"));
        assert!(places("storage = { never closed").contains_key("storage"));
    }

    #[test]
    fn variables_are_found_only_in_code() {
        let source = "
            a = ENV_ONE
            b = os.getenv(\"TWO\") or Lua.os.getenv 'THREE' .. os.getenv[[FOUR]]
            c = { ENV_ONE, x.ENV_FIVE }
            -- ENV_COMMENT os.getenv(\"COMMENT\")
            d = \"ENV_TEXT\" .. os.getenv(name) .. os.getenv(\"A\\65\") .. ENV_ .. MY_ENV_X";
        assert_eq!(environment(source), ["FIVE", "FOUR", "ONE", "THREE", "TWO"]);
    }

    #[test]
    fn any_bytes_are_accepted() {
        // Every sequence of up to six bytes with a meaning for the scanner.
        let alphabet = b"[]=-\"\\\nzH";
        let mut source = Vec::new();
        for number in 0..9_usize.pow(6) {
            source.clear();
            let mut rest = number;
            while rest > 0 {
                source.push(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            summarize(&source);
        }
        assert_eq!(summarize(&[0xff, 0, b'\\', 0x80]), Summary::default());
    }

    #[test]
    fn the_time_is_linear_with_unclosed_brackets() {
        // In quadratic time, each of these would take a minute or more.
        for pattern in ["]", "[=", "]==", "\"\\", "host ", "getenv(", "--[=", "sql={", "sql=", "sql={}"] {
            let source = pattern.repeat(256 * 1024 / pattern.len());
            summarize(source.as_bytes());
            summarize(format!("[======[{source}").as_bytes());
        }
    }

    #[test]
    fn external_components_have_no_module() {
        for (source, expected) in [
            ("Component \"a.example\"\n\tcomponent_secret = \"x\"", true),
            ("Component(\"a.example\")", true),
            ("component 'a.example'", true),
            ("Component \"a.example\" \"muc\"", false),
            ("Component(\"a.example\", \"muc\")", false),
            ("Component(\"a.example\")(\"muc\")", false),
            ("VirtualHost \"a.example\"", false),
            ("-- Component \"a.example\"", false),
        ] {
            assert_eq!(summarize(source.as_bytes()).has_external_component, expected, "{source}");
        }
    }

    #[test]
    fn files_for_tls_are_found_with_their_hosts() {
        let source = "
            certificate = '/all.pem'
            ssl = { protocol = 'tlsv1_2+'; key = '/all.key', x = { key = '/no' }; certificate = '/all.crt' }
            key = '/no'
            turn = { key = '/no' }
            VirtualHost 'a.example'
              certificate = 'certs/a.crt' -- certificate = '/no'
              https_certificate = '/web/fullchain.pem'
              x.certificate = '/no'
            Component 'rooms.example' 'muc'
              ssl = { key = '/rooms.key' }
              https_ssl = { key = [[/web.key]] }
            VirtualHost(name)
              certificate = '/unknown.pem'
            VirtualHost '*'
              ssl = { key = '/again.key' }
              certificate = os.getenv('X') .. '/no'";
        let found = summarize(source.as_bytes()).tls_files;
        let found: Vec<(Option<&str>, &str)> =
            found.iter().map(|file| (file.host.as_deref(), file.path.as_str())).collect();
        let expected = [
            (None, "/all.pem"),
            (None, "/unknown.pem"),
            (None, "/web.key"),
            (None, "/web/fullchain.pem"),
            (None, "/web/privkey.pem"),
            (Some(""), "/again.key"),
            (Some(""), "/all.crt"),
            (Some(""), "/all.key"),
            (Some("a.example"), "certs/a.crt"),
            (Some("a.example"), "certs/a.key"),
            (Some("rooms.example"), "/rooms.key"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn options_for_ports_are_noticed() {
        for (source, expected) in [
            ("c2s_ports = { 5322 }", true),
            ("s2s_interfaces = '10.0.0.1'", true),
            ("interface = \"*\"", true),
            ("x.c2s_ports = { 5322 }", false),
            ("unbound = { c2s_ports = 1 }", false),
            ("ports = 1", false),
        ] {
            assert_eq!(summarize(source.as_bytes()).sets_ports, expected, "{source}");
        }
    }
}
