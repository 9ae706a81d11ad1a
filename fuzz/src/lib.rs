//! What the fuzz targets check. `tests/fuzz_corpus.rs` of the crate includes this file and checks the same for
//! every file of the corpus.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;

use minijinja::Value;
use prosody_entrypoint::facts::lua_summary;
use prosody_entrypoint::lua::{Dialect, Secret, Secrets, Version};
use prosody_entrypoint::settings::compat::{self, Meaning};
use prosody_entrypoint::settings::{Settings, catalogue, input, reference};
use prosody_entrypoint::survey::certificates::key::Keys;
use prosody_entrypoint::survey::certificates::pem;
use prosody_entrypoint::survey::certificates::x509::Certificate;
use prosody_entrypoint::survey::modules::source as module_source;
use prosody_entrypoint::templates::{Templates, values};

const DIALECT: Dialect = Dialect { version: Version::Lua54, secrets: Secrets::Written };

/// A value that tries to get out of every kind of Lua string, and out of the template. U+0007 is in it because a
/// literal never has it as it is, so that not even a piece of the value gets through unnoticed.
const HOSTILE: &str = "\u{7}\"; os.execute(\"id\") --\u{7}]]\u{7}\r\n\u{7}\0\u{7}\\\u{7}{{ secret }}\u{7}";

/// Long and odd enough that no other text holds it by chance.
const SECRET: &str = "hunter2-correct-horse";

/// Any bytes, written as a literal, are read back as the same bytes.
pub fn lua_string(data: &[u8]) {
    let mut literal = String::new();
    values::write(&mut literal, &Value::from_bytes(data.to_owned()), DIALECT)
        .expect("every string has a literal");
    assert!(!literal.contains(char::is_control), "{literal:?} is not one readable line");
    assert_eq!(read_string(literal.as_bytes()), Some((data.to_owned(), &[][..])), "{literal}");
}

/// Any text as a template ends in output or in an error, and neither has in it what it must not.
pub fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else {
        return;
    };
    // These write code or secrets as they are, make more work than fits into a test, or (a namespace that holds
    // itself) overflow minijinja's stack.
    let left_out = ["verbatim_lua_code", "\u{7}", SECRET, "range", "*", "namespace"];
    if left_out.iter().any(|text| source.contains(text)) {
        return;
    }
    for secrets in [Secrets::Written, Secrets::Hidden] {
        let mut templates = Templates::new(Dialect { secrets, ..DIALECT }, 1);
        let rendered = templates
            .add("fuzz.cfg.lua.j2", source.to_owned())
            .and_then(|()| templates.render("fuzz.cfg.lua.j2", context()));
        match rendered {
            Ok(output) => {
                assert!(!output.contains('\u{7}'), "the hostile value got through: {output:?}");
                assert!(
                    secrets == Secrets::Written || !output.contains(SECRET),
                    "the hidden secret got through: {output:?}"
                );
            }
            Err(error) => {
                assert!(!format!("{error:?}").contains(SECRET), "the error has the secret: {error:?}");
            }
        }
    }
}

/// Any text as the value of any setting is read or refused, and a secret in it is in no report. The first byte
/// chooses the setting.
pub fn setting(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let Some(setting) = catalogue::settings().nth(usize::from(*choice)) else { return };
    let mut value = text.to_owned();
    value.extend(SECRET.as_bytes());
    let value = OsString::from_vec(value);
    let (settings, report) = Settings::read([(OsString::from(setting.field.variable()), value)]);
    if setting.secret {
        let shown = format!("{report}\n{}", reference::effective(&settings));
        assert!(!shown.contains(SECRET), "{}: the secret is shown: {shown}", setting.field.variable());
    }
}

