//! What the fuzz targets check, for every file of their corpus, without a fuzzer and its compiler.

use std::fs;
use std::path::Path;

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
