//! The renewal of certificates alone. An error elsewhere, such as a half-edited template, must not delay it: the rest of
//! the configuration stays as it was written.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use time::OffsetDateTime;

use super::{state_of, written};
use crate::facts::{Places, next_generation};
use crate::intent::certificates::{Certificates, SearchPlace, Service, sources};
use crate::layout::CERTIFICATES_DIR;
use crate::os::trusted_file;
use crate::os::users::User;
use crate::plan::certificates::{decide, expiry};
use crate::plan::{File, Import, Link, Plan, State, with_certificates};
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::types::ascii;
use crate::survey::certificates::assign::assign;
use crate::survey::certificates::{Pair, scan};

/// A plan with the certificates that have been renewed since the generation `before` was written, and otherwise with the
/// files of that generation. `None` if there are none, or if one file would need the certificates of several names.
pub fn plan(settings: &Settings, places: &Places, user: &User, before: &Path) -> Option<Plan> {
    let state = state_of(before);
    let (last, now) = (State::parse(&state), OffsetDateTime::now_utc());
    let wanted = Certificates {
        sources: sources(settings, &places.config_dir),
        names: last.wanted_certificates(),
        is_behind_proxy: true,
        ..Certificates::default()
    };
    let served = before.join(CERTIFICATES_DIR);
    let scanned = scan(&wanted.sources, now);
    let found = assign(&wanted, &places.data_dir, user, &scanned, Some(&served), now).ok()?;
    let certificates = decide(&wanted, found, now, &mut Report::default());
    let pairs = certificates.found.served.iter().filter_map(|served| Some((&*served.name, served.pair()?)));
    let pairs: HashMap<&str, &Rc<Pair>> = pairs.collect();

    // Names with the same certificate share its file.
    let mut renewed: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, _, digest) in last.served() {
        let new = pairs.get(name)?.digest;
        if renewed.insert(digest, new).is_some_and(|other| other != new) {
            return None;
        }
    }
    if renewed.iter().all(|(digest, new)| *digest == format!("{new:x}")) {
        return None;
    }
    let generation = next_generation(&places.runtime_dir);
    let mut plan = Plan { state: with_certificates(&state, &certificates), ..Plan::default() };
    let (files, links) = written(before).ok()?;
    let mut first_names: HashMap<*const Pair, &OsStr> = HashMap::new();
    for path in files.union(&links) {
        if path.starts_with(CERTIFICATES_DIR) {
            let pair = *pairs.get(path.file_stem()?.to_str()?)?;
            match first_names.get(&Rc::as_ptr(pair)) {
                Some(first) => plan.links.push(Link { path: path.clone(), target: first.into() }),
                None => {
                    first_names.insert(Rc::as_ptr(pair), path.file_name()?);
                    plan.imports.push(Import::new(path.clone(), Rc::clone(pair)));
                }
            }
        } else if links.contains(path) {
            plan.links.push(Link { path: path.clone(), target: fs::read_link(before.join(path)).ok()? });
        } else {
            let content = trusted_file::text(&before.join(path)).ok()?;
            let content = content.replace(&*before.to_string_lossy(), &generation.to_string_lossy());
            plan.files.push(File { path: path.clone(), content, source: None });
        }
    }
    Some(Plan { generation, certificates, ..plan })
}

