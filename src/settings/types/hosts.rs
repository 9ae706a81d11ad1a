//! Hosts, components, accounts and external services. Each list has a short form in plain text and a full form in JSON.

use super::domains::{BareOrDomain, Domain, Jid};
use super::json::Json;
use super::lists::{Set, is_none, may_be_array, pieces, read_elements};
use super::names::{Name, texts};
use super::options::{CustomOptions, global_only, unknown_member};
use super::{Lua, SettingType, alternatives, shown};
use crate::lua::{Secret, Value};
use crate::text::Advice;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// A parser for lists. An entry is a string in plain text, or a string, an object or an array in JSON.
struct Entries {
    /// The expected form of an entry, for messages.
    expected: &'static str,
    /// Whether messages must not contain any part of the value.
    hidden: bool,
}

impl Entries {
    /// Parses every entry with `read`. Its errors are only reasons.
    fn read<T>(&self, text: &str, read: impl Fn(Json) -> Result<T, Vec<String>>) -> Result<Vec<T>, String> {
        if is_none(text) {
            return Ok(Vec::new());
        }
        let elements: Vec<Json> = if may_be_json(text) {
            Json::array(text).map_err(|syntax| format!("expected a JSON array: {syntax}"))?
        } else {
            pieces(text).map(|piece| Json::Text(piece.to_owned())).collect()
        };
        if elements.is_empty() && !may_be_json(text) {
            return Err(format!("expected {}; `none` is an empty list", self.expected));
        }
        let mut values = Vec::with_capacity(elements.len());
        let mut errors = Vec::new();
        for (index, element) in elements.into_iter().enumerate() {
            // `read` consumes the element, and a message may need its name.
            let named = match &element {
                Json::Text(text) if !self.hidden => Some(text.clone()),
                Json::Object(members) if !self.hidden => {
                    members.iter().find_map(|(name, member)| match member {
                        Json::Text(host) if name == "host" => Some(host.clone()),
                        _ => None,
                    })
                }
                _ => None,
            };
            match read(element) {
                Ok(value) => values.push(value),
                Err(reasons) => errors.push(format!(
                    "{}: {}",
                    named.map_or_else(|| format!("entry {}", index + 1), |text| shown(&text)),
                    reasons.join("; ")
                )),
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(join_first(errors)) }
    }

    /// The error for an entry of another JSON type.
    fn wrong_type<T>(&self, entry: &Json) -> Result<T, Vec<String>> {
        Err(vec![format!("expected {}, not {}", self.expected, entry.type_name())])
    }
}

/// Whether the text is meant as JSON: no domain or JID begins with a bracket. Invalid JSON must not be parsed as plain
/// text, because an error could then show a secret.
fn may_be_json(text: &str) -> bool {
    may_be_array(text) || text.trim_start().starts_with('{')
}

/// Removes entries that repeat an earlier one. Two different entries with the same key are an error.
fn unique<T: PartialEq, K: Eq + Hash>(entries: Vec<T>, key: impl Fn(&T) -> K) -> Result<Vec<T>, String> {
    let mut places: HashMap<K, usize> = HashMap::with_capacity(entries.len());
    let mut kept: Vec<T> = Vec::with_capacity(entries.len());
    let mut errors = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        match places.entry(key(&entry)) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry);
            }
            Entry::Occupied(place) if kept[*place.get()] == entry => {}
            Entry::Occupied(_) => errors
                .push(format!("entry {} names what an earlier entry names, and differs from it", index + 1)),
        }
    }
    if errors.is_empty() { Ok(kept) } else { Err(join_first(errors)) }
}

/// Joins the first errors of a list. A list may have ten thousand entries, all with the same error.
fn join_first(mut errors: Vec<String>) -> String {
    const SHOWN: usize = 20;
    if errors.len() > SHOWN {
        let more = errors.len() - SHOWN;
        errors.truncate(SHOWN);
        errors.push(format!("and {more} entries more"));
    }
    errors.join("; ")
}

/// A JSON object during parsing. It collects its errors.
struct Object {
    members: Vec<(String, Json)>,
    hidden: bool,
    errors: Vec<String>,
}

