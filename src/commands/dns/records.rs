//! The DNS records that a configuration needs, as data. Nothing here reads anything.

use std::collections::HashMap;
use std::iter;
use std::net::IpAddr;
use std::rc::Rc;

use crate::facts::custom_files::CustomFiles;
use crate::intent::hosts::{ENABLED, Host, Options, ServedHosts};
use crate::intent::modules::AUTOLOADED;
use crate::lua::Value;
use crate::plan::health::{ports, texts};
use crate::settings::types::{HttpUrl, SettingType as _, ascii, parents};
use crate::survey::certificates::Pair;
use crate::survey::certificates::assign::{CertificateOrigin, Served};
use crate::text::several;

/// How long resolvers may keep a record, in seconds.
pub const TTL: u32 = 3600;

/// The priority and the weight in SRV records: no port is better than another.
const PREFERENCE: &str = "0 5";

/// The SRV record of a service that is not available (RFC 2782, "Target"). Others then do not try the default port at the
/// domain's address (RFC 6120, section 3.2.1; XEP-0368, section 5).
const NOT_AVAILABLE: &str = "0 0 0 .";

/// The maximum length of a name in DNS, without the final dot (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// The maximum number of records of one type at a name: BIND refuses more (`max-records-per-type`).
const MOST_TLSA: usize = 100;

/// Modules of the global section that components load too (`core/modulemanager.lua`), as far as they are needed here.
const INHERITED_BY_COMPONENTS: [&str; 1] = ["s2s"];

/// Certificate authorities, by their organisation in certificates, and their names in CAA records.
const AUTHORITIES: &[(&str, &str)] = &[
    ("Let's Encrypt", "letsencrypt.org"),
    ("ZeroSSL", "sectigo.com"),
    ("ZeroSSL GmbH", "sectigo.com"),
    ("Sectigo Limited", "sectigo.com"),
    ("Google Trust Services", "pki.goog"),
    ("Google Trust Services LLC", "pki.goog"),
    ("Buypass AS-983163327", "buypass.com"),
    ("Buypass AS", "buypass.com"),
    ("SSL Corp", "ssl.com"),
    ("SSL Corporation", "ssl.com"),
    ("DigiCert Inc", "digicert.com"),
    ("DigiCert, Inc.", "digicert.com"),
    ("GlobalSign nv-sa", "globalsign.com"),
    ("Actalis S.p.A.", "actalis.it"),
];

/// A service that SRV records announce.
struct Service {
    label: &'static str,
    module: &'static str,
    /// The prefix of its option for ports, `…_ports`.
    option: &'static str,
    default_ports: &'static [u16],
    /// Its usual port, which a proxy in front of it publishes.
    usual_port: u16,
    /// The option for its ports of `mod_net_multiplex`.
    multiplex: &'static str,
    /// Whether others try its default port without an SRV record.
    has_fallback: bool,
}

const SERVICES: [Service; 4] = [
    Service {
        label: "_xmpp-client._tcp",
        module: "c2s",
        option: "c2s",
        default_ports: &[5222],
        usual_port: 5222,
        multiplex: "ports",
        has_fallback: true,
    },
    Service {
        label: "_xmpps-client._tcp",
        module: "c2s",
        option: "c2s_direct_tls",
        default_ports: &[],
        usual_port: 5223,
        multiplex: "ssl_ports",
        has_fallback: false,
    },
    Service {
        label: "_xmpp-server._tcp",
        module: "s2s",
        option: "s2s",
        default_ports: &[5269],
        usual_port: 5269,
        multiplex: "ports",
        has_fallback: true,
    },
    Service {
        label: "_xmpps-server._tcp",
        module: "s2s",
        option: "s2s_direct_tls",
        default_ports: &[],
        usual_port: 5270,
        multiplex: "ssl_ports",
        has_fallback: false,
    },
];

