//! The scripts that take the image's modules and its Prosody from a tarball or a folder, without an engine: what they
//! unpack, arrange and refuse. Whole images are in tests/containers/sources.rs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder as the image's build has it: with `given`, where ADD puts things.
struct Build(PathBuf);

impl Build {
    /// Runs a shell script in the folder, which makes what is given.
    fn prepared_by(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sources-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("given")).unwrap();
        let build = Build(path);
        assert_eq!(build.run(script), (0, String::new()), "{script}");
        build
    }

    /// Runs a shell script in the folder; `$docker` has the project's scripts. Its exit status and its output.
    fn run(&self, script: &str) -> (i32, String) {
        let output = Command::new("sh")
            .args(["-euc", &format!("exec 2>&1; {script}")])
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LC_ALL", "C.UTF-8")
            .env("docker", Path::new(env!("CARGO_MANIFEST_DIR")).join("docker"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text.trim_end().to_owned())
    }

    /// The files below a folder, sorted.
    fn files(&self, folder: &str) -> String {
        self.run(&format!("cd {folder} && find . ! -type d | sort | cut -c 3- | tr '\\n' ' '")).1
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Modules in the layout of a checkout.
const CHECKOUT: &str = "
    module() { mkdir -p $top/$1; echo 'module:log()' >$top/$1/$2; }
    module mod_plain mod_plain.lua
    module mod_nested/nested mod_nested.lua
    module mod_lib_ldap ldap.lib.lua
    module mod_parts mod_parts.lua
    module mod_parts part.lib.lua
    module mod_empty README.md
    module misc/munin plugin.lua
    module .hg dirstate
    echo all: >$top/COPYING";

/// A tarball of a checkout in `given`, as an archive of the repository is.
fn tarball() -> String {
    format!(
        "top=prosody-modules-0123456789ab; {CHECKOUT}
         tar -czf given/tip.tar.gz $top"
    )
}

const UNPACK_URL: &str = "COLLECTION=https://hg.example/tip.tar.gz COLLECTION_SHA256=$(cat given/* | sha256sum | cut -c -64) \
    $docker/unpack COLLECTION given modules";

#[test]
fn a_tarball_becomes_a_collection() {
    let build = Build::prepared_by(&tarball());
    assert_eq!(build.run(&format!("{UNPACK_URL}; $docker/collection modules")), (0, String::new()));
    assert_eq!(
        build.files("modules"),
        "COPYING ldap.lib.lua mod_lib_ldap/ldap.lib.lua mod_nested/nested/mod_nested.lua mod_parts/mod_parts.lua \
         mod_parts/part.lib.lua mod_plain/mod_plain.lua"
    );
}

#[test]
fn a_folder_becomes_a_collection() {
    let alone = "mkdir given/mod_alone; echo >given/mod_alone/mod_alone.lua";
    for (prepare, expected) in [
        (format!("top=given; {CHECKOUT}"), 7),
        (format!("top=given/prosody-modules; {CHECKOUT}"), 7),
        (alone.to_owned(), 1),
    ] {
        let build = Build::prepared_by(&prepare);
        let unpack = "COLLECTION=target/sources/COLLECTION $docker/unpack COLLECTION given modules";
        assert_eq!(
            build.run(&format!("{unpack}; $docker/collection modules")),
            (0, String::new()),
            "{prepare}"
        );
        assert_eq!(
            build.files("modules").split(' ').count(),
            expected,
            "{prepare}: {}",
            build.files("modules")
        );
    }
}

/// A local tarball is in a folder of its own. Its checksum may be left out, and is compared if it is there.
#[test]
fn a_tarball_in_a_folder_is_unpacked() {
    let build = Build::prepared_by(&tarball());
    let unpack = |checksum: &str, to: &str| {
        build.run(&format!("COLLECTION=folder {checksum} $docker/unpack COLLECTION given {to}"))
    };
    assert_eq!(unpack("", "modules"), (0, String::new()));
    let checksum = "COLLECTION_SHA256=$(sha256sum <given/tip.tar.gz | cut -c -64 | tr a-f A-F)";
    assert_eq!(unpack(checksum, "again"), (0, String::new()));
    assert_eq!(build.files("again"), build.files("modules"));
    assert_eq!(unpack("COLLECTION_SHA256=0", "never").0, 65);
}

/// Every file is readable for all and writable for nobody else, whatever the tarball says.
#[test]
fn modes_of_a_tarball_are_not_kept() {
    let build = Build::prepared_by(
        "mkdir -p m/mod_x; echo >m/mod_x/mod_x.lua; echo >m/mod_x/run; chmod 4777 m/mod_x/run; chmod 600 m/mod_x/mod_x.lua
         tar -czf given/m.tar.gz m",
    );
    let modes = "stat -c %a modules modules/mod_x modules/mod_x/mod_x.lua modules/mod_x/run";
    assert_eq!(build.run(&format!("{UNPACK_URL}; {modes}")), (0, "755\n755\n644\n755".to_owned()));
}

/// What is given, how it is unpacked, and the one sentence about it.
#[test]
fn what_cannot_be_unpacked_is_refused_in_a_sentence() {
    let tarball = tarball();
    let url = "COLLECTION=https://hg.example/tip.tar.gz";
    let unpack = "$docker/unpack COLLECTION given modules";
    for (prepare, command, expected) in [
        // Checksums
        (
            &*tarball,
            format!("{url} {unpack}"),
            "a URL needs its checksum; if this is the right file, add --build-arg COLLECTION_SHA256=",
        ),
        (&tarball, format!("{url} COLLECTION_SHA256= {unpack}"), "a URL needs its checksum"),
        (
            &tarball,
            format!("{url} COLLECTION_SHA256=00ff {unpack}"),
            "and not COLLECTION_SHA256=00ff: get the right file, or correct the checksum",
        ),
        (
            "mkdir given/mod_x given/mod_y",
            format!("COLLECTION=folder COLLECTION_SHA256=00ff {unpack}"),
            "COLLECTION_SHA256 is for a tarball, and this is a folder: leave the checksum out",
        ),
        // What the engine does not hand over as it was
        (
            &tarball,
            format!("COLLECTION=target/sources/tip.tar.gz {unpack}"),
            "put it into a folder of its own and name the folder, or run `make image COLLECTION=FILE`",
        ),
        (
            "mkdir given/repository",
            format!("COLLECTION=https://git.example/modules.git {unpack}"),
            "this is not a tarball: name the URL of a .tar.gz, .tar.bz2 or .tar.xz",
        ),
        // No tarballs
        (
            "echo '<!DOCTYPE html>' >given/tip.tar.gz",
            UNPACK_URL.to_owned(),
            "this is not a whole tarball: name a .tar.gz, .tar.bz2 or .tar.xz",
        ),
        (
            &format!("{tarball}; truncate -s 200 given/tip.tar.gz"),
            UNPACK_URL.to_owned(),
            "this is not a whole tarball",
        ),
        // Names and links that lead out
        (
            "mkdir mod_x; echo >mod_x/a; tar -cPf given/x.tar --transform 's|mod_x/a|mod_x/../../escaped|' mod_x",
            UNPACK_URL.to_owned(),
            "the tarball has the name mod_x/../../escaped, which leads out of its folder: use another tarball",
        ),
        (
            "mkdir mod_x; echo >mod_x/a; tar -cPf given/x.tar --transform 's|mod_x/a|../escaped|' mod_x",
            UNPACK_URL.to_owned(),
            "the tarball has the name ../escaped, which",
        ),
        (
            "mkdir mod_x; echo >mod_x/a; tar -cPf given/x.tar --transform \"s|mod_x/a|$PWD/escaped|\" mod_x",
            UNPACK_URL.to_owned(),
            "/escaped, which leads out of its folder",
        ),
        (
            "mkdir t; ln -s .. t/out; echo >t/a; tar -cf given/x.tar --transform 's|t/a|t/out/escaped|' t/out t/a",
            UNPACK_URL.to_owned(),
            "the tarball cannot be unpacked: use another one",
        ),
        (
            "echo secret >escapes; mkdir t; echo >t/a; ln t/a t/b; tar -cPf given/x.tar --transform 'flags=h;s|t/a|../escapes|' t/a t/b",
            UNPACK_URL.to_owned(),
            "the tarball cannot be unpacked: use another one",
        ),
        (
            "mkdir -p t/mod_x; ln -s ../../given t/mod_x/out; tar -cf given/x.tar t",
            UNPACK_URL.to_owned(),
            "a link leads out of its folder, to ",
        ),
        (
            "mkdir -p given/mod_x given/mod_y; ln -s /etc given/mod_x/out",
            format!("COLLECTION=folder {unpack}"),
            "a link leads out of its folder, to /etc: replace it with what it links to",
        ),
        (
            "mkdir -p t/mod_x; mkfifo t/mod_x/queue; tar -cf given/x.tar t",
            UNPACK_URL.to_owned(),
            "mod_x/queue is neither a file, a folder nor a link: leave it out",
        ),
        // No modules
        (
            "true",
            format!("COLLECTION=folder {unpack}; $docker/collection modules"),
            "COLLECTION: there is no module in it: name a checkout or an archive of https://hg.prosody.im/prosody-modules",
        ),
        (
            "mkdir -p t/src t/mod_readme; echo >t/src/main.c; tar -czf given/t.tar.gz t",
            format!("{UNPACK_URL}; $docker/collection modules"),
            "COLLECTION: there is no module in it",
        ),
    ] {
        let build = Build::prepared_by(prepare);
        let (status, output) = build.run(&command);
        let last = output.lines().last().unwrap_or_default();
        assert!(
            status == 65 && last.starts_with("COLLECTION") && last.contains(expected),
            "{prepare}\n{command}\nended with {status} and not with the sentence {expected:?}:\n{output}"
        );
        let escaped = build.run("find . -name escaped; grep -l -r secret . | grep -v -x ./escapes || :");
        assert_eq!(escaped, (0, String::new()), "{prepare}");
    }
}

#[test]
fn links_within_a_tarball_stay() {
    let build = Build::prepared_by(
        "mkdir -p t/mod_x t/mod_y; echo >t/mod_x/mod_x.lua; ln -s ../mod_x/mod_x.lua t/mod_y/mod_y.lua; ln -s . t/mod_x/self
         tar -czf given/t.tar.gz t",
    );
    assert_eq!(build.run(&format!("{UNPACK_URL}; $docker/collection modules")), (0, String::new()));
    assert_eq!(build.files("modules"), "mod_x/mod_x.lua mod_x/self mod_y/mod_y.lua");
}

#[test]
fn a_source_that_does_not_build_shows_why() {
    let not_prosody = Build::prepared_by("echo >given/main.c");
    let (status, output) = not_prosody.run("$docker/prosody given usr");
    assert!(
        status == 65 && output.starts_with("PROSODY_SOURCE: this is not Prosody's source: name a release"),
        "{output}"
    );
    assert!(!not_prosody.0.join("usr").exists());

    let broken = Build::prepared_by(
        r"cd given; echo 'echo configured' >configure; echo >prosodyctl; echo 'int f(void) { return unknown; }' >broken.c
          printf 'all:\n\tcc -c broken.c\n' >GNUmakefile",
    );
    let (status, output) = broken.run("$docker/prosody given usr");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!((status, lines[0]), (65, "configured"), "{output}");
    assert_eq!(lines.last(), Some(&"PROSODY_SOURCE: the source does not build; the lines above say why"));
    let near_the_end = &lines[lines.len().saturating_sub(12)..];
    assert!(near_the_end.iter().any(|line| line.contains("broken.c:1")), "{output}");
}

#[test]
fn make_image_copies_what_is_on_this_machine() {
    let build = Build::prepared_by(
        "mkdir -p 'my modules/mod_x' target/sources/COLLECTION/old; echo >'my modules/mod_x/mod_x.lua'; ln -s 'my modules' link
         echo >prosody.tar.gz",
    );
    let arguments = |environment: &str| build.run(&format!("{environment} $docker/build-args"));
    for (environment, expected, files) in [
        (
            "COLLECTION=link PROSODY_SOURCE=prosody.tar.gz PROSODY_SOURCE_SHA256=00ff",
            "--build-arg COLLECTION=target/sources/COLLECTION\n--build-arg PROSODY_SOURCE=target/sources/PROSODY_SOURCE\n\
             --build-arg PROSODY_SOURCE_SHA256=00ff",
            "COLLECTION/mod_x/mod_x.lua PROSODY_SOURCE/prosody.tar.gz",
        ),
        // What an earlier build left is a source like any other.
        (
            "COLLECTION=target/sources/COLLECTION PROSODY_SOURCE=",
            "--build-arg COLLECTION=target/sources/COLLECTION",
            "COLLECTION/mod_x/mod_x.lua",
        ),
        (
            "COLLECTION=https://hg.example/tip.tar.gz COLLECTION_SHA256=00ff",
            "--build-arg COLLECTION=https://hg.example/tip.tar.gz\n--build-arg COLLECTION_SHA256=00ff",
            "",
        ),
        ("", "", ""),
    ] {
        assert_eq!(arguments(environment), (0, expected.to_owned()), "{environment}");
        assert_eq!(build.files("target/sources"), files, "{environment}");
    }
    let (status, output) = arguments("COLLECTION=/nonexistent");
    assert!(
        status == 66 && output.starts_with("COLLECTION=/nonexistent: there is no such folder or file: "),
        "{output}"
    );
}
