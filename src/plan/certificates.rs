//! The certificates to write, and the messages about them.
//!
//! Assigned certificates are copied into the generation, as `HOST.pem` in a directory. Thus Prosody never serves a file
//! that is being written, and only root needs access to the original keys.
//!
//! Prosody finds a certificate by the host's option `certificate`, or for hosts in custom files by the file's name
//! (`core/certmanager.lua`). A host without a file gets that of its parent domain. Prosody's index of names in
//! certificates has precedence over both. It stays empty, because it covers only `*.crt` and names with `fullchain`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use time::{Duration, OffsetDateTime};

use crate::intent::certificates::Certificates;
use crate::layout::CERTIFICATES_DIR;
use crate::report::Report;
use crate::settings::types::parents;
use crate::survey::certificates::assign::{Assignments, CertificateOrigin, Served};
use crate::survey::certificates::{Pair, UnusedFile};
use crate::text::{grouped, several};

/// Certificates that expire within this time cause a warning.
pub const WARN: Duration = Duration::days(14);

/// The maximum number of warnings about unused files.
const SHOWN: usize = 10;

/// The maximum length of a file name, in bytes (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// The certificates of all names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CertificatePlan {
    pub found: Assignments,
    /// A log line for each served certificate that needs no attention.
    pub lines: Vec<String>,
}

/// Makes the plan from the survey's assignment, and reports its problems. `now` is compared with expiry dates.
pub fn decide(
    wanted: &Certificates,
    found: Assignments,
    now: OffsetDateTime,
    report: &mut Report,
) -> CertificatePlan {
    if !found.without.is_empty() {
        let places = several(wanted.sources.iter().map(|source| source.path.display()));
        let without = several(&found.without);
        if wanted.self_signed {
            report.warning(format!(
                "No certificate for {without} in {places}: using a self-signed one, which clients warn about and other \
                 servers refuse"
            ));
        } else {
            report.setting_warning(format!(
                "PROSODY_SELF_SIGNED_CERTIFICATES: it is off, and there is no certificate for {without} in {places}: \
                 nobody can connect to them with TLS"
            ));
        }
    }
    let mut certificates = CertificatePlan { found, lines: Vec::new() };
    certificates.report_all(now, report);
    certificates
}

impl CertificatePlan {
    /// Fills in the log lines, and reports problems.
    fn report_all(&mut self, now: OffsetDateTime, report: &mut Report) {
        let mut lines = Vec::new();
        for (pair, names) in self.by_pair() {
            match expiry(&names, &pair.certificate, &pair, now) {
                Ok(line) => lines.push(line),
                Err(warning) => report.warning(warning),
            }
        }
        self.lines = lines;
        if !self.found.single_mounts.is_empty() {
            let paths = self.found.single_mounts.iter().map(|path| path.display());
            report.warning(advice!(
                "Mounted as a single file: {}: where it is replaced on the host, the container keeps the old one, and no \
                 renewal is noticed: mount the directory that it is in (in Kubernetes, without `subPath`)",
                several(paths)
            ));
        }
        let reported = self.report_hosts(report);
        self.report_files(&reported, report);
        for (variable, path) in &self.found.missing_places {
            report.warning(format!("{variable}: {} is not there, or not yet", path.display()));
        }
    }

    /// Reports hosts whose certificate is kept, missing or a parent domain's. Returns the reported problems of files.
    fn report_hosts(&self, report: &mut Report) -> BTreeSet<String> {
        let mut reported: BTreeSet<String> = BTreeSet::new();
        let hosts = || self.found.served.iter().filter(|served| served.is_host);
        let kept: Vec<&Served> =
            hosts().filter(|served| matches!(served.origin, CertificateOrigin::Kept(_))).collect();
        if !kept.is_empty() {
            reported.extend(kept.iter().flat_map(|served| &served.unused).map(ToString::to_string));
            let why = if reported.is_empty() {
                "there is no other any more".to_owned()
            } else {
                several(&reported)
            };
            let names = several(kept.iter().map(|served| &served.name));
            report.warning(format!("Keeping the current certificate of {names}: {why}"));
        }
        // Nobody expects HTTPS without any certificate, or behind a proxy that terminates TLS.
        if !self.found.http_without.is_empty()
            && self.found.served.iter().any(|served| served.pair().is_some())
        {
            report.warning(format!(
                "No certificate for {}, where HTTP services answer: HTTPS clients refuse another one",
                several(&self.found.http_without)
            ));
        }
        let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for served in hosts() {
            if let CertificateOrigin::OfParent(above, _) = &served.origin {
                below.entry(above).or_default().push(&served.name);
            }
        }
        for (above, names) in below {
            report.warning(advice!(
                "The certificate of {above} is used for {names} too, which it does not name: other servers may refuse it; \
                 have it issued for all of them",
                names = several(&names)
            ));
        }
        reported
    }