impl Service {
    /// The ports where it is served, in the container. If it is served for a proxy alone, its usual port.
    fn ports(&self, options: &Options, modules: &Modules) -> Vec<u16> {
        let mut ports = ports(options, self.option, self.default_ports);
        if modules.global.contains(&"net_multiplex") {
            let more = texts(options.get(self.multiplex)).into_iter().filter_map(|port| port.parse().ok());
            let more: Vec<u16> = more.filter(|port| !ports.contains(port)).collect();
            ports.extend(more);
        }
        let mappings = options.get("proxy_port_mappings").map(Value::fields).unwrap_or_default();
        if ports.is_empty() && mappings.iter().any(|(_, service)| service.as_str() == Some(self.option)) {
            ports.push(self.usual_port);
        }
        ports
    }
}

/// What the records follow from.
pub struct Configuration<'a> {
    pub hosts: &'a ServedHosts,
    /// The options of the global section.
    pub options: &'a Options,
    /// The name that settings give to all services.
    pub network_hostname: Option<String>,
    /// The certificates of all names.
    pub served: &'a [Served],
    pub custom_files: &'a CustomFiles,
}

/// A record. Names are in ASCII, with the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub kind: &'static str,
    pub data: String,
}

/// The records of a virtual host, and of the names below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The virtual host's name, or a component's below none, in Unicode.
    pub name: String,
    pub records: Vec<Record>,
    /// The names that need addresses, if none is known.
    pub without_addresses: Vec<String>,
    pub host_meta: Vec<HostMeta>,
}

/// The links of a domain's `host-meta` files (XEP-0156), each a relation and a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct HostMeta {
    /// The domain in ASCII.
    pub host: String,
    pub links: Vec<(&'static str, String)>,
}

/// Everything to publish.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// What there is to know about the records.
    pub notes: Vec<String>,
    pub groups: Vec<Group>,
    /// Whether addresses of IPv4 and of IPv6 are among the records.
    pub has_addresses: [bool; 2],
    /// Whether Prosody uses IPv4 and IPv6.
    pub uses: [bool; 2],
}

impl Zone {
    fn add(&mut self, group: usize, name: &str, kind: &'static str, data: impl Into<String>) {
        if name.len() > LONGEST_NAME {
            self.notes
                .push(format!("{name} is too long for a name in DNS: there is no {kind} record for it."));
            return;
        }
        self.groups[group].records.push(Record { name: format!("{name}."), kind, data: data.into() });
    }
}

/// Derives the records. Takes time in proportion to the number of hosts.
pub fn records(from: &Configuration) -> Zone {
    let Configuration { hosts, options, .. } = from;
    let modules = Modules::of(options);
    let services = SERVICES.map(|service| (service.ports(options, &modules), service));
    let certificates = Certificates::of(from.served);
    let mut zone = Zone::default();
    zone.notes.push(
        "The ports are those in the container. If others are published, those belong in the records.".into(),
    );

    let mut names = Names::default();
    let mut tlsa = Tlsa::default();
    let mut local = Vec::new();
    for host in &hosts.virtual_hosts {
        if let Some(name) = ascii(&host.name) {
            names.groups.set(&name, NO_GROUP);
        }
    }
    let all = hosts.virtual_hosts.iter().map(|host| (host, false));
    for (host, is_component) in all.chain(hosts.components.iter().map(|host| (host, true))) {
        let Some(name) = ascii(&host.name) else { continue };
        if name == "localhost" || name.ends_with(".localhost") {
            local.push(&host.name);
            continue;
        }
        let above = names.virtual_host_of(&name).map(str::to_owned);
        let group = names.group_of(above.as_deref(), &mut zone, &host.name);
        let target = from.network_hostname.clone().or(above).unwrap_or_else(|| name.clone());
        for (ports, service) in &services {
            let owner = format!("{}.{name}", service.label);
            if modules.has(host, is_component, service.module) && !ports.is_empty() {
                names.add(&target, group);
                for port in ports {
                    zone.add(group, &owner, "SRV", format!("{PREFERENCE} {port} {target}."));
                    tlsa.add(&target, *port, group, &host.name, certificates.key_of(&host.name));
                }
            } else if service.has_fallback && !(is_component && service.module == "c2s") {
                zone.add(group, &owner, "SRV", NOT_AVAILABLE);
            }
        }
        if modules.has(host, is_component, "proxy65") {
            names.add_named(&option(host, options, "proxy65_address").unwrap_or_else(|| name.clone()), group);
        }
        if modules.has_http(host, is_component) {
            names.add_named(&http_host(host, options).unwrap_or_else(|| name.clone()), group);
        }
        let links = links(host, &name, options, |module| modules.has(host, is_component, module));
        if !links.is_empty() {
            zone.groups[group].host_meta.push(HostMeta { host: name, links });
        }
    }
    if !local.is_empty() {
        zone.notes
            .push(format!("There are no records for {}, which no other machine reaches.", several(local)));
    }
    zone.notes.extend(notes_about_files(from.custom_files));
    names.add_addresses(options, &mut zone);
    tlsa.add_records(&mut zone);
    certificates.add_caa(&names, &mut zone);
    zone
}

