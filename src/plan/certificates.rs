//! Which certificate each host gets, and what is said about it.
//!
//! What is chosen is written into the generation, as `HOST.pem` in a folder of certificates: so Prosody serves no file that
//! somebody is just writing, and keys may be root's alone. It finds those of our hosts by their option `certificate`, and
//! others by their names in the folder (`core/certmanager.lua`). Its index of what certificates say, which would come before
//! both, stays empty, because it takes only `*.crt` and names with `fullchain`. A host without a file is given that of the
//! domain above it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::unistd::Uid;
use time::{Duration, OffsetDateTime};

use super::hosts::{Hosts, network_hostname};
use crate::certificates::{self, Certificates, Choice, Pair, PassedOver, Service, Source};
use crate::facts::{Facts, several};
use crate::privileges;
use crate::self_signed::{self, Request, Store};
use crate::settings::types::{Domain, Kind};
use crate::settings::{Report, Settings};

/// The folder of certificates in a generation.
pub const FOLDER: &str = "certificates";

/// From how long before its end on a certificate is worth a warning.
pub const WARN: Duration = Duration::days(14);

/// How many files that are no use get a line each.
const SHOWN: usize = 10;

/// The longest name that a file may have, in bytes.
const LONGEST_NAME: usize = 255;

/// Where a name's certificate comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// It was found, and names it.
    Found(Rc<Pair>),
    /// It is not there any more, or being replaced: the one that is served until now.
    Kept(Rc<Pair>),
    /// That of a domain above, which does not name it.
    Above(String, Rc<Pair>),
    /// One of ours, in this file.
    SelfSigned(PathBuf),
    /// The user's own, which the host's option `certificate` names.
    Named,
    /// There is none.
    None,
}

/// The certificate of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// The name as Prosody looks for it.
    pub name: String,
    /// Whether it is a virtual host or a component, and not another name of one.
    pub is_host: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// The others that name it, each with why it is not used.
    pub passed_over: Vec<PassedOver>,
}

impl Served {
    /// The pair that is written for it.
    pub fn pair(&self) -> Option<&Rc<Pair>> {
        match &self.origin {
            Origin::Found(pair) | Origin::Kept(pair) => Some(pair),
            _ => None,
        }
    }

    /// The same under the name by which clients ask for a host, where that is another (`xn--…`) and there is a file that
    /// can have it. What is self-signed is the host's alone.
    fn named_by_clients(&self, ascii: &str) -> Option<Served> {
        let origin =
            self.pair().filter(|_| self.is_host && ascii != self.name).map(|_| self.origin.clone())?;
        Some(Served { name: ascii.to_owned(), is_host: false, origin, passed_over: Vec::new() })
    }
}

/// What all names get.
#[derive(Debug, Default)]
pub struct Decision {
    /// The hosts in their order, then other names.
    pub served: Vec<Served>,
    /// The self-signed certificates, by host; what is below such a host shares it.
    pub self_signed: BTreeMap<String, PathBuf>,
    /// Self-signed certificates that are not there yet, or not usable any more.
    pub to_make: Vec<Request>,
    /// What may be better in a moment, because somebody may just be writing it: files that are not complete, and hosts
    /// whose certificate has gone.
    pub unsettled: BTreeSet<String>,
    /// Files that are no use for any host.
    pub problems: Vec<PassedOver>,
    /// A line for each certificate that is served.
    pub lines: Vec<String>,
}

/// The places where certificates are looked for: where Prosody's are first, then those to import from.
pub fn sources(settings: &Settings, config_dir: &Path) -> Vec<Source> {
    let own = crate::facts::certificate_directory(settings, config_dir);
    let mut sources = vec![Source { path: own, only: None }];
    let directories = settings.tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let directories: Vec<&Path> = directories.map(AsRef::as_ref).collect();
    let names = settings.tls.import_certificate_hostnames.iter().flat_map(|list| list.iter());
    let names: Vec<String> = names.map(|name| name.ascii().into_owned()).collect();
    for (number, directory) in directories.iter().enumerate() {
        let only = match () {
            () if names.is_empty() => None,
            () if names.len() == directories.len() => Some(vec![names[number].clone()]),
            () => Some(names.clone()),
        };
        sources.push(Source { path: directory.to_path_buf(), only });
    }
    sources
}