impl Object {
    fn new(members: Vec<(String, Json)>, known: &[&'static str], hidden: bool) -> Object {
        let error = |name: &str| match hidden {
            true => format!("it has a member other than {}", alternatives(known)),
            false => unknown_member(name, known),
        };
        let unknown = members.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let errors = unknown.map(|(name, _)| error(name)).collect();
        Object { members, hidden, errors }
    }

    /// Takes a member, if it is present and not `null`.
    fn take(&mut self, name: &str) -> Option<Json> {
        let place = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.swap_remove(place).1).filter(|member| *member != Json::Null)
    }

    fn optional<T: SettingType>(&mut self, name: &str) -> Option<T> {
        let reason = match self.take(name)? {
            Json::Text(text) if text.is_empty() => "expected a string that is not empty".to_owned(),
            Json::Text(text) => match T::parse(&text) {
                Ok(value) => return Some(value),
                Err(_) if self.hidden => format!("expected a {}", T::type_name()),
                Err(reason) => reason,
            },
            other => format!("expected a string, not {}", other.type_name()),
        };
        self.errors.push(format!("`{name}`: {reason}"));
        None
    }

    /// Takes a string. An absent one is an error.
    fn required<T: SettingType>(&mut self, name: &str) -> Option<T> {
        let errors_before = self.errors.len();
        let value = self.optional(name);
        if value.is_none() && self.errors.len() == errors_before {
            self.errors.push(format!("`{name}` is missing"));
        }
        value
    }

    /// Takes a number from 0, if it is there.
    fn number(&mut self, name: &str) -> Option<u32> {
        let number = match self.take(name)? {
            Json::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.errors.push(format!("`{name}`: expected a whole number from 0"));
        }
        number
    }

    /// Takes a boolean. An absent one is false.
    fn flag(&mut self, name: &str) -> bool {
        match self.take(name) {
            None => false,
            Some(Json::Boolean(flag)) => flag,
            Some(other) => {
                self.errors.push(format!("`{name}`: expected true or false, not {}", other.type_name()));
                false
            }
        }
    }

    /// Takes an array of strings. An absent one is empty.
    fn set<T: SettingType + Eq + Hash>(&mut self, name: &str) -> Set<T> {
        let reason = match self.take(name) {
            None => return Set::default(),
            Some(Json::Array(elements)) => match read_elements(elements) {
                Ok(values) => return values.into_iter().collect(),
                Err(_) if self.hidden => format!("expected a list of {}", T::plural()),
                Err(reason) => reason,
            },
            Some(other) => format!("expected an array, not {}", other.type_name()),
        };
        self.errors.push(format!("`{name}`: {reason}"));
        Set::default()
    }

    /// Takes the member `options`. An option with a member of its own, in `members`, is an error.
    fn options(&mut self, members: &[&str]) -> CustomOptions {
        let read = match self.take("options") {
            None => return CustomOptions::default(),
            Some(Json::Object(options)) => CustomOptions::from_members(options, |name| {
                if members.contains(&name) {
                    return Some("it is a member beside `options`, not in it".into());
                }
                global_only(name)
            }),
            Some(other) => Err(vec![format!("`options`: expected an object, not {}", other.type_name())]),
        };
        read.unwrap_or_else(|errors| {
            let hidden = || vec!["`options`: expected Prosody's options of a host".to_owned()];
            self.errors.extend(if self.hidden { hidden() } else { errors });
            CustomOptions::default()
        })
    }

    /// Takes the members of a host's section, `members` and `options`.
    fn section(&mut self, members: &[&str]) -> HostSection {
        HostSection {
            admins: self.set("admins"),
            modules_enabled: self.set("modules_enabled"),
            modules_disabled: self.set("modules_disabled"),
            options: self.options(members),
        }
    }

    /// The parsed value, or all errors.
    fn finish<T>(self, read: Option<T>) -> Result<T, Vec<String>> {
        match read {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(self.errors),
        }
    }
}