/// What is not known because of custom files.
fn notes_about_files(files: &CustomFiles) -> Vec<String> {
    let mut notes = Vec::new();
    if files.define_host() {
        let hosts: Vec<&String> = files.fragments().flat_map(|file| &file.summary.hosts).collect();
        let names = if hosts.is_empty() { String::new() } else { format!(": {}", several(hosts)) };
        notes.push(format!("There are no records for the hosts of custom files{names}."));
    }
    let ports = files.fragments().filter(|file| file.summary.sets_ports);
    let ports: Vec<_> = ports.map(|file| file.path.display()).collect();
    if !ports.is_empty() {
        notes.push(format!("Custom files decide ports, which are not known here: {}.", several(ports)));
    }
    notes
}

/// Numbers by name. All look-ups have this one type, so that their code is in the binary once.
#[derive(Default)]
struct Numbers(HashMap<String, usize>);

impl Numbers {
    #[inline(never)]
    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    /// Sets a number. Returns whether the name is new.
    #[inline(never)]
    fn set(&mut self, name: &str, number: usize) -> bool {
        self.0.insert(name.to_owned(), number).is_none()
    }
}

/// The modules of the global section, with those that Prosody loads without configuration.
struct Modules<'a> {
    global: Vec<&'a str>,
}

impl<'a> Modules<'a> {
    fn of(options: &'a Options) -> Self {
        let is_disabled = |module: &&str| names(options, "modules_disabled").any(|name| name == *module);
        let mut global: Vec<&str> = names(options, ENABLED).chain(AUTOLOADED).collect();
        global.retain(|module| !is_disabled(module));
        Self { global }
    }

    /// Whether a host loads a module (`core/modulemanager.lua`).
    fn has(&self, host: &Host, is_component: bool, module: &str) -> bool {
        let is_in = |option| names(&host.options, option).any(|name| name == module);
        let is_inherited =
            || self.global.contains(&module) && (!is_component || INHERITED_BY_COMPONENTS.contains(&module));
        !is_in("modules_disabled")
            && (is_in(ENABLED) || host.module.as_deref() == Some(module) || is_inherited())
    }

    /// Whether a host serves HTTP, by the names of its modules.
    fn has_http(&self, host: &Host, is_component: bool) -> bool {
        let own = names(&host.options, ENABLED).chain(host.module.as_deref());
        own.chain(self.global.iter().copied())
            .any(|module| serves_http(module) && self.has(host, is_component, module))
    }
}

/// Whether a module serves HTTP (`util/prosodyctl/check.lua`).
fn serves_http(module: &str) -> bool {
    ["bosh", "websocket", "http"].contains(&module) || module.starts_with("http_") || module.ends_with("_web")
}

/// The names in an option of modules.
fn names<'a>(options: &'a Options, option: &str) -> impl Iterator<Item = &'a str> {
    options.get(option).map(Value::items).unwrap_or_default().iter().filter_map(Value::as_str)
}

/// The text of a host's option, or of the global one. Use it only for options that are never secret: those of a host are
/// kept like secrets.
fn option(host: &Host, options: &Options, name: &str) -> Option<String> {
    match host.options.get(name).or_else(|| options.get(name))? {
        Value::Secret(secret) => Some(secret.expose().to_owned()),
        value => value.as_str().map(str::to_owned),
    }
}