    /// Reports unused files with the reasons, except those in `reported`.
    fn report_files(&self, reported: &BTreeSet<String>, report: &mut Report) {
        let mut unused: BTreeSet<String> = self.found.problems.iter().map(ToString::to_string).collect();
        for served in &self.found.served {
            let is_good = matches!(served.origin, CertificateOrigin::Found(_));
            // A file that merely lost against a better one is no problem.
            let (worse, wrong): (Vec<&UnusedFile>, Vec<&UnusedFile>) =
                served.unused.iter().partition(|file| file.flaw.is_worse && is_good);
            unused.extend(wrong.into_iter().map(ToString::to_string));
            worse.into_iter().for_each(|file| report.debug(format!("Certificate not used: {file}")));
        }
        let unused: Vec<String> = unused.into_iter().filter(|line| !reported.contains(line)).collect();
        for line in unused.iter().take(SHOWN) {
            report.warning(format!("Certificate not used: {line}"));
        }
        if unused.len() > SHOWN {
            report.warning(format!(
                "{} more files of certificates are not used: `prosody-entrypoint certificates` says why",
                unused.len() - SHOWN
            ));
        }
    }

    /// Each certificate to write, once, with the names it serves.
    fn by_pair(&self) -> Vec<(Rc<Pair>, Vec<&str>)> {
        let served = self.found.served.iter();
        let groups = grouped(served.filter_map(|served| Some((Rc::as_ptr(served.pair()?), served))));
        let groups = groups.into_iter().filter_map(|(_, served)| {
            let names = served.iter().map(|served| served.name.as_str()).collect();
            Some((Rc::clone(served[0].pair()?), names))
        });
        groups.collect()
    }

    /// The certificates to write, each with its file names. The first is the file, the others are links to it. Names
    /// that Prosody resolves through a parent domain's file are left out.
    pub fn imports(&self) -> Vec<(Rc<Pair>, Vec<String>)> {
        let by_name: HashMap<&str, &Rc<Pair>> = self
            .found
            .served
            .iter()
            .filter_map(|served| Some((served.name.as_str(), served.pair()?)))
            .collect();
        let is_found_above = |name: &str, pair: &Rc<Pair>| {
            parents(name).find_map(|above| by_name.get(above)).is_some_and(|other| Rc::ptr_eq(other, pair))
        };
        let names = |(pair, names): (Rc<Pair>, Vec<&str>)| {
            let names = names.into_iter().filter(|name| !is_found_above(name, &pair));
            let files = names.map(|name| format!("{name}.pem")).filter(|file| file.len() <= LONGEST_NAME);
            let mut files: Vec<String> = files.collect();
            if files.is_empty() {
                // The host's section names this file, so that any name works.
                files.push(format!("{}.pem", pair.fingerprint));
            }
            (pair, files)
        };
        self.by_pair().into_iter().map(names).collect()
    }

    /// The file of each name's certificate: in the generation's directory, or below the data directory if self-signed.
    pub fn files(&self, generation: &Path) -> BTreeMap<&str, PathBuf> {
        let imports = self.imports();
        let by_pair: HashMap<*const Pair, &String> =
            imports.iter().filter_map(|(pair, files)| Some((Rc::as_ptr(pair), files.first()?))).collect();
        let imported = self.found.served.iter().filter_map(|served| {
            let file = by_pair.get(&Rc::as_ptr(served.pair()?))?;
            Some((served.name.as_str(), generation.join(CERTIFICATES_DIR).join(file)))
        });
        let self_signed = self.found.self_signed.iter().map(|own| (own.host.as_str(), own.path.clone()));
        imported.chain(self_signed).collect()
    }

