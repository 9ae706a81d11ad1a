//! Reads the certificates of authorities that are trusted besides the system's.

use std::path::Path;

use super::{Certificate, Flaw, files, pem};

/// The certificates in a file (PEM, or one in DER), as PEM. Anything else in it, such as a key, is left out.
pub fn read(path: &Path) -> Result<String, Flaw> {
    let content = files::read_whole(path)?;
    let unreadable = || Flaw::lasting("holds something that is called a certificate and is none");
    let mut text = String::new();
    for block in pem::blocks(&content) {
        let block = block.map_err(|pem::CutOff| Flaw::incomplete("is cut off"))?;
        if block.label == "CERTIFICATE" {
            let der = block.decode().filter(|der| Certificate::read(der.clone()).is_some());
            pem::write(&mut text, "CERTIFICATE", &der.ok_or_else(unreadable)?);
        }
    }
    if text.is_empty() && Certificate::read(content.clone()).is_some() {
        pem::write(&mut text, "CERTIFICATE", &content);
    }
    if text.is_empty() { Err(Flaw::lasting("holds no certificate")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::tests::TestDir;

    #[test]
    fn certificates_are_read_and_nothing_else() {
        let directory = TestDir::new();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let read = |content: &[u8]| {
            let path = directory.path().join("ca.pem");
            std::fs::write(&path, content).unwrap();
            read(&path).map_err(|flaw| flaw.why.into_owned())
        };
        let expected = certificate.pem().replace('\r', "");
        assert_eq!(read(certificate.der()), Ok(expected.clone()));
        let both = format!("An authority\n{}{expected}{expected}", key.serialize_pem());
        assert_eq!(read(both.as_bytes()), Ok(expected.repeat(2)));
        assert_eq!(read(key.serialize_pem().as_bytes()), Err("holds no certificate".into()));
        assert_eq!(read(b""), Err("holds no certificate".into()));
        assert_eq!(read(&expected.as_bytes()[..expected.len() - 30]), Err("is cut off".into()));
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let why = "holds something that is called a certificate and is none";
        assert_eq!(read(format!("{expected}{other}").as_bytes()), Err(why.into()));
    }
}