fn external_url(host: &Host, options: &Options) -> Option<HttpUrl> {
    HttpUrl::parse(&option(host, options, "http_external_url")?).ok()
}

/// The name under which HTTP services are reached, unless it is the host's own.
fn http_host(host: &Host, options: &Options) -> Option<String> {
    external_url(host, options).map(|url| url.host).or_else(|| option(host, options, "http_host"))
}

/// The links to BOSH and WebSocket, as Prosody makes them (`mod_http`).
fn links(
    host: &Host,
    name: &str,
    options: &Options,
    has: impl Fn(&str) -> bool,
) -> Vec<(&'static str, String)> {
    let services = [
        ("urn:xmpp:alt-connections:xbosh", "bosh", "/http-bind"),
        ("urn:xmpp:alt-connections:websocket", "websocket", "/xmpp-websocket"),
    ];
    let services = services.into_iter().filter(|(_, module, _)| has(module));
    let base = match external_url(host, options) {
        Some(url) => Some(url.text.trim_end_matches('/').to_owned()),
        None => {
            let first = |service, default: &[u16]| ports(options, service, default).first().copied();
            let http_host = option(host, options, "http_host").and_then(|name| ascii(&name));
            let http_host = http_host.unwrap_or_else(|| name.to_owned());
            let base = |scheme, port, usual| match port == usual {
                true => format!("{scheme}://{http_host}"),
                false => format!("{scheme}://{http_host}:{port}"),
            };
            let encrypted = first("https", &[5281]).map(|port| base("https", port, 443));
            encrypted.or_else(|| first("http", &[5280]).map(|port| base("http", port, 80)))
        }
    };
    let Some(base) = base else { return Vec::new() };
    let link = |(relation, module, default_path): (&'static str, &str, &str)| {
        let paths = [host.options.get("http_paths"), options.get("http_paths")];
        let path = paths.into_iter().flatten().find_map(|paths| match paths.get(module)? {
            Value::Secret(secret) => Some(secret.expose()),
            path => path.as_str(),
        });
        let path = path.unwrap_or(default_path).replace("$host", &host.name);
        let url = format!("{base}/{}", path.trim_start_matches('/').trim_end_matches('/'));
        match url.strip_prefix("http").filter(|_| module == "websocket") {
            Some(rest) => (relation, format!("ws{rest}")),
            None => (relation, url),
        }
    };
    services.map(link).collect()
}

/// The names that need addresses, each once, and the groups.
#[derive(Default)]
struct Names {
    with_addresses: Vec<String>,
    /// For each of these names, the group that needs it.
    needed_by: Numbers,
    /// The virtual hosts, each with its group.
    groups: Numbers,
}

/// The number of a group that is not made yet.
const NO_GROUP: usize = usize::MAX;