/// What a host's section has besides its name and its module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSection {
    /// Admins of this host, in addition to those of the whole server.
    pub admins: Set<BareOrDomain>,
    /// Modules for this host, in addition to those of the whole server.
    pub modules_enabled: Set<Name>,
    /// Modules of the whole server that are disabled for this host.
    pub modules_disabled: Set<Name>,
    pub options: CustomOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    pub host: Domain,
    pub section: HostSection,
    /// The shard that always serves it.
    pub shard: Option<u32>,
}

impl From<Domain> for VirtualHost {
    fn from(host: Domain) -> VirtualHost {
        VirtualHost { host, section: HostSection::default(), shard: None }
    }
}

/// `PROSODY_VIRTUAL_HOSTS`: domains, or JSON objects with `host`, `admins`, `modules_enabled`,
/// `modules_disabled`, `options` and `shard`. Host names are unique.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHosts(pub Vec<VirtualHost>);

impl SettingType for VirtualHosts {
    const NAME: &'static str = "list of domains, or JSON";
    const EXAMPLE: &'static str = "chat.example";

    fn parse(text: &str) -> Result<Self, String> {
        if !may_be_json(text) {
            let domains = Set::<Domain>::parse(text)?;
            return Ok(VirtualHosts(domains.into_iter().map(VirtualHost::from).collect()));
        }
        const MEMBERS: [&str; 6] =
            ["host", "admins", "modules_enabled", "modules_disabled", "options", "shard"];
        let entries = Entries {
            expected: "a domain, such as `\"chat.example\"`, or an object, such as `{\"host\": \"chat.example\"}`",
            hidden: false,
        };
        let hosts = entries.read(text, |entry| match entry {
            Json::Text(text) => Domain::parse(&text).map(VirtualHost::from).map_err(|reason| vec![reason]),
            Json::Object(members) => {
                let mut object = Object::new(members, &MEMBERS, false);
                let (host, section) = (object.required("host"), object.section(&MEMBERS[1..4]));
                let shard = object.number("shard");
                object.finish(host.map(|host| VirtualHost { host, section, shard }))
            }
            other => entries.wrong_type(&other),
        })?;
        unique(hosts, |host| host.host.clone()).map(VirtualHosts)
    }

    fn hides(text: &str) -> bool {
        may_be_json(text)
    }
}

/// One internal component.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    pub host: Domain,
    /// The module that implements the component: `muc`, `http_file_share`, `proxy65`, …
    pub module: Name,
    /// Whether it adds to the components of `PROSODY_DOMAIN` and does not replace them.
    pub adds: bool,
    pub section: HostSection,
}

/// `PROSODY_COMPONENTS`: `host:module` or `+host:module`, or JSON objects with `host`, `module`, `add`, `admins`,
/// `modules_enabled` and `options`. Host names are unique.
#[derive(Clone, Debug, PartialEq)]
pub struct Components(pub Vec<Component>);

impl Components {
    /// Whether the list replaces the components of `PROSODY_DOMAIN`: it does unless every entry adds to them.
    pub fn replaces_those_of_domain(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|component| !component.adds)
    }
}

impl SettingType for Components {
    const NAME: &'static str = "list of `host:module`, or JSON";
    const EXAMPLE: &'static str = "conference.chat.example:muc";

    fn parse(text: &str) -> Result<Self, String> {
        const MEMBERS: [&str; 6] = ["host", "module", "add", "admins", "modules_enabled", "options"];
        let entries =
            Entries { expected: "`host:module`, such as `conference.chat.example:muc`", hidden: false };
        let components = entries.read(text, |entry| match entry {
            Json::Text(text) => {
                let added = text.strip_prefix('+');
                let Some((host, module)) = added.unwrap_or(&text).split_once(':') else {
                    return Err(vec![format!("expected {}", entries.expected)]);
                };
                match (Domain::parse(host), Name::parse(module)) {
                    (Ok(host), Ok(module)) => {
                        Ok(Component { host, module, adds: added.is_some(), section: HostSection::default() })
                    }
                    (host, module) => Err(host.err().into_iter().chain(module.err()).collect()),
                }
            }
            Json::Object(members) => {
                let mut object = Object::new(members, &MEMBERS, false);
                let (host, module) = (object.required("host"), object.required("module"));
                let (adds, section) = (object.flag("add"), object.section(&["modules_enabled"]));
                object.finish(host.zip(module).map(|(host, module)| Component {
                    host,
                    module,
                    adds,
                    section,
                }))
            }
            other => entries.wrong_type(&other),
        })?;
        unique(components, |component| component.host.clone()).map(Components)
    }

