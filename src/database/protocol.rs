//! The first messages of the PostgreSQL and MySQL protocols, without a library: enough to identify the server.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Answer, Database, left, refused};
use crate::os::within;
use crate::settings::types::DbDriver;
use crate::text::one_line;

/// The time limit for a greeting. After that, the server may be one whose client speaks first.
const GREETING_LIMIT: Duration = Duration::from_millis(500);

/// The maximum number of bytes to read of an answer. PostgreSQL's errors have about 100.
const LONGEST: usize = 1024;

/// The default sockets of libpq and of MySQL's library on Debian.
const POSTGRESQL_SOCKETS: &str = "/var/run/postgresql";
const MYSQL_SOCKET: &str = "/run/mysqld/mysqld.sock";

/// A MySQL login with an empty user and password (Protocol::HandshakeResponse41): length and number of the packet,
/// capabilities (LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION), longest packet, charset, 23 zeros, user, password.
const NO_LOGIN: &[u8] =
    b"\x22\0\0\x01\x01\x82\0\0\0\0\0\x01\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The server on a port or a socket.
#[derive(Debug, PartialEq)]
enum Peer {
    PostgreSql,
    /// PostgreSQL, with an error: its SQLSTATE and message.
    PostgreSqlError(String, String),
    /// MySQL or MariaDB.
    MySql,
    /// MySQL, with an error: its number and message.
    MySqlError(u16, String),
    Web,
    Unknown,
}

/// Identifies the server of a database, until `deadline`. No password is sent.
pub fn probe(database: &Database, deadline: Instant) -> Answer {
    let path = socket_path(database);
    let peer = connect(database, path.clone(), deadline);
    let peer = peer.and_then(|socket| exchange(socket, database, deadline));
    let error = match peer {
        Ok(peer) => return interpret(&peer, database),
        Err(error) => error,
    };
    let before = path.map(|path| format!("{path}: ")).unwrap_or_default();
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            return Answer::Unusable(advice!("{before}{error}: let this user reach it").into());
        }
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::NotFound => "there is no such socket",
        // Of connect(2), and of read(2).
        io::ErrorKind::TimedOut => "no answer at all, as behind a firewall",
        io::ErrorKind::WouldBlock => "it accepts connections and does not answer",
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it closes the connection"
        }
        _ => &error.to_string(),
    };
    Answer::NotYet(format!("{before}{why}"))
}

fn interpret(peer: &Peer, database: &Database) -> Answer {
    let other = |what: &str, why: &str| {
        Answer::Unusable(
            advice!("{what} answers there{why}: correct PROSODY_DB_DRIVER, the URL's scheme, host or port")
                .into(),
        )
    };
    match (database.driver, peer) {
        (DbDriver::PostgreSql, Peer::PostgreSql) | (DbDriver::MySql, Peer::MySql) => Answer::Ready,
        (DbDriver::PostgreSql, Peer::PostgreSqlError(code, why)) => refused(code, why, database),
        // Too many connections; server shutdown in progress
        (DbDriver::MySql, Peer::MySqlError(1040 | 1053, message)) => Answer::NotYet(message.clone()),
        (DbDriver::MySql, Peer::MySqlError(number, message)) => {
            Answer::Refused(format!("it refuses this host: {message} (error {number})"))
        }
        (_, Peer::PostgreSql | Peer::PostgreSqlError(..)) => other("PostgreSQL", ", and not MySQL"),
        (_, Peer::MySql | Peer::MySqlError(..)) => other("MySQL or MariaDB", ", and not PostgreSQL"),
        (_, Peer::Web) => other("a web server", ""),
        (_, Peer::Unknown) => other("something that is no database of this kind", ""),
    }
}

/// The path of the server's socket. `None` if it is on a port.
fn socket_path(database: &Database) -> Option<String> {
    match (&database.host, database.driver) {
        (Some(host), _) if !host.starts_with('/') => None,
        (host, DbDriver::PostgreSql) => {
            let directory = host.as_deref().unwrap_or(POSTGRESQL_SOCKETS);
            Some(format!("{directory}/.s.PGSQL.{}", database.port()))
        }
        (host, _) => Some(host.clone().unwrap_or_else(|| MYSQL_SOCKET.to_owned())),
    }
}

