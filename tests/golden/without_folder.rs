//! Tests that a folder cannot describe.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use libtest_mimic::Trial;
use nix::unistd::geteuid;

use crate::BINARY;
use crate::prosody::VERSIONS;
use crate::sandbox::{SOMEBODY, Sandbox};

pub fn tests() -> Vec<Trial> {
    let test = |name, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    vec![
        test("a_variable_that_is_not_utf_8_is_named", a_variable_that_is_not_utf_8_is_named),
        test("a_file_that_may_not_be_read_is_named", a_file_that_may_not_be_read_is_named),
        test("anybody_may_ask_for_modules", anybody_may_ask_for_modules),
        test(
            "a_summary_is_not_taken_from_what_prosody_may_not_read",
            a_summary_is_not_taken_from_what_prosody_may_not_read,
        ),
        test("without_prosody_there_is_nothing_to_configure", without_prosody_there_is_nothing_to_configure),
        test("modules_that_need_each_other_come_to_an_end", modules_that_need_each_other_come_to_an_end),
    ]
}

fn a_variable_that_is_not_utf_8_is_named() {
    let sandbox = Sandbox::with_prosody(VERSIONS[0]);
    let mut command = sandbox.command(Path::new(BINARY));
    command.env("PROSODY_DOMAIN", OsString::from_vec(b"b\xfccher.example".to_vec()));
    // Not ours, so none of our business.
    command.env("LESS", OsString::from_vec(b"\xff".to_vec()));
    command.env(OsString::from_vec(b"PROSODY_\xff".to_vec()), "x");
    let output = command.args(["render", "--output", "output"]).output().unwrap();
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tOne thing is wrong, nothing was started:\n\t  PROSODY_DOMAIN: the value is not UTF-8\n"
    );
    assert_eq!(output.status.code(), Some(78));
    assert!(!sandbox.path.join("output").exists());
}

fn a_file_that_may_not_be_read_is_named() {
    let sandbox = Sandbox::with_prosody(VERSIONS[0]);
    let secret = sandbox.path.join("odd/secret");
    fs::write(&secret, "S3CRET").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads every file, so that another user has to try, with a program that this user can reach.
    let program = sandbox.copy_of_program();
    let mut command = sandbox.command(&program);
    if geteuid().is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    command.env("PROSODY_DOMAIN", "chat.example").env("PROSODY_DB_PASSWORD_FILE", &secret);
    let output = command.args(["render", "--output", "output"]).output().unwrap();
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tOne thing is wrong, nothing was started:\n\t  \
         PROSODY_DB_PASSWORD_FILE=\"{temp}/odd/secret\": the file cannot be read: Permission denied\n"
    );
    assert_eq!(output.status.code(), Some(78));
}

/// `docker exec --user` runs as another user than the server, with the environment of the container.
fn anybody_may_ask_for_modules() {
    let sandbox = Sandbox::with_prosody(VERSIONS[0]);
    let program = sandbox.copy_of_program();
    for (arguments, status) in [(&["modules"][..], 0), (&["modules", "--search", "x"], 1)] {
        let mut command = sandbox.command(&program);
        if geteuid().is_root() {
            command.uid(SOMEBODY).gid(SOMEBODY);
        }
        command.env("PROSODY_DOMAIN", "chat.example").env("PROSODY_UID", "5").env("PROSODY_USER", "nobody");
        command.env("PROSODY_COMMUNITY_MODULES_DIR", "/nonexistent");
        let output = command.args(arguments).output().unwrap();
        let log = sandbox.stable(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {log}");
        assert!(!log.contains("PROSODY_UID"), "{arguments:?}: {log}");
    }
}

/// A link in a collection that Prosody's user can write to leads root no further than that user.
fn a_summary_is_not_taken_from_what_prosody_may_not_read() {
    if !geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::with_prosody(VERSIONS[0]);
    let module = sandbox.path.join("collection/mod_x");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("mod_x.lua"), "--").unwrap();
    let secret = sandbox.path.join("odd/secret");
    fs::write(&secret, "S3CRET").unwrap();
    std::os::unix::fs::symlink(&secret, module.join("README.md")).unwrap();
    let search = |mode| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let collection =
            ("PROSODY_COMMUNITY_MODULES_DIR".to_owned(), module.parent().unwrap().display().to_string());
        let output = sandbox.run(&[collection], &["modules", "--search", "x"].map(str::to_owned));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(search(0o644).contains("S3CRET"));
    assert_eq!(search(0o600), "MODULE  FROM        SUMMARY\nx       collection\n");
}

fn without_prosody_there_is_nothing_to_configure() {
    let sandbox = Sandbox::without_prosody();
    let domain = [("PROSODY_DOMAIN".to_owned(), "chat.example".to_owned())];
    let arguments = ["render", "--output", "output"].map(str::to_owned);
    let output = sandbox.run(&domain, &arguments);
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tProsody is not installed: there is no program `prosody` on PATH; install it in the image\n"
    );
    assert_eq!(output.status.code(), Some(127));

    // An error in a setting comes first: it can be corrected without a new image.
    let wrong = [("PROSODY_DOMAIN".to_owned(), "chat..example".to_owned())];
    let output = sandbox.run(&wrong, &arguments);
    assert_eq!(output.status.code(), Some(78), "{}", sandbox.stable(&output.stderr));
}

/// However many modules need each other, and however deep, the search comes to an end.
fn modules_that_need_each_other_come_to_an_end() {
    const MANY: usize = 5_000;
    let sandbox = Sandbox::with_prosody(VERSIONS[0]);
    let collection = sandbox.path.join("collection");
    fs::create_dir(&collection).unwrap();
    let write = |name: String, source: String| fs::write(collection.join(name), source).unwrap();
    write("mod_deep.lua".into(), "module:require('l0')".into());
    for number in 0..MANY {
        write(format!("l{number}.lib.lua"), format!("module:require('l{}')", (number + 1) % MANY));
    }
    let round = |number: usize| format!("module:depends('round_{}')\n", number % 100);
    for number in 0..100 {
        write(format!("mod_round_{number}.lua"), (0..100).map(|more| round(number + more)).collect());
    }
    // Nothing but a name is taken for one, or printed.
    write(
        "mod_odd.lua".into(),
        "module:depends[[a\nb]] module:depends'\u{1b}' module:depends('".to_owned() + &"x".repeat(9999),
    );
    let environment = [
        ("PROSODY_DOMAIN", "chat.example"),
        ("PROSODY_COMMUNITY_MODULES_DIR", "{temp}/collection"),
        ("PROSODY_MODULES_ENABLED", "deep, round_0, odd"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let output = sandbox.run(&environment, &["render", "--output", "output"].map(str::to_owned));
    let log = sandbox.stable(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert_eq!(sandbox.files_below("output")["community-modules"].lines().count(), MANY + 1 + 100 + 1);
}