    fn hides(text: &str) -> bool {
        may_be_json(text)
    }
}

/// One external component (XEP-0114).
#[derive(Debug, PartialEq)]
pub struct ExternalComponent {
    pub host: Domain,
    /// The secret it authenticates with. `None` means `PROSODY_COMPONENT_SECRET`.
    pub secret: Option<Secret>,
    pub section: HostSection,
}

/// `PROSODY_EXTERNAL_COMPONENTS`: `host` or `host:secret`, or JSON objects with `host`, `secret`, `modules_enabled` and
/// `options`. Host names are unique. No message contains any part of the value.
#[derive(Debug)]
pub struct ExternalComponents(pub Vec<ExternalComponent>);

/// The advice for an entry that does not parse as plain text.
fn json_advice(example: &str) -> Advice {
    advice!("write the list as JSON where a secret holds a comma or a space: `{example}`")
}

impl SettingType for ExternalComponents {
    const NAME: &'static str = "list of `host` or `host:secret`, or JSON";
    const EXAMPLE: &'static str = "irc.chat.example:secret";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        const MEMBERS: [&str; 4] = ["host", "secret", "modules_enabled", "options"];
        let entries = Entries { expected: "`host` or `host:secret`", hidden: true };
        let wrong_entry = || {
            let advice = json_advice(r#"[{"host": "irc.chat.example", "secret": "…"}]"#);
            Err(vec![format!("expected {}; {advice}", entries.expected)])
        };
        // In a list with secrets, a single label may be the end of a secret with a comma. In a list without secrets,
        // it is a host such as `localhost`.
        let has_secrets = text.contains(':');
        let components = entries.read(text, |entry| match entry {
            Json::Text(text) => {
                let (host, secret) = match text.split_once(':') {
                    Some((host, secret)) => (host, Some(secret)),
                    None if has_secrets && !text.contains('.') => return wrong_entry(),
                    None => (text.as_str(), None),
                };
                match Domain::parse(host) {
                    Ok(host) if secret != Some("") => Ok(ExternalComponent {
                        host,
                        secret: secret.map(|secret| Secret::new(secret.to_owned())),
                        section: HostSection::default(),
                    }),
                    _ => wrong_entry(),
                }
            }
            Json::Object(members) => {
                let mut object = Object::new(members, &MEMBERS, true);
                let (host, secret) = (object.required("host"), object.optional("secret"));
                let section = object.section(&MEMBERS[2..3]);
                object.finish(host.map(|host| ExternalComponent { host, secret, section }))
            }
            other => entries.wrong_type(&other),
        })?;
        unique(components, |component| component.host.clone()).map(ExternalComponents)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub jid: Jid,
    pub password: Password,
    /// The role on its host (Prosody 13.0). `None` means the server's default role.
    pub role: Option<Role>,
    /// Whether to add the account to the `admins` of its host.
    pub is_admin: bool,
}

/// The longest password that Prosody accepts at a login, in bytes (`util-src/encodings.c`).
const MAX_PASSWORD_BYTES: usize = 1023;

/// A password that clients can log in with: SASLprep (RFC 4013) allows all its characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Password(pub Secret);

impl SettingType for Password {
    const NAME: &'static str = "password of at most 1023 bytes without control characters";
    const EXAMPLE: &'static str = "password";

    fn parse(text: &str) -> Result<Self, String> {
        let is_assigned = |c: &char| !stringprep::tables::unassigned_code_point(*c);
        // SASLprep calls all characters since Unicode 3.2 unassigned, but clients can use them.
        let known: String = text.chars().filter(is_assigned).collect();
        match stringprep::saslprep(&known) {
            Ok(prepared)
                if (!prepared.is_empty() || known.len() < text.len())
                    && prepared.len().max(text.len()) <= MAX_PASSWORD_BYTES =>
            {
                Ok(Self(Secret::new(text.to_owned())))
            }
            _ => Err(format!("expected a {}", Self::type_name())),
        }
    }
}

texts! {
    /// The name of a role in Prosody 13.0: `prosody:member`, `prosody:admin` or a custom role.
    Role("role's name, such as `prosody:admin`", "names of roles", "prosody:admin") = |text| {
        match text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            true => Err(format!("expected a {}", Role::type_name())),
            false => Ok(text.to_owned()),
        }
    };
}