/// Any names with any values as an environment are read to the end. Neither a secret nor the value of a name that means
/// nothing here is in a report. The input is what `/proc/PID/environ` has: `NAME=value`, with a NUL between two of them. The
/// byte 1 and a number of two bytes stand for one of the [`known_names`], so that the names need not be found by chance.
pub fn environment(data: &[u8]) {
    if data.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
        return;
    }
    let names = known_names();
    let variables = data.split(|byte| *byte == 0).map(|entry| variable(entry, &names));
    let (settings, mut report) = Settings::read(variables);
    for name in &settings.source.unknown {
        let hint = compat::hint(name).or_else(|| input::suggestion(name)).unwrap_or_default();
        report.setting_warning(format!("{name}: {hint}"));
    }
    let mut shown = format!("{report}\n{}", reference::effective(&settings));
    for line in report.warnings().chain(report.debugs.iter().chain(&report.infos).map(String::as_str)) {
        let _ = write!(shown, "\n{line}");
    }
    report.make_strict();
    let _ = write!(shown, "\n{report}");
    assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    for account in settings.accounts() {
        assert!(!format!("{account:?}").contains(SECRET), "{}: the password is shown", account.jid);
    }
}

/// The name of every setting and alias, those of other images, and the shapes of names that other programs set.
pub fn known_names() -> Vec<String> {
    let settings = catalogue::settings().map(|setting| setting.field.variable());
    let aliases = catalogue::settings().flat_map(|setting| setting.aliases).copied();
    let others = compat::VARIABLES.iter().map(|(name, _)| *name);
    let shapes = [
        "PASSWORD_FILE",
        "PROSODY_",
        "PROSODY_CONFIG",
        "PROSODY_ENV_X",
        "PROSODY_NAME",
        "PROSODY_PORT",
        "PROSODY_PORT_5222_TCP_ADDR",
        "PROSODY_SERVICE_HOST",
        "PROSODY_STORAGE_ARCHIVE",
        "PROSODY_VERSION",
    ];
    settings.chain(aliases.chain(others).chain(shapes).map(str::to_owned)).collect()
}

/// A variable of an environment, with [`SECRET`] at the end of each value that must not be shown. A `_FILE` never names a file
/// that exists, because the fuzzer would open all that it comes upon.
fn variable(entry: &[u8], names: &[String]) -> (OsString, OsString) {
    let entry = match entry {
        [1, high, low, rest @ ..] => {
            let number = usize::from(u16::from_be_bytes([*high, *low]));
            [names[number % names.len()].as_bytes(), rest].concat()
        }
        _ => entry.to_owned(),
    };
    // As in the standard library, an equals sign at the beginning is a part of the name.
    let end = entry.iter().skip(1).position(|byte| *byte == b'=').map_or(entry.len(), |found| found + 1);
    let name = entry[..end].to_owned();
    let mut value = entry.get(end + 1..).unwrap_or_default().to_owned();
    let is_empty = value.is_empty();
    let is_file = name.ends_with(b"_FILE");
    if is_file && !is_empty {
        value.extend(b"/no-such-file");
    }
    // An absolute path is shown: it is a path for sure, and says what to correct.
    let is_shown = is_empty
        || (is_file && value.starts_with(b"/"))
        || (std::str::from_utf8(&name).is_ok_and(|name| shows(name, &String::from_utf8_lossy(&value))));
    if !is_shown {
        value.extend(SECRET.as_bytes());
    }
    (OsString::from_vec(name), OsString::from_vec(value))
}

/// Whether the value of a variable may be shown: that of a name with a meaning, unless it is a secret.
fn shows(name: &str, value: &str) -> bool {
    let twin = name.strip_suffix("_FILE").unwrap_or(name);
    [name, twin].into_iter().any(|name| {
        let is_of = |setting: &&catalogue::Setting| {
            setting.field.variable() == name || setting.aliases.contains(&name)
        };
        let setting = match compat::find(name) {
            Some((_, Meaning::Setting(field))) => catalogue::setting(*field),
            Some((_, Meaning::Special(..))) => return name != "PASSWORD",
            Some((_, Meaning::Unsupported(_))) => return false,
            None => catalogue::settings().find(is_of),
        };
        setting.map_or(name.starts_with(catalogue::STORE_PREFIX), |setting| setting.shows(value))
    })
}

