//! Domains and JIDs.

use super::{SettingType, lua};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// ASCII characters that are invalid in a domain: all but letters, digits, hyphen, dot and underscore. Host names
/// have no underscore, but Prosody accepts it: it uses nameprep (RFC 3491).
const DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// The maximum length, in bytes, of a domain or of a JID's local part (RFC 7622, sections 3.2 and 3.3).
const LONGEST_PART: usize = 1023;

/// An internationalised domain name in lower-case Unicode, the form that Prosody expects for hosts. It is never an IP
/// address and has no trailing dot. A single label (`localhost`) is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// The name in Unicode.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as DNS and HTTP use it, with `xn--` labels (A-labels, RFC 5890).
    pub fn ascii(&self) -> Cow<'_, str> {
        if self.0.is_ascii() {
            return Cow::Borrowed(&self.0);
        }
        to_ascii(&self.0).unwrap_or_else(|| Cow::Borrowed(&self.0))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `xn--` form (UTS 46, nontransitional processing).
fn to_ascii(text: &str) -> Option<Cow<'_, str>> {
    Uts46::new()
        .to_ascii(text.as_bytes(), DENIED, Hyphens::CheckFirstLast, DnsLength::VerifyAllowRootDot)
        .ok()
}

/// Whether a label is in Punycode. Such a label needs IDNA processing even in an ASCII name.
fn is_punycode(label: &str) -> bool {
    label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
}

/// Parses a domain. The error is only the reason.
fn domain(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_PART {
        return Err("it is too long".into());
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Err("an IP address is not a domain".into());
    }
    if text.contains("://") {
        return Err("a URL is not a domain".into());
    }
    if let Some(denied) =
        text.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_'))
    {
        return Err(format!("{denied:?} cannot stand in a domain"));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    // Nearly all names are plain ASCII, and checking bytes is much cheaper than IDNA's tables.
    if text.is_ascii() && !text.split('.').any(is_punycode) {
        check_labels(text)?;
        return Ok(text.to_ascii_lowercase());
    }
    let wrong = || "it is not a valid internationalised domain name".to_owned();
    let ascii = to_ascii(text).ok_or_else(wrong)?;
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    check_labels(ascii)?;
    // Full-width digits, for example, have become ASCII only now.
    if ascii.parse::<IpAddr>().is_ok() {
        return Err("an IP address is not a domain".into());
    }
    let (unicode, result) = Uts46::new().to_unicode(ascii.as_bytes(), DENIED, Hyphens::CheckFirstLast);
    result.map_err(|_| wrong())?;
    Ok(unicode.into_owned())
}

/// Checks the DNS rules for a name's length and its labels (RFC 1123, section 2.1).
fn check_labels(ascii: &str) -> Result<(), String> {
    if ascii.len() > 253 {
        return Err("it is longer than 253 characters".into());
    }
    for label in ascii.split('.') {
        if label.is_empty() {
            return Err("a label is empty".into());
        }
        if label.len() > 63 {
            return Err("a label is longer than 63 characters".into());
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label begins or ends with a hyphen".into());
        }
    }
    Ok(())
}

impl SettingType for Domain {
    const NAME: &'static str = "domain";
    const EXAMPLE: &'static str = "chat.example";

    fn parse(text: &str) -> Result<Self, String> {
        domain(text)
            .map(Domain)
            .map_err(|reason| format!("expected a domain, such as `chat.example`: {reason}"))
    }
}

/// A bare JID with a local part, `local@domain` (RFC 7622). It is normalised as in Prosody: the local part with
/// nodeprep (RFC 6122, appendix A), the domain to Unicode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jid {
    local: String,
    domain: Domain,
}

impl Jid {
    pub fn local(&self) -> &str {
        &self.local
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// Parses `local@domain`. The error is only the reason.
fn jid(text: &str) -> Result<Jid, String> {
    let Some((local, rest)) = text.split_once('@') else { return Err("there is no `@`".into()) };
    if rest.contains('/') {
        return Err("a resource, from the `/` on, has no place here".into());
    }
    if local.len() > LONGEST_PART {
        return Err("the part before the `@` is too long".into());
    }
    let prepared = stringprep::nodeprep(local)
        .map_err(|_| "the part before the `@` holds a forbidden character".to_owned())?;
    if prepared.is_empty() {
        return Err("the part before the `@` is empty".into());
    }
    Ok(Jid { local: prepared.into_owned(), domain: Domain(domain(rest)?) })
}

impl SettingType for Jid {
    const NAME: &'static str = "JID";
    const EXAMPLE: &'static str = "alice@chat.example";

    fn parse(text: &str) -> Result<Self, String> {
        jid(text).map_err(|reason| format!("expected a JID, such as `alice@chat.example`: {reason}"))
    }
}

/// A bare JID or a domain. A domain stands for all its users, or for the server itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BareOrDomain {
    Jid(Jid),
    Domain(Domain),
}

impl fmt::Display for BareOrDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BareOrDomain::Jid(jid) => jid.fmt(f),
            BareOrDomain::Domain(domain) => domain.fmt(f),
        }
    }
}

