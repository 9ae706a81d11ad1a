//! The health check: opens an XMPP stream to a host, like a client or another server (RFC 6120, section 4.2).

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The maximum number of bytes to read of an answer. Prosody's header and features have about 500.
const MAX_ANSWER: usize = 4096;

/// A target of the check. As text, it is a line such as `c2s 127.0.0.1 5222 chat.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub service: Service,
    /// The address and port that the server binds, or the loopback address if it binds all addresses.
    pub address: SocketAddr,
    /// The host to check, in Unicode. [`ANY_HOST`] if the served hosts are unknown.
    pub host: String,
}

/// Replaces the host of a target: any host will do. `host-unknown`, `invalid-namespace` and a TLS alert are answers too.
pub const ANY_HOST: &str = "*";

/// In place of targets: whatever the server listens on.
pub const LISTENING: &str = "listening";

/// The service on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    C2s,
    S2s,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::C2s => "c2s",
            Service::S2s => "s2s",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Service::C2s => "jabber:client",
            Service::S2s => "jabber:server",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (ip, port) = (self.address.ip(), self.address.port());
        write!(f, "{} {ip} {port} {}", self.service.name(), self.host)
    }
}

impl Target {
    /// Parses such a line.
    pub fn parse(line: &str) -> Option<Target> {
        let mut words = line.split(' ');
        let service = match words.next()? {
            "c2s" => Service::C2s,
            "s2s" => Service::S2s,
            _ => return None,
        };
        let ip: IpAddr = words.next()?.parse().ok()?;
        let address = SocketAddr::new(ip, words.next()?.parse().ok()?);
        let host = words.next()?.to_owned();
        // The host is written into an XML attribute, unescaped. No host contains these characters.
        let is_host = !host.is_empty() && !host.contains(['\'', '"', '<', '>', '&']);
        (is_host && words.next().is_none()).then_some(Target { service, address, host })
    }
}

/// Opens a stream to each target in order, until one is healthy. `timeout` is the limit for all of them together, which
/// they share equally.
///
/// A healthy server answers with a stream header and features. A stream error instead, such as `host-unknown` or
/// `system-shutdown`, means that it does not serve the host.
/// Errors: the error of every target, if none is healthy.
pub fn check(targets: &[Target], timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut errors = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (targets.len() - index) as u32;
        match open_stream(target, now + share) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(format!("{target}: {error}")),
        }
    }
    if errors.is_empty() {
        errors.push("the server listens on no port".to_owned());
    }
    Err(errors.join("; "))
}

fn open_stream(target: &Target, deadline: Instant) -> Result<(), String> {
    let cannot_connect = |error| format!("cannot connect: {error}");
    let mut stream =
        TcpStream::connect_timeout(&target.address, remaining(deadline)?).map_err(cannot_connect)?;
    stream.set_write_timeout(Some(remaining(deadline)?)).map_err(cannot_connect)?;
    write!(
        stream,
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{}' version='1.0'>",
        target.service.namespace(),
        if target.host == ANY_HOST { "localhost" } else { &target.host }
    )
    .map_err(|error| format!("cannot send: {error}"))?;

    let mut answer = [0; MAX_ANSWER];
    let mut length = 0;
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?)).map_err(cannot_connect)?;
        length += match stream.read(&mut answer[length..]) {
            Ok(0) => return Err("it closed the connection without an answer".to_owned()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The error of a timeout (socket(7), SO_RCVTIMEO).
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(no_answer()),
            Err(error) => return Err(format!("cannot receive: {error}")),
        };
        match parse_answer(&answer[..length]) {
            Answer::Incomplete if length < MAX_ANSWER => {}
            Answer::Healthy => {
                // Closes the stream properly. It does not matter if this fails.
                let _ = stream.write_all(b"</stream:stream>");
                return Ok(());
            }
            // The server is there, and has another host or another service on this port.
            Answer::Error(condition)
                if target.host == ANY_HOST
                    && ["host-unknown", "invalid-namespace"].contains(&condition.as_str()) =>
            {
                return Ok(());
            }
            Answer::TlsAlert if target.host == ANY_HOST => return Ok(()),
            Answer::Error(condition) => {
                return Err(format!("it answered with the error {condition}"));
            }
            Answer::Incomplete | Answer::TlsAlert | Answer::NotXmpp => {
                return Err("it answered with something that is no XMPP stream".to_owned());
            }
        }
    }
}

