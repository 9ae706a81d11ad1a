//! What is in the images, and what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use crate::docker::{
    BOOKWORM, Container, MINIMAL, Observations, Recipe, TRIXIE, docker, images, require, unique,
};

/// What the images may have, in bytes, as a registry keeps them.
const LARGEST: [(&str, u64); 2] = [(TRIXIE, 51_000_000), (MINIMAL, 18_000_000)];

/// A container of the image that does nothing.
fn idle(image: &str) -> Container {
    Recipe::new(image).with(["--entrypoint", "sleep"]).command(["infinity"]).start()
}

/// What a shell line prints, as root.
fn printed(container: &Container, script: &str) -> String {
    container.root(script).stdout.trim().to_owned()
}

fn the_image_is_as_described(image: &str) {
    require(image);
    let mut seen = Observations::default();
    let description: Value = serde_json::from_str(&docker(["image", "inspect", image]).ok()).unwrap();
    let config = &description[0]["Config"];

    let mut ports: Vec<_> = config["ExposedPorts"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(port, _)| port.trim_end_matches("/tcp").to_owned())
        .collect();
    ports.sort();
    seen.equal("EXPOSE", ports.join(" ").as_str(), "5000 5222 5223 5269 5280 5281 5347");
    seen.equal("VOLUME", config["Volumes"].clone(), json!({"/var/lib/prosody": {}}));
    seen.equal("ENTRYPOINT", config["Entrypoint"].clone(), json!(["prosody-entrypoint"]));
    seen.equal("CMD", config["Cmd"].clone(), json!(["prosody", "-F"]));
    seen.equal(
        "HEALTHCHECK",
        config["Healthcheck"]["Test"].clone(),
        json!(["CMD", "prosody-entrypoint", "healthcheck"]),
    );
    let seconds = |name: &str| config["Healthcheck"][name].as_u64().unwrap_or(0) / 1_000_000_000;
    let start_period = seconds("StartPeriod");
    seen.that(
        "a start period beyond the longest waits for a database and for the data directory (60 s each)",
        start_period > 120,
        start_period,
    );
    seen.equal("the interval", seconds("Interval"), 30);
    let retries = config["Healthcheck"]["Retries"].as_u64().unwrap_or(0);
    seen.that("a busy minute is not the end", seconds("Interval") * retries >= 60, retries);
    for label in ["title", "description", "licenses", "version", "revision", "created"] {
        let value = &config["Labels"][format!("org.opencontainers.image.{label}")];
        seen.that(&format!("label {label}"), value.as_str().is_some_and(|text| !text.is_empty()), value);
    }
    let environment = config["Env"].to_string();
    seen.that("no setting in the image", !environment.contains("PROSODY_"), environment);

    let container = idle(image);
    for (what, script, expected) in [
        ("files with SUID or SGID", "find / -xdev ! -type l -perm /6000", ""),
        (
            "private keys",
            "find / -xdev -type f -size -64k ! -path '/proc/*' ! -path '/usr/lib/*' -exec grep -l -e '-----BEGIN .*PRIVATE KEY-----' {} + ; find / -xdev -name '*.key' ! -path /usr/share/dns/root.key",
            "",
        ),
        ("Debian's configuration", "ls -A /etc/prosody", ""),
        ("package lists", "ls -A /var/lib/apt/lists", ""),
        ("package cache", "find /var/cache/apt -type f", ""),
        ("dangling links to certificates", "find /etc/ssl -xtype l", ""),
        ("the data directory", "stat -c '%U:%g %a' /var/lib/prosody", "prosody:0 770"),
        ("the runtime directory", "stat -c %a /run/prosody", "1777"),
        (
            "prosodyctl is ours",
            "readlink -f \"$(command -v prosodyctl)\"",
            "/usr/local/bin/prosody-entrypoint",
        ),
        ("compilers", "command -v gcc cc cargo", ""),
        ("the trust anchor of DNSSEC", "ls /usr/share/dns/root.ds", "/usr/share/dns/root.ds"),
        (
            "the Lua libraries of every driver and option",
            "for library in DBI dbd.postgresql dbd.mysql dbd.sqlite3 lunbound lualdap luaevent cyrussasl ssl lfs lxp socket; do \
                lua5.4 -e \"require '$library'\" || echo $library; done 2>&1",
            "",
        ),
        (
            "what is not Prosody's own among its modules",
            "find /usr/lib/prosody ! -type d -exec dpkg -S {} + 2>&1 | grep -v '^prosody: '",
            "",
        ),
        (
            "folders of the collection without a module",
            "cd /opt/prosody-modules-available && for folder in */; do name=${folder%/}; \
                ls $name/$name.lua $name/${name#mod_}/$name.lua 2>/dev/null | grep -q . || echo $name; done",
            "",
        ),
        (
            "what is beside the modules' folders",
            "cd /opt/prosody-modules-available && find . -mindepth 1 -maxdepth 1 ! -type d | sort",
            "./copyright\n./ldap.lib.lua",
        ),
        (
            "READMEs of short, long and nested modules",
            "cd /opt/prosody-modules-available && \
                grep -l '^summary:' mod_auth_ha1/README.md mod_firewall/README.md mod_auth_dovecot/README.md",
            "mod_auth_ha1/README.md\nmod_firewall/README.md\nmod_auth_dovecot/README.md",
        ),
        (
            "READMEs elsewhere, packed files, links",
            "cd /opt/prosody-modules-available && find . -iname 'README*' ! -path './mod_*/README.md' -o -name '*.gz' -o -type l",
            "",
        ),
        (
            "what of the collection is not root's, not readable by all or writable by others",
            "find /opt/prosody-modules-available ! -user 0 -o ! -group 0 -o ! -perm -444 -o -perm /022 -o -type d ! -perm -111",
            "",
        ),
        (
            "a static binary",
            "ldd /usr/local/bin/prosody-entrypoint 2>&1 | grep -v -e 'not a dynamic' -e 'statically linked'",
            "",
        ),
    ] {
        seen.equal(what, printed(&container, script).as_str(), expected);
    }
    let [modules, readmes] = ["mod_*", "mod_*/README.md"].map(|pattern| {
        let count =
            printed(&container, &format!("cd /opt/prosody-modules-available && ls -d {pattern} | wc -l"));
        count.parse::<usize>().unwrap_or(0)
    });
    seen.that("the whole collection", modules > 75, modules);
    seen.that("a README for nearly every module", readmes + 10 >= modules, readmes);
    let size = printed(&container, "stat -c %s /usr/local/bin/prosody-entrypoint");
    seen.that("a binary of 6 MB at most", size.parse::<u64>().is_ok_and(|size| size <= 6_000_000), &size);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_image_of_13_0_is_as_described() {
    the_image_is_as_described(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_image_of_0_12_is_as_described() {
    the_image_is_as_described(BOOKWORM);
}

/// No authority of the build host has come in: the bundle is the one that Debian's package makes
/// in a clean container of the same suite.
#[test]
#[ignore = "needs Docker, the images and Debian's package archive: make test"]
fn the_certificate_authorities_are_debians() {
    for image in images() {
        let base = if *image == TRIXIE { "debian:trixie-slim" } else { "debian:bookworm-slim" };
        certificate_authorities_are_those_of(base, image);
    }
}

fn certificate_authorities_are_those_of(base: &str, image: &str) {
    const BUNDLE: &str =
        "sha256sum </etc/ssl/certs/ca-certificates.crt; ls -A /usr/local/share/ca-certificates";
    require(base);
    let clean = Recipe::new(base)
        .command([
            "sh",
            "-ec",
            &format!(
                "{{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
                 apt-get install -y -qq --no-install-recommends ca-certificates; }} >/dev/null 2>&1; {BUNDLE}"
            ),
        ])
        .run()
        .ok();
    assert_eq!(printed(&idle(image), BUNDLE), clean);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_images_are_small() {
    let mut seen = Observations::default();
    for (image, largest) in LARGEST {
        require(image);
        let count = ["-c", r#"docker save "$0" | gzip -9 | wc -c"#, image];
        let size = String::from_utf8(Command::new("sh").args(count).output().unwrap().stdout).unwrap();
        let size: u64 = size.trim().parse().unwrap();
        // An image that is not there would be small, too.
        let range = largest / 2..=largest;
        seen.that(&format!("{image}: {range:?} bytes"), range.contains(&size), size);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker, the images and Debian's package archive: make test"]
fn packages_can_be_installed_in_the_image() {
    for image in images() {
        let script = "{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
             --no-install-recommends curl lua-cjson && apt-get install -y -qq --reinstall lua-socket; } >/tmp/log 2>&1 \
             || { cat /tmp/log; exit 1; }
             curl --version | grep -o '^curl'
             lua5.4 -e 'print(require \"cjson\".encode { require \"socket\"._VERSION and 1 })'
             ls /usr/lib/*/lua/5.2/socket/core.so | wc -l
             dpkg --audit";
        let container = Recipe::new(image).with(["--user", "0", "--entrypoint", "sh"]);
        let answer = container.command(["-ec", script]).run();
        assert_eq!(answer.clone().ok(), "curl\n[1]\n1", "{image}: {answer:?}");
    }
}

/// The entries of an image: mode, owner and type, and where a link leads. Directories end with a slash.
fn entries(image: &str) -> BTreeMap<String, String> {
    require(image);
    let name = unique("export");
    docker(["create", "--name", &name, image]).ok();
    let container = Container { name };
    let list = ["-c", r#"docker export "$0" | tar -tv --numeric-owner"#, &container.name];
    let list = String::from_utf8(Command::new("sh").args(list).output().unwrap().stdout).unwrap();
    list.lines()
        .map(|line| {
            let mut rest = line;
            let mut fields = [""; 5];
            for field in &mut fields {
                (*field, rest) = rest.trim_start().split_once(' ').unwrap();
            }
            let (path, target) = rest.trim_start().split_once(" -> ").unwrap_or((rest.trim_start(), ""));
            (format!("/{path}"), format!("{} {} {target}", fields[0], fields[1]))
        })
        .collect()
}

/// Without a shell, the image has everything else that the full one serves with.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_minimal_image_serves_what_the_full_one_does() {
    let mut seen = Observations::default();
    let [full, minimal] = [TRIXIE, MINIMAL].map(entries);
    let [full_config, minimal_config] = [TRIXIE, MINIMAL].map(|image| {
        docker(["image", "inspect", "--format", "{{json .Config}}", image]).ok().parse::<Value>().unwrap()
    });
    for (field, value) in full_config.as_object().unwrap() {
        if !matches!(field.as_str(), "Image" | "Hostname") {
            seen.equal(field, &minimal_config[field], value);
        }
    }

    const SERVED: [&str; 12] = [
        "/etc/prosody/",
        "/etc/ssl/",
        "/opt/",
        "/run/prosody/",
        "/usr/lib/prosody/",
        "/usr/local/bin/",
        "/usr/local/share/prosody-entrypoint/",
        "/usr/share/dns/",
        "/usr/share/javascript/",
        "/usr/share/lua/5.4/",
        "/usr/share/zoneinfo/",
        "/var/lib/prosody/",
    ];
    const LIBRARIES: [&str; 3] = ["libmariadb3/", "lua/5.4/", "sasl2/"];
    let library = format!("/usr/lib/{}-linux-gnu/", std::env::consts::ARCH);
    let is_served = |path: &&String| {
        SERVED.iter().any(|place| path.starts_with(place))
            || path
                .strip_prefix(&library)
                .is_some_and(|rest| LIBRARIES.iter().any(|place| rest.starts_with(place)))
    };
    let missing: Vec<_> = full.keys().filter(is_served).filter(|path| !minimal.contains_key(*path)).collect();
    seen.equal("what the minimal image lacks", missing, Vec::new());
    // The engine mounts file systems at /proc and /sys.
    let changed: Vec<_> = minimal
        .iter()
        .filter(|(path, entry)| full.get(*path).is_some_and(|other| other != *entry))
        .filter(|(path, _)| !matches!(path.as_str(), "/proc/" | "/sys/"))
        .collect();
    seen.equal("what has another owner, mode or target", changed, Vec::new());
    let new: Vec<_> = minimal
        .keys()
        .filter(|path| !full.contains_key(*path) && !path.starts_with("/var/lib/dpkg/"))
        .collect();
    seen.that(
        "what only the minimal image has: copyright files of packages that refer to others",
        new.iter().all(|path| path.starts_with("/usr/share/doc/lib")),
        &new,
    );
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_minimal_image_has_no_shell_and_no_packages() {
    let mut seen = Observations::default();
    let minimal = entries(MINIMAL);
    let programs: BTreeSet<_> = minimal
        .iter()
        .filter(|(path, entry)| {
            !entry.starts_with('d') && ["/bin/", "/sbin/"].iter().any(|place| path.contains(place))
        })
        .map(|(path, _)| path.rsplit('/').next().unwrap())
        .collect();
    let expected = ["lua5.4", "prosody", "prosody-entrypoint", "prosody-migrator", "prosodyctl"];
    seen.equal("programs", programs, BTreeSet::from(expected));
    let privileged: Vec<_> = minimal.iter().filter(|(_, entry)| entry[1..10].contains(['s', 'S'])).collect();
    seen.equal("SUID and SGID", privileged, Vec::new());
    let writable: Vec<_> = minimal
        .iter()
        .filter(|(_, entry)| !entry.starts_with('l') && &entry[8..9] == "w")
        .map(|(path, _)| path.as_str())
        .collect();
    seen.equal("what all may write", writable, ["/run/prosody/", "/tmp/", "/var/tmp/"].to_vec());

    let libraries = "for name in ([[DBI dbd.postgresql dbd.mysql dbd.sqlite3 lunbound lualdap luaevent cyrussasl ssl lfs \
         lxp socket readline zlib proctitle]]):gmatch('%S+') do print(pcall(require, name) or name) end";
    let loaded = docker(["run", "--rm", "--entrypoint", "lua5.4", MINIMAL, "-e", libraries]).ok();
    seen.that("Lua's libraries", loaded.lines().all(|line| line == "true"), loaded);

    for command in ["bash", "/bin/sh"] {
        let answer = docker(["run", "--rm", MINIMAL, command, "-c", "id"]);
        seen.equal(&format!("{command}: the status"), answer.status, 127);
        seen.that(&format!("{command}: the message"), answer.stderr.contains("in this image"), answer);
    }

    // For scanners: the packages, as dpkg has them in the full image.
    let found = packages(MINIMAL, "var/lib/dpkg/status.d");
    let installed = packages(TRIXIE, "var/lib/dpkg/status");
    let others: Vec<_> = found.difference(&installed).collect();
    seen.equal("packages that the full image does not have", others, Vec::new());
    for package in ["libc6", "libssl3t64", "libsqlite3-0", "lua-sec", "prosody"] {
        let is_found = found.iter().any(|lines| lines.contains(&format!("Package: {package}\n")));
        seen.that(&format!("{package} is among the packages"), is_found, &found);
    }
    seen.that("fewer packages", found.len() < installed.len() * 3 / 5, (found.len(), installed.len()));
    seen.report();
}

/// Names and versions in a file or folder of dpkg's.
fn packages(image: &str, path: &str) -> BTreeSet<String> {
    let name = unique("export");
    docker(["create", "--name", &name, image]).ok();
    let container = Container { name };
    let list = ["-c", r#"docker export "$0" | tar -xO "$1""#, &container.name, path];
    let list = String::from_utf8(Command::new("sh").args(list).output().unwrap().stdout).unwrap();
    let lines = list.lines().filter(|line| line.starts_with("Package: ") || line.starts_with("Version: "));
    let lines: Vec<_> = lines.collect();
    lines.chunks(2).map(|lines| format!("{}\n", lines.join("\n"))).collect()
}

/// What calls a program by a shell is told that it could not, and the server serves on.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_module_that_calls_a_program_does_no_harm_in_the_minimal_image() {
    let module = r#"
        module:log("info", "os.execute: %s, %s", os.execute("touch /tmp/called"));
        module:log("info", "io.popen: %s, %s", io.popen("id"));
    "#;
    let server = Recipe::new(MINIMAL)
        .env("PROSODY_DOMAIN", "chat.example")
        .env("PROSODY_MODULES_ENABLED", "calls")
        .file("/etc/prosody/modules/mod_calls.lua", module)
        .serve();
    server.wait_for_log("os.execute: (nil), No such file or directory");
    server.wait_for_log("io.popen: (nil), id: No such file or directory");
    server.register("alice", "chat.example", "secret-a").ok();
}