/// `PROSODY_ACCOUNTS`: `jid:password`, or JSON objects with `jid`, `password`, `role` and `admin`. JIDs are unique. No
/// message contains any part of the value.
#[derive(Clone, Debug)]
pub struct Accounts(pub Vec<Account>);

impl SettingType for Accounts {
    const NAME: &'static str = "list of `jid:password`, or JSON";
    const EXAMPLE: &'static str = "alice@chat.example:password";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let entries = Entries { expected: "`jid:password`", hidden: true };
        let accounts = entries.read(text, |entry| match entry {
            Json::Text(text) => {
                account(&text).map_err(|why| vec![format!("expected {}, but {why}", entries.expected)])
            }
            Json::Object(members) => {
                let mut object = Object::new(members, &["jid", "password", "role", "admin"], true);
                let (jid, password) = (object.required("jid"), object.required("password"));
                let (role, is_admin) = (object.optional("role"), object.flag("admin"));
                let account = jid.zip(password);
                object.finish(account.map(|(jid, password)| Account { jid, password, role, is_admin }))
            }
            other => entries.wrong_type(&other),
        });
        let accounts = accounts.map_err(|error| match may_be_json(text) {
            true => error,
            false => {
                let advice = json_advice(r#"[{"jid": "alice@chat.example", "password": "…"}]"#);
                format!("{error}; {advice}")
            }
        })?;
        unique(accounts, |account| account.jid.clone()).map(Accounts)
    }
}

/// Parses `jid:password`. The error contains no part of the value.
fn account(text: &str) -> Result<Account, &'static str> {
    let (jid, password) = text.split_once(':').ok_or("there is no `:`")?;
    let jid = Jid::parse(jid).map_err(|_| match jid.contains('@') {
        true => "what is before the first `:` is no JID",
        false => "what is before the first `:` has no `@`",
    })?;
    if password.is_empty() {
        return Err("the password is empty");
    }
    let password = Password::parse(password)
        .map_err(|_| "the password is longer than 1023 bytes, or has a control character in it")?;
    Ok(Account { jid, password, role: None, is_admin: false })
}

/// An external service for service discovery (XEP-0030).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoItem {
    pub host: Domain,
    /// The name that clients show.
    pub name: Option<String>,
}

/// `PROSODY_DISCO_ITEMS`: domains, or JSON pairs of a domain and a name. Domains are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoItems(pub Vec<DiscoItem>);

impl SettingType for DiscoItems {
    const NAME: &'static str = "list of domains, or JSON pairs";
    const EXAMPLE: &'static str = "rooms.example";

    fn parse(text: &str) -> Result<Self, String> {
        let entries = Entries {
            expected: "a domain, or a pair, such as `[\"rooms.example\", \"Rooms\"]`",
            hidden: false,
        };
        let domain = |text: &str| Domain::parse(text).map_err(|reason| vec![reason]);
        let items = entries.read(text, |entry| match &entry {
            Json::Text(host) => Ok(DiscoItem { host: domain(host)?, name: None }),
            Json::Array(pair) => match pair.as_slice() {
                [Json::Text(host)] => Ok(DiscoItem { host: domain(host)?, name: None }),
                [Json::Text(host), Json::Text(name)] => {
                    Ok(DiscoItem { host: domain(host)?, name: Some(name.clone()) })
                }
                _ => Err(vec![format!("expected {}", entries.expected)]),
            },
            other => entries.wrong_type(other),
        })?;
        unique(items, |item| item.host.clone()).map(DiscoItems)
    }
}