/// The time left. It is never zero, because a timeout of zero would mean no timeout.
fn remaining(deadline: Instant) -> Result<Duration, String> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(no_answer()) } else { Ok(left) }
}

fn no_answer() -> String {
    "no answer in time".to_owned()
}

/// The state of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The beginning of a valid answer.
    Incomplete,
    /// A stream header and features.
    Healthy,
    /// A stream header and an error with this condition (RFC 6120, section 4.9.3).
    Error(String),
    /// The alert of a TLS server that did not get a ClientHello (RFC 8446, section 6).
    TlsAlert,
    NotXmpp,
}

/// Parses the answer received so far. Prosody always uses the prefix `stream:`.
fn parse_answer(received: &[u8]) -> Answer {
    if received.starts_with(&[0x15, 3]) {
        return Answer::TlsAlert;
    }
    let mut rest = received.trim_ascii_start();
    if let Some(declaration) = rest.strip_prefix(b"<?xml") {
        match after(declaration, b"?>") {
            Some(after) => rest = after.trim_ascii_start(),
            None => return Answer::Incomplete,
        }
    }
    let header = b"<stream:stream";
    let Some(header) = rest.strip_prefix(header) else {
        let may_become_valid = header.starts_with(rest) || b"<?xml".starts_with(rest);
        return if may_become_valid { Answer::Incomplete } else { Answer::NotXmpp };
    };
    let Some(element) = after(header, b">") else { return Answer::Incomplete };
    let element = element.trim_ascii_start();
    if element.starts_with(b"<stream:features") {
        return Answer::Healthy;
    }
    if let Some(error) = element.strip_prefix(b"<stream:error>") {
        let Some(condition) = error.strip_prefix(b"<") else { return Answer::Incomplete };
        return match condition.iter().position(|byte| b" />".contains(byte)) {
            Some(end) => Answer::Error(String::from_utf8_lossy(&condition[..end]).into_owned()),
            None => Answer::Incomplete,
        };
    }
    let may_become_valid =
        [b"<stream:features".as_slice(), b"<stream:error>"].iter().any(|tag| tag.starts_with(element));
    if may_become_valid { Answer::Incomplete } else { Answer::NotXmpp }
}

