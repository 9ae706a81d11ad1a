//! Ports, addresses, networks, DNS servers and web origins.

use super::choices::ProxiedService;
use super::domains::Domain;
use super::lists::Set;
use super::names::texts;
use super::numbers::digits;
use super::{SettingType, lua};
use std::fmt;
use std::net::IpAddr;

/// A TCP or UDP port, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port(u16);

impl Port {
    pub fn get(self) -> u16 {
        self.0
    }
}

impl SettingType for Port {
    const NAME: &'static str = "port";
    const EXAMPLE: &'static str = "5222";

    fn parse(text: &str) -> Result<Self, String> {
        digits(text)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|&number| number != 0)
            .map(Port)
            .ok_or_else(|| "expected a port, a whole number from 1 to 65535".into())
    }
}

/// A port where a proxy announces clients' addresses, and the service behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxiedPort {
    pub port: Port,
    pub service: ProxiedService,
}

impl SettingType for ProxiedPort {
    const NAME: &'static str = "`port:service`";
    const PLURAL: Option<&'static str> = Some(Self::NAME);
    const EXAMPLE: &'static str = "15222:c2s";

    fn parse(text: &str) -> Result<Self, String> {
        let (port, service) = split(text, ':');
        let service = service.ok_or("expected a port and its service, such as `15222:c2s`")?;
        Ok(ProxiedPort { port: Port::parse(port)?, service: ProxiedService::parse(service)? })
    }
}

/// Parses an IP address. An IPv6 address may be in brackets.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|bare| bare.contains(':'))
        .unwrap_or(text);
    bare.parse().ok()
}

/// The text before a mark, and the text after it if there is a mark.
fn split(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The end of an error message: if the text is a host name, that host names are not accepted.
fn no_host_name(text: &str) -> &'static str {
    if Domain::parse(text).is_ok() { "; a host name is not taken" } else { "" }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub IpAddr);

impl SettingType for Address {
    const NAME: &'static str = "address";
    const PLURAL: Option<&'static str> = Some("addresses");
    const EXAMPLE: &'static str = "192.0.2.1";

    fn parse(text: &str) -> Result<Self, String> {
        ip(text).map(Address).ok_or_else(|| {
            format!("expected an IP address, such as `192.0.2.1` or `2001:db8::1`{}", no_host_name(text))
        })
    }
}

/// A local address for a service to bind: an IP address, all IPv4 addresses (`*`) or all IPv6 addresses (`::`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// All IPv4 addresses.
    Any,
    /// One address. `::` stands for all IPv6 addresses.
    Address(IpAddr),
}

impl SettingType for Interface {
    const NAME: &'static str = "address or `*`";
    const PLURAL: Option<&'static str> = Some("addresses, `*` or `::`");
    const EXAMPLE: &'static str = "*";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Interface::Any);
        }
        ip(text).map(Interface::Address).ok_or_else(|| {
            format!(
                "expected an IP address to bind, `*` (every IPv4 address) or `::` (every IPv6 address){}",
                no_host_name(text)
            )
        })
    }
}

/// An IP address or a network, `address/prefix` (RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: Option<u8>,
}

impl Network {
    pub fn is_network(self) -> bool {
        self.prefix.is_some()
    }
}

/// The length of an address in bits.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl SettingType for Network {
    const NAME: &'static str = "address or network";
    const PLURAL: Option<&'static str> = Some("addresses or networks");
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = split(text, '/');
        let Some(address) = ip(address) else {
            return Err(format!(
                "expected an IP address or a network, such as `192.0.2.1` or `10.0.0.0/8`{}",
                no_host_name(address)
            ));
        };
        let Some(prefix) = prefix else { return Ok(Network { address, prefix: None }) };
        match digits(prefix).and_then(|prefix| u8::try_from(prefix).ok()) {
            Some(prefix) if prefix <= bits(address) => Ok(Network { address, prefix: Some(prefix) }),
            _ => {
                Err(format!("expected a network whose prefix is a whole number from 0 to {}", bits(address)))
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            None => self.address.fmt(f),
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
        }
    }
}

/// A proxy: an address, a network, or a host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    Network(Network),
    /// A host name, which is resolved at every start and reload.
    Host(Domain),
}

impl SettingType for Proxy {
    const NAME: &'static str = "address, network or host name";
    const PLURAL: Option<&'static str> = Some("addresses, networks or host names");
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn parse(text: &str) -> Result<Self, String> {
        // No host name ends in a number, but an incomplete address does.
        let is_name = !text.ends_with(|c: char| c.is_ascii_digit()) || text.contains(char::is_alphabetic);
        match Domain::parse(text) {
            Ok(host) if is_name => Ok(Proxy::Host(host)),
            Err(_) if text.contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) => {
                Err("expected an IP address, a network or a host name, such as `10.0.0.0/8` or `proxy`"
                    .into())
            }
            _ => Network::parse(text).map(Proxy::Network),
        }
    }
}