impl Names {
    /// The virtual host that a name is, or is below.
    fn virtual_host_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        iter::once(name).chain(parents(name)).find(|name| self.groups.get(name).is_some())
    }

    /// The group of a virtual host, or a new one for a component below none.
    fn group_of(&mut self, virtual_host: Option<&str>, zone: &mut Zone, name: &str) -> usize {
        if let Some(group) =
            virtual_host.and_then(|host| self.groups.get(host)).filter(|group| *group != NO_GROUP)
        {
            return group;
        }
        let new = zone.groups.len();
        zone.groups.push(Group { name: name.to_owned(), ..Group::default() });
        if let Some(virtual_host) = virtual_host {
            self.groups.set(virtual_host, new);
        }
        new
    }

    /// Adds a name in ASCII.
    fn add(&mut self, name: &str, group: usize) {
        if self.needed_by.get(name).is_none() {
            self.needed_by.set(name, group);
            self.with_addresses.push(name.to_owned());
        }
    }

    /// Adds a name from an option, which may be an address instead.
    fn add_named(&mut self, name: &str, group: usize) {
        if let Some(name) = ascii(name) {
            self.add(&name, group);
        }
    }

    fn add_addresses(&self, options: &Options, zone: &mut Zone) {
        zone.uses = ["use_ipv4", "use_ipv6"].map(|name| options.get(name) != Some(&Value::Boolean(false)));
        let given = texts(options.get("external_addresses"));
        let given: Vec<IpAddr> = given.iter().filter_map(|address| address.parse().ok()).collect();
        let used = |address: &&IpAddr| zone.uses[usize::from(address.is_ipv6())];
        let addresses: Vec<&IpAddr> = given.iter().filter(used).collect();
        if addresses.len() < given.len() {
            zone.notes.push(
                "Addresses of a family that is off (`use_ipv4`, `use_ipv6`) have no records.".to_owned(),
            );
        }
        if addresses.is_empty() && !self.with_addresses.is_empty() {
            zone.notes.push(
                "There are no A and AAAA records: PROSODY_EXTERNAL_ADDRESSES does not say which addresses the network sees."
                    .to_owned(),
            );
        }
        for name in &self.with_addresses {
            let Some(group) = self.needed_by.get(name) else { continue };
            for address in &addresses {
                zone.add(group, name, if address.is_ipv6() { "AAAA" } else { "A" }, address.to_string());
            }
            if addresses.is_empty() {
                zone.groups[group].without_addresses.push(name.clone());
            }
        }
        zone.has_addresses =
            [false, true].map(|is_ipv6| addresses.iter().any(|address| address.is_ipv6() == is_ipv6));
    }
}

/// What is known of the key that a host is served with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key<'a> {
    /// The digest of the key.
    Known(&'a str),
    /// The certificate is self-signed, and made again with another key.
    SelfSigned,
    /// Options name the certificate, which is not read.
    NotRead,
    /// There is none.
    None,
}

/// The certificates of hosts, each read once.
struct Certificates<'a> {
    served: &'a [Served],
    /// The hosts, with their places in `served`.
    by_host: Numbers,
    /// The fingerprints, with their places in `read`.
    by_fingerprint: Numbers,
    /// The digest of the key and the issuer's organisation.
    read: Vec<(String, Option<String>)>,
}

/// The certificate that is found elsewhere, and not made here.
fn pair(origin: &CertificateOrigin) -> Option<&Rc<Pair>> {
    match origin {
        CertificateOrigin::Found(pair)
        | CertificateOrigin::Kept(pair)
        | CertificateOrigin::OfParent(_, pair) => Some(pair),
        _ => None,
    }
}

impl<'a> Certificates<'a> {
    fn of(served: &'a [Served]) -> Self {
        let (by_host, by_fingerprint) = (Numbers::default(), Numbers::default());
        let mut all = Self { served, by_host, by_fingerprint, read: Vec::new() };
        for (number, served) in served.iter().enumerate() {
            if served.is_host {
                all.by_host.set(&served.name, number);
            }
            let Some(pair) = pair(&served.origin) else { continue };
            if all.by_fingerprint.get(&pair.fingerprint).is_some() {
                continue;
            }
            if let Some(leaf) = pair.leaf() {
                all.by_fingerprint.set(&pair.fingerprint, all.read.len());
                all.read.push((leaf.key_digest(), leaf.issuer_organisation()));
            }
        }
        all
    }

    fn read_of(&self, origin: &CertificateOrigin) -> Option<&(String, Option<String>)> {
        Some(&self.read[self.by_fingerprint.get(&pair(origin)?.fingerprint)?])
    }