    /// Links to the self-signed certificates and keys of hosts in custom files, as file names and targets. Prosody finds
    /// them by the host's name. `is_rendered` says whether a host has a section of ours, which names its certificate.
    pub fn links(&self, is_rendered: impl Fn(&str) -> bool) -> Vec<(String, PathBuf)> {
        let hosts = self.found.served.iter().filter(|served| !is_rendered(&served.name));
        let links = hosts.filter_map(|served| match &served.origin {
            CertificateOrigin::SelfSigned(path) => Some((&served.name, path)),
            _ => None,
        });
        let links = links.flat_map(|(name, path)| {
            ["crt", "key"].map(|extension| (format!("{name}.{extension}"), path.with_extension(extension)))
        });
        links.filter(|(name, _)| name.len() <= LONGEST_NAME).collect()
    }

    /// The name whose certificate clients without SNI get: the first name with a certificate, hosts before other names.
    /// Without a default certificate, Prosody does not open a TLS port.
    pub fn default_host(&self) -> Option<&str> {
        let has_one = |served: &&Served| {
            let is_own = served.origin == CertificateOrigin::FromOptions;
            is_own
                || served.pair().is_some()
                || self.found.self_signed.iter().any(|own| own.host == served.name)
        };
        self.found.served.iter().find(has_one).map(|served| served.name.as_str())
    }
}

/// A line about the certificate of these names, from the file `source`; a warning if it has to be renewed.
/// Errors: the warning.
pub fn expiry(names: &[&str], source: &Path, pair: &Pair, now: OffsetDateTime) -> Result<String, String> {
    let (names, source, issuer) = (several(names), source.display(), &pair.issuer);
    let line = format!("Certificate of {names}: {source}, issued by {issuer}, {}", lasts(pair, now));
    match () {
        () if pair.is_expired => {
            Err(advice!("{line}: clients and other servers refuse it, and there is no other: renew it")
                .into())
        }
        () if pair.not_after - now < WARN => Err(advice!("{line}: renew it").into()),
        () => Ok(line),
    }
}