/// One network. A single address becomes a network with the longest prefix (`/32` or `/128`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(Network);

impl SettingType for Cidr {
    const NAME: &'static str = "network";
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn parse(text: &str) -> Result<Self, String> {
        let network = Network::parse(text)?;
        Ok(Cidr(Network { prefix: network.prefix.or(Some(bits(network.address))), ..network }))
    }
}

/// A DNS server in libunbound's syntax: `IP` or `IP@port` (unbound.conf(5), `forward-addr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resolver {
    address: IpAddr,
    port: Option<Port>,
}

impl SettingType for Resolver {
    const NAME: &'static str = "`IP` or `IP@port`";
    const PLURAL: Option<&'static str> = Some(Self::NAME);
    const EXAMPLE: &'static str = "192.0.2.53@53";

    fn parse(text: &str) -> Result<Self, String> {
        let (address, port) = split(text, '@');
        let port = port.map(Port::parse).transpose();
        match (ip(address), port) {
            (Some(address), Ok(port)) => Ok(Resolver { address, port }),
            (None, _) => Err(format!(
                "expected a DNS server's IP address, such as `192.0.2.53` or `192.0.2.53@5353`{}",
                no_host_name(address)
            )),
            (_, Err(error)) => Err(format!("after the `@`: {error}")),
        }
    }
}

/// The host of the TURN server: a domain, which clients get in its `xn--` form, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnHost {
    Domain(Domain),
    Address(IpAddr),
}

impl SettingType for TurnHost {
    const NAME: &'static str = "domain or address";
    const EXAMPLE: &'static str = "turn.example";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = ip(text) {
            return Ok(TurnHost::Address(address));
        }
        Domain::parse(text).map(TurnHost::Domain).map_err(|error| {
            error.replacen(
                "expected a domain, such as `chat.example`",
                "expected a domain or an IP address",
                1,
            )
        })
    }
}

texts! {
    /// The origin of a web client (RFC 6454): `https://chat.example`, or `*` for all origins. It is stored as browsers send
    /// it, because Prosody compares strings.
    Origin("origin, or `*`", "origins, or `*`", "https://chat.example") = origin;
}

/// `access_control_allow_origins`.
pub type Origins = Set<Origin>;

fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let refuse = |reason: &str| {
        Err(format!(
            "expected an origin, such as `https://chat.example` or `https://chat.example:8443`, or `*`{reason}"
        ))
    };
    if !text.contains("://") {
        return refuse(": the scheme is missing");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse("");
    }
    let Ok(url) = url::Url::parse(text) else { return refuse("") };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return refuse(": the host is missing");
    };
    if host.contains('*') {
        return refuse(": Prosody knows no patterns");
    }
    let has_more = !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some();
    if has_more {
        return refuse(": nothing but scheme, host and port belongs to an origin");
    }
    // `Url::port` omits the scheme's default port, as browsers do.
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{}://{host}{port}", url.scheme()))
}

