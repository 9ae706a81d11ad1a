//! Reads a certificate and its names.

use std::collections::HashSet;
use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use time::OffsetDateTime;
use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::extensions::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Name};

use crate::settings::types::{Domain, SettingType as _};

/// id-on-xmppAddr (RFC 6120, section 13.7.1.4), 1.3.6.1.5.5.7.8.5
const XMPP_ADDR: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 8, 5];

/// id-on-dnsSRV (RFC 4985, section 2), 1.3.6.1.5.5.7.8.7
const DNS_SRV: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 8, 7];

/// An X.509 certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The whole certificate in DER.
    pub der: Vec<u8>,
    subject: Box<[u8]>,
    issuer: Box<[u8]>,
    /// The public key with its algorithm (SubjectPublicKeyInfo), in DER.
    pub public_key: Box<[u8]>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub is_ca: bool,
    /// Whether it may be a TLS server's (`serverAuth`; RFC 5280, section 4.2.1.12).
    pub is_for_servers: bool,
    /// Whether it may be a TLS client's (`clientAuth`). A server is one when it connects to another.
    pub is_for_clients: bool,
    /// Its subject alternative names for servers.
    pub names: Vec<Name>,
    /// Its common name, if that is a domain and the certificate has no subject alternative names.
    pub common_name: Option<String>,
}

/// A subject alternative name.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    /// The domain in lower-case ASCII, after `*.` if it is a wildcard.
    pub domain: String,
    pub usage: Usage,
}

/// The services that a name in a certificate covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Every service (dNSName).
    All,
    /// XMPP (XmppAddr).
    Xmpp,
    /// Connections of XMPP clients (SRVName).
    XmppClients,
    /// Connections of XMPP servers (SRVName).
    XmppServers,
}

impl Certificate {
    /// Parses a certificate in DER. `None` if it is not valid.
    pub fn read(der: Vec<u8>) -> Option<Certificate> {
        // Only three extensions are needed. The others may be malformed.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, parsed) = parser.parse(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let extension = |oid| {
            let found = parsed.extensions().iter().find(|extension| extension.oid == oid);
            found.map(|extension| extension.value)
        };
        let alternative_names = match extension(OID_X509_EXT_SUBJECT_ALT_NAME) {
            Some(value) => Some(SubjectAlternativeName::from_der(value).ok()?.1.general_names),
            None => None,
        };
        let is_ca = match extension(OID_X509_EXT_BASIC_CONSTRAINTS) {
            Some(value) => BasicConstraints::from_der(value).ok()?.1.ca,
            None => false,
        };
        let (is_for_servers, is_for_clients) = match extension(OID_X509_EXT_EXTENDED_KEY_USAGE) {
            Some(value) => {
                let usage = ExtendedKeyUsage::from_der(value).ok()?.1;
                (usage.any || usage.server_auth, usage.any || usage.client_auth)
            }
            None => (true, true),
        };
        let common_name = || {
            let mut names = parsed.subject().iter_common_name();
            names.find_map(|name| in_ascii(name.as_str().ok()?))
        };
        Some(Certificate {
            subject: parsed.subject().as_raw().into(),
            issuer: parsed.issuer().as_raw().into(),
            public_key: parsed.public_key().raw.into(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            is_ca,
            is_for_servers,
            is_for_clients,
            common_name: if alternative_names.is_none() { common_name() } else { None },
            names: alternative_names.iter().flatten().filter_map(name).collect(),
            der,
        })
    }

    /// Whether it is self-signed, judged by its subject and issuer.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether its subject issued the other certificate, judged by the names.
    pub fn is_issuer_of(&self, other: &Certificate) -> bool {
        self.subject == other.issuer
    }

    /// The issuer for display: its common name, or else its organisation, or else all attributes.
    pub fn issuer(&self) -> String {
        let Ok((_, issuer)) = X509Name::from_der(&self.issuer) else { return String::new() };
        let mut names = issuer.iter_common_name().chain(issuer.iter_organization());
        if let Some(name) = names.find_map(|name| name.as_str().ok()) {
            return name.to_owned();
        }
        let all: Vec<&str> = issuer.iter_attributes().filter_map(|part| part.as_str().ok()).collect();
        all.join(", ")
    }