/// A certificate's expiry, in words.
pub fn lasts(pair: &Pair, now: OffsetDateTime) -> String {
    let date = pair.not_after.date();
    match (pair.not_after - now).whole_days() {
        _ if pair.is_expired => format!("expired on {date}"),
        0 => format!("ends on {date}, within a day"),
        1 => format!("ends on {date}, in 1 day"),
        days => format!("ends on {date}, in {days} days"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::intent::certificates::{SearchPlace, Service, Wanted};
    use crate::os::users::User;
    use crate::survey::certificates::assign::assign;
    use crate::survey::certificates::scan;
    use crate::tests::TestDir;

    /// A directory of certificates, and a running server's.
    struct Directories {
        sources: TestDir,
        previous: TestDir,
    }

    impl Directories {
        fn new() -> Directories {
            Directories { sources: TestDir::new(), previous: TestDir::new() }
        }

        fn wanted(&self, hosts: &[&str]) -> Certificates {
            let host = |name: &&str| Wanted {
                name: (*name).to_owned(),
                service: Service::Xmpp,
                is_host: true,
                has_own: false,
            };
            Certificates {
                sources: vec![SearchPlace { path: self.sources.path().to_owned(), only: None }],
                names: hosts.iter().map(host).collect(),
                wants_all: false,
                self_signed: false,
                authorities: Vec::new(),
                is_behind_proxy: false,
                unreadable: BTreeMap::new(),
                named_places: Vec::new(),
            }
        }

        fn assign(&self, hosts: &[&str]) -> Assignments {
            let (wanted, now) = (self.wanted(hosts), now());
            let scanned = scan(&wanted.sources, now);
            assign(&wanted, self.sources.path(), &User::current(), &scanned, Some(self.previous.path()), now)
                .unwrap()
        }

        fn decide(&self, hosts: &[&str]) -> CertificatePlan {
            CertificatePlan { found: self.assign(hosts), lines: Vec::new() }
        }

        /// The warnings, and the log lines.
        fn output(&self, hosts: &[&str]) -> (Vec<String>, Vec<String>) {
            let mut certificates = self.decide(hosts);
            let mut report = Report::default();
            certificates.report_all(now(), &mut report);
            let place = self.sources.path().display().to_string();
            let warnings = report.warnings().map(|line| line.replace(&place, "")).collect();
            (warnings, certificates.lines.iter().map(|line| line.replace(&place, "")).collect())
        }
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    /// A certificate that expires in so many days, and its key.
    fn pem(names: &[&str], days: i64) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = now() - Duration::days(365);
        params.not_after = now() + Duration::days(days) + Duration::hours(1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
    }

    /// The certificate from a PEM file that also has the key.
    fn without_key(pem: &str) -> &str {
        &pem[..pem.find("-----BEGIN PRIVATE KEY-----").unwrap()]
    }

    fn pending(certificates: &CertificatePlan) -> Vec<&str> {
        certificates.found.pending.iter().map(|reason| reason.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_removed_certificate_is_kept() {
        let (good, expired) = (pem(&["a.example"], 30), pem(&["a.example"], -5));
        let unfinished = without_key(&good);
        // The file in the sources, the served file, which of them is chosen, and the pending entries.
        type Case<'a> = (Option<&'a str>, Option<&'a str>, &'a str, &'a [&'a str]);
        let cases: [Case; 10] = [
            (None, Some(&good), "kept", &["a.example"]),
            (Some(unfinished), Some(&good), "kept", &["a.pem", "a.example"]),
            (Some(&good[..300]), Some(&good), "kept", &["a.pem", "a.example"]),
            (Some(&expired), Some(&good), "kept", &["a.example"]),
            (Some(&good), Some(&good), "found", &[]),
            (Some(&good), Some(&expired), "found", &[]),
            (Some(&expired), Some(&expired), "found", &[]),
            (None, Some(&expired), "kept", &["a.example"]),
            (Some(unfinished), None, "none", &["a.pem"]),
            (None, None, "none", &[]),
        ];
        for (number, (source, served, origin, expected)) in cases.into_iter().enumerate() {
            let dirs = Directories::new();
            source.into_iter().for_each(|text| dirs.sources.write("a.pem", text));
            served.into_iter().for_each(|text| dirs.previous.write("a.example.pem", text));
            let certificates = dirs.decide(&["a.example"]);
            let (found, directory) = match &certificates.found.served[0].origin {
                CertificateOrigin::Found(pair) => ("found", pair.certificate.parent().unwrap()),
                CertificateOrigin::Kept(pair) => ("kept", pair.certificate.parent().unwrap()),
                CertificateOrigin::None => ("none", Path::new("")),
                other => panic!("{number}: {other:?}"),
            };
            assert_eq!(found, origin, "{number}");
            assert_eq!(directory == dirs.previous.path(), origin == "kept", "{number}");
            assert_eq!(pending(&certificates), expected, "{number}");
            // The next generation contains it too.
            assert_eq!(certificates.imports().len(), usize::from(origin != "none"), "{number}");
        }
    }

    #[test]
    fn certificates_in_the_self_signed_directory_are_ignored() {
        let dirs = Directories::new();
        // As if PROSODY_CERTIFICATES were the data directory.
        dirs.sources.write("self-signed/a.pem", pem(&["a.example"], 30));
        assert_eq!(dirs.decide(&["a.example"]).found.served[0].origin, CertificateOrigin::None);
    }

    #[test]
    fn only_incomplete_files_are_pending() {
        let dirs = Directories::new();
        let (one, other) = (pem(&["a.example"], 30), pem(&["a.example"], 30));
        dirs.sources.write("later/a.crt", without_key(&one));
        dirs.sources.write("later/a.key", &other[without_key(&other).len()..]);
        dirs.sources.write("cut.pem", &one[..300]);
        dirs.sources.write("empty.crt", "");
        dirs.sources.write("binary.crt", b"\x30\x82\x01\x00");
        dirs.sources.write(
            "trusted.pem",
            one.replace(" CERTIFICATE", " TRUSTED CERTIFICATE").replace("PRIVATE", "X"),
        );
        let certificates = dirs.decide(&["a.example"]);
        assert_eq!(pending(&certificates), ["cut.pem", "empty.crt", "a.crt"]);
        assert_eq!(certificates.found.problems.len(), 4, "{:?}", certificates.found.problems);
    }

    #[test]
    fn names_that_resolve_through_a_parent_domain_get_no_file() {
        let dirs = Directories::new();
        dirs.sources.write("all.pem", pem(&["a.example", "rooms.a.example", "x.b.a.example"], 30));
        dirs.sources.write("between.pem", pem(&["b.a.example", "y.b.a.example"], 30));
        let certificates =
            dirs.decide(&["rooms.a.example", "x.b.a.example", "y.b.a.example", "b.a.example", "a.example"]);
        let files: Vec<Vec<String>> = certificates.imports().into_iter().map(|(_, files)| files).collect();
        // `b.a.example` has a different certificate than `a.example`.
        assert_eq!(files, [vec!["x.b.a.example.pem", "a.example.pem"], vec!["b.a.example.pem"]]);
        // The hosts' sections name the file anyway.
        let files = certificates.files(Path::new("/run"));
        let all = Path::new("/run/certificates/x.b.a.example.pem");
        assert_eq!((files["rooms.a.example"].as_path(), files["a.example"].as_path()), (all, all));
        assert_eq!(files["y.b.a.example"], Path::new("/run/certificates/b.a.example.pem"));
        assert_eq!(certificates.default_host(), Some("rooms.a.example"));
    }

    #[test]
    fn a_name_too_long_for_a_file_gets_the_fingerprint() {
        let dirs = Directories::new();
        let label = "x".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "x".repeat(60));
        assert_eq!(long.len(), 252);
        let fits = &long[1..];
        dirs.sources.write("long.pem", pem(&[&long], 30));
        dirs.sources.write("fits.pem", pem(&[fits], 30));
        let certificates = dirs.decide(&[&long, fits]);
        let [(pair, first), (_, second)] = &certificates.imports()[..] else { panic!("{certificates:?}") };
        assert_eq!(
            (first, second),
            (&vec![format!("{}.pem", pair.fingerprint)], &vec![format!("{fits}.pem")])
        );
        let file = Path::new("/run/certificates").join(&first[0]);
        assert_eq!(certificates.files(Path::new("/run"))[long.as_str()], file);
    }

    #[test]
    fn expiring_and_unused_certificates_are_reported() {
        let dirs = Directories::new();
        dirs.sources.write("a.pem", pem(&["a.example", "b.example"], 14));
        dirs.sources.write("c.pem", pem(&["c.example"], 13));
        dirs.sources.write("d.pem", pem(&["d.example"], -1));
        // A good certificate with a better alternative causes no warning.
        dirs.sources.write("older.pem", pem(&["a.example"], 7));
        let (warnings, lines) = dirs.output(&["a.example", "b.example", "c.example", "d.example"]);
        let begins = |line: &str, start: &str, end: &str| {
            assert!(line.starts_with(start) && line.ends_with(end), "{line}");
        };
        let [line] = &lines[..] else { panic!("{lines:?}") };
        begins(line, "Certificate of a.example, b.example: /a.pem, issued by ", ", in 14 days");
        let [soon, over] = &warnings[..] else { panic!("{warnings:?}") };
        begins(soon, "Certificate of c.example: /c.pem", ", in 13 days: renew it");
        begins(over, "Certificate of d.example: /d.pem", "there is no other: renew it");

        for number in 0..12 {
            dirs.sources.write(&format!("broken-{number}.pem"), "-----BEGIN");
        }
        let (warnings, _) = dirs.output(&["a.example"]);
        assert_eq!(warnings.len(), SHOWN + 1, "{warnings:?}");
        assert!(warnings[SHOWN].starts_with("2 more files "), "{warnings:?}");
    }

    #[test]
    fn the_reason_for_a_kept_certificate_is_reported_once() {
        let dirs = Directories::new();
        let both = pem(&["a.example", "b.example"], 30);
        dirs.previous.write("a.example.pem", &both);
        dirs.previous.write("b.example.pem", &both);
        dirs.sources.write("ab.pem", without_key(&both));
        let (warnings, _) = dirs.output(&["a.example", "b.example"]);
        assert_eq!(
            warnings,
            ["Keeping the current certificate of a.example, b.example: /ab.pem: has no key beside it"]
        );
    }
}