lua! {
    Port: self => i64::from(self.0);
    Address: self => self.0.to_string();
    Network: self => self.to_string();
    Cidr: self => self.0.to_string();
    Interface: self => match self {
        Interface::Any => "*".to_owned(),
        Interface::Address(address) => address.to_string(),
    };
    Resolver: self => match self.port {
        None => self.address.to_string(),
        Some(port) => format!("{}@{}", self.address, port.get()),
    };
    TurnHost: self => match self {
        TurnHost::Domain(domain) => domain.ascii().into_owned(),
        TurnHost::Address(address) => address.to_string(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Value;
    use crate::settings::types::Lua;

    fn lua<T: SettingType + Lua>(text: &str) -> String {
        let value = T::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        value.lua().as_str().unwrap().to_owned()
    }

    fn error<T: SettingType>(text: &str) -> String {
        match T::parse(text) {
            Ok(_) => panic!("{text} was accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn ports_are_1_to_65535() {
        assert_eq!(Port::parse("1").unwrap().get(), 1);
        assert_eq!(Port::parse("65535").unwrap().get(), 65_535);
        assert_eq!(Port::parse("5222").unwrap().lua(), Value::Integer(5222));
        for text in ["0", "65536", "-1", "+80", "80.0", "http", "tcp://10.0.0.1:5222", "８０"] {
            error::<Port>(text);
        }
    }

    #[test]
    fn a_proxied_port_has_a_service() {
        let parsed = ProxiedPort::parse("15223:c2s_direct_tls").unwrap();
        assert_eq!((parsed.port.get(), parsed.service), (15223, ProxiedService::C2sDirectTls));
        for (text, reason) in [
            ("15222", "expected a port and its service"),
            (":c2s", "whole number from 1 to 65535"),
            ("99999:c2s", "whole number from 1 to 65535"),
            ("15222:", "`https`, `component` or `proxy65`"),
            ("15222:xmpp", "expected `c2s`, `c2s_direct_tls`, `s2s`, `s2s_direct_tls`, `http`, `https`"),
            ("15222:htps", "did you mean `https`?"),
            ("15222:c2s:c2s", "expected `c2s`"),
        ] {
            let error = error::<ProxiedPort>(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn host_names_are_not_addresses() {
        assert_eq!(lua::<Address>("2001:DB8:0::1"), "2001:db8::1");
        assert_eq!(lua::<Address>("[::1]"), "::1");
        assert!(error::<Address>("localhost").ends_with("a host name is not taken"));
        for text in ["[192.0.2.1]", "192.0.2", "192.0.2.1:80", "192.0.2.01", "fe80::1%eth0", "*"] {
            error::<Address>(text);
        }
    }

    #[test]
    fn interfaces_are_one_or_all_addresses() {
        assert_eq!(lua::<Interface>("*"), "*");
        assert_eq!(lua::<Interface>("::"), "::");
        assert_eq!(lua::<Interface>("127.0.0.1"), "127.0.0.1");
        assert!(error::<Interface>("eth0").ends_with("a host name is not taken"));
    }

    #[test]
    fn a_networks_prefix_is_checked() {
        assert_eq!(lua::<Network>("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(lua::<Network>("2001:db8::/128"), "2001:db8::/128");
        assert_eq!(lua::<Network>("192.0.2.1"), "192.0.2.1");
        assert!(Network::parse("0.0.0.0/0").unwrap().is_network());
        assert!(error::<Network>("10.0.0.0/33").contains("0 to 32"));
        assert!(error::<Network>("2001:db8::/129").contains("0 to 128"));
        for text in ["10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "/8", "10/8", "proxy.example/8"] {
            error::<Network>(text);
        }
    }

    #[test]
    fn a_single_address_is_a_network_too() {
        assert_eq!(lua::<Cidr>("192.0.2.1"), "192.0.2.1/32");
        assert_eq!(lua::<Cidr>("::1"), "::1/128");
        assert_eq!(lua::<Cidr>("10.0.0.0/8"), "10.0.0.0/8");
        error::<Cidr>("10.0.0.0/8,10.1.0.0/8");
    }

    #[test]
    fn resolvers_have_an_address_and_an_optional_port() {
        assert_eq!(lua::<Resolver>("192.0.2.53"), "192.0.2.53");
        assert_eq!(lua::<Resolver>("2001:db8::53@5353"), "2001:db8::53@5353");
        assert!(error::<Resolver>("dns.example").contains("a host name is not taken"));
        assert!(error::<Resolver>("192.0.2.53@0").contains("after the `@`"));
        error::<Resolver>("192.0.2.53:53");
    }

    #[test]
    fn a_turn_host_is_converted_to_its_ascii_form() {
        assert_eq!(lua::<TurnHost>("Türn.example"), "xn--trn-hoa.example");
        assert_eq!(lua::<TurnHost>("[2001:db8::1]"), "2001:db8::1");
        assert!(error::<TurnHost>("turn.example:3478").starts_with("expected a domain or an IP"));
    }

    #[test]
    fn origins_are_normalised_as_in_browsers() {
        for (text, origin) in [
            ("*", "*"),
            ("https://Chat.Example", "https://chat.example"),
            ("https://chat.example/", "https://chat.example"),
            ("https://chat.example:443", "https://chat.example"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(lua::<Origin>(text), origin, "{text}");
        }
        for (text, reason) in [
            ("chat.example", "scheme is missing"),
            ("https://chat.example/app", "nothing but scheme, host and port"),
            ("https://chat.example?x", "nothing but scheme, host and port"),
            ("https://a@chat.example", "nothing but scheme, host and port"),
            ("file:///", "host is missing"),
            ("https://", "expected an origin"),
            ("https://*.example", "knows no patterns"),
        ] {
            let error = error::<Origin>(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn proxies_are_addresses_networks_or_host_names() {
        for text in ["192.0.2.1", "2001:db8::1", "10.0.0.0/8", "dead::/16"] {
            assert!(matches!(Proxy::parse(text), Ok(Proxy::Network(_))), "{text}");
        }
        for text in ["traefik", "my_proxy", "proxy.example", "proxy1", "cafe"] {
            assert!(matches!(Proxy::parse(text), Ok(Proxy::Host(_))), "{text}");
        }
        for text in ["10.0.0", "300.1.1.1", "10.0.0.0/33", "http://proxy", "a b", "::1::"] {
            let error = Proxy::parse(text).expect_err(text);
            assert!(
                error.starts_with("expected an IP address") || error.starts_with("expected a network"),
                "{text}: {error}"
            );
        }
    }
}
