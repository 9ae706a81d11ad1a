//! URIs, HTTP URLs and database URLs.

use super::names::texts;
use super::network::{Port, TurnHost};
use super::{DbDriver, SettingType, lua};
use crate::lua::Secret;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use url::Url;

texts! {
    /// A URI with its scheme (RFC 3986): `mailto:admin@chat.example`, `xmpp:admin@chat.example`.
    Uri("URI", "URIs", "mailto:admin@chat.example") = uri;
}

fn uri(text: &str) -> Result<String, String> {
    let expected = "expected a URI, such as `mailto:admin@chat.example`";
    if let Some(wrong) = text
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '\\' | '`'))
    {
        return Err(format!("{expected}: {wrong:?} cannot stand in it"));
    }
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() => Ok(text.to_owned()),
        None if text.contains('@') => {
            Err(advice!("{expected}: the scheme is missing; write `mailto:` or `xmpp:` before the address")
                .into())
        }
        None => Err(format!("{expected}: the scheme is missing")),
        Some(_) => Err(expected.into()),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// An `http` or `https` base URL, to which paths are appended. It has a host, and no user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// The URL, with its host in the `xn--` form.
    pub text: String,
    /// The host in HTTP's syntax: `xn--` labels, an IPv6 address in brackets.
    pub host: String,
}

impl SettingType for HttpUrl {
    const NAME: &'static str = "URL with its scheme";
    const EXAMPLE: &'static str = "https://chat.example";

    fn parse(given: &str) -> Result<Self, String> {
        let refuse = |reason: &str| {
            Err(format!("expected an `https` or `http` URL, such as `https://chat.example`{reason}"))
        };
        if given.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refuse(": white space cannot stand in it");
        }
        let (scheme, _) = given.split_once("://").unwrap_or_default();
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return refuse("");
        }
        match Url::parse(given) {
            Err(error) => refuse(&format!(": {error}")),
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                refuse(": a user has no place in it")
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                refuse(": a query or a fragment has no place in it")
            }
            Ok(url) => {
                // `Url` refuses these schemes without a host.
                let host = url.host_str().unwrap_or_default().to_owned();
                let slash_added = url.path() == "/" && !given.ends_with('/');
                let mut text = String::from(url);
                // `Url` turns an empty path into a slash.
                if slash_added {
                    text.pop();
                }
                Ok(HttpUrl { text, host })
            }
        }
    }

    /// A URL with a user is invalid, but it may contain a password.
    fn hides(text: &str) -> bool {
        text.contains('@')
    }
}

/// The location of a database and its login.
#[derive(Debug)]
pub struct DatabaseUrl {
    pub driver: DbDriver,
    /// The server's host name or address, or an absolute path: the directory of the socket (PostgreSQL) or the socket
    /// (MySQL). `None` for SQLite3, and for the default socket.
    pub host: Option<String>,
    pub port: Option<Port>,
    /// The name of the database, if given. For SQLite3, the absolute path of its file.
    pub database: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl SettingType for DatabaseUrl {
    const NAME: &'static str = "URL";
    const EXAMPLE: &'static str = "postgresql://prosody:secret@db.example:5432/prosody";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        database_url(text).map_err(|reason| {
            format!(
                "expected `postgresql://user:password@host:port/database`, `mysql://…` or \
                 `sqlite:///absolute/path`: {reason}"
            )
        })
    }
}

/// Parses a database URL. The error is only the reason. It contains nothing from the URL but names of parameters.
/// (`Url` is no option: it refuses a user without a host, and a socket has no host.)
fn database_url(text: &str) -> Result<DatabaseUrl, String> {
    let encode = || {
        advice!(
            "special characters, in a password for one, have to be percent-encoded (`@` is `%40`, `/` is `%2F`, `#` is \
             `%23`, `?` is `%3F`)"
        )
    };
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("white space cannot stand in it; {}", encode()));
    }
    let (scheme, rest) = text.split_once("://").ok_or("`://` does not follow a scheme")?;
    let driver = match scheme.to_ascii_lowercase().as_str() {
        "postgresql" | "postgres" => DbDriver::PostgreSql,
        "mysql" | "mariadb" => DbDriver::MySql,
        "sqlite" | "sqlite3" => DbDriver::Sqlite3,
        _ => return Err("the scheme is none of `postgresql`, `mysql` and `sqlite`".into()),
    };
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // Signs of a password that is not encoded. A part of it could be parsed as something else, and shown.
    if rest.contains('#') || authority.matches('@').count() > 1 || after.contains('@') {
        return Err(encode().into());
    }
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    let (user, server) = authority.split_once('@').unwrap_or(("", authority));
    let socket = socket(query)?;
    if driver == DbDriver::Sqlite3 {
        if !authority.is_empty() || socket.is_some() {
            return Err("SQLite has a file and no server: `sqlite://` and an absolute path".into());
        }
        return sqlite(path);
    }

    let (host, port) = server_and_port(server).ok_or_else(|| {
        format!(
            "the host is neither a domain nor an address, or the port no number from 1 to 65535; {}",
            encode()
        )
    })?;
    if host.is_some() && socket.is_some() {
        return Err("it names both a host and a socket".into());
    }
    let database = path.trim_start_matches('/');
    if database.contains('/') {
        return Err("the database's name has more than one part".into());
    }
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    Ok(DatabaseUrl {
        driver,
        host: host.or(socket),
        port,
        database: non_empty(percent_decoded(database)?),
        username: non_empty(percent_decoded(username)?),
        password: non_empty(percent_decoded(password)?).map(Secret::new),
    })
}