impl SettingType for BareOrDomain {
    const NAME: &'static str = "JID or domain";
    const PLURAL: Option<&'static str> = Some("JIDs");
    const EXAMPLE: &'static str = "alice@chat.example";

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            Jid::parse(text).map(BareOrDomain::Jid)
        } else {
            domain(text).map(|domain| BareOrDomain::Domain(Domain(domain))).map_err(|reason| {
                format!("expected a JID, such as `alice@chat.example`, or a domain: {reason}")
            })
        }
    }
}

/// A host name as certificates contain it: in ASCII and lower case. `None` if it is not a valid domain.
pub fn ascii(name: &str) -> Option<String> {
    Some(Domain::parse(name).ok()?.ascii().to_ascii_lowercase())
}

/// The domains above a domain, nearest first.
pub fn parents(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |domain| Some(domain.split_once('.')?.1)).skip(1)
}

lua! {
    Domain: self => self.as_str();
    Jid: self => self.to_string();
    BareOrDomain: self => self.to_string();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String) {
        let domain = Domain::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (domain.as_str().to_owned(), domain.ascii().into_owned())
    }

    #[test]
    fn domains_are_stored_in_unicode_and_converted_to_ascii() {
        for (text, unicode, ascii) in [
            ("example.org", "example.org", "example.org"),
            ("Example.ORG.", "example.org", "example.org"),
            ("localhost", "localhost", "localhost"),
            ("_xmpp.a_b.example", "_xmpp.a_b.example", "_xmpp.a_b.example"),
            ("Bücher.example", "bücher.example", "xn--bcher-kva.example"),
            ("XN--bcher-KVA.example", "bücher.example", "xn--bcher-kva.example"),
            ("straße.example", "straße.example", "xn--strae-oqa.example"),
            ("例え。テスト", "例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("ｅｘａｍｐｌｅ.org", "example.org", "example.org"),
            ("☕.example", "☕.example", "xn--53h.example"),
            ("a--b.example", "a--b.example", "a--b.example"),
        ] {
            assert_eq!(read(text), (unicode.into(), ascii.into()), "{text}");
        }
    }

    #[test]
    fn invalid_domains_are_refused_with_a_reason() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = vec!["a".repeat(50); 6].join(".");
        for (text, reason) in [
            (".", "a label is empty"),
            ("a..b", "a label is empty"),
            ("a..", "a label is empty"),
            ("a b", "' ' cannot stand"),
            ("a\"; os.execute(\"id\") --", "'\"' cannot stand"),
            ("alice@a.example", "'@' cannot stand"),
            ("a.example/x", "'/' cannot stand"),
            ("a.example:5222", "':' cannot stand"),
            ("a\0b", "'\\0' cannot stand"),
            ("*.example", "'*' cannot stand"),
            ("https://a.example", "a URL is not a domain"),
            ("192.0.2.1", "an IP address is not a domain"),
            ("１９２.0.2.1", "an IP address is not a domain"),
            ("2001:db8::1", "an IP address is not a domain"),
            ("[2001:db8::1]", "an IP address is not a domain"),
            ("-a.example", "hyphen"),
            ("a-.example", "hyphen"),
            (long_label.as_str(), "longer than 63"),
            (long_name.as_str(), "longer than 253"),
            ("xn--a.example", "not a valid internationalised"),
            ("a\u{202e}b.example", "not a valid internationalised"),
            ("-ü.example", "not a valid internationalised"),
            ("\u{ad}", "not a valid internationalised"),
        ] {
            let error = Domain::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Domain::parse(&"a.".repeat(50_000)).unwrap_err().contains("too long"));
    }

    #[test]
    fn jids_are_normalised() {
        let jid = Jid::parse("Alice.O\\20K@Bücher.Example").unwrap();
        assert_eq!(jid.local(), "alice.o\\20k");
        assert_eq!(jid.to_string(), "alice.o\\20k@bücher.example");
        assert_eq!(Jid::parse("ALICE@A.example"), Jid::parse("alice@a.example"), "compared as Prosody does");
    }

    #[test]
    fn invalid_jids_are_refused_with_a_reason() {
        for (text, reason) in [
            ("a.example", "no `@`"),
            ("@a.example", "is empty"),
            ("\u{ad}@a.example", "is empty"),
            ("alice@", "a label is empty"),
            ("alice@a.example/phone", "a resource"),
            ("alice@b@a.example", "'@' cannot stand"),
            ("al ice@a.example", "forbidden character"),
            ("al:ice@a.example", "forbidden character"),
            ("al\"ice@a.example", "forbidden character"),
            ("al\u{1}ice@a.example", "forbidden character"),
            ("alice@192.0.2.1", "an IP address"),
        ] {
            let error = Jid::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn some_settings_take_a_jid_or_a_domain() {
        assert_eq!(BareOrDomain::parse("A.example").unwrap().to_string(), "a.example");
        assert_eq!(BareOrDomain::parse("b@A.example").unwrap().to_string(), "b@a.example");
        assert!(BareOrDomain::parse("a b").unwrap_err().contains("or a domain"));
    }
}