/// Decides what each host gets. `previous` is the folder of a running server's certificates: what is in it is used where
/// there is nothing else.
pub fn decide(
    settings: &Settings,
    facts: &Facts,
    hosts: &Hosts,
    found: &Certificates,
    previous: Option<&Path>,
    report: &mut Report,
) -> Decision {
    let mut decision = Decision::default();
    let names: Vec<&str> = hosts.names().collect();
    decision.choose(settings, facts, &names, found, previous);
    decision.leave(&hosts.own_certificates().map(|(name, _)| name).collect());
    // Hosts come first, and those of the user's own files are his to look after.
    let hosts = decision.served.iter().filter(|served| served.is_host);
    let has_none: HashSet<&str> =
        hosts.filter(|served| served.origin == Origin::None).map(|served| served.name.as_str()).collect();
    let without: Vec<&str> = names.iter().copied().filter(|name| has_none.contains(name)).collect();
    decision.make_self_signed(settings, facts, &without, report);
    decision.tell(settings, &without, report);
    decision
}

impl Decision {
    /// Chooses for every name that Prosody may look for.
    fn choose(
        &mut self,
        settings: &Settings,
        facts: &Facts,
        hosts: &[&str],
        found: &Certificates,
        previous: Option<&Path>,
    ) {
        let mut last: Option<Certificates> = None;
        let mut seen: HashSet<String> = HashSet::new();
        let http = http_names(settings);
        // Hosts of the user's own, and where a program in his files may name more, all that there are certificates for.
        let own = facts.user_files.fragments().flat_map(|file| file.summary.hosts.iter().map(String::as_str));
        let written = if facts.user_files.define_host() { found.names() } else { Vec::new() };
        let own: Vec<&str> = own.chain(written.iter().map(String::as_str)).collect();
        let hosts = hosts.iter().map(|name| (*name, Service::Xmpp, true));
        let http = http.iter().map(|name| (name.as_str(), Service::Https, false));
        let own = own.into_iter().map(|name| (name, Service::Xmpp, false));
        for (name, service, is_host) in hosts.chain(http).chain(own) {
            let Some(ascii) = ascii(name) else { continue };
            if !seen.insert(name.to_owned()) {
                continue;
            }
            let Choice { pair, passed_over } = found.choose(&ascii, service);
            let is_good = pair.as_ref().is_some_and(|pair| !pair.is_expired);
            let kept = previous.filter(|_| !is_good).and_then(|previous| {
                let source = || vec![Source { path: previous.to_owned(), only: None }];
                let last =
                    last.get_or_insert_with(|| certificates::look(&source(), OffsetDateTime::now_utc()));
                last.choose(&ascii, service).pair.filter(|pair| !pair.is_expired || !is_good)
            });
            let kept = kept.filter(|kept| pair.is_none() || !kept.is_expired);
            let origin = match (kept, pair) {
                (Some(kept), _) => Origin::Kept(kept),
                (None, Some(pair)) => Origin::Found(pair),
                (None, None) => Origin::None,
            };
            if origin == Origin::None && !is_host {
                continue;
            }
            let incomplete = passed_over.iter().filter(|file| file.is_incomplete);
            self.unsettled.extend(incomplete.map(|file| file.path.display().to_string()));
            if matches!(origin, Origin::Kept(_)) {
                self.unsettled.insert(name.to_owned());
            }
            self.served.push(Served { name: name.to_owned(), is_host, origin, passed_over });
            let by_clients = self.served.last().and_then(|served| served.named_by_clients(&ascii));
            self.served.extend(by_clients.filter(|_| seen.insert(ascii)));
        }
        let incomplete = found.problems().iter().filter(|file| file.is_incomplete);
        self.unsettled.extend(incomplete.map(|file| file.path.display().to_string()));
        self.problems = found.problems().to_vec();
        self.inherit();
    }