impl Lua for DiscoItems {
    fn lua(&self) -> Value {
        let pair = |item: &DiscoItem| {
            let name = item.name.iter().map(|name| Value::from(name.as_str()));
            std::iter::once(item.host.lua()).chain(name).collect::<Value>()
        };
        self.0.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn error<T: SettingType>(text: &str) -> String {
        match T::parse(text) {
            Ok(_) => panic!("{text} was accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn virtual_hosts_are_domains_or_objects() {
        let hosts = VirtualHosts::parse("A.example, b.example a.example").unwrap().0;
        let names: Vec<&str> = hosts.iter().map(|host| host.host.as_str()).collect();
        assert_eq!(names, ["a.example", "b.example"]);

        let hosts = VirtualHosts::parse(
            r#"["a.example", {"host": "b.example", "admins": ["Root@b.example", "c.example"],
                "modules_enabled": ["mod_mam", "MAM"], "modules_disabled": ["pep"],
                "options": {"c2s_require_encryption": true, "gone": null}}, "A.example"]"#,
        )
        .unwrap()
        .0;
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[0], VirtualHost::from(Domain::parse("a.example").unwrap()));
        assert_eq!(line(&hosts[1].section.admins.lua()), r#"["root@b.example","c.example"]"#);
        assert_eq!(line(&hosts[1].section.modules_enabled.lua()), r#"["mam"]"#);
        assert_eq!(line(&hosts[1].section.modules_disabled.lua()), r#"["pep"]"#);
        assert_eq!(hosts[1].section.options.get("gone"), Some(None));
        assert!(VirtualHosts::parse("none").unwrap().0.is_empty());
        assert!(VirtualHosts::parse("[]").unwrap().0.is_empty());
    }

    #[test]
    fn every_error_in_a_virtual_host_is_reported() {
        let error = error::<VirtualHosts>(
            r#"[{"host": "a.example", "modules_enable": [], "admins": ["x y"], "modules_enabled": "mam",
                 "options": {"s2s_timeout": "S3CRET", "end": "S3CRET", "admins": "S3CRET", "a": ["S3CRET", null]}},
                {"admins": []}, {"host": 1}, {"host": "b c"}, 5, "d/e", {"host": "f.example", "options": []}]"#,
        );
        for part in [
            r#""a.example": unknown member "modules_enable"; did you mean `modules_enabled`?"#,
            r#"`admins`: "x y": expected a JID"#,
            "`modules_enabled`: expected an array, not a string",
            r#"the option "s2s_timeout": Prosody takes it only globally"#,
            r#"the option "end": not a Lua identifier"#,
            r#"the option "admins": it is a member beside `options`"#,
            r#"the option "a": `null`"#,
            "entry 2: `host` is missing",
            "entry 3: `host`: expected a string, not a number",
            r#""b c": `host`: expected a domain"#,
            "entry 5: expected a domain",
            r#""d/e": expected a domain"#,
            r#""f.example": `options`: expected an object, not an array"#,
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!error.contains("S3CRET"), "{error}");
    }

    #[test]
    fn invalid_json_is_never_parsed_as_plain_text() {
        for text in [
            r#"[{"host": "a.example", "options": {"x": "S3CRET S3CRET"}}"#,
            r#"{"host": "a.example", "options": {"x": "S3CRET S3CRET"}}"#,
        ] {
            for error in [error::<VirtualHosts>(text), error::<Components>(text)] {
                assert!(error.starts_with("expected a JSON array: "), "{error}");
                assert!(!error.contains("S3CRET"), "{error}");
            }
            assert!(VirtualHosts::hides(text) && Components::hides(text));
        }
        assert!(!VirtualHosts::hides("a.example") && !Components::hides("a.example:muc"));
    }

    #[test]
    fn names_in_a_list_are_unique() {
        let text = r#"["a.example", {"host": "a.example", "modules_enabled": ["mam"]}]"#;
        assert!(error::<VirtualHosts>(text).contains("entry 2 names what an earlier entry"));
        assert!(error::<Components>("a.example:muc a.example:pubsub").contains("entry 2"));
        assert_eq!(Components::parse("a.example:muc,A.example:MUC").unwrap().0.len(), 1);
        assert!(error::<Accounts>("a@b.example:x A@b.example:y").contains("entry 2"));
        assert!(error::<ExternalComponents>("a.example:x a.example").contains("entry 2"));
    }

    #[test]
    fn components_have_a_module() {
        let components = Components::parse(
            r#"["rooms.example:mod_muc", {"host": "upload.example", "module": "http_file_share",
                "modules_enabled": ["x"], "options": {"admins": ["a@b.example"]}}]"#,
        )
        .unwrap()
        .0;
        assert_eq!(components[0].module.as_str(), "muc");
        assert_eq!(components[1].module.as_str(), "http_file_share");
        assert!(components[1].section.options.get("admins").is_some());
        assert!(error::<Components>("rooms.example").contains("expected `host:module`"));
        let both = error::<Components>("a/b:c-d");
        assert!(both.contains("domain") && both.contains("name"), "{both}");
        assert!(error::<Components>(r#"[{"host": "a.example"}]"#).contains("`module` is missing"));
        assert!(error::<Components>(",").contains("`none` is an empty list"));
    }

    fn external(text: &str) -> Vec<(String, String)> {
        let components = ExternalComponents::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let secret = |secret: &Option<Secret>| {
            secret.as_ref().map_or("-".to_owned(), |secret| secret.expose().to_owned())
        };
        let parts = |component: &ExternalComponent| (component.host.to_string(), secret(&component.secret));
        components.0.iter().map(parts).collect()
    }

    #[test]
    fn external_components_may_have_a_secret() {
        let pair = |host: &str, secret: &str| (host.to_owned(), secret.to_owned());
        assert_eq!(
            external("irc.example:a:b,sms.example"),
            [pair("irc.example", "a:b"), pair("sms.example", "-")]
        );
        assert_eq!(external("localhost"), [pair("localhost", "-")]);
        assert_eq!(
            external(r#"[{"host": "irc.example", "secret": "a, b"}, {"host": "x"}, "y.example:c, d"]"#),
            [pair("irc.example", "a, b"), pair("x", "-"), pair("y.example", "c, d")]
        );
    }

    #[test]
    fn values_with_secrets_are_never_shown() {
        for text in [
            "irc.example:S3C,RET",
            "irc.example:S3C RET/ x.example",
            "irc.example: S3CRET",
            "S3/CRET:x.example",
            r#"["irc.example:x", "S3C/RET"]"#,
            r#"[{"host": "irc.example", "S3CRET": 1}]"#,
            r#"[{"host": "S3C/RET", "secret": "S3CRET"}]"#,
            r#"[{"host": "a.example", "secret": "S3CRET", "secret": "S3CRET"}]"#,
            r#"[{"host": "a.example", "secret": ["S3CRET"]}]"#,
            r#"[{"host": "a.example", "secret": "S3CRET"}"#,
            r#"[{"secret": "S3CRET"}]"#,
            r#"{"secret": "S3CRET"}"#,
        ] {
            let error = error::<ExternalComponents>(text);
            for part in ["S3C", "RET", "CRET", "irc.example:"] {
                assert!(!error.contains(part), "{text}: {error}");
            }
        }
        for text in [
            "alice@a.example:S3C,RET",
            "alice@a.example:S3C RET",
            "alice@a.example:",
            "S3CRET",
            r#"["alice@a.example:x", "S3CRET"]"#,
            r#"[{"jid": "S3CRET", "password": "S3CRET"}]"#,
            r#"[{"jid": "alice@a.example", "pasword": "S3CRET"}]"#,
            r#"{"alice@a.example": "S3CRET"}"#,
        ] {
            let error = error::<Accounts>(text);
            for part in ["S3C", "RET", "alice@a.example:"] {
                assert!(!error.contains(part), "{text}: {error}");
            }
        }
        assert_eq!(
            error::<Accounts>(r#"[{"jid": "a@S%", "password": "x"}]"#),
            "entry 1: `jid`: expected a JID",
            "not even the invalid character is shown"
        );
        assert!(error::<Accounts>("alice@a.example:a,b").contains("entry 2"));
        assert!(error::<Accounts>("alice@a.example:a,b").contains("as JSON where"));
        let accounts = Accounts::parse("alice@a.example:S3CRET").unwrap();
        assert!(!format!("{accounts:?}").contains("S3CRET"));
    }

    #[test]
    fn accounts_split_at_the_first_colon() {
        let accounts = Accounts::parse("Alice@a.example:p:w \n bob@a.example:x").unwrap().0;
        assert_eq!(accounts[0].jid.to_string(), "alice@a.example");
        assert_eq!(accounts[0].password.0.expose(), "p:w");
        assert_eq!(accounts[1].jid.local(), "bob");
        let accounts = Accounts::parse(r#"[{"jid": "a@b.example", "password": "p w,"}]"#).unwrap();
        assert_eq!(accounts.0[0].password.0.expose(), "p w,");
    }

    #[test]
    fn an_account_may_have_a_role_or_be_an_admin() {
        let text = r#"[{"jid": "a@b.example", "password": "x", "role": "prosody:guest"},
            {"jid": "c@b.example", "password": "x", "admin": true}, "d@b.example:x"]"#;
        let accounts = Accounts::parse(text).unwrap().0;
        let role = |account: &Account| account.role.as_ref().map(|role| role.as_str().to_owned());
        let privileges: Vec<_> = accounts.iter().map(|account| (role(account), account.is_admin)).collect();
        assert_eq!(privileges, [(Some("prosody:guest".into()), false), (None, true), (None, false)]);
        for (members, reason) in [
            (r#""role": "a b""#, "`role`: expected a role's name"),
            (r#""role": """#, "`role`: expected a string that is not empty"),
            (r#""admin": "yes""#, "`admin`: expected true or false, not a string"),
        ] {
            let error =
                error::<Accounts>(&format!(r#"[{{"jid": "a@b.example", "password": "x", {members}}}]"#));
            assert!(error.contains(reason), "{error}");
        }
        let twice = r#"["a@b.example:x", {"jid": "a@b.example", "password": "x", "admin": true}]"#;
        assert!(error::<Accounts>(twice).contains("entry 2"));
    }

    #[test]
    fn errors_in_plain_accounts_have_a_reason() {
        for (text, reason) in [
            ("alice:x", "has no `@`"),
            ("a\"b@c.example:x", "is no JID"),
            ("alice@c.example", "there is no `:`"),
            ("alice@c.example:", "the password is empty"),
        ] {
            let error = error::<Accounts>(text);
            assert!(error.starts_with("entry 1") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn only_the_first_of_many_errors_are_shown() {
        let error = error::<Accounts>(&"alice ".repeat(10_000));
        assert!(error.contains("entry 20: ") && error.contains("; and 9980 entries more"), "{error}");
        assert!(error.len() < 2000, "{error}");
    }

    #[test]
    fn passwords_are_limited_to_those_that_clients_can_log_in_with() {
        let printable: String = (' '..='\u{1ff}').filter(|c| !c.is_control()).collect();
        let (longest, too_long) = ("p".repeat(1023), "p".repeat(1024));
        for text in
            [longest.as_str(), printable.as_str(), " ", "a\u{a0}b", "\u{1f600}", "p\u{1f600}w", "שלום", "ﬁ"]
        {
            assert_eq!(Password::parse(text).unwrap().0.expose(), text);
        }
        for text in [&too_long, "a\nb", "a\tb", "a\0b", "\u{7f}", "\u{200e}", "\u{e000}", "\u{ad}", "אa"] {
            assert!(Password::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn disco_items_may_have_a_name() {
        let items = DiscoItems::parse(r#"[["rooms.example", "Röoms, all"], "b.example", ["c.example"]]"#);
        assert_eq!(
            line(&items.unwrap().lua()),
            r#"[["rooms.example","Röoms, all"],["b.example"],["c.example"]]"#
        );
        assert_eq!(
            line(&DiscoItems::parse("a.example b.example").unwrap().lua()),
            r#"[["a.example"],["b.example"]]"#
        );
        for text in [r#"[["a.example", 1]]"#, r#"[[]]"#, r#"[{"host": "a"}]"#, "a/b", r#"[["a","b","c"]]"#] {
            error::<DiscoItems>(text);
        }
    }
}
