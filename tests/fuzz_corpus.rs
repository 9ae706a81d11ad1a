//! What the fuzz targets check, for every file of their corpus and for a few environments made at random, without a fuzzer and
//! its compiler.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use prosody_entrypoint::settings::catalogue;

#[path = "../fuzz/src/lib.rs"]
mod targets;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut replayed = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

#[test]
fn lua_string() {
    replay("lua_string", targets::lua_string);
}

#[test]
fn template() {
    replay("template", targets::template);
}

#[test]
fn setting() {
    replay("setting", targets::setting);
}

#[test]
fn environment() {
    replay("environment", targets::environment);
}

/// Numbers that look random, the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.below(255) as u8 + 1).collect()
    }

    /// A known name, as it is or with a slip in it, or any bytes.
    fn name(&mut self, names: &[String]) -> Vec<u8> {
        let mut name = names[self.below(names.len())].clone().into_bytes();
        match self.below(12) {
            0 => name.extend(b"_FILE"),
            1 => drop(name.remove(self.below(name.len()))),
            2 => name.insert(self.below(name.len() + 1), self.below(255) as u8 + 1),
            3 => name.make_ascii_lowercase(),
            4 => name.extend(self.bytes(20)),
            5 => name.truncate(self.below(name.len())),
            6 => name = self.bytes(20),
            7 => name = [&b"PROSODY_"[..], &vec![b'A'; self.below(2000)]].concat(),
            _ => {}
        }
        name
    }

    /// A valid value of some setting, as it is or cut short, or what is valid for none.
    fn value(&mut self, examples: &[&str]) -> Vec<u8> {
        let example = self.one_of(examples).as_bytes();
        match self.below(10) {
            0 => Vec::new(),
            1 => self.bytes(40),
            2 => example[..self.below(example.len() + 1)].to_owned(),
            3 => [example, &self.bytes(4)].concat(),
            4 => vec![self.one_of(b"[{\"/,:@ \xff"); self.below(2000)],
            5 => "\u{feff}\n'\"]]--\\é\u{1b}[31m".as_bytes().to_owned(),
            _ => example.to_owned(),
        }
    }
}

/// `ENVIRONMENT_SEED=7` makes the environment of that seed alone.
#[test]
fn environments_at_random() {
    let names = targets::known_names();
    let examples: Vec<&str> = catalogue::settings().map(|setting| setting.example).collect();
    let first = std::env::var("ENVIRONMENT_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in first.map_or(1..=500, |seed: u64| seed..=seed) {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = random.below(8) + 1;
        let variable = |_| [random.name(&names), random.value(&examples)].join(&b'=');
        let environment: Vec<Vec<u8>> = (0..count).map(variable).collect();
        targets::environment(&environment.join(&0));
    }
    // A variable is at most as long as this (MAX_ARG_STRLEN).
    targets::environment(format!("PROSODY_{}=x", "X".repeat(128 * 1024)).as_bytes());
    let long = "x".repeat(16 * 1024);
    for name in &names {
        targets::environment(format!("{name}={long}").as_bytes());
    }
}

#[test]
fn lua_source() {
    replay("lua_source", targets::lua_source);
}

#[test]
fn certificate() {
    replay("certificate", targets::certificate);
}

#[test]
fn private_key() {
    replay("private_key", targets::private_key);
}
