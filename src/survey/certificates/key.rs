//! Reads private keys, and matches them with certificates.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use x509_parser::asn1_rs::{Any, Class, DerParser, FromDer, SequenceIterator, Tag};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Flaw;
use super::pem::{self, Block, CutOff};

/// rsaEncryption and id-RSASSA-PSS (RFC 8017, appendix A)
const RSA: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]];
/// id-ecPublicKey (RFC 5480, section 2.1.1)
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// id-Ed25519 (RFC 8410, section 3)
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// secp256r1 (RFC 5480, section 2.1.1.1)
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// secp384r1 (RFC 5480, section 2.1.1.1)
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// Unsupported algorithms, for messages.
const OTHERS: [(&[u8], &str); 5] = [
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2b, 0x65, 0x6e], "X25519"),
    (&[0x2b, 0x65, 0x6f], "X448"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1], "Diffie-Hellman"),
];

/// A private key. Only [`Key::write`] reveals it.
pub struct Key {
    label: &'static str,
    der: Vec<u8>,
    kind: Kind,
}

/// The parts of a key that identify its certificate.
enum Kind {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: Vec<u8>, scalar: Vec<u8>, point: Option<Vec<u8>> },
    Ed25519 { point: Option<Vec<u8>> },
}

/// The keys in a file, and the flaw of another key in it or of the file itself.
pub struct Keys {
    pub keys: Vec<Key>,
    /// The reason why there is no other key.
    pub flaw: Option<Flaw>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Key(<secret>)")
    }
}

impl Keys {
    pub fn read(text: &[u8]) -> Keys {
        let mut keys = Vec::new();
        let mut flaw = None;
        for block in pem::blocks(text) {
            match block {
                Ok(block) if block.is_key() => match Key::read(block) {
                    Ok(key) => keys.push(key),
                    Err(found) => flaw = Some(found),
                },
                Ok(_) => {}
                Err(CutOff) => flaw = Some(Flaw::incomplete("is cut off")),
            }
        }
        if keys.is_empty() && flaw.is_none() {
            flaw = Some(match text {
                [] => Flaw::incomplete("is empty"),
                [0x30, 0x82, ..] => Flaw::lasting(advice!(
                    "is in DER, which is not read: convert it with `openssl pkey -inform der`"
                )),
                _ => Flaw::incomplete("has no key in it"),
            });
        }
        Keys { keys, flaw }
    }
}

impl Key {
    fn read(block: Block) -> Result<Key, Flaw> {
        if block.is_encrypted() {
            return Err(Flaw::lasting(advice!("is encrypted: remove the passphrase with `openssl pkey`")));
        }
        let damaged = || Flaw::incomplete("is damaged");
        let der = block.decode().ok_or_else(damaged)?;
        let (label, kind) = match block.label {
            "PRIVATE KEY" => ("PRIVATE KEY", pkcs8(&der)?),
            "RSA PRIVATE KEY" => ("RSA PRIVATE KEY", pkcs1(&der).ok_or_else(damaged)?),
            "EC PRIVATE KEY" => ("EC PRIVATE KEY", sec1(&der, None).ok_or_else(damaged)?),
            other => return Err(Flaw::lasting(format!("is in a format that is not read ({other})"))),
        };
        Ok(Key { label, der, kind })
    }

    /// Appends the key as PEM.
    pub fn write(&self, out: &mut String) {
        pem::write(out, self.label, &self.der);
    }

    /// Whether it belongs to a public key (SubjectPublicKeyInfo, in DER). `None` if it contains no public key, and we
    /// cannot compute one (P-521 and Ed25519).
    pub fn fits(&self, public_key: &[u8]) -> Option<bool> {
        let Ok((_, public_key)) = SubjectPublicKeyInfo::from_der(public_key) else { return Some(false) };
        let algorithm = public_key.algorithm.algorithm.as_bytes();
        let its_curve = public_key.algorithm.parameters.as_ref().and_then(identifier);
        let value = &*public_key.subject_public_key.data;
        match &self.kind {
            Kind::Rsa { modulus, exponent } => {
                let numbers = || {
                    let key = members(value)?;
                    Some((number(key.first()?)?, number(key.get(1)?)?))
                };
                Some(RSA.contains(&algorithm) && numbers() == Some((modulus.as_slice(), exponent.as_slice())))
            }
            Kind::Ec { curve, .. } if algorithm != EC || its_curve != Some(curve.as_slice()) => Some(false),
            Kind::Ec { point: Some(point), .. } => Some(is_same_point(point, value)),
            Kind::Ec { curve, scalar, point: None } => is_computed_point(curve, scalar, value),
            Kind::Ed25519 { .. } if algorithm != ED25519 => Some(false),
            Kind::Ed25519 { point } => point.as_ref().map(|point| point == value),
        }
    }
}