    fn key_of(&self, host: &str) -> Key<'_> {
        match self.by_host.get(host).map(|number| &self.served[number].origin) {
            Some(CertificateOrigin::SelfSigned(_)) => Key::SelfSigned,
            Some(CertificateOrigin::FromOptions) => Key::NotRead,
            None | Some(CertificateOrigin::Unreadable(_) | CertificateOrigin::None) => Key::None,
            Some(origin) => match self.read_of(origin) {
                Some((key, _)) => Key::Known(key),
                None => Key::NotRead,
            },
        }
    }

    /// Adds the CAA records of hosts and of names with addresses. A record holds for the names below too, so it is not
    /// repeated there (RFC 8659, section 3).
    fn add_caa(&self, names: &Names, zone: &mut Zone) {
        let mut owners = Vec::new();
        let mut authorities = Numbers::default();
        for served in self.served {
            let issuer = self.read_of(&served.origin).and_then(|(_, issuer)| issuer.as_deref());
            let known = AUTHORITIES.iter().position(|(name, _)| issuer == Some(*name));
            let (Some(authority), Some(name)) = (known, ascii(&served.name)) else { continue };
            let of_host = || names.groups.get(names.virtual_host_of(&name)?).filter(|_| served.is_host);
            let group = names.needed_by.get(&name).or_else(of_host).filter(|group| *group != NO_GROUP);
            let Some(group) = group else { continue };
            if authorities.set(&name, authority) {
                owners.push((name, group));
            }
        }
        if !owners.is_empty() {
            zone.notes.push(
                "CAA (RFC 8659): only the named authority may issue certificates for that name and those below, for other \
                 services too."
                    .to_owned(),
            );
        }
        let domain = |name: &str| authorities.get(name).map(|number| AUTHORITIES[number].1);
        for (name, group) in owners {
            let authority = domain(&name);
            if parents(&name).find_map(domain) != authority {
                zone.add(group, &name, "CAA", format!("0 issue \"{}\"", authority.unwrap_or_default()));
            }
        }
    }
}

/// The keys that are served under each name and port.
#[derive(Default)]
struct Tlsa {
    places: Vec<TlsaPlace>,
    by_owner: Numbers,
    /// The owners, each with one of its keys.
    keys: Numbers,
    self_signed: Vec<String>,
    not_read: Vec<String>,
    without: Vec<String>,
    hosts: Numbers,
}

struct TlsaPlace {
    owner: String,
    group: usize,
    keys: Vec<String>,
    /// Whether a key is not known. Clients would refuse it if there were records for others.
    has_unknown: bool,
}

impl Tlsa {
    fn add(&mut self, target: &str, port: u16, group: usize, host: &str, key: Key) {
        let owner = format!("_{port}._tcp.{target}");
        let place = self.by_owner.get(&owner).unwrap_or(self.places.len());
        if self.by_owner.set(&owner, place) {
            let owner = owner.clone();
            self.places.push(TlsaPlace { owner, group, keys: Vec::new(), has_unknown: false });
        }
        let place = &mut self.places[place];
        let list = match key {
            Key::Known(key) => {
                if self.keys.set(&format!("{owner} {key}"), 0) {
                    place.keys.push(key.to_owned());
                }
                return;
            }
            Key::NotRead => {
                place.has_unknown = true;
                &mut self.not_read
            }
            Key::SelfSigned => &mut self.self_signed,
            Key::None => &mut self.without,
        };
        if self.hosts.set(host, 0) {
            list.push(host.to_owned());
        }
    }

    fn add_records(self, zone: &mut Zone) {
        let mut is_first = true;
        for place in self.places {
            if place.keys.len() > MOST_TLSA {
                zone.notes.push(format!(
                    "{} has no TLSA records: {} certificates are served there, too many for one name.",
                    place.owner,
                    place.keys.len()
                ));
            } else if !place.has_unknown {
                if is_first && !place.keys.is_empty() {
                    zone.notes.push(format!(
                        "TLSA (RFC 7671): the records work in a zone signed with DNSSEC, and only for the key that they \
                         name. A renewed certificate with a new key needs its record {TTL} seconds before it is served, \
                         beside the old one."
                    ));
                    is_first = false;
                }
                for key in place.keys {
                    zone.add(place.group, &place.owner, "TLSA", format!("3 1 1 {key}"));
                }
            }
        }
        for (hosts, why) in [
            (self.self_signed, "the self-signed certificates are made here, with a new key each time"),
            (self.not_read, "options name the certificates, which are not read"),
            (self.without, "there is no certificate"),
        ] {
            if !hosts.is_empty() {
                zone.notes.push(format!("No TLSA records for {}: {why}.", several(hosts)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
