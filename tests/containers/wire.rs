//! What is on the wire: the certificates that a server shows, and sessions that stay open meanwhile.

use std::time::Duration;

use crate::docker::Dialogue;

/// Clients by STARTTLS and by TLS alone, other servers, HTTPS.
pub const PORTS: [&str; 4] = ["5222", "5223", "5269", "5281"];

/// How long a new certificate may take on a busy machine; one second is promised on an idle one.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A client in the network of a server's container (tests/client/wire.py).
pub struct Wire {
    client: Dialogue,
}

impl Wire {
    /// For the server in the container of this name, which runs.
    #[track_caller]
    pub fn of(container: &str) -> Self {
        Wire { client: Dialogue::of_client(&format!("container:{container}"), "wire.py") }
    }

    #[track_caller]
    fn ask(&mut self, request: &str) -> String {
        let answer = self.client.request(request).and_then(|()| self.client.answer());
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}"))
    }

    /// The fingerprint (SHA-256) of the certificate at each of [`PORTS`], for a client that names the domain.
    #[track_caller]
    pub fn look(&mut self, domain: &str) -> [String; 4] {
        at_each_port(&self.ask(&format!("look {domain}")))
    }

    /// The same for a client without SNI.
    #[track_caller]
    pub fn look_unnamed(&mut self, domain: &str) -> [String; 4] {
        at_each_port(&self.ask(&format!("look-unnamed {domain}")))
    }

    /// The fingerprint at 5222.
    #[track_caller]
    pub fn certificate_of(&mut self, domain: &str) -> String {
        let [first, ..] = self.look(domain);
        first
    }

    /// Opens so many sessions as alice, whose password is `secret-a`.
    #[track_caller]
    pub fn open_sessions(&mut self, count: usize, domain: &str) {
        assert_eq!(self.ask(&format!("open {count} {domain}")), count.to_string());
    }

    /// How many of the sessions were never lost and are answered now.
    #[track_caller]
    pub fn living_sessions(&mut self) -> usize {
        self.ask("alive").parse().unwrap()
    }

    /// Waits until every port shows the certificate with this fingerprint.
    #[track_caller]
    pub fn wait_for(&mut self, domain: &str, fingerprint: &str) {
        self.time_until(domain, fingerprint, || 0.0);
    }

    /// Makes a change, which gives the time (Unix, in seconds) at which it was complete, and waits until every port shows
    /// the certificate with this fingerprint: the seconds from the one to the other.
    #[track_caller]
    pub fn time_until(&mut self, domain: &str, fingerprint: &str, change: impl FnOnce() -> f64) -> f64 {
        // The looks begin before: what starts the change takes its time.
        let request = format!("wait {domain} {fingerprint} {}", (2 * DEADLINE).as_secs());
        self.client.request(&request).unwrap();
        let changed = change();
        let answer = self.client.answer().unwrap_or_else(|reason| panic!("{request}: {reason}"));
        at_each_port(&answer)
            .iter()
            .map(|seen| seen.parse::<f64>().unwrap_or_else(|_| panic!("{domain}: {answer}")))
            .fold(0.0, |last, seen| (seen - changed).max(last))
    }
}

/// What is said of each port, without its number.
#[track_caller]
fn at_each_port(answer: &str) -> [String; 4] {
    let mut words = answer.split(' ');
    PORTS.map(|port| {
        let word = words.next().and_then(|word| word.strip_prefix(port)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("no {port} in {answer:?}")).to_owned()
    })
}