    /// Leaves hosts alone whose options name a certificate, as far as there is no other: it is wherever the user says.
    fn leave(&mut self, named: &HashSet<&str>) {
        let is_named = |served: &&mut Served| {
            let has_none = matches!(served.origin, Origin::None | Origin::Above(..));
            served.is_host && has_none && named.contains(served.name.as_str())
        };
        self.served.iter_mut().filter(is_named).for_each(|served| served.origin = Origin::Named);
    }

    /// Gives what has none that of the nearest domain above that has one, as Prosody does.
    fn inherit(&mut self) {
        let pairs: BTreeMap<String, Rc<Pair>> = self
            .served
            .iter()
            .filter_map(|served| Some((served.name.clone(), Rc::clone(served.pair()?))))
            .collect();
        for served in self.served.iter_mut().filter(|served| served.origin == Origin::None) {
            let mut above = served.name.as_str();
            let pair = loop {
                let Some((_, parent)) = above.split_once('.') else { break None };
                above = parent;
                if let Some(pair) = pairs.get(above) {
                    break Some(Rc::clone(pair));
                }
            };
            if let Some(pair) = pair {
                served.origin = Origin::Above(above.to_owned(), pair);
            }
        }
    }

    /// Finds the self-signed certificates for hosts that have no other, and those that have to be made.
    fn make_self_signed(
        &mut self,
        settings: &Settings,
        facts: &Facts,
        without: &[&str],
        report: &mut Report,
    ) {
        if without.is_empty() {
            return;
        }
        if settings.tls.self_signed_certificates.is_some_and(|on| !on.0) {
            report.warning(format!(
                "PROSODY_SELF_SIGNED_CERTIFICATES: it is off, and there is no certificate for {} in {}: nobody can \
                 connect to them with TLS",
                several(without),
                places(settings, &facts.config_dir)
            ));
            return;
        }
        report.notice(format!(
            "No certificate for {} in {}: using a self-signed one, which clients warn about and other servers refuse",
            several(without),
            places(settings, &facts.config_dir)
        ));
        let now = OffsetDateTime::now_utc();
        let uid = Uid::from_raw(facts.identity.uid);
        let open = || Store::open(&facts.data_dir).ok().flatten();
        let store = privileges::as_user(&facts.identity, open);
        let is_kept = |host: &str, names: &[&str]| {
            let is_usable = |store: &Store| store.is_usable(host, names, uid, now);
            privileges::as_user(&facts.identity, || store.as_ref().is_some_and(is_usable))
        };
        let mut paths: HashMap<&str, PathBuf> = HashMap::new();
        for (host, names) in group(without) {
            // A host's name was checked where it was read, so that it has a form for certificates.
            let Some(host_ascii) = ascii(host) else { continue };
            let names_ascii: Vec<String> = names.iter().filter_map(|name| ascii(name)).collect();
            let all: Vec<&str> = names_ascii.iter().map(String::as_str).collect();
            // What is below the host has no certificate of its own: Prosody gives it that of the domain above.
            let path = self_signed::certificate_path(&facts.data_dir, &host_ascii);
            paths.extend(names.iter().map(|name| (*name, path.clone())));
            self.self_signed.insert(host.to_owned(), path);
            if !is_kept(&host_ascii, &all) {
                self.to_make.push(Request { host: host_ascii, names: names_ascii });
            }
        }
        for served in &mut self.served {
            if let Some(path) = paths.remove(served.name.as_str()) {
                served.origin = Origin::SelfSigned(path);
            }
        }
    }