/// The values in a SEQUENCE.
fn members(der: &[u8]) -> Option<Vec<Any<'_>>> {
    members_of(&Any::from_der(der).ok()?.1)
}

fn members_of<'a>(sequence: &Any<'a>) -> Option<Vec<Any<'a>>> {
    let members = SequenceIterator::<Any, DerParser>::new(content(sequence, Tag::Sequence)?);
    members.collect::<Result<_, _>>().ok()
}

/// The content of a value, if it has this type.
fn content<'a>(value: &Any<'a>, tag: Tag) -> Option<&'a [u8]> {
    (value.class() == Class::Universal && value.tag() == tag).then_some(value.data)
}

/// An OBJECT IDENTIFIER.
fn identifier<'a>(value: &Any<'a>) -> Option<&'a [u8]> {
    content(value, Tag::Oid)
}

/// A positive INTEGER, without leading zeros.
fn number<'a>(value: &Any<'a>) -> Option<&'a [u8]> {
    let number = content(value, Tag::Integer)?;
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    Some(&number[zeros..])
}

/// The content of the optional member `[number]`.
fn tagged<'a>(members: &[Any<'a>], number: u32) -> Option<&'a [u8]> {
    let is_it = |value: &&Any| value.class() == Class::ContextSpecific && value.tag() == Tag(number);
    members.iter().find(is_it).map(|value| value.data)
}

/// OneAsymmetricKey (RFC 5958, section 2)
fn pkcs8(der: &[u8]) -> Result<Kind, Flaw> {
    let split = || {
        let key = members(der)?;
        let [_version, algorithm, value, optional @ ..] = &key[..] else { return None };
        let algorithm = members_of(algorithm)?;
        let parameters = algorithm.get(1).and_then(identifier);
        // A BIT STRING with an implicit tag.
        let public = tagged(optional, 1).and_then(|bits| bits.strip_prefix(&[0]));
        Some((identifier(algorithm.first()?)?, parameters, content(value, Tag::OctetString)?, public))
    };
    let damaged = || Flaw::incomplete("is damaged");
    let (algorithm, parameters, value, public) = split().ok_or_else(damaged)?;
    if RSA.contains(&algorithm) {
        pkcs1(value).ok_or_else(damaged)
    } else if algorithm == EC {
        sec1(value, parameters).ok_or_else(damaged)
    } else if algorithm == ED25519 {
        Ok(Kind::Ed25519 { point: public.map(Into::into) })
    } else {
        let name = OTHERS.iter().find(|(other, _)| *other == algorithm);
        let name = name.map_or("of an unknown algorithm", |(_, name)| name);
        Err(Flaw::lasting(advice!("is a key that Prosody is not given ({name}): use RSA, ECDSA or Ed25519")))
    }
}

/// RSAPrivateKey (RFC 8017, appendix A.1.2)
fn pkcs1(der: &[u8]) -> Option<Kind> {
    let key = members(der)?;
    let [_version, modulus, exponent, private_exponent, ..] = &key[..] else { return None };
    // Without a private exponent, the key is incomplete.
    number(private_exponent)?;
    Some(Kind::Rsa { modulus: number(modulus)?.into(), exponent: number(exponent)?.into() })
}

/// ECPrivateKey (RFC 5915, section 3)
fn sec1(der: &[u8], curve: Option<&[u8]>) -> Option<Kind> {
    let key = members(der)?;
    let [_version, scalar, optional @ ..] = &key[..] else { return None };
    let explicit = |number| Some(Any::from_der(tagged(optional, number)?).ok()?.1);
    let own_curve = explicit(0).as_ref().and_then(identifier);
    let point = explicit(1).and_then(|bits| content(&bits, Tag::BitString)?.strip_prefix(&[0]));
    Some(Kind::Ec {
        curve: curve.or(own_curve)?.into(),
        scalar: content(scalar, Tag::OctetString)?.into(),
        point: point.map(Into::into),
    })
}

/// Whether two points, each compressed or not, are equal (SEC 1, section 2.3.3).
fn is_same_point(a: &[u8], b: &[u8]) -> bool {
    let split = |point: &[u8]| -> Option<(u8, Vec<u8>)> {
        let (form, coordinates) = point.split_first()?;
        match form {
            2 | 3 => Some((form & 1, coordinates.to_vec())),
            _ => Some((coordinates.last()? & 1, coordinates[..coordinates.len() / 2].to_vec())),
        }
    };
    if a.len() == b.len() { a == b } else { split(a).is_some() && split(a) == split(b) }
}

