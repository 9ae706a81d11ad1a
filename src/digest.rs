//! Digests that never change between versions: the first 64 bits of SHA-256.

use std::fmt;

use ring::digest::{Context, SHA256};

pub fn of(content: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.add(content);
    digest.finish()
}

/// A digest of bytes that are added in pieces. The borders between pieces do not matter.
pub struct Digest(Context);

impl Digest {
    pub fn add(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub fn finish(self) -> u64 {
        let digest = self.0.finish();
        digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn a_digest_is_the_first_eight_bytes_of_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(of(b"abc"), 0xba78_16bf_8f01_cfea);
        let mut digest = Digest::default();
        write!(digest, "a{}c", String::from("b")).unwrap();
        assert_eq!(digest.finish(), of(b"abc"));
    }
}
