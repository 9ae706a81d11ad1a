//! Reads the self-signed certificates, for commands that show them.

use std::path::Path;
use std::rc::Rc;

use time::OffsetDateTime;

use super::assign::{CertificateOrigin, Served};
use super::{Pair, ScannedCertificates, scan};
use crate::intent::certificates::{SearchPlace, Service};
use crate::settings::types::ascii;

/// The self-signed certificates, which are in Prosody's data directory. Call everything here as its user.
pub struct SelfSignedPairs {
    now: OffsetDateTime,
    /// All of them, after the first request. Scanning for each one would list the directory each time.
    all: Option<ScannedCertificates>,
}

impl SelfSignedPairs {
    pub fn new(now: OffsetDateTime) -> Self {
        Self { now, all: None }
    }

    /// The certificate of a name, self-signed or not. `None` if the operator maintains it, or if there is none.
    pub fn pair_of(&mut self, served: &Served) -> Option<Rc<Pair>> {
        match &served.origin {
            CertificateOrigin::Found(pair)
            | CertificateOrigin::Kept(pair)
            | CertificateOrigin::OfParent(_, pair) => Some(pair.clone()),
            CertificateOrigin::SelfSigned(path) => {
                let read = |path: &Path| scan(&[SearchPlace { path: path.to_owned(), only: None }], self.now);
                let name = ascii(&served.name)?;
                let all = self.all.get_or_insert_with(|| read(path.parent().unwrap_or(path)));
                let pair = all.choose(&name, Service::Xmpp).pair;
                // Another certificate there may contain the name, from an earlier set of hosts.
                let is_it = pair.as_ref().is_none_or(|pair| pair.certificate == *path);
                if is_it { pair } else { read(path).choose(&name, Service::Xmpp).pair }
            }
            CertificateOrigin::FromOptions | CertificateOrigin::Unreadable(_) | CertificateOrigin::None => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use time::Duration;

    use super::*;
    use crate::apply::self_signed::{Writer, make};
    use crate::layout;
    use crate::tests::TestDir;

    fn path_of(data: &TestDir, host: &str) -> PathBuf {
        layout::self_signed_dir(data.path()).join(layout::self_signed_certificate(host))
    }

    fn self_signed(name: &str, data: &TestDir, host: &str) -> Served {
        let path = path_of(data, host);
        let origin = CertificateOrigin::SelfSigned(path);
        Served { name: name.to_owned(), is_host: true, origin, unused: Vec::new() }
    }

    #[test]
    fn each_host_gets_its_own_self_signed_certificate() {
        let data = TestDir::new();
        let (store, now) = (Writer::create(data.path()).unwrap(), OffsetDateTime::now_utc());
        for (host, made) in [("a.example", now), ("rooms.a.example", now + Duration::HOUR)] {
            let pair = make(&["a.example", "rooms.a.example"], made).unwrap();
            store.write(host, &pair).unwrap();
        }
        let mut own = SelfSignedPairs::new(now + Duration::HOUR * 2);
        for (name, host) in [("a.example", "a.example"), ("rooms.a.example", "a.example")] {
            let pair = own.pair_of(&self_signed(name, &data, host)).unwrap();
            assert_eq!(pair.certificate, path_of(&data, host));
        }
        assert_eq!(own.pair_of(&self_signed("new.example", &data, "new.example")), None);
    }

    #[test]
    fn thousands_of_self_signed_certificates_are_read_quickly() {
        let data = TestDir::in_memory();
        let (store, now) = (Writer::create(data.path()).unwrap(), OffsetDateTime::now_utc());
        let hosts: Vec<String> = (0..3000).map(|number| format!("h{number}.example")).collect();
        for host in &hosts {
            store.write(host, &make(&[host], now).unwrap()).unwrap();
        }
        let mut own = SelfSignedPairs::new(now);
        let begin = std::time::Instant::now();
        for host in &hosts {
            assert!(own.pair_of(&self_signed(host, &data, host)).is_some());
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}