    /// Says what is served, and what is wrong.
    fn tell(&mut self, settings: &Settings, without: &[&str], report: &mut Report) {
        let now = OffsetDateTime::now_utc();
        let mut lines = Vec::new();
        for (pair, names) in self.by_pair() {
            let line = format!("Certificate of {}: {}", several(&names), describe(&pair, now));
            if pair.is_expired {
                report.notice(format!(
                    "{line}: clients and other servers refuse it, and there is no other: renew it"
                ));
            } else if pair.not_after - now < WARN {
                report.notice(format!("{line}: renew it"));
            } else {
                lines.push(line);
            }
        }
        self.lines = lines;
        let told = self.tell_of_hosts(report);
        self.tell_of_files(&told, report);
        self.tell_of_settings(settings, !without.is_empty(), report);
    }

    /// Says which hosts have a certificate that is not quite theirs. Returns what was said of files on the way.
    fn tell_of_hosts(&self, report: &mut Report) -> BTreeSet<String> {
        let mut told: BTreeSet<String> = BTreeSet::new();
        let hosts = || self.served.iter().filter(|served| served.is_host);
        let kept: Vec<&Served> = hosts().filter(|served| matches!(served.origin, Origin::Kept(_))).collect();
        if !kept.is_empty() {
            let names: Vec<&str> = kept.iter().map(|served| served.name.as_str()).collect();
            told.extend(kept.iter().flat_map(|served| &served.passed_over).map(ToString::to_string));
            let why: Vec<&String> = told.iter().collect();
            let why = if why.is_empty() { "there is no other any more".to_owned() } else { several(&why) };
            report.notice(format!(
                "The certificate of {} stays the one that is served until now: {why}",
                several(&names)
            ));
        }
        let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for served in hosts() {
            if let Origin::Above(above, _) = &served.origin {
                below.entry(above).or_default().push(&served.name);
            }
        }
        for (above, names) in below {
            report.notice(format!(
                "The certificate of {above} is used for {names} too, which it does not name: other servers may refuse it; \
                 have it issued for all of them",
                names = several(&names)
            ));
        }
        told
    }

    /// Says which files are not used, and why, but for what was said of them before.
    fn tell_of_files(&self, told: &BTreeSet<String>, report: &mut Report) {
        let mut unused: BTreeSet<String> = self.problems.iter().map(ToString::to_string).collect();
        for served in &self.served {
            let is_good = matches!(served.origin, Origin::Found(_));
            // One that is only not the best is nothing to worry about where there is a good one.
            let (worse, wrong): (Vec<&PassedOver>, Vec<&PassedOver>) =
                served.passed_over.iter().partition(|file| file.is_worse && is_good);
            unused.extend(wrong.into_iter().map(ToString::to_string));
            worse.into_iter().for_each(|file| report.note(format!("Certificate not used: {file}")));
        }
        let unused: Vec<String> = unused.into_iter().filter(|line| !told.contains(line)).collect();
        for line in unused.iter().take(SHOWN) {
            report.notice(format!("Certificate not used: {line}"));
        }
        if unused.len() > SHOWN {
            report.notice(format!(
                "{} more files of certificates are not used: `prosody-entrypoint certificates` says why",
                unused.len() - SHOWN
            ));
        }
    }

    /// Says what is odd about where certificates are looked for.
    fn tell_of_settings(&self, settings: &Settings, is_any_missing: bool, report: &mut Report) {
        let directories = settings.tls.import_certificate_directories.as_ref();
        if settings.tls.import_certificate_hostnames.is_some() && directories.is_none() {
            report.warning(format!(
                "{}: it has no effect without {}",
                settings.variable("import_certificate_hostnames"),
                settings.variable("import_certificate_directories")
            ));
        }
        for (field, path) in
            settings.tls.certificates.iter().map(|path| ("certificates", path.as_ref())).chain(
                directories
                    .into_iter()
                    .flat_map(|list| list.iter())
                    .map(|path| ("import_certificate_directories", path.as_ref())),
            )
        {
            let path: &Path = path;
            // With a certificate for all there is nothing missing.
            if is_any_missing && !path.exists() {
                let variable = settings.variable(field);
                report.notice(format!("{variable}: {} is not there, or not yet", path.display()));
            }
        }
    }

