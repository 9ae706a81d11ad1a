//! URIs, and a database's URL.

use super::names::texts;
use super::network::Port;
use super::{DbDriver, Kind, Lua, deserialize};
use crate::lua::Secret;
use minijinja::Value;
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
        None if text.contains('@') => Err(format!(
            "{expected}: the scheme is missing; write `mailto:` or `xmpp:` before the address"
        )),
        None => Err(format!("{expected}: the scheme is missing")),
        Some(_) => Err(expected.into()),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// An `http` or `https` URL that others' paths are put behind: it has a host, and neither a user nor a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The URL, with its host as `xn--`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The host as it stands in HTTP: `xn--` labels, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        // A URL without a host is refused by `parse`.
        self.0.host_str().unwrap_or_default()
    }
}

impl Kind for HttpUrl {
    fn kind() -> Cow<'static, str> {
        "URL with its scheme".into()
    }

    fn example() -> &'static str {
        "https://chat.example/"
    }

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |reason: &str| {
            Err(format!(
                "expected an `https` or `http` URL, such as `https://chat.example/`{reason}"
            ))
        };
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refuse(": white space cannot stand in it");
        }
        let (scheme, _) = text.split_once("://").unwrap_or_default();
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return refuse("");
        }
        match Url::parse(text) {
            Err(error) => refuse(&format!(": {error}")),
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                refuse(": a user has no place in it")
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                refuse(": a query or a fragment has no place in it")
            }
            Ok(url) => Ok(HttpUrl(url)),
        }
    }
}

impl Lua for HttpUrl {
    fn lua(&self) -> Value {
        Value::from(self.as_str())
    }
}

/// Where a database is and how to log in to it.
#[derive(Debug)]
pub struct DatabaseUrl {
    /// The kind of database.
    pub driver: DbDriver,
    /// The server's name or address, or the absolute path of its socket's directory (PostgreSQL) or of its
    /// socket (MySQL). None for SQLite3.
    pub host: Option<String>,
    /// The server's port, if it is named.
    pub port: Option<Port>,
    /// The database's name, if it is named; for SQLite3 the file's absolute path.
    pub database: Option<String>,
    /// Who logs in.
    pub username: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
}

impl Kind for DatabaseUrl {
    fn kind() -> Cow<'static, str> {
        "URL".into()
    }

    fn example() -> &'static str {
        "postgresql://prosody:secret@db.example:5432/prosody"
    }

    fn parse(text: &str) -> Result<Self, String> {
        database_url(text).map_err(|reason| {
            format!(
                "expected `postgresql://user:password@host:port/database`, `mysql://…` or \
                 `sqlite:///absolute/path`: {reason}"
            )
        })
    }

    fn hides(_text: &str) -> bool {
        true
    }
}

/// Reads a database's URL. The error is the reason alone, and holds nothing of the URL but a parameter's name.
fn database_url(text: &str) -> Result<DatabaseUrl, String> {
    const ENCODE: &str = "special characters, in a password for one, have to be percent-encoded \
                          (`@` is `%40`, `/` is `%2F`, `#` is `%23`, `?` is `%3F`)";
    // `Url` drops line ends and tabs without a word, which would be another password.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("white space cannot stand in it; {ENCODE}"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("`://` does not follow a scheme")?;
    let driver = match scheme.to_ascii_lowercase().as_str() {
        "postgresql" | "postgres" => DbDriver::PostgreSql,
        "mysql" | "mariadb" => DbDriver::MySql,
        "sqlite" | "sqlite3" => DbDriver::Sqlite3,
        _ => return Err("the scheme is none of `postgresql`, `mysql` and `sqlite`".into()),
    };
    // A second `@` shows a password that is not encoded, part of which could be taken for something else.
    if rest.matches('@').count() > 1 || rest.contains('#') {
        return Err(ENCODE.into());
    }
    let url = Url::parse(text).map_err(|error| format!("{error}; {ENCODE}"))?;
    let after_user = url.path().contains('@') || url.query().is_some_and(|q| q.contains('@'));
    if after_user {
        return Err(ENCODE.into());
    }
    let socket = socket(&url)?;
    if driver == DbDriver::Sqlite3 {
        return sqlite(&url, socket.is_some());
    }

    let host = decoded(url.host_str().unwrap_or_default())?;
    let host = match (host.as_str(), socket) {
        ("", socket) => socket,
        (_, None) => Some(
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
        ),
        (_, Some(_)) => return Err("it names both a host and a socket".into()),
    };
    let port = match url.port() {
        None => None,
        Some(port) => Some(Port::parse(&port.to_string())?),
    };
    let database = url.path().trim_start_matches('/');
    if database.contains('/') {
        return Err("the database's name has more than one part".into());
    }
    Ok(DatabaseUrl {
        driver,
        host,
        port,
        database: some(decoded(database)?),
        username: some(decoded(url.username())?),
        password: some(decoded(url.password().unwrap_or_default())?).map(Secret::new),
    })
}

