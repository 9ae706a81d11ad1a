//! Certificates and keys: from the words in a case's `certificates` to PEM, and back.

use std::collections::HashMap;
use std::fs;

use crate::golden;

/// The content that a word in a list of certificates stands for. Of the file `NAME.pem` in `tests/golden/certificates`,
/// `NAME.crt` is the certificate, `NAME.key` the key and `NAME.cut` the first half of the certificate. Any other word is the
/// name of a file in `tests/certificates`.
pub fn fixture(word: &str) -> Vec<u8> {
    let (name, part) = word.rsplit_once('.').unwrap();
    let Ok(pem) = fs::read_to_string(golden().join(format!("certificates/{name}.pem"))) else {
        return fs::read(golden().parent().unwrap().join("certificates").join(word)).unwrap();
    };
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY-----").unwrap());
    let text = match part {
        "crt" => certificate,
        "key" => key,
        "cut" => &certificate[..certificate.len() / 2],
        _ => panic!("no part of {name}: {word}"),
    };
    text.into()
}

/// A PEM file as the words of [`fixture`].
pub fn in_words(pem: &str) -> String {
    let mut words = HashMap::new();
    for file in fs::read_dir(golden().join("certificates")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".pem") else { continue };
        for part in ["crt", "key"] {
            let word = format!("{name}.{part}");
            words.insert(fixture(&word), word);
        }
    }
    // The first and the last line of a block end so.
    let blocks = pem.split_inclusive("-----\n").collect::<Vec<_>>();
    let blocks = blocks.chunks(2).map(|block| block.concat());
    let word =
        |block: String| words.get(block.as_bytes()).unwrap_or_else(|| panic!("not a fixture: {block}"));
    blocks.map(|block| word(block).as_str()).collect::<Vec<_>>().join(" ")
}
