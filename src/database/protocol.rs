//! The first messages of the PostgreSQL and MySQL protocols, without a library: enough to identify the server.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::scram::{self, Refusal};
use super::{Answer, Database};
use crate::settings::types::DbDriver;

/// The time limit for a greeting. After that, the server may be one whose client speaks first.
const GREETING_LIMIT: Duration = Duration::from_millis(500);

/// The maximum number of bytes to read of an answer. PostgreSQL's errors have about 100.
const LONGEST: usize = 1024;

/// The default sockets of libpq and of MySQL's library on Debian.
const POSTGRESQL_SOCKETS: &str = "/var/run/postgresql";
const MYSQL_SOCKET: &str = "/run/mysqld/mysqld.sock";

/// A MySQL login with an empty user and password (Protocol::HandshakeResponse41): length and number of the packet,
/// capabilities (LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION), longest packet, charset, 23 zeros, user, password.
const NO_LOGIN: [u8; 38] = {
    let mut packet = [0; 38];
    packet[0] = 34;
    packet[3] = 1;
    packet[4] = 0x01;
    packet[5] = 0x82;
    packet[11] = 1;
    packet[12] = 33;
    packet
};

/// A TCP or Unix stream.
trait Connection: Read + Write {
    /// Sets the timeout of every read and write.
    fn set_limit(&self, limit: Duration) -> io::Result<()>;
}

impl Connection for TcpStream {
    fn set_limit(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl Connection for UnixStream {
    fn set_limit(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// The server on a port or a socket.
#[derive(Debug, PartialEq)]
enum Peer {
    /// PostgreSQL, ready for authentication.
    PostgreSql,
    /// PostgreSQL, with an error.
    PostgreSqlError(Refusal),
    /// MySQL or MariaDB.
    MySql,
    /// MySQL, with an error: its number and message.
    MySqlError(u16, String),
    /// A web server.
    Web,
    /// Any other server.
    Unknown,
}

/// Identifies the server of a database. Connecting and answering may each take at most `limit`.
pub fn probe(database: &Database, limit: Duration) -> Answer {
    let connection = match connect(database, limit) {
        Ok(connection) => connection,
        Err(answer) => return answer,
    };
    let peer = match database.driver {
        DbDriver::PostgreSql => send_postgresql_startup(connection, database, limit),
        _ => read_mysql_greeting(connection, database, limit),
    };
    match peer {
        Ok(peer) => interpret(&peer, database),
        Err(error) => Answer::not_yet(match error.kind() {
            _ if is_timeout(&error) => "it accepts connections and does not answer".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "it closes the connection".to_owned()
            }
            _ => error.to_string(),
        }),
    }
}

/// Whether a later login to PostgreSQL may succeed: "the database system is starting up", "… is shutting down", "sorry,
/// too many clients already".
pub fn is_busy(refusal: &Refusal) -> bool {
    matches!(refusal.code.as_str(), "57P03" | "53300")
}

/// Logs in to PostgreSQL to get the reason why it refuses a login. `None` if there is no answer, or no refusal.
pub fn why_refused(database: &Database, limit: Duration) -> Option<Refusal> {
    let mut connection = connect(database, limit).ok()?;
    connection.write_all(&startup(database)).ok()?;
    scram::log_in(&mut *connection, database).ok()?
}

fn interpret(peer: &Peer, database: &Database) -> Answer {
    let other = |what: &str, why: &str| {
        Answer::Unusable(format!(
            "{what} answers there{why}: correct PROSODY_DB_DRIVER, the URL's scheme, host or port"
        ))
    };
    match (database.driver, peer) {
        (DbDriver::PostgreSql, Peer::PostgreSqlError(refusal)) if is_busy(refusal) => {
            Answer::starting(refusal.message.clone())
        }
        // The driver will get any other error, too.
        (DbDriver::PostgreSql, Peer::PostgreSql | Peer::PostgreSqlError(..)) => Answer::Ready,
        (DbDriver::MySql, Peer::MySql) => Answer::Ready,
        // Too many connections; server shutdown in progress
        (DbDriver::MySql, Peer::MySqlError(1040 | 1053, message)) => Answer::starting(message.clone()),
        (DbDriver::MySql, Peer::MySqlError(number, message)) => {
            Answer::Unusable(format!("it refuses this host: {message} (error {number})"))
        }
        (_, Peer::PostgreSql | Peer::PostgreSqlError(..)) => other("PostgreSQL", ", and not MySQL"),
        (_, Peer::MySql | Peer::MySqlError(..)) => other("MySQL or MariaDB", ", and not PostgreSQL"),
        (_, Peer::Web) => other("a web server", ""),
        (_, Peer::Unknown) => other("something that is no database of this kind", ""),
    }
}

fn connect(database: &Database, limit: Duration) -> Result<Box<dyn Connection>, Answer> {
    let host = match (&database.host, database.driver) {
        (Some(host), _) => host.clone(),
        (None, DbDriver::PostgreSql) => POSTGRESQL_SOCKETS.to_owned(),
        (None, _) => MYSQL_SOCKET.to_owned(),
    };
    if host.starts_with('/') {
        let path = match database.driver {
            DbDriver::PostgreSql => format!("{host}/.s.PGSQL.{}", database.port()),
            _ => host,
        };
        let stream =
            UnixStream::connect(&path).map_err(|error| connect_error(&format!("{path}: "), &error))?;
        return with_limit(stream, limit);
    }
    crate::os::system::resolve_names_with_files_and_dns();
    let addresses = (host.as_str(), database.port()).to_socket_addrs();
    let addresses: Vec<_> = addresses
        .map_err(|error| Answer::starting(format!("the name {host} does not resolve ({error})")))?
        .collect();
    let start = Instant::now();
    let mut last = Answer::not_yet(format!("the name {host} has no address"));
    for address in addresses {
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return with_limit(stream, limit),
            Err(error) => last = connect_error("", &error),
        }
    }
    Err(last)
}

fn with_limit(stream: impl Connection + 'static, limit: Duration) -> Result<Box<dyn Connection>, Answer> {
    stream.set_limit(limit).map_err(|error| Answer::not_yet(error.to_string()))?;
    Ok(Box::new(stream))
}

fn connect_error(before: &str, error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::starting(format!("{before}connection refused")),
        io::ErrorKind::NotFound => Answer::starting(format!("{before}there is no such socket")),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Answer::not_yet(format!("{before}no answer at all, as behind a firewall"))
        }
        io::ErrorKind::PermissionDenied => {
            Answer::Unusable(format!("{before}{error}: let this user reach it"))
        }
        _ => Answer::not_yet(format!("{before}{error}")),
    }
}