/// Parses `host`, `host:port`, `[IPv6]:port` or the empty string. A percent-encoded path is a socket.
fn server_and_port(text: &str) -> Option<(Option<String>, Option<Port>)> {
    let (host, port) = match text.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, Some(Port::parse(port).ok()?)),
        None => (text, None),
    };
    let host = percent_decoded(host).ok()?;
    let host = match TurnHost::parse(&host) {
        Ok(TurnHost::Domain(domain)) => Some(domain.ascii().into_owned()),
        Ok(TurnHost::Address(address)) => Some(address.to_string()),
        Err(_) if host.is_empty() && port.is_none() => None,
        Err(_) if host.starts_with('/') && port.is_none() => Some(host),
        Err(_) => return None,
    };
    Some((host, port))
}

/// Parses the path of `sqlite:///absolute/path`.
fn sqlite(path: &str) -> Result<DatabaseUrl, String> {
    let path = format!("/{}", percent_decoded(path)?.trim_start_matches('/'));
    if path.ends_with('/') || path.contains('\0') {
        return Err("it names no file".into());
    }
    Ok(DatabaseUrl {
        driver: DbDriver::Sqlite3,
        host: None,
        port: None,
        database: Some(path),
        username: None,
        password: None,
    })
}

/// Parameters of libpq's and MySQL's connection URLs.
const KNOWN_PARAMETERS: [&str; 18] = [
    "application_name", "channel_binding", "charset", "connect_timeout", "dbname", "hostaddr", "options",
    "password", "port", "ssl", "ssl-mode", "sslcert", "sslkey", "sslmode", "sslrootcert",
    "target_session_attrs", "unix_socket", "user",
];

/// Parses the query: `host=/path` is a socket. Prosody supports no other parameter.
fn socket(query: &str) -> Result<Option<String>, String> {
    let mut socket = None;
    let mut refused = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decoded(value)?;
        if name != "host" {
            // Any other text may be the end of a secret.
            let known = KNOWN_PARAMETERS.contains(&name).then(|| format!("`{name}`"));
            refused.push(known.unwrap_or_else(|| "after the `?`".to_owned()));
        } else if !value.starts_with('/') || value.contains('\0') {
            return Err("the parameter `host` takes the absolute path of a socket".into());
        } else if socket.replace(value).is_some() {
            return Err("the parameter `host` stands twice".into());
        }
    }
    if refused.is_empty() {
        Ok(socket)
    } else {
        Err(advice!("Prosody cannot honour the parameter {}; leave it out", refused.join(", ")).into())
    }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| "what is percent-encoded is not UTF-8".into())
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