/// Whether a public key belongs to a private one. `None` for curves that ring does not have.
fn is_computed_point(curve: &[u8], scalar: &[u8], point: &[u8]) -> Option<bool> {
    let (algorithm, length) = match curve {
        P256 => (&ECDSA_P256_SHA256_ASN1_SIGNING, 32_usize),
        P384 => (&ECDSA_P384_SHA384_ASN1_SIGNING, 48),
        _ => return None,
    };
    let missing = length.checked_sub(scalar.len())?;
    let scalar = [&vec![0; missing][..], scalar].concat();
    Some(
        EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, point, &SystemRandom::new())
            .is_ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::certificates::x509::Certificate;
    use std::fs;

    fn file(name: &str) -> Vec<u8> {
        fs::read(format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn fits(key: &str, certificate: &str) -> Option<bool> {
        let certificate = file(&format!("{certificate}.crt"));
        let block = pem::blocks(&certificate).next().unwrap().unwrap();
        let certificate = Certificate::read(block.decode().unwrap()).unwrap();
        let keys = Keys::read(&file(&format!("{key}.key")));
        assert_eq!((keys.keys.len(), keys.flaw), (1, None), "{key}");
        keys.keys[0].fits(&certificate.public_key)
    }

    fn flaw(text: &[u8]) -> Flaw {
        let keys = Keys::read(text);
        assert!(keys.keys.is_empty());
        keys.flaw.unwrap()
    }

    #[test]
    fn a_key_fits_its_own_certificate_and_no_other() {
        let certificates = ["rsa", "rsa-pss", "p256", "p384", "p521", "ed25519", "ed448"];
        for (key, certificate) in [
            ("rsa", "rsa"),
            ("rsa.pkcs1", "rsa"),
            ("rsa-pss", "rsa-pss"),
            ("p256", "p256"),
            ("p256.sec1", "p256"),
            ("p256.compressed", "p256"),
            ("p256.no-public", "p256"),
            ("p384", "p384"),
            ("p384.sec1", "p384"),
            ("p384.compressed", "p384"),
            ("p384.no-public", "p384"),
            ("p521", "p521"),
            ("p521.sec1", "p521"),
            ("p521.compressed", "p521"),
        ] {
            for other in certificates {
                assert_eq!(fits(key, other), Some(other == certificate), "{key}, {other}");
            }
        }
    }

    #[test]
    fn without_a_computable_public_key_the_match_is_unknown() {
        for (key, certificate) in [("p521.no-public", "p521"), ("ed25519", "ed25519")] {
            assert_eq!(fits(key, certificate), None, "{key}");
            assert_eq!(fits(key, "rsa"), Some(false), "{key}");
        }
        // A key from rcgen contains its public key (RFC 5958, version 2).
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let keys = Keys::read(key.serialize_pem().as_bytes());
        assert_eq!(keys.keys[0].fits(&rcgen::PublicKeyData::subject_public_key_info(&key)), Some(true));
    }

    #[test]
    fn another_key_on_the_same_curve_does_not_fit() {
        let [a, b] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
        let keys = Keys::read(a.serialize_pem().as_bytes());
        assert_eq!(keys.keys[0].fits(&rcgen::PublicKeyData::subject_public_key_info(&a)), Some(true));
        assert_eq!(keys.keys[0].fits(&rcgen::PublicKeyData::subject_public_key_info(&b)), Some(false));
        assert_eq!(keys.keys[0].fits(b"nonsense"), Some(false));
        let without = Keys::read(&file("p256.no-public.key"));
        assert_eq!(without.keys[0].fits(&rcgen::PublicKeyData::subject_public_key_info(&b)), Some(false));
    }

    #[test]
    fn a_key_with_a_passphrase_is_reported() {
        for name in ["rsa.pkcs1-encrypted.key", "rsa.pkcs8-encrypted.key"] {
            let why = "is encrypted: remove the passphrase with `openssl pkey`";
            assert_eq!(flaw(&file(name)), Flaw::lasting(why), "{name}");
        }
    }

    #[test]
    fn an_unsupported_algorithm_is_named() {
        let ed448 = flaw(&file("ed448.key"));
        assert!(ed448.why.contains("Ed448") && !ed448.is_incomplete, "{ed448:?}");
        let openssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
        assert_eq!(flaw(openssh), Flaw::lasting("is in a format that is not read (OPENSSH PRIVATE KEY)"));
    }

    #[test]
    fn a_truncated_key_is_incomplete() {
        let whole = file("p256.key");
        for end in 0..whole.len() - 1 {
            assert!(flaw(&whole[..end]).is_incomplete, "{end}");
        }
        for kind in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            for content in ["", "MAA=", "####"] {
                let text = format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n");
                assert_eq!(flaw(text.as_bytes()), Flaw::incomplete("is damaged"), "{text}");
            }
        }
    }

    #[test]
    fn a_key_is_written_unchanged_and_hidden_from_debug_output() {
        let text = file("rsa.pkcs1.key");
        let keys = Keys::read(&text);
        let mut written = String::new();
        keys.keys[0].write(&mut written);
        assert_eq!(written.as_bytes(), text);
        assert_eq!(format!("{:?}", keys.keys[0]), "Key(<secret>)");
    }
}