/// Warnings about the certificates in a generation that end soon.
pub fn due(generation: &Path, now: OffsetDateTime) -> Vec<String> {
    let state = state_of(generation);
    let state = State::parse(&state);
    let copies = SearchPlace { path: generation.join(CERTIFICATES_DIR), only: None };
    let scanned = scan(&[copies], now);
    let mut by_source: BTreeMap<&str, (Rc<Pair>, Vec<&str>)> = BTreeMap::new();
    for (name, source, _) in state.served() {
        let pair = ascii(name).and_then(|name| scanned.choose(&name, Service::Xmpp).pair);
        if let Some(pair) = pair {
            by_source.entry(source).or_insert((pair, Vec::new())).1.push(name);
        }
    }
    let warning = |(source, (pair, names)): (&str, (Rc<Pair>, Vec<&str>))| {
        expiry(&names, Path::new(source), &pair, now).err()
    };
    by_source.into_iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::layout::STATE_FILE;
    use crate::tests::TestDir;

    /// The file and the digest of each certificate.
    type Imports = Vec<(String, u64)>;

    /// A source of certificates, and a runtime directory with a generation.
    struct Server {
        directory: TestDir,
        hosts: Vec<&'static str>,
    }

    impl Server {
        /// The generation with the present certificates.
        fn new(certificates: &[&[&'static str]]) -> Self {
            let directory = TestDir::new();
            let server = Self { directory, hosts: certificates.concat() };
            let before = server.before();
            let mut state = "option\t\tc2s_ports\t1\n".to_owned();
            for names in certificates {
                let pair = server.issue(names);
                for (number, name) in names.iter().enumerate() {
                    let digest = pair.digest;
                    state += &format!("host\t{name}\t\ncertificate\t{name}\t/old/{name}\t{digest:x}\n");
                    let path = format!("run/generation-1/certificates/{name}.pem");
                    match number {
                        0 => server.directory.write(&path, &pair.pem),
                        _ => {
                            symlink(format!("{}.pem", names[0]), server.directory.path().join(path)).unwrap()
                        }
                    }
                }
            }
            let include = format!("Include \"{}/global.cfg.lua\"", before.display());
            server.directory.write("run/generation-1/prosody.cfg.lua", include);
            server.directory.write("run/generation-1/community-modules/mod_own.lua", "-- own");
            symlink("/etc/prosody/motd", before.join("motd")).unwrap();
            server.directory.write("run/generation-1/state", state);
            server
        }

        fn before(&self) -> std::path::PathBuf {
            self.directory.path().join("run/generation-1")
        }

        /// Writes a new certificate into the source.
        fn issue(&self, names: &[&str]) -> Rc<Pair> {
            let key = KeyPair::generate().unwrap();
            let mut params =
                CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            params.not_after = OffsetDateTime::now_utc() + time::Duration::days(90);
            let text = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
            self.directory.write(&format!("certs/{}.pem", names[0]), text);
            let path = self.directory.path().join("certs");
            let scanned = scan(&[SearchPlace { path, only: None }], OffsetDateTime::now_utc());
            scanned.choose(names[0], Service::Xmpp).pair.unwrap()
        }

        fn plan(&self) -> Option<Plan> {
            let path = |name: &str| self.directory.path().join(name);
            let settings = [("PROSODY_CERTIFICATES".into(), path("certs").into())];
            let (settings, _) = Settings::read(settings);
            let places =
                Places { config_dir: path("config"), data_dir: path("data"), runtime_dir: path("run") };
            plan(&settings, &places, &User::current(), &self.before())
        }

        /// The file and the digest of each renewed certificate, and the links.
        fn renewed(&self) -> Option<(Imports, Vec<String>)> {
            let plan = self.plan()?;
            let name =
                |path: &Path| path.strip_prefix(CERTIFICATES_DIR).map(|path| path.display().to_string());
            let imports = plan.imports.iter().map(|import| (name(&import.path).unwrap(), import.pair.digest));
            let links = plan.links.iter().filter_map(|link| name(&link.path).ok());
            let state = State::parse(&plan.state);
            assert_eq!(state.served().count(), self.hosts.len());
            Some((imports.collect(), links.collect()))
        }
    }

    #[test]
    fn everything_but_the_certificates_stays() {
        let server = Server::new(&[&["a.example"]]);
        assert_eq!(server.plan(), None);
        let new = server.issue(&["a.example"]);
        let plan = server.plan().unwrap();
        let generation = server.directory.path().join("run/generation-2");
        assert_eq!(plan.generation, generation);
        let include = format!("Include \"{}/global.cfg.lua\"", generation.display());
        let files = [("community-modules/mod_own.lua", "-- own"), ("prosody.cfg.lua", &include)];
        let file = |(path, content): (&str, &str)| File {
            path: path.into(),
            content: content.to_owned(),
            source: None,
        };
        assert_eq!(plan.files, files.map(file));
        assert_eq!(plan.links, [Link { path: "motd".into(), target: "/etc/prosody/motd".into() }]);
        assert_eq!(server.renewed().unwrap().0, [("a.example.pem".to_owned(), new.digest)]);
        let (state, path) = (format!("\t{:x}\n", new.digest), new.certificate.display());
        let state =
            format!("option\t\tc2s_ports\t1\nhost\ta.example\t\ncertificate\ta.example\t{path}{state}");
        assert_eq!(plan.state, state);
    }

    #[test]
    fn certificates_that_end_soon_are_named_with_their_sources() {
        let server = Server::new(&[&["a.example", "b.example"], &["c.example"]]);
        let state = fs::read_to_string(server.before().join(STATE_FILE)).unwrap();
        server.directory.write("run/generation-1/state", state.replace("/old/b.example", "/old/a.example"));
        let after = |days| due(&server.before(), OffsetDateTime::now_utc() + time::Duration::days(days));
        assert_eq!(after(70), [""; 0]);
        let warnings = after(80);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with("Certificate of a.example, b.example: /old/a.example, issued by"),
            "{warnings:?}"
        );
        assert!(warnings[1].ends_with(", in 9 days: renew it"), "{warnings:?}");
        assert!(
            after(91)[1].contains("c.example, issued by rcgen self signed cert, expired on"),
            "{:?}",
            after(91)
        );
    }

    #[test]
    fn a_certificate_that_is_not_renewed_stays() {
        let server = Server::new(&[&["a.example"], &["b.example"]]);
        fs::remove_file(server.directory.path().join("certs/a.example.pem")).unwrap();
        let state = fs::read_to_string(server.before().join(STATE_FILE)).unwrap();
        let before = State::parse(&state).served().next().map(|(_, _, digest)| digest.to_owned()).unwrap();
        let new = server.issue(&["b.example"]);
        let expected = [
            ("a.example.pem".to_owned(), u64::from_str_radix(&before, 16).unwrap()),
            ("b.example.pem".to_owned(), new.digest),
        ];
        assert_eq!(server.renewed().unwrap().0, expected);
    }

    #[test]
    fn names_that_share_a_file_share_its_successor() {
        let server = Server::new(&[&["a.example", "b.example"], &["c.example"]]);
        let new = server.issue(&["a.example", "b.example"]);
        let (imports, links) = server.renewed().unwrap();
        assert_eq!(imports[0], ("a.example.pem".to_owned(), new.digest));
        assert_eq!((imports.len(), links), (2, vec!["b.example.pem".to_owned()]));
        // The written configuration may name the first one's file for both.
        server.issue(&["a.example"]);
        assert_eq!(server.renewed(), None);
        // The reverse needs another link.
        server.issue(&["a.example", "b.example", "c.example"]);
        fs::remove_file(server.directory.path().join("certs/c.example.pem")).unwrap();
        let (imports, links) = server.renewed().unwrap();
        assert_eq!((imports.len(), links), (1, vec!["b.example.pem".to_owned(), "c.example.pem".to_owned()]));
    }
}
