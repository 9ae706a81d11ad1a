//! What is in the images, and what is not.

use serde_json::{Value, json};

use crate::docker::{BOOKWORM, Container, Observations, Recipe, TRIXIE, docker, images, require};

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
    let start_period = config["Healthcheck"]["StartPeriod"].as_u64().unwrap_or(0);
    seen.that(
        "a start period beyond the longest wait for a database (60 s)",
        start_period > 60_000_000_000,
        start_period,
    );
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