lua! {
    HttpUrl: self => self.text.as_str();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_a_scheme() {
        for text in ["mailto:a@b.example", "xmpp:a@b.example?message", "https://a.example/é", "tel:+1-2"] {
            assert_eq!(Uri::parse(text).unwrap().as_str(), text);
        }
        assert!(Uri::parse("a@b.example").unwrap_err().contains("`mailto:` or `xmpp:`"));
        for text in ["a.example", "mailto:", ":x", "1a:x", "mail to:a", "mailto:a b", "x:\"", "x:\0"] {
            let error = Uri::parse(text).expect_err(text);
            assert!(error.starts_with("expected a URI"), "{text}: {error}");
        }
    }

    #[test]
    fn http_urls_have_a_scheme_and_a_host() {
        let url = HttpUrl::parse("HTTPS://Bücher.example/xmpp").unwrap();
        assert_eq!(url.text, "https://xn--bcher-kva.example/xmpp");
        assert_eq!(url.host, "xn--bcher-kva.example");
        for text in ["https://chat.example", "https://chat.example/", "http://a.example:81"] {
            assert_eq!(HttpUrl::parse(text).unwrap().text, text);
        }
        for text in ["https://chat.example", "https://chat.example/", "http://a.example:81"] {
            assert_eq!(HttpUrl::parse(text).unwrap().text, text);
        }
        assert_eq!(HttpUrl::parse("http://[2001:db8::1]:8080").unwrap().host, "[2001:db8::1]");
        for (text, reason) in [
            ("chat.example", "`https` or `http`"),
            ("ftp://chat.example", "`https` or `http`"),
            ("https://", "empty host"),
            ("https:chat.example", "`https` or `http`"),
            ("https://a:b@chat.example", "a user"),
            ("https://chat.example/?a", "a query"),
            ("https://chat.example/#a", "a query or a fragment"),
            ("https://chat.example:99999", "invalid port"),
            ("https://chat example", "white space"),
        ] {
            let error = HttpUrl::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    /// Driver, host, port, database, user and password, with `-` for none.
    fn parts(text: &str) -> String {
        let url = DatabaseUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        [
            Some(url.driver.as_str().to_owned()),
            url.host,
            url.port.map(|port| port.get().to_string()),
            url.database,
            url.username,
            url.password.map(|password| password.expose().to_owned()),
        ]
        .map(|part| part.unwrap_or("-".into()))
        .join(" ")
    }

    #[test]
    fn database_urls_are_parsed() {
        for (text, expected) in [
            (
                "postgresql://user:password@db.example:5433/prosody",
                "PostgreSQL db.example 5433 prosody user password",
            ),
            ("postgres://db", "PostgreSQL db - - - -"),
            ("postgres://", "PostgreSQL - - - - -"),
            ("mysql://u:p:w@Bücher.example/x?", "MySQL xn--bcher-kva.example - x u p:w"),
            ("postgresql://u@%2Frun%2Fpg/x", "PostgreSQL /run/pg - x u -"),
            ("postgresql://u@[2001:db8::1]:5433/x", "PostgreSQL 2001:db8::1 5433 x u -"),
            ("mysql://u:p%40%2F%23%25s@db/x%20y", "MySQL db - x y u p@/#%s"),
            ("MariaDB://u@[2001:db8::1]/x", "MySQL 2001:db8::1 - x u -"),
            ("mysql://u:100%@db/x", "MySQL db - x u 100%"),
            ("postgresql://u@/x?host=/run/postgresql", "PostgreSQL /run/postgresql - x u -"),
            ("postgresql:///x?host=%2Frun%2Fpg", "PostgreSQL /run/pg - x - -"),
            ("sqlite:///var/lib/prosody/a%20b.sqlite", "SQLite3 - - /var/lib/prosody/a b.sqlite - -"),
            ("sqlite:////data/p.sqlite", "SQLite3 - - /data/p.sqlite - -"),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn invalid_database_urls_are_refused_and_not_shown() {
        for (text, reason) in [
            ("db.example", "`://`"),
            ("oracle://S3CRET@db/x", "the scheme is none of"),
            ("postgresql+psycopg2://u:S3CRET@db/x", "the scheme is none of"),
            ("postgresql://u:S3CRET@db/x?sslmode=S3CRET", "`sslmode`"),
            ("postgresql://u:S3CRET@db/x?sslmode=a&target=S3CRET", "`sslmode`, after the `?`"),
            ("postgresql://u:S3CRET@db/x?host=/run", "both a host and a socket"),
            ("postgresql://u:S3CRET@/x?host=db", "absolute path of a socket"),
            ("postgresql://u:S3CRET@/x?host=/a&host=/b", "twice"),
            ("postgresql://u:S3C@RET@db/x", "percent-encoded"),
            ("postgresql://u:S3CRET#1@db/x", "percent-encoded"),
            ("postgresql://u:S3C/RET@db/x", "percent-encoded"),
            ("postgresql://u:1?S3CRET@db/x", "percent-encoded"),
            ("postgresql://u:1/S3CRET@db/x", "percent-encoded"),
            ("postgresql://u:S3C\nRET@db/x", "white space"),
            ("postgresql://u:%ffS3CRET@db/x", "not UTF-8"),
            ("postgresql://u:S3CRET@db:0/x", "1 to 65535"),
            ("postgresql://u:S3CRET@db:/x", "1 to 65535"),
            ("postgresql://u:S3CRET@:5432/x", "1 to 65535"),
            ("postgresql://u:S3CRET@[::1/x", "1 to 65535"),
            ("postgresql://u:S3CRET@d%20b/x", "1 to 65535"),
            ("postgresql://u:S3CRET@db/x/y", "more than one part"),
            ("sqlite://S3CRET/x", "an absolute path"),
            ("sqlite:///", "no file"),
            ("sqlite:///x?host=/y", "an absolute path"),
        ] {
            let error = DatabaseUrl::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("S3C") && !error.contains("RET"), "{error}");
        }
        let url = DatabaseUrl::parse("mysql://u:S3CRET@db/x").unwrap();
        assert!(!format!("{url:?}").contains("S3CRET"));
    }
}