/// Any bytes as a Lua file of the user's, or as a module, are looked through to the end.
pub fn lua_source(data: &[u8]) {
    let stands = |name: &str| data.windows(name.len()).any(|window| window == name.as_bytes());
    let summary = lua_summary::summarize(data);
    for name in summary.environment.iter().chain(&summary.hosts) {
        assert!(stands(name), "{name:?} is not in the file");
    }
    let module = module_source::read(data);
    for need in module.modules.iter().chain(&module.libraries) {
        assert!(stands(&need.name), "{need:?} is not in the file");
    }
    for value in module.lua.iter().chain(&module.requires).chain(&module.conflicts) {
        assert!(stands(value), "{value:?} is not in the file");
    }
}

/// Any bytes as a file of certificates are read to the end, and what is said of one in it is fit to be shown.
pub fn certificate(data: &[u8]) {
    for block in pem::blocks(data) {
        let Some(der) = block.ok().and_then(|block| block.decode()) else { continue };
        let mut written = String::new();
        pem::write(&mut written, "CERTIFICATE", &der);
        let again: Vec<_> = pem::blocks(written.as_bytes()).collect();
        assert_eq!(again.len(), 1, "{written}");
        assert_eq!(again[0].ok().and_then(|block| block.decode()), Some(der.clone()), "{written}");

        let Some(certificate) = Certificate::read(der) else { continue };
        for name in &certificate.names {
            let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*');
            assert!(name.domain.bytes().all(is_plain), "{:?}", name.domain);
        }
        assert!(certificate.domains().len() <= certificate.names.len());
        assert_eq!(certificate.fingerprint().len(), 64);
        certificate.issuer();
        certificate.is_issuer_of(&certificate);
    }
}

/// Any bytes as a file of keys are read to the end. Twice the first byte is how much of the rest is a public key that a
/// key in what follows is compared with; a key is written as it was read, and not shown otherwise.
pub fn private_key(data: &[u8]) {
    let Some((length, data)) = data.split_first() else { return };
    let (public_key, data) = data.split_at(data.len().min(2 * usize::from(*length)));
    for key in &Keys::read(data).keys {
        key.fits(public_key);
        assert_eq!(format!("{key:?}"), "Key(<secret>)");
        let mut written = String::new();
        key.write(&mut written);
        let again = Keys::read(written.as_bytes());
        assert!(again.flaw.is_none() && again.keys.len() == 1, "{written}");
        assert_eq!(again.keys[0].fits(public_key), key.fits(public_key));
    }
}

fn context() -> Value {
    let secret = Value::from_object(Secret::new(SECRET.to_owned()));
    let table = BTreeMap::from([(HOSTILE, Value::from(HOSTILE)), ("secret", secret.clone())]);
    minijinja::context! {
        v => HOSTILE,
        list => vec![Value::from(HOSTILE), secret.clone(), Value::from(1)],
        table => Value::from_object(table),
        secret,
        number => 5222,
        yes => true,
    }
}

/// Reads a Lua string literal in double quotes at the start of `code`, as the manual of Lua 5.2, section 3.1,
/// describes it. Gives what the string holds and what follows it, or nothing where it is no such literal.
fn read_string(code: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = code.strip_prefix(b"\"")?;
    let mut string = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((string, rest)),
            b'\n' | b'\r' => return None,
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                if escaped.is_ascii_digit() {
                    let digits = rest.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
                    let number: u32 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
                    string.push(u8::try_from(number).ok()?);
                    rest = &rest[digits..];
                } else {
                    string.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'"' | b'\\' => escaped,
                        _ => return None,
                    });
                    rest = after;
                }
            }
            _ => string.push(byte),
        }
    }
}