    /// The certificates that are written, each once, with the names that it is served for.
    fn by_pair(&self) -> Vec<(Rc<Pair>, Vec<&str>)> {
        let mut pairs: Vec<(Rc<Pair>, Vec<&str>)> = Vec::new();
        let mut places: HashMap<*const Pair, usize> = HashMap::new();
        for served in &self.served {
            let Some(pair) = served.pair() else { continue };
            let place = *places.entry(Rc::as_ptr(pair)).or_insert(pairs.len());
            match pairs.get_mut(place) {
                Some((_, names)) => names.push(&served.name),
                None => pairs.push((Rc::clone(pair), vec![&served.name])),
            }
        }
        pairs
    }

    /// The certificates to write, each with the names that it has in the folder, the first of which is the file's own.
    /// Names for which Prosody finds it anyway, at a domain above, are left out.
    pub fn imports(&self) -> Vec<(Rc<Pair>, Vec<String>)> {
        let by_name: HashMap<&str, &Rc<Pair>> =
            self.served.iter().filter_map(|served| Some((served.name.as_str(), served.pair()?))).collect();
        let is_found_above = |name: &str, pair: &Rc<Pair>| {
            let mut above = name;
            while let Some((_, parent)) = above.split_once('.') {
                above = parent;
                if let Some(other) = by_name.get(above) {
                    return Rc::ptr_eq(other, pair);
                }
            }
            false
        };
        let names = |(pair, names): (Rc<Pair>, Vec<&str>)| {
            let names = names.into_iter().filter(|name| !is_found_above(name, &pair));
            let files = names.map(|name| format!("{name}.pem")).filter(|file| file.len() <= LONGEST_NAME);
            let files: Vec<String> = files.collect();
            (pair, files)
        };
        self.by_pair().into_iter().map(names).filter(|(_, files)| !files.is_empty()).collect()
    }

    /// The file of each host's certificate in a generation, or in Prosody's own place.
    pub fn files(&self, generation: &Path) -> BTreeMap<&str, PathBuf> {
        let imports = self.imports();
        let by_pair: HashMap<*const Pair, &String> =
            imports.iter().filter_map(|(pair, files)| Some((Rc::as_ptr(pair), files.first()?))).collect();
        let hosts = self.served.iter().filter(|served| served.is_host);
        let imported = hosts.filter_map(|served| {
            let file = by_pair.get(&Rc::as_ptr(served.pair()?))?;
            Some((served.name.as_str(), generation.join(FOLDER).join(file)))
        });
        let self_signed = self.self_signed.iter().map(|(host, path)| (host.as_str(), path.clone()));
        imported.chain(self_signed).collect()
    }

    /// The host whose certificate who names no host gets at a port: the first that has one.
    pub fn default_host(&self) -> Option<&str> {
        let mut hosts = self.served.iter().filter(|served| served.is_host);
        let has_one = |served: &&Served| {
            let is_named = served.origin == Origin::Named;
            is_named || served.pair().is_some() || self.self_signed.contains_key(&served.name)
        };
        hosts.find(has_one).map(|served| served.name.as_str())
    }
}

/// A certificate in words: where it is, who issued it and how long it lasts.
fn describe(pair: &Pair, now: OffsetDateTime) -> String {
    format!("{}, issued by {}, {}", pair.certificate.display(), pair.issuer, lasts(pair, now))
}

/// How long a certificate lasts, in words.
pub fn lasts(pair: &Pair, now: OffsetDateTime) -> String {
    let date = pair.not_after.date();
    match (pair.not_after - now).whole_days() {
        _ if pair.is_expired => format!("expired on {date}"),
        0 => format!("ends on {date}, within a day"),
        1 => format!("ends on {date}, in 1 day"),
        days => format!("ends on {date}, in {days} days"),
    }
}