/// The file of `sqlite:///absolute/path`.
fn sqlite(url: &Url, has_socket: bool) -> Result<DatabaseUrl, String> {
    if url.host_str().is_some_and(|host| !host.is_empty())
        || url.port().is_some()
        || !url.username().is_empty()
        || has_socket
    {
        return Err(
            "SQLite has a file and no server: three slashes and the path follow the scheme".into(),
        );
    }
    let path = format!("/{}", decoded(url.path())?.trim_start_matches('/'));
    if path == "/" || path.ends_with('/') || path.contains('\0') {
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

/// The socket that the query names (`host=/path`). Prosody can honour no other parameter.
fn socket(url: &Url) -> Result<Option<String>, String> {
    let mut socket = None;
    let mut refused = Vec::new();
    for (name, value) in url.query_pairs() {
        if name != "host" {
            refused.push(super::shown(&name));
        } else if !value.starts_with('/') || value.contains('\0') {
            return Err("the parameter `host` takes the absolute path of a socket".into());
        } else if socket.replace(value.into_owned()).is_some() {
            return Err("the parameter `host` stands twice".into());
        }
    }
    if refused.is_empty() {
        Ok(socket)
    } else {
        Err(format!(
            "Prosody cannot honour the parameter {}; leave it out",
            refused.join(", ")
        ))
    }
}

fn decoded(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| "what is percent-encoded is not UTF-8".into())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

deserialize!(HttpUrl, DatabaseUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_a_scheme() {
        for text in [
            "mailto:a@b.example",
            "xmpp:a@b.example?message",
            "https://a.example/é",
            "tel:+1-2",
        ] {
            assert_eq!(Uri::parse(text).unwrap().as_str(), text);
        }
        assert!(
            Uri::parse("a@b.example")
                .unwrap_err()
                .contains("`mailto:` or `xmpp:`")
        );
        for text in [
            "a.example",
            "mailto:",
            ":x",
            "1a:x",
            "mail to:a",
            "mailto:a b",
            "x:\"",
            "x:\0",
        ] {
            let error = Uri::parse(text).expect_err(text);
            assert!(error.starts_with("expected a URI"), "{text}: {error}");
        }
    }

    #[test]
    fn http_urls_have_a_scheme_and_a_host() {
        let url = HttpUrl::parse("HTTPS://Bücher.example/xmpp").unwrap();
        assert_eq!(url.as_str(), "https://xn--bcher-kva.example/xmpp");
        assert_eq!(url.host(), "xn--bcher-kva.example");
        assert_eq!(
            HttpUrl::parse("http://[2001:db8::1]:8080").unwrap().host(),
            "[2001:db8::1]"
        );
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

    /// Driver, host, port, database, user, password; `-` for none.
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
    fn a_database_url_is_taken_apart() {
        for (text, expected) in [
            (
                "postgresql://user:password@db.example:5433/prosody",
                "PostgreSQL db.example 5433 prosody user password",
            ),
            ("postgres://db", "PostgreSQL db - - - -"),
            (
                "mysql://u:p%40%2F%23%25s@db/x%20y",
                "MySQL db - x y u p@/#%s",
            ),
            ("MariaDB://u@[2001:db8::1]/x", "MySQL 2001:db8::1 - x u -"),
            ("mysql://u:100%@db/x", "MySQL db - x u 100%"),
            (
                "postgresql://u@/x?host=/run/postgresql",
                "PostgreSQL /run/postgresql - x u -",
            ),
            (
                "postgresql:///x?host=%2Frun%2Fpg",
                "PostgreSQL /run/pg - x - -",
            ),
            (
                "sqlite:///var/lib/prosody/a%20b.sqlite",
                "SQLite3 - - /var/lib/prosody/a b.sqlite - -",
            ),
            ("sqlite:////data/p.sqlite", "SQLite3 - - /data/p.sqlite - -"),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_database_url_is_refused_and_not_shown() {
        for (text, reason) in [
            ("db.example", "`://`"),
            ("oracle://S3CRET@db/x", "the scheme is none of"),
            (
                "postgresql+psycopg2://u:S3CRET@db/x",
                "the scheme is none of",
            ),
            ("postgresql://u:S3CRET@db/x?sslmode=S3CRET", "\"sslmode\""),
            (
                "postgresql://u:S3CRET@db/x?sslmode=a&target=S3CRET",
                "\"sslmode\", \"target\"",
            ),
            (
                "postgresql://u:S3CRET@db/x?host=/run",
                "both a host and a socket",
            ),
            (
                "postgresql://u:S3CRET@/x?host=db",
                "absolute path of a socket",
            ),
            ("postgresql://u:S3CRET@/x?host=/a&host=/b", "twice"),
            ("postgresql://u:S3C@RET@db/x", "percent-encoded"),
            ("postgresql://u:S3CRET#1@db/x", "percent-encoded"),
            ("postgresql://u:S3C/RET@db/x", "percent-encoded"),
            ("postgresql://u:1?S3CRET@db/x", "percent-encoded"),
            ("postgresql://u:1/S3CRET@db/x", "percent-encoded"),
            ("postgresql://u:S3C\nRET@db/x", "white space"),
            ("postgresql://u:%ffS3CRET@db/x", "not UTF-8"),
            ("postgresql://u:S3CRET@db:0/x", "1 to 65535"),
            ("postgresql://u:S3CRET@db/x/y", "more than one part"),
            ("sqlite://S3CRET/x", "three slashes"),
            ("sqlite:///", "no file"),
            ("sqlite:///x?host=/y", "three slashes"),
        ] {
            let error = DatabaseUrl::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("S3C") && !error.contains("RET"), "{error}");
        }
        let url = DatabaseUrl::parse("mysql://u:S3CRET@db/x").unwrap();
        assert!(!format!("{url:?}").contains("S3CRET"));
    }
}
