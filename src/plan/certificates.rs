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
use crate::facts::Facts;
use crate::facts::custom_files::UserFiles;
use crate::layout::CERTIFICATES_DIR;
use crate::os::privileges;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::types::{Domain, Kind};
use crate::survey::certificates::{self, Certificates, Choice, Pair, PassedOver, Service, Source};
use crate::survey::self_signed::{self, Request, Store};
use crate::text::several;

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
    /// The one that its own options name, or those of the domain above it, which is theirs to look after.
    Own,
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
    /// Names of HTTP services that have no certificate.
    pub http_without: Vec<String>,
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
    let own_place = self_signed::directory(&facts.data_dir);
    decision.choose(settings, &facts.user_files, hosts, found, (&own_place, previous));
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
    /// Chooses for every name that Prosody may look for. Those in our own place are no others' to find.
    fn choose(
        &mut self,
        settings: &Settings,
        user_files: &UserFiles,
        hosts: &Hosts,
        found: &Certificates,
        (self_signed, previous): (&Path, Option<&Path>),
    ) {
        let mut last: Option<Certificates> = None;
        let mut seen: HashSet<String> = HashSet::new();
        let http = http_names(settings, user_files);
        // Hosts of the user's own, and where a program in his files may name more, all that there are certificates for.
        let own = user_files.fragments().flat_map(|file| file.summary.hosts.iter().map(String::as_str));
        let written = if user_files.define_host() { found.names() } else { Vec::new() };
        let own: Vec<&str> = own.chain(written.iter().map(String::as_str)).collect();
        let names_its_own: HashSet<&str> = hosts.own_certificates().map(|(name, _)| name).collect();
        let hosts = hosts.names().map(|name| (name, Service::Xmpp, true));
        let http = http.iter().map(|name| (name.as_str(), Service::Https, false));
        let own = own.into_iter().map(|name| (name, Service::Xmpp, false));
        for (name, service, is_host) in hosts.chain(http).chain(own) {
            let Some(ascii) = ascii(name) else { continue };
            if !seen.insert(name.to_owned()) {
                continue;
            }
            if is_host && names_its_own.contains(name) {
                let (name, origin) = (name.to_owned(), Origin::Own);
                self.served.push(Served { name, is_host, origin, passed_over: Vec::new() });
                continue;
            }
            let Choice { pair, passed_over } = found.choose(&ascii, service);
            let pair = pair.filter(|pair| !pair.certificate.starts_with(self_signed));
            let is_good = pair.as_ref().is_some_and(|pair| !pair.is_expired);
            let kept = previous.filter(|_| !is_good).and_then(|previous| {
                let source = || vec![Source { path: previous.to_owned(), only: None }];
                let last =
                    last.get_or_insert_with(|| certificates::look(&source(), OffsetDateTime::now_utc()));
                last.choose(&ascii, service).pair
            });
            let kept = kept.filter(|kept| pair.is_none() || !kept.is_expired);
            let origin = match (kept, pair) {
                (Some(kept), _) => Origin::Kept(kept),
                (None, Some(pair)) => Origin::Found(pair),
                (None, None) => Origin::None,
            };
            let is_behind_proxy = settings.network.http_external_url.is_some();
            if origin == Origin::None && service == Service::Https && !is_behind_proxy {
                self.http_without.push(name.to_owned());
            }
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

    /// Gives what has none that of the nearest domain above that has one, as Prosody does.
    fn inherit(&mut self) {
        let origin = |served: &Served| match (&served.origin, served.pair()) {
            (Origin::Own, _) => Some(Origin::Own),
            (_, pair) => pair.map(|pair| Origin::Above(served.name.clone(), Rc::clone(pair))),
        };
        let origins: BTreeMap<String, Origin> =
            self.served.iter().filter_map(|served| Some((served.name.clone(), origin(served)?))).collect();
        for served in self.served.iter_mut().filter(|served| served.origin == Origin::None) {
            let mut above = served.name.as_str();
            while let Some((_, parent)) = above.split_once('.') {
                above = parent;
                if let Some(origin) = origins.get(above) {
                    served.origin = origin.clone();
                    break;
                }
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
        // Without any, or behind a proxy that ends TLS, nobody expects one.
        if !self.http_without.is_empty() && self.served.iter().any(|served| served.pair().is_some()) {
            report.notice(format!(
                "No certificate for {}, where HTTP services answer: HTTPS clients refuse another one",
                several(&self.http_without)
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
            let mut files: Vec<String> = files.collect();
            if files.is_empty() {
                // The host's section names it, whatever it is called.
                files.push(format!("{}.pem", pair.fingerprint));
            }
            (pair, files)
        };
        self.by_pair().into_iter().map(names).collect()
    }

    /// The file of each name's certificate in a generation, or in Prosody's own place.
    pub fn files(&self, generation: &Path) -> BTreeMap<&str, PathBuf> {
        let imports = self.imports();
        let by_pair: HashMap<*const Pair, &String> =
            imports.iter().filter_map(|(pair, files)| Some((Rc::as_ptr(pair), files.first()?))).collect();
        let imported = self.served.iter().filter_map(|served| {
            let file = by_pair.get(&Rc::as_ptr(served.pair()?))?;
            Some((served.name.as_str(), generation.join(CERTIFICATES_DIR).join(file)))
        });
        let self_signed = self.self_signed.iter().map(|(host, path)| (host.as_str(), path.clone()));
        imported.chain(self_signed).collect()
    }

    /// The name whose certificate who names no host gets at a port: the first that has one, or else the first other name,
    /// since Prosody does not open such a port without any.
    pub fn default_host(&self) -> Option<&str> {
        let has_one = |served: &&Served| {
            let is_own = served.origin == Origin::Own;
            is_own || served.pair().is_some() || self.self_signed.contains_key(&served.name)
        };
        self.served.iter().find(has_one).map(|served| served.name.as_str())
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
fn http_names(settings: &Settings, user_files: &UserFiles) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    names.extend(network_hostname(settings, user_files).map(|name| name.ascii().into_owned()));
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
    use std::ffi::OsString;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::plan::hosts::{Options, VirtualHost};
    use crate::test_dir::TestDir;

    /// Where certificates come from, and the folder of a server that runs.
    struct Place {
        sources: TestDir,
        previous: TestDir,
        user_files: UserFiles,
    }

    impl Place {
        fn new() -> Place {
            Place { sources: TestDir::new(), previous: TestDir::new(), user_files: UserFiles::default() }
        }

        fn settings(&self) -> Settings {
            let variable = |(name, value): (&str, OsString)| (OsString::from(name), value);
            let environment = [("PROSODY_CERTIFICATES", self.sources.path().into())].map(variable);
            Settings::read(environment).0
        }

        fn choose(&self, hosts: &[&str]) -> Decision {
            let host = |name: &&str| VirtualHost {
                name: (*name).to_owned(),
                options: Options::new(),
                names_certificate: false,
            };
            let hosts = Hosts { virtual_hosts: hosts.iter().map(host).collect(), ..Hosts::default() };
            let settings = self.settings();
            let found = certificates::look(&sources(&settings, Path::new("/")), OffsetDateTime::now_utc());
            let mut decision = Decision::default();
            let places = (self.sources.path().join("ours"), Some(self.previous.path()));
            decision.choose(&settings, &self.user_files, &hosts, &found, (&places.0, places.1));
            decision
        }

        /// What is said: what is wrong, and what is well.
        fn tell(&self, hosts: &[&str]) -> (Vec<String>, Vec<String>) {
            let mut decision = self.choose(hosts);
            let mut report = Report::default();
            decision.tell(&self.settings(), &[], &mut report);
            let place = self.sources.path().display().to_string();
            let said = report.warnings().map(|line| line.replace(&place, "")).collect();
            (said, decision.lines.iter().map(|line| line.replace(&place, "")).collect())
        }
    }

    /// A certificate that ends in some days, and its key.
    fn pem(names: &[&str], days: i64) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::now_utc() - Duration::days(365);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days) + Duration::hours(1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
    }

    /// The part of a PEM file that is the certificate.
    fn without_key(pem: &str) -> &str {
        &pem[..pem.find("-----BEGIN PRIVATE KEY-----").unwrap()]
    }

    fn unsettled(decision: &Decision) -> Vec<&str> {
        decision.unsettled.iter().map(|what| what.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_certificate_that_has_gone_stays() {
        let (good, expired) = (pem(&["a.example"], 30), pem(&["a.example"], -5));
        let unfinished = without_key(&good);
        // What is in the sources and what is served, which of them it is then, and what is not settled.
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
        for (number, (source, served, origin, not_settled)) in cases.into_iter().enumerate() {
            let place = Place::new();
            source.into_iter().for_each(|text| place.sources.write("a.pem", text));
            served.into_iter().for_each(|text| place.previous.write("a.example.pem", text));
            let decision = place.choose(&["a.example"]);
            let (found, directory) = match &decision.served[0].origin {
                Origin::Found(pair) => ("found", pair.certificate.parent().unwrap()),
                Origin::Kept(pair) => ("kept", pair.certificate.parent().unwrap()),
                Origin::None => ("none", Path::new("")),
                other => panic!("{number}: {other:?}"),
            };
            assert_eq!(found, origin, "{number}");
            assert_eq!(directory == place.previous.path(), origin == "kept", "{number}");
            assert_eq!(unsettled(&decision), not_settled, "{number}");
            // It is written into the next generation too.
            assert_eq!(decision.imports().len(), usize::from(origin != "none"), "{number}");
        }
    }

    #[test]
    fn a_certificate_in_our_own_place_is_not_found() {
        let place = Place::new();
        place.sources.write("ours/a.pem", pem(&["a.example"], 30));
        assert_eq!(place.choose(&["a.example"]).served[0].origin, Origin::None);
    }

    #[test]
    fn what_no_writer_mends_is_settled() {
        let place = Place::new();
        let (one, other) = (pem(&["a.example"], 30), pem(&["a.example"], 30));
        place.sources.write("later/a.crt", without_key(&one));
        place.sources.write("later/a.key", &other[without_key(&other).len()..]);
        place.sources.write("cut.pem", &one[..300]);
        place.sources.write("empty.crt", "");
        place.sources.write("binary.crt", b"\x30\x82\x01\x00");
        place.sources.write(
            "trusted.pem",
            one.replace(" CERTIFICATE", " TRUSTED CERTIFICATE").replace("PRIVATE", "X"),
        );
        let decision = place.choose(&["a.example"]);
        assert_eq!(unsettled(&decision), ["cut.pem", "empty.crt", "a.crt"]);
        assert_eq!(decision.problems.len(), 4, "{:?}", decision.problems);
    }

    #[test]
    fn a_name_that_is_found_above_is_not_written() {
        let place = Place::new();
        place.sources.write("all.pem", pem(&["a.example", "rooms.a.example", "x.b.a.example"], 30));
        place.sources.write("between.pem", pem(&["b.a.example", "y.b.a.example"], 30));
        let decision =
            place.choose(&["rooms.a.example", "x.b.a.example", "y.b.a.example", "b.a.example", "a.example"]);
        let files: Vec<Vec<String>> = decision.imports().into_iter().map(|(_, files)| files).collect();
        // `b.a.example` has another than `a.example`.
        assert_eq!(files, [vec!["x.b.a.example.pem", "a.example.pem"], vec!["b.a.example.pem"]]);
        // Sections name it all the same.
        let files = decision.files(Path::new("/run"));
        let all = Path::new("/run/certificates/x.b.a.example.pem");
        assert_eq!((files["rooms.a.example"].as_path(), files["a.example"].as_path()), (all, all));
        assert_eq!(files["y.b.a.example"], Path::new("/run/certificates/b.a.example.pem"));
        assert_eq!(decision.default_host(), Some("rooms.a.example"));
    }

    #[test]
    fn a_name_that_is_too_long_for_a_file_has_one() {
        let place = Place::new();
        let label = "x".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "x".repeat(60));
        assert_eq!(long.len(), 252);
        let fits = &long[1..];
        place.sources.write("long.pem", pem(&[&long], 30));
        place.sources.write("fits.pem", pem(&[fits], 30));
        let decision = place.choose(&[&long, fits]);
        let [(pair, first), (_, second)] = &decision.imports()[..] else { panic!("{decision:?}") };
        assert_eq!(
            (first, second),
            (&vec![format!("{}.pem", pair.fingerprint)], &vec![format!("{fits}.pem")])
        );
        let file = Path::new("/run/certificates").join(&first[0]);
        assert_eq!(decision.files(Path::new("/run"))[long.as_str()], file);
    }

    #[test]
    fn what_ends_soon_or_is_no_use_is_said() {
        let place = Place::new();
        place.sources.write("a.pem", pem(&["a.example", "b.example"], 14));
        place.sources.write("c.pem", pem(&["c.example"], 13));
        place.sources.write("d.pem", pem(&["d.example"], -1));
        // The one that is not the best is no matter.
        place.sources.write("older.pem", pem(&["a.example"], 7));
        let (said, lines) = place.tell(&["a.example", "b.example", "c.example", "d.example"]);
        let begins = |line: &str, start: &str, end: &str| {
            assert!(line.starts_with(start) && line.ends_with(end), "{line}");
        };
        let [line] = &lines[..] else { panic!("{lines:?}") };
        begins(line, "Certificate of a.example, b.example: /a.pem, issued by ", ", in 14 days");
        let [soon, over] = &said[..] else { panic!("{said:?}") };
        begins(soon, "Certificate of c.example: /c.pem", ", in 13 days: renew it");
        begins(over, "Certificate of d.example: /d.pem", "there is no other: renew it");

        for number in 0..12 {
            place.sources.write(&format!("broken-{number}.pem"), "-----BEGIN");
        }
        let (said, _) = place.tell(&["a.example"]);
        assert_eq!(said.len(), SHOWN + 1, "{said:?}");
        assert!(said[SHOWN].starts_with("2 more files "), "{said:?}");
    }

    #[test]
    fn why_a_certificate_is_kept_is_said_once() {
        let place = Place::new();
        let both = pem(&["a.example", "b.example"], 30);
        place.previous.write("a.example.pem", &both);
        place.previous.write("b.example.pem", &both);
        place.sources.write("ab.pem", without_key(&both));
        let (said, _) = place.tell(&["a.example", "b.example"]);
        assert_eq!(
            said,
            [
                "The certificate of a.example, b.example stays the one that is served until now: /ab.pem: has no key beside it"
            ]
        );
    }

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