/// A host's name as certificates have it.
pub fn ascii(name: &str) -> Option<String> {
    Some(Domain::parse(name).ok()?.ascii().to_ascii_lowercase())
}

/// Where certificates are looked for, for a sentence.
fn places(settings: &Settings, config_dir: &Path) -> String {
    let places: Vec<String> =
        sources(settings, config_dir).iter().map(|source| source.path.display().to_string()).collect();
    several(&places)
}

/// The names under which HTTP services answer, where those are not the hosts' own.
fn http_names(settings: &Settings) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    names.extend(network_hostname(settings).map(|name| name.ascii().into_owned()));
    names.extend(settings.hosts.http_host.iter().map(|name| name.ascii().into_owned()));
    names.extend(settings.network.http_external_url.iter().map(|url| url.host().to_owned()));
    let of_hosts = settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0).map(|host| &host.options);
    let of_components = settings.hosts.components.iter().flat_map(|list| &list.0).map(|host| &host.options);
    for options in of_hosts.chain(of_components).chain(&settings.anything.options) {
        let name = options.get("http_host").flatten().and_then(|value| value.as_str());
        names.extend(name.map(str::to_owned));
    }
    names
}

/// Puts hosts that need a certificate together: a host with those below it.
fn group<'a>(hosts: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let all: HashSet<&str> = hosts.iter().copied().collect();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let parent = |host: &'a str| {
        let mut parents = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        parents.find(|parent| all.contains(parent))
    };
    for host in hosts.iter().copied().filter(|host| parent(host).is_none()) {
        place.insert(host, groups.len());
        groups.push((host, vec![host]));
    }
    for host in hosts.iter().copied() {
        let mut top = host;
        while let Some(above) = parent(top) {
            top = above;
        }
        if top != host {
            groups[place[top]].1.push(host);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_another_name_only_for_what_has_a_file() {
        let host = "münchen.example";
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("xn--mnchen-3ya.example".try_into().unwrap())];
        let key = rcgen::KeyPair::generate().unwrap();
        let directory = crate::test_dir::TestDir::new();
        directory.write("a.pem", params.self_signed(&key).unwrap().pem() + &key.serialize_pem());
        let source = Source { path: directory.path().to_owned(), only: None };
        let found = certificates::look(&[source], OffsetDateTime::now_utc());
        let ascii = ascii(host).unwrap();
        let pair = found.choose(&ascii, Service::Xmpp).pair.unwrap();
        let named = |origin, is_host| {
            let served = Served { name: host.to_owned(), is_host, origin, passed_over: Vec::new() };
            served.named_by_clients(&ascii).map(|served| (served.name, served.is_host))
        };
        assert_eq!(named(Origin::Found(Rc::clone(&pair)), true), Some((ascii.clone(), false)));
        assert_eq!(named(Origin::Found(pair), false), None);
        assert_eq!(named(Origin::None, true), None);
    }

    #[test]
    fn a_certificate_that_the_user_names_is_left_to_him() {
        let served = |name: &str| Served {
            name: name.to_owned(),
            is_host: true,
            origin: Origin::None,
            passed_over: Vec::new(),
        };
        let mut decision =
            Decision { served: vec![served("a.example"), served("b.example")], ..Decision::default() };
        decision.leave(&HashSet::from(["a.example"]));
        let origins = decision.served.iter().map(|served| &served.origin);
        assert_eq!(origins.collect::<Vec<&Origin>>(), [&Origin::Named, &Origin::None]);
        assert_eq!(decision.default_host(), Some("a.example"));
    }

    #[test]
    fn hosts_share_the_certificate_of_the_domain_above() {
        let hosts = ["a.example", "b.example", "rooms.a.example", "x.rooms.a.example", "lone.test"];
        assert_eq!(
            group(&hosts),
            [
                ("a.example", vec!["a.example", "rooms.a.example", "x.rooms.a.example"]),
                ("b.example", vec!["b.example"]),
                ("lone.test", vec!["lone.test"]),
            ]
        );
    }
}