    /// The issuer's organisation.
    pub fn issuer_organisation(&self) -> Option<String> {
        let (_, issuer) = X509Name::from_der(&self.issuer).ok()?;
        issuer.iter_organization().find_map(|name| name.as_str().ok().map(str::to_owned))
    }

    /// The SHA-256 digest of the public key with its algorithm in hexadecimal, as in a TLSA record `3 1 1` (RFC 6698).
    pub fn key_digest(&self) -> String {
        hexadecimal(&self.public_key)
    }

    /// The SHA-256 fingerprint in hexadecimal, as in `openssl x509 -fingerprint` but without colons.
    pub fn fingerprint(&self) -> String {
        hexadecimal(&self.der)
    }

    /// The domains in the certificate, each once, in Unicode.
    pub fn domains(&self) -> Vec<String> {
        let mut seen: HashSet<&str> = HashSet::new();
        let names = self.names.iter().map(|name| name.domain.as_str()).filter(|name| seen.insert(name));
        let in_unicode = |name| {
            let (wildcard, domain) = split_wildcard(name);
            format!("{wildcard}{}", idna::domain_to_unicode(domain).0)
        };
        names.map(in_unicode).collect()
    }
}

/// The SHA-256 digest in hexadecimal.
fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

fn name(name: &GeneralName<'_>) -> Option<Name> {
    let (text, usage) = match name {
        GeneralName::DNSName(text) => (*text, Usage::All),
        GeneralName::OtherName(oid, value) if *oid.as_bytes() == XMPP_ADDR => (string(value)?, Usage::Xmpp),
        GeneralName::OtherName(oid, value) if *oid.as_bytes() == DNS_SRV => {
            let (service, domain) = string(value)?.split_once('.')?;
            match service.to_ascii_lowercase().as_str() {
                "_xmpp-client" => (domain, Usage::XmppClients),
                "_xmpp-server" => (domain, Usage::XmppServers),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Name { domain: in_ascii(text)?, usage })
}

/// The text of an otherName's value, which has the explicit tag `[0]`.
fn string(value: &[u8]) -> Option<&str> {
    let (_, explicit) = Any::from_der(value).ok()?;
    let (_, string) = Any::from_der(explicit.data).ok()?;
    let is_string =
        string.class() == Class::Universal && matches!(string.tag(), Tag::Utf8String | Tag::Ia5String);
    let is_explicit = explicit.class() == Class::ContextSpecific && explicit.tag() == Tag(0);
    std::str::from_utf8(string.data).ok().filter(|_| is_explicit && is_string)
}

/// A name in lower-case ASCII. `None` if it is not a domain.
fn in_ascii(text: &str) -> Option<String> {
    let (wildcard, domain) = split_wildcard(text);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_punycode = |label: &str| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    if !domain.is_empty() && domain.bytes().all(is_plain) && !domain.split('.').any(is_punycode) {
        return Some(format!("{wildcard}{}", domain.to_ascii_lowercase()));
    }
    Some(format!("{wildcard}{}", Domain::parse(domain).ok()?.ascii()))
}

/// Splits a name into `*.` or an empty string, and the rest.
fn split_wildcard(name: &str) -> (&str, &str) {
    name.split_at(if name.starts_with("*.") { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, OtherNameValue, SanType};

    fn made(params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        Certificate::read(params.self_signed(&key).unwrap().der().to_vec()).unwrap()
    }

    fn with_names(names: Vec<SanType>) -> Vec<(String, Usage)> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        made(params).names.into_iter().map(|name| (name.domain, name.usage)).collect()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(name).unwrap())
    }

    fn xmpp_addr(name: &str) -> SanType {
        SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], OtherNameValue::Utf8String(name.into())))
    }

    /// The names read from an extension with one name, whose tag and bytes may be invalid.
    fn raw_name(tag: u8, value: &[u8]) -> Vec<(String, Usage)> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let name = [&[tag, length(value)], value].concat();
        let mut params = CertificateParams::default();
        let content = [&[0x30, length(&name)][..], &name].concat();
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
        made(params).names.into_iter().map(|name| (name.domain, name.usage)).collect()
    }

    fn srv(name: &str) -> Vec<(String, Usage)> {
        let length = |extra: usize| u8::try_from(name.len() + extra).unwrap();
        let oid = [&[6, 8][..], &DNS_SRV].concat();
        raw_name(0xa0, &[&oid[..], &[0xa0, length(2), 0x16, length(0)], name.as_bytes()].concat())
    }

    #[test]
    fn dns_names_are_in_lower_case_and_in_ascii() {
        let names =
            ["Chat.EXAMPLE", "*.Wild.example", "XN--MNCHEN-3YA.example", "dot.example.", "_x.example"];
        let expected =
            ["chat.example", "*.wild.example", "xn--mnchen-3ya.example", "dot.example", "_x.example"];
        let expected = expected.map(|name| (name.to_owned(), Usage::All));
        assert_eq!(with_names(names.map(dns).into()), expected);
        let unicode = [("*.xn--mnchen-3ya.example".to_owned(), Usage::All)];
        assert_eq!(raw_name(0x82, "*.München.example".as_bytes()), unicode);
        for odd in ["", "*.", "a b", "a/b", "*", "a.*.b"] {
            assert_eq!(with_names(vec![dns(odd)]), [], "{odd:?}");
        }
    }

    #[test]
    fn xmpp_names_are_accepted() {
        let expected = |usage| [("xn--jrg-sna.example".to_owned(), usage)];
        assert_eq!(with_names(vec![xmpp_addr("jörg.example")]), expected(Usage::Xmpp));
        assert_eq!(with_names(vec![xmpp_addr("user@jörg.example")]), []);
        assert_eq!(srv("_xmpp-client.xn--jrg-sna.example"), expected(Usage::XmppClients));
        assert_eq!(srv("_XMPP-server.xn--jrg-sna.example"), expected(Usage::XmppServers));
        assert_eq!(srv("_http.xn--jrg-sna.example"), []);
    }

    #[test]
    fn names_are_shown_in_unicode_and_once() {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![dns("*.xn--jrg-sna.example"), dns("b.example"), xmpp_addr("b.example")];
        assert_eq!(made(params).domains(), ["*.jörg.example", "b.example"]);
    }

    #[test]
    fn as_many_names_as_fit_a_file_are_read_quickly() {
        let names = (0..60_000).map(|number| Name { domain: format!("a{number}.ex"), usage: Usage::All });
        let mut certificate = made(CertificateParams::default());
        certificate.names = names.collect();
        let begin = std::time::Instant::now();
        assert_eq!(certificate.domains().len(), 60_000);
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    #[test]
    fn the_common_name_is_read_if_there_is_no_alternative_name() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Chat.example");
        let certificate = made(params.clone());
        assert_eq!(certificate.common_name.as_deref(), Some("chat.example"));
        params.subject_alt_names.push(dns("other.example"));
        assert_eq!(made(params).common_name, None);
    }

    #[test]
    fn extended_key_usage_limits_a_certificate() {
        use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for (usages, expected) in [
            (vec![], (true, true)),
            (vec![ServerAuth], (true, false)),
            (vec![CodeSigning, ClientAuth], (false, true)),
            (vec![CodeSigning], (false, false)),
            (vec![Any], (true, true)),
        ] {
            let mut params = CertificateParams::default();
            params.extended_key_usages.clone_from(&usages);
            let certificate = made(params);
            assert_eq!((certificate.is_for_servers, certificate.is_for_clients), expected, "{usages:?}");
        }
    }

    #[test]
    fn the_issuer_is_its_common_name_or_organisation_or_all_attributes() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "XX");
        assert_eq!(made(params.clone()).issuer(), "XX");
        assert_eq!(made(params.clone()).issuer_organisation(), None);
        params.distinguished_name.push(DnType::OrganizationName, "Some Authority");
        assert_eq!(made(params.clone()).issuer(), "Some Authority");
        params.distinguished_name.push(DnType::CommonName, "R42");
        let certificate = made(params);
        assert_eq!(certificate.issuer(), "R42");
        assert_eq!(certificate.issuer_organisation().as_deref(), Some("Some Authority"));
    }

    #[test]
    fn a_truncated_or_extended_certificate_is_rejected() {
        let key = KeyPair::generate().unwrap();
        let der = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert!(Certificate::read(der[..end].to_vec()).is_none(), "{end}");
        }
        assert!(Certificate::read([&der[..], &[0]].concat()).is_none());
        assert_eq!(Certificate::read(der).unwrap().fingerprint().len(), 64);
    }
}