/// The text after the first occurrence of a mark.
fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some(&text[at + mark.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xml:lang='en' id='a' \
                          xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='chat.example'>";
    const LONG: Duration = Duration::from_secs(30);

    /// Starts a server for one connection. It waits for a header, sends the pieces, and returns everything it received.
    fn serve(pieces: Vec<String>, waits_for_end: bool) -> (Target, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut received = Vec::new();
            while !received.ends_with(b"version='1.0'>") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                received.push(byte[0]);
            }
            for piece in pieces {
                // The client may have closed the connection already.
                let _ = stream.write_all(piece.as_bytes());
            }
            if waits_for_end {
                let _ = stream.read_to_end(&mut received);
            }
            String::from_utf8(received).unwrap()
        });
        let host = "chat.example".to_owned();
        (Target { service: Service::C2s, address, host }, server)
    }

    fn error_after(pieces: &[&str]) -> String {
        let (target, server) = serve(pieces.iter().map(|piece| (*piece).to_owned()).collect(), false);
        let error = check(&[target], LONG).unwrap_err();
        server.join().unwrap();
        error
    }

    #[test]
    fn an_unknown_host_is_healthy_if_any_host_will_do() {
        let error = |condition: &str| {
            format!("{HEADER}<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
        };
        let ask = |condition: &str| {
            let (target, server) = serve(vec![error(condition)], false);
            let result = check(&[Target { host: ANY_HOST.to_owned(), ..target }], LONG);
            assert!(server.join().unwrap().contains("to='localhost'"));
            result
        };
        assert_eq!(ask("host-unknown"), Ok(()));
        assert_eq!(ask("invalid-namespace"), Ok(()));
        assert!(ask("system-shutdown").unwrap_err().contains("system-shutdown"));
    }

    #[test]
    fn a_server_that_answers_is_healthy() {
        let answer = format!("{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        let (target, server) = serve(vec![answer], true);
        check(&[target], LONG).unwrap();
        let received = server.join().unwrap();
        assert!(received.contains("xmlns='jabber:client'"), "{received}");
        assert!(received.contains("to='chat.example'"), "{received}");
        assert!(received.ends_with("</stream:stream>"), "{received}");
    }

    #[test]
    fn an_answer_may_come_byte_by_byte() {
        let answer = format!("{HEADER}<stream:features/>");
        let (target, server) = serve(answer.chars().map(String::from).collect(), true);
        check(&[target], LONG).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn every_prefix_of_an_answer_is_incomplete() {
        let answer = format!("{HEADER}<stream:features");
        for length in 0..answer.len() {
            assert_eq!(
                parse_answer(&answer.as_bytes()[..length]),
                Answer::Incomplete,
                "{}",
                &answer[..length]
            );
        }
        assert_eq!(parse_answer(answer.as_bytes()), Answer::Healthy);
        let error = format!("{HEADER}<stream:error><host-unknown");
        for length in 0..=error.len() {
            assert_eq!(parse_answer(&error.as_bytes()[..length]), Answer::Incomplete, "{}", &error[..length]);
        }
        let error = format!("{error} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
        assert_eq!(parse_answer(error.as_bytes()), Answer::Error("host-unknown".to_owned()));
    }

    #[test]
    fn a_stream_error_is_not_healthy() {
        let error =
            error_after(&[HEADER, "<stream:error><host-unknown xmlns='x'/></stream:error></stream:stream>"]);
        assert!(error.contains("host-unknown"), "{error}");
    }

    #[test]
    fn another_protocol_on_the_port_is_not_healthy() {
        for garbage in
            ["HTTP/1.1 400 Bad Request\r\n", "<html>", "<?xml version='1.0'?><a/>", "\0", "<stream:streams"]
        {
            let error = error_after(&[garbage, HEADER, "<stream:features/>"]);
            assert!(error.contains("no XMPP stream"), "{garbage}: {error}");
        }
        let endless = format!("<stream:stream {}", " ".repeat(2 * MAX_ANSWER));
        assert!(error_after(&[&endless]).contains("no XMPP stream"));
    }

    #[test]
    fn a_closed_connection_is_not_healthy() {
        for pieces in [&[][..], &[HEADER]] {
            let error = error_after(pieces);
            assert!(error.contains("closed the connection"), "{error}");
        }
    }

    #[test]
    fn a_silent_server_takes_no_longer_than_the_timeout() {
        // Where the time is over before the second one is tried, its server waits for ever.
        let (targets, _servers): (Vec<_>, Vec<_>) = (0..2).map(|_| serve(Vec::new(), true)).unzip();
        let before = Instant::now();
        let error = check(&targets, Duration::from_millis(50)).unwrap_err();
        assert!(before.elapsed() < LONG);
        assert_eq!(error.matches("no answer in time").count(), 2, "{error}");
    }

    #[test]
    fn the_next_target_is_tried_after_a_refused_connection() {
        let refused = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            Target { service: Service::S2s, address, host: "chat.example".to_owned() }
        };
        let error = check(std::slice::from_ref(&refused), LONG).unwrap_err();
        assert!(error.starts_with(&refused.to_string()), "{error}");
        assert!(error.contains("Connection refused"), "{error}");

        let (target, server) = serve(vec![format!("{HEADER}<stream:features/>")], true);
        check(&[refused, target], LONG).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn an_empty_list_of_targets_is_not_healthy() {
        assert!(check(&[], LONG).is_err());
    }

    #[test]
    fn targets_survive_a_round_trip_through_text() {
        for line in
            ["c2s 127.0.0.1 5222 chat.example", "s2s ::1 5269 jörg.example", "c2s 192.0.2.1 1 localhost"]
        {
            assert_eq!(Target::parse(line).unwrap().to_string(), line);
        }
        for line in [
            "",
            "c2s",
            "http 127.0.0.1 5280 chat.example",
            "c2s localhost 5222 chat.example",
            "c2s 127.0.0.1 65536 chat.example",
            "c2s 127.0.0.1 5222 ",
            "c2s 127.0.0.1 5222 a b",
            "c2s 127.0.0.1 5222 a'b",
        ] {
            assert_eq!(Target::parse(line), None, "{line}");
        }
    }
}