/// Sends PostgreSQL's startup message and reads the answer (PostgreSQL's manual, 53.2.1 and 53.7, StartupMessage).
fn send_postgresql_startup(
    mut connection: Box<dyn Connection>,
    database: &Database,
    limit: Duration,
) -> io::Result<Peer> {
    connection.set_limit(limit)?;
    // A server that speaks first may have closed the connection already, but its message can still be read.
    let sent = connection.write_all(&startup(database));
    match read_some(&mut connection) {
        Ok(answer) => Ok(identify(&answer)),
        // A web server may wait for the end of the request.
        Err(error) if is_timeout(&error) => {
            connection.set_limit(GREETING_LIMIT)?;
            connection.write_all(b"\r\n\r\n")?;
            read_some(&mut connection).map(|answer| identify(&answer))
        }
        Err(error) => sent.and(Err(error)),
    }
}

fn startup(database: &Database) -> Vec<u8> {
    const VERSION_3: u32 = 196_608;
    let mut body = VERSION_3.to_be_bytes().to_vec();
    let user = database.username.as_deref().unwrap_or("prosody");
    for text in ["user", user, "database", &database.name] {
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    let mut message = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    message.extend(body);
    message
}

/// Reads MySQL's greeting (MySQL's internals manual, "Connection Phase"). A silent server may be PostgreSQL.
fn read_mysql_greeting(
    mut connection: Box<dyn Connection>,
    database: &Database,
    limit: Duration,
) -> io::Result<Peer> {
    connection.set_limit(GREETING_LIMIT.min(limit))?;
    match read_some(&mut connection) {
        Ok(answer) => {
            let peer = identify(&answer);
            if peer == Peer::MySql {
                // MySQL blocks hosts that often close the connection here (max_connect_errors). A refused login does
                // not count.
                let _ = connection.write_all(&NO_LOGIN).and_then(|()| read_some(&mut connection).map(drop));
            }
            Ok(peer)
        }
        Err(error) if is_timeout(&error) => send_postgresql_startup(connection, database, limit),
        Err(error) => Err(error),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Reads the beginning of an answer, with one call of read(2).
fn read_some(connection: &mut Box<dyn Connection>) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; LONGEST];
    let length = connection.read(&mut answer)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(length);
    // A truncated answer still identifies the server, but not its error.
    Ok(answer)
}

/// Identifies a server by the beginning of its answer.
fn identify(answer: &[u8]) -> Peer {
    match answer {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => Peer::Web,
        // A length of three bytes, packet number 0, protocol version 10. The first byte of the length may be any
        // letter, but no message of PostgreSQL's continues like this.
        [_, _, 0, 0, 10, ..] => Peer::MySql,
        [b'R', 0, 0, ..] => Peer::PostgreSql,
        // PostgreSQL, with a negotiation of the protocol version or a notice.
        [b'v' | b'N', 0, 0, ..] => Peer::PostgreSql,
        // PostgreSQL's first field is the severity. MySQL's errors may have the length `E`, too.
        [b'E', 0, 0, _, _, fields @ ..] if matches!(fields, [] | [b'S', ..]) => {
            Peer::PostgreSqlError(scram::refusal(fields))
        }
        [_, _, 0, 0, 0xff, low, high, rest @ ..] => {
            let message = String::from_utf8_lossy(rest);
            Peer::MySqlError(u16::from_le_bytes([*low, *high]), message.trim_end_matches('\0').to_owned())
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
            (
                &error[..],
                Peer::PostgreSqlError(Refusal {
                    code: "57P03".into(),
                    message: "the database system is starting up".into(),
                }),
            ),
            (b"E\0\0\0\x06", Peer::PostgreSqlError(Refusal { code: String::new(), message: String::new() })),
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