/// A socket of either family: reading and writing are the same for both.
fn connect(database: &Database, path: Option<String>, deadline: Instant) -> io::Result<UnixStream> {
    if let Some(path) = path {
        // A server that accepts nothing blocks it.
        return within(left(deadline), move || UnixStream::connect(path));
    }
    let host = database.host.clone().unwrap_or_default();
    let name = (host.clone(), database.port());
    // DNS over TCP has no time limit in glibc.
    let addresses = within(left(deadline), move || Ok(name.to_socket_addrs()?.collect::<Vec<_>>()))
        .map_err(|error| io::Error::other(format!("the name {host} does not resolve ({error})")))?;
    let mut last = io::Error::other("its name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)) {
            Ok(stream) => return Ok(OwnedFd::from(stream).into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads MySQL's greeting (MySQL's internals manual, "Connection Phase"), or sends PostgreSQL's startup message and reads
/// the answer (PostgreSQL's manual, 53.2.1 and 53.7, StartupMessage).
fn exchange(mut socket: UnixStream, database: &Database, deadline: Instant) -> io::Result<Peer> {
    socket.set_write_timeout(Some(left(deadline)))?;
    if database.driver == DbDriver::MySql {
        match read_some(&mut socket, GREETING_LIMIT.min(left(deadline))) {
            // A silent server may be PostgreSQL.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => {
                let peer = identify(&answer?);
                if peer == Peer::MySql {
                    // MySQL blocks hosts that often close the connection here (max_connect_errors). A refused login does
                    // not count.
                    let sent = socket.write_all(NO_LOGIN);
                    let _ = sent.and_then(|()| read_some(&mut socket, left(deadline)));
                }
                return Ok(peer);
            }
        }
    }
    // A server that speaks first may have closed the connection already, but its message can still be read.
    let sent = socket.write_all(&startup(database));
    let limit = left(deadline);
    match read_some(&mut socket, limit.saturating_sub(GREETING_LIMIT).max(limit / 2)) {
        Ok(answer) => Ok(identify(&answer)),
        // A web server may wait for the end of the request.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.write_all(b"\r\n\r\n")?;
            read_some(&mut socket, left(deadline)).map(|answer| identify(&answer))
        }
        Err(error) => sent.and(Err(error)),
    }
}

fn startup(database: &Database) -> Vec<u8> {
    let [user, name] = [database.username.as_deref().unwrap_or("prosody"), &database.name]
        .map(|text| text.replace('\0', ""));
    // Version 3.0.
    let body = format!("\0\x03\0\0user\0{user}\0database\0{name}\0\0");
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body.as_bytes()].concat()
}

/// Reads the beginning of an answer, with one call of read(2), within `limit`. A truncated answer still identifies the
/// server.
fn read_some(socket: &mut UnixStream, limit: Duration) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(limit))?;
    let mut answer = vec![0; LONGEST];
    let length = socket.read(&mut answer)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(length);
    Ok(answer)
}

/// Identifies a server by the beginning of its answer.
fn identify(answer: &[u8]) -> Peer {
    match answer {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => Peer::Web,
        // A length of three bytes, packet number 0, protocol version 10. The first byte of the length may be any
        // letter, but no message of PostgreSQL's continues like this.
        [_, _, 0, 0, 10, ..] => Peer::MySql,
        // AuthenticationOk, with the error that follows.
        [b'R', 0, 0, 0, 8, 0, 0, 0, 0, error @ ..] if error.starts_with(b"E") => identify(error),
        // PostgreSQL, with a request for authentication, a negotiation of the protocol version or a notice.
        [b'R' | b'v' | b'N', 0, 0, ..] => Peer::PostgreSql,
        // PostgreSQL's first field is the severity (its manual, 54.8). MySQL's errors may have the length `E`, too.
        [b'E', 0, 0, _, _, fields @ ..] if matches!(fields, [] | [b'S', ..]) => {
            let field = |kind: u8| {
                let field = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]));
                one_line(&String::from_utf8_lossy(field.unwrap_or_default()))
            };
            Peer::PostgreSqlError(field(b'C'), field(b'M'))
        }
        [_, _, 0, 0, 0xff, low, high, rest @ ..] => {
            let message = String::from_utf8_lossy(rest);
            Peer::MySqlError(u16::from_le_bytes([*low, *high]), one_line(message.trim_end_matches('\0')))
        }
        _ => Peer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_identified_by_the_beginning_of_their_answer() {
        let error = b"E\0\0\0\x60SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        for (answer, expected) in [
            (&b"R\0\0\0\x08\0\0\0\x05salt"[..], Peer::PostgreSql),
            (&error[..], Peer::PostgreSqlError("57P03".into(), "the database system is starting up".into())),
            (b"E\0\0\0\x06", Peer::PostgreSqlError(String::new(), String::new())),
            // Trusted, but without the database.
            (
                b"R\0\0\0\x08\0\0\0\0E\0\0\0\x10SFATAL\0C3D000\0Mgone\0\0",
                Peer::PostgreSqlError("3D000".into(), "gone".into()),
            ),
            (b"\x4a\0\0\0\x0a8.0.1-MariaDB\0", Peer::MySql),
            (
                b"\x10\0\0\0\xff\x10\x04Too many connections",
                Peer::MySqlError(1040, "Too many connections".into()),
            ),
            // Packets whose lengths are `E`, `R`, `v` and `N`.
            (b"E\0\0\0\xff\x69\x04Host", Peer::MySqlError(1129, "Host".into())),
            (b"R\0\0\0\x0a8.0.36-1debian\0", Peer::MySql),
            (b"v\0\0\0\x0a11.8\0", Peer::MySql),
            (b"N\0\0\0\x0a8.0\0", Peer::MySql),
            (b"HTTP/1.1 400 Bad Request\r\n", Peer::Web),
            (b"<html>", Peer::Web),
            (b"220 mail.example ESMTP\r\n", Peer::Unknown),
            (b"x", Peer::Unknown),
        ] {
            assert_eq!(identify(answer), expected, "{answer:?}");
        }
    }
}
