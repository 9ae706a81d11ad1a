//! As much of DER (ITU-T X.690) as private keys need, which no crate here reads without more than we want of it.

/// INTEGER
pub const INTEGER: u8 = 0x02;
/// BIT STRING
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING
pub const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// SEQUENCE
pub const SEQUENCE: u8 = 0x30;
/// `[0]` and `[1]` with something in it.
pub const CONTEXT: [u8; 2] = [0xa0, 0xa1];
/// `[1]` in the place of the tag of a primitive value.
pub const CONTEXT_1_PRIMITIVE: u8 = 0x81;

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value, of this tag; nothing, and nothing is taken, where it is another one.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // No file that is read needs more than three bytes for a length.
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            ((1..=3).contains(&bytes.len()).then_some(length)?, rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// The values in the next value, which has this tag.
    pub fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.take(tag).map(Reader)
    }

    /// A positive number, without the zeros at its beginning.
    pub fn number(&mut self) -> Option<&'a [u8]> {
        let mut number = self.take(INTEGER)?;
        while let Some(rest) = number.strip_prefix(&[0]) {
            number = rest;
        }
        Some(number)
    }

    /// A BIT STRING of whole bytes.
    pub fn bits(&mut self) -> Option<&'a [u8]> {
        self.take(BIT_STRING)?.strip_prefix(&[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_one_after_the_other() {
        let mut reader = Reader(&[0x30, 5, 2, 3, 0, 0, 9, 3, 2, 0, 7]);
        let mut sequence = reader.enter(SEQUENCE).unwrap();
        assert_eq!(sequence.take(OCTET_STRING), None);
        assert_eq!(sequence.number(), Some(&[9][..]));
        assert_eq!(reader.bits(), Some(&[7][..]));
        assert!(reader.0.is_empty() && sequence.0.is_empty());
    }

    #[test]
    fn long_lengths_are_read_and_wrong_ones_refused() {
        let long = [&[4, 0x82, 1, 0][..], &[7; 256]].concat();
        assert_eq!(Reader(&long).take(OCTET_STRING), Some(&[7; 256][..]));
        for wrong in
            [&[4][..], &[4, 1], &[4, 0x80], &[4, 0x81], &[4, 0x81, 9], &[4, 0x84, 0, 0, 0, 0], &[4, 0xff]]
        {
            assert_eq!(Reader(wrong).take(OCTET_STRING), None, "{wrong:?}");
        }
    }
}
