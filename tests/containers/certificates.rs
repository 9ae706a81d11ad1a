//! Certificates: found where others put them, renewed as others renew them, and looked at on the wire.
//!
//! Those who write here write as certbot, as Kubernetes, or as an administrator with a shell would, into a volume that
//! root alone may read and that the server has read-only.

use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::docker::{
    Answer, BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, images,
    is_all_wanted, unique,
};
use crate::reload::reload;
use crate::wire::{DEADLINE, Wire};

const DOMAIN: &str = "chat.example";

/// The names of the server of PROSODY_DOMAIN.
const NAMES: [&str; 2] = [DOMAIN, "*.chat.example"];

/// Where the volume is, for who writes to it and for the server.
const MOUNT: &str = "/etc/letsencrypt";

const IMPORT: &str = "PROSODY_IMPORT_CERTIFICATE_DIRECTORIES";

/// How long a start may take with all that is bad in its sources, on a busy machine.
const START: Duration = Duration::from_secs(20);

/// Who issues certificates here.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with all that belongs to it, as PEM.
pub struct Pair {
    pub certificate: String,
    chain: String,
    pub key: String,
    /// SHA-256 of the certificate.
    fingerprint: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for 90 days.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_for(names, -1, 90)
    }

    /// A certificate that is for servers and not for clients.
    pub fn issue_for_servers(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate that is valid between these days, counted from now, and an hour longer.
    fn issue_for(&self, names: &[&str], from: i64, to: i64) -> Pair {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::days(from);
        params.not_after = now + time::Duration::days(to) + time::Duration::HOUR;
        params.subject_alt_names =
            names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der());
        Pair {
            certificate: certificate.pem(),
            chain: self.issuer.pem(),
            key: key.serialize_pem(),
            fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl Pair {
    pub fn full_chain(&self) -> String {
        format!("{}{}", self.certificate, self.chain)
    }
}

// Shell scripts that write.

fn write(path: &str, text: &str) -> String {
    format!("cat >{path} <<'END'\n{}\nEND\n", text.trim_end())
}

/// As certbot's storage.py does: the files of a new version in archive/, then each link in live/ made anew, one after
/// the other.
fn certbot(name: &str, pair: &Pair) -> String {
    let mut script = format!(
        "umask 077\nmkdir -p {MOUNT}/archive/{name} {MOUNT}/live/{name}\ncd {MOUNT}/archive/{name}\n\
         n=$(($(ls | wc -l) / 4 + 1))\n"
    );
    script += &write("privkey$n.pem", &pair.key);
    script += "umask 022\n";
    script += &write("cert$n.pem", &pair.certificate);
    script += &write("chain$n.pem", &pair.chain);
    script += &write("fullchain$n.pem", &pair.full_chain());
    script
        + &format!(
            "cd {MOUNT}/live/{name}\nfor kind in cert privkey chain fullchain; do\n\
             rm -f $kind.pem\nln -s ../../archive/{name}/$kind$n.pem $kind.pem\ndone\n"
        )
}

/// As kubelet's AtomicWriter does for a secret: a new folder, and a link to it that is renamed over the old one.
fn kubernetes(pair: &Pair) -> String {
    let mut script = format!(
        "cd {MOUNT}\nnew=..$(date +%Y_%m_%d_%H_%M_%S.%N)\nold=$(readlink ..data) || true\nmkdir $new\n"
    );
    script += &write("$new/tls.crt", &pair.full_chain());
    script += &write("$new/tls.key", &pair.key);
    script
        + "ln -s $new ..data_tmp\nmv -T ..data_tmp ..data\n\
           for file in tls.crt tls.key; do [ -e $file ] || ln -s ..data/$file $file; done\n\
           [ -z \"$old\" ] || rm -r \"$old\"\n"
}

/// `NAME.crt` and `NAME.key` in one folder.
fn flat(directory: &str, name: &str, pair: &Pair) -> String {
    let mut script = format!("mkdir -p {directory}\n");
    script += &write(&format!("{directory}/{name}.key"), &pair.key);
    script + &write(&format!("{directory}/{name}.crt"), &pair.full_chain())
}

/// A folder with `fullchain.pem` and `privkey.pem`.
fn folder(directory: &str, pair: &Pair) -> String {
    let mut script = format!("mkdir -p {directory}\n");
    script += &write(&format!("{directory}/privkey.pem"), &pair.key);
    script + &write(&format!("{directory}/fullchain.pem"), &pair.full_chain())
}

/// Runs a script as root, and gives the time (Unix, in seconds) at which it ended.
#[track_caller]
fn run(container: &Container, script: &str) -> f64 {
    let said = container.root(&format!("set -e\n{script}\ndate +%s.%N")).ok();
    said.lines().last().unwrap().parse().unwrap()
}

/// A volume that root alone may read, and the container that writes to it.
struct Source {
    writer: Container,
    // After the container: a volume in use cannot be removed.
    volume: Volume,
}

impl Source {
    fn new() -> Self {
        let volume = Volume::new();
        let writer = Recipe::new(TRIXIE)
            .with(["--network", "none", "--entrypoint", "sleep"])
            .volume(&volume, MOUNT)
            .command(["infinity"])
            .start();
        writer.root(&format!("chmod 0700 {MOUNT}")).ok();
        Source { writer, volume }
    }

    #[track_caller]
    fn run(&self, script: &str) -> f64 {
        run(&self.writer, script)
    }

    /// A server that imports from these directories.
    fn server(&self, image: &str, directories: &str) -> Recipe {
        self.mounted(Recipe::new(image)).env("PROSODY_DOMAIN", DOMAIN).env(IMPORT, directories)
    }

    fn mounted(&self, recipe: Recipe) -> Recipe {
        recipe.with(["--volume", &format!("{}:{MOUNT}:ro", self.volume.name)])
    }
}

/// The lines of ours that warn or name an error.
fn complaints(said: &Answer) -> Vec<&str> {
    said.stderr.lines().filter(|line| line.contains("warn\t") || line.contains("error\t")).collect()
}

fn reloads(said: &Answer) -> usize {
    said.stderr.lines().filter(|line| line.contains("Reloading")).count()
}

/// Waits until PID 1 has no child but Prosody: nothing is being reloaded, nor waited for.
#[track_caller]
fn wait_until_nothing_is_under_way(server: &Container) {
    eventually("one child of PID 1", PATIENCE, || match server.server_pid() {
        one if !one.is_empty() && !one.contains(' ') => Ok(()),
        more => Err(format!("{more}\n{}", server.logs())),
    });
}

/// That a renewal is taken up in time, of which one line is printed.
#[track_caller]
fn observe_renewal(seen: &mut Observations, what: &str, took: f64) {
    println!("{what}: on the wire after {:.0} ms", took * 1000.0);
    seen.that(&format!("{what}: in time"), took < DEADLINE.as_secs_f64(), took);
}

// Renewals.

fn a_renewal_is_served(image: &str, what: &str, directory: &str, renew: fn(&Pair) -> String) {
    const SESSIONS: usize = 100;
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&renew(&old));
    let server = source.server(image, directory).serve();
    server.register_accounts(DOMAIN);
    let mut wire = Wire::of(&server.name);
    wire.open_sessions(SESSIONS, DOMAIN);
    let mut seen = Observations::default();
    let shown = |pair: &Pair| [(); 4].map(|()| pair.fingerprint.clone());
    seen.equal("before", wire.look(DOMAIN), shown(&old));
    seen.equal("before, without SNI", wire.look_unnamed(DOMAIN), shown(&old));

    let mark = server.mark();
    let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&renew(&new)));
    observe_renewal(&mut seen, &format!("{what}, {image}"), took);
    let [c2s, direct, s2s, https] = wire.look_unnamed(DOMAIN);
    seen.equal("STARTTLS without SNI", [&c2s, &s2s], [&new.fingerprint; 2]);
    // Prosody goes on with the certificate of its start there.
    for (port, shown) in [("5223", direct), ("5281", https)] {
        let is_ours = [&old.fingerprint, &new.fingerprint].contains(&&shown);
        seen.that(&format!("{port} without SNI"), is_ours, shown);
    }
    seen.equal("sessions that live", wire.living_sessions(), SESSIONS);
    wait_until_nothing_is_under_way(&server);
    let said = server.since(mark);
    seen.equal(&format!("reloads: {}", said.stderr), reloads(&said), 1);
    seen.equal("complaints", complaints(&said), Vec::new());

    // The next one, and a start with it.
    let next = authority.issue(&NAMES);
    let took = wire.time_until(DOMAIN, &next.fingerprint, || source.run(&renew(&next)));
    observe_renewal(&mut seen, &format!("{what}, {image}, once more"), took);
    drop(wire);
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    seen.equal("after a restart", Wire::of(&server.name).look(DOMAIN), shown(&next));
    seen.report();
}

fn certbots(pair: &Pair) -> String {
    certbot(DOMAIN, pair)
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_renewal_of_certbots_is_served_at_once_on_13_0() {
    a_renewal_is_served(TRIXIE, "certbot", "/etc/letsencrypt/live", certbots);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_renewal_of_certbots_is_served_at_once_on_0_12() {
    a_renewal_is_served(BOOKWORM, "certbot", "/etc/letsencrypt/live", certbots);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_renewal_of_kubernetes_is_served_at_once() {
    for image in images() {
        a_renewal_is_served(image, "Kubernetes", MOUNT, kubernetes);
    }
}

/// One file with everything, which a rename replaces: what is watched has another inode afterwards.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_single_file_that_is_replaced_is_served() {
    let authority = Authority::new();
    let replace = |pair: &Pair| {
        let all = format!("{}{}", pair.full_chain(), pair.key);
        write(&format!("{MOUNT}/.new"), &all) + &format!("mv {MOUNT}/.new {MOUNT}/all.pem\n")
    };
    let (old, new, newest) = (authority.issue(&NAMES), authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&replace(&old));
    let file = format!("{MOUNT}/all.pem");
    let recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).env("PROSODY_CERTIFICATES", &file);
    let server = source.mounted(recipe).serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();
    seen.equal("before", wire.certificate_of(DOMAIN), old.fingerprint);
    for (what, pair) in [("once", new), ("twice", newest)] {
        let took = wire.time_until(DOMAIN, &pair.fingerprint, || source.run(&replace(&pair)));
        observe_renewal(&mut seen, &format!("a single file, {what}"), took);
    }
    seen.report();
}

/// A key that comes later than its certificate, but soon, is nothing to speak of.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_slow_writer_is_waited_for() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&folder(MOUNT, &old));
    let server = source.server(TRIXIE, MOUNT).serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();
    let mark = server.mark();
    let slowly = format!(
        "{}sleep 3\n{}",
        write(&format!("{MOUNT}/fullchain.pem"), &new.full_chain()),
        write(&format!("{MOUNT}/privkey.pem"), &new.key)
    );
    let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&slowly));
    observe_renewal(&mut seen, "a slow writer", took);
    wait_until_nothing_is_under_way(&server);
    seen.equal("complaints", complaints(&server.since(mark)), Vec::new());
    seen.report();
}

/// A pair that is not complete keeps no other waiting, and is spoken of all the same.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_half_written_pair_delays_no_other() {
    const OTHER: &str = "other.example";
    let authority = Authority::new();
    let source = Source::new();
    let directories = [DOMAIN, OTHER].map(|host| format!("{MOUNT}/{host}"));
    for (directory, host) in directories.iter().zip([DOMAIN, OTHER]) {
        source.run(&folder(directory, &authority.issue(&[host])));
    }
    let server = source.server(TRIXIE, MOUNT).env("PROSODY_VIRTUAL_HOSTS", OTHER).serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();
    let mark = server.mark();
    let (half, whole) = (authority.issue(&[OTHER]), authority.issue(&[DOMAIN]));
    let start = Instant::now();
    let script = write(&format!("{}/fullchain.pem", directories[1]), &half.full_chain());
    let took = wire
        .time_until(DOMAIN, &whole.fingerprint, || source.run(&(script + &folder(&directories[0], &whole))));
    observe_renewal(&mut seen, "beside one that is not complete", took);
    seen.that("before that is given up", start.elapsed() < Duration::from_secs(9), start.elapsed());
    eventually("the warning of the other", 3 * DEADLINE, || {
        let said = server.since(mark);
        let is_named = complaints(&said).iter().any(|line| line.contains(OTHER));
        if is_named { Ok(()) } else { Err(said.all()) }
    });
    seen.report();
}

/// A certificate whose key does not come is not served, and spoken of when it has stayed so for ten seconds.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_half_written_pair_is_not_served() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&folder(&format!("{MOUNT}/{DOMAIN}"), &old));
    let server = source.server(TRIXIE, MOUNT).serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();

    let mark = server.mark();
    let start = Instant::now();
    source.run(&write(&format!("{MOUNT}/{DOMAIN}/fullchain.pem"), &new.full_chain()));
    let warning = eventually("the warning", 3 * DEADLINE, || {
        for shown in wire.look(DOMAIN) {
            assert_eq!(shown, old.fingerprint, "the old one is served no more:\n{}", server.logs());
        }
        let said = server.since(mark);
        complaints(&said).first().map(|line| (*line).to_owned()).ok_or(said.all())
    });
    seen.that("not before it has stayed so", start.elapsed() > Duration::from_secs(9), start.elapsed());
    for name in ["warn\t", "/etc/letsencrypt/chat.example/fullchain.pem", "privkey.pem"] {
        seen.that(&format!("{name} in the warning"), warning.contains(name), &warning);
    }
    // Whatever else makes a reload takes nothing away.
    seen.that("a reload", !reload(&server).stderr.contains("Not reloaded"), server.logs());
    seen.equal("after a reload", wire.certificate_of(DOMAIN), old.fingerprint);

    let complete = write(&format!("{MOUNT}/{DOMAIN}/privkey.pem"), &new.key);
    let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&complete));
    observe_renewal(&mut seen, "the key at last", took);
    wait_until_nothing_is_under_way(&server);
    seen.equal("one warning", complaints(&server.since(mark)).len(), 1);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn files_that_are_removed_are_served_on() {
    for &image in images() {
        let pair = Authority::new().issue(&NAMES);
        let source = Source::new();
        source.run(&certbot(DOMAIN, &pair));
        let server = source.server(image, "/etc/letsencrypt/live").serve();
        let mut wire = Wire::of(&server.name);
        let mark = server.mark();
        source.run(&format!("rm -r {MOUNT}/live {MOUNT}/archive"));
        eventually("a line that says so", 3 * DEADLINE, || {
            let said = server.since(mark);
            let is_said = said.stderr.lines().any(|line| line.contains(DOMAIN));
            if is_said { Ok(()) } else { Err(said.all()) }
        });
        let mut seen = Observations::default();
        let shown = [(); 4].map(|()| pair.fingerprint.clone());
        seen.equal(&format!("{image}: {}", server.logs()), wire.look(DOMAIN), shown.clone());
        reload(&server);
        seen.equal(&format!("{image}: after SIGHUP"), wire.look(DOMAIN), shown);
        // And the directories that come anew are watched.
        let new = Authority::new().issue(&NAMES);
        let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&certbot(DOMAIN, &new)));
        observe_renewal(&mut seen, &format!("{image}: there again"), took);
        seen.report();
    }
}

/// A renewal does not wait until somebody has corrected something else.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_renewal_is_served_beside_an_error() {
    const TEMPLATE: &str = "/etc/prosody/conf.d/own.cfg.lua.j2";
    for &image in images() {
        let authority = Authority::new();
        let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
        let source = Source::new();
        source.run(&flat(MOUNT, DOMAIN, &old));
        let server = source.server(image, MOUNT).file(TEMPLATE, "x_own = {{ 1 }}\n").serve();
        let mut wire = Wire::of(&server.name);
        let mut seen = Observations::default();
        server.put(TEMPLATE, b"x_own = {{ \n");
        let mark = server.mark();
        let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&flat(MOUNT, DOMAIN, &new)));
        observe_renewal(&mut seen, &format!("beside an error, {image}"), took);
        wait_until_nothing_is_under_way(&server);
        let said = server.since(mark);
        let is_said =
            complaints(&said).iter().any(|line| line.contains("error\tReloaded are certificates alone"));
        seen.that("the error is said", is_said && said.stderr.contains("own.cfg.lua.j2"), &said.stderr);
        let left = server.root("grep -rh x_own /run/prosody/current/").stdout;
        seen.that("what was written stays", left.contains("x_own = 1"), left);
        seen.equal("after another", wire.certificate_of(DOMAIN), new.fingerprint.clone());
        // Once it is corrected, everything is taken up again.
        server.put(TEMPLATE, b"x_own = {{ 2 }}\n");
        let said = reload(&server);
        seen.that("corrected", said.stderr.contains("changed: conf.d/own.cfg.lua.j2"), said.stderr);
        seen.equal("after a reload", wire.certificate_of(DOMAIN), new.fingerprint);
        seen.report();
    }
}

/// The hook that Prosody's manual and many guides call after a renewal.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosodyctl_imports_what_is_searched() {
    const LIVE: &str = "/etc/letsencrypt/live";
    let authority = Authority::new();
    let source = Source::new();
    source.run(&certbot(DOMAIN, &authority.issue(&NAMES)));
    // Only the command can have an effect.
    let recipe = || source.server(TRIXIE, LIVE).env("PROSODY_CERTIFICATE_RELOAD", "false");
    let server = recipe().serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();
    for options in [&["--root"][..], &["--config", "/etc/prosody/prosody.cfg.lua", "--root"], &[]] {
        let new = authority.issue(&NAMES);
        source.run(&certbot(DOMAIN, &new));
        let command =
            [&["exec", "--user", "0", &server.name, "prosodyctl"], options, &["cert", "import", LIVE]];
        let said = docker(command.concat());
        seen.equal(&format!("{options:?}: {}", said.all()), said.status, 0);
        wire.wait_for(DOMAIN, &new.fingerprint);
    }
    let elsewhere = authority.issue(&NAMES);
    run(&server, &folder("/srv/elsewhere", &elsewhere));
    let refused = server.root("prosodyctl --root cert import /srv/elsewhere");
    seen.equal(&refused.all(), refused.status, 1);
    seen.that("the setting is named", refused.stderr.contains(IMPORT), &refused.stderr);
    let named = recipe().env(IMPORT, "/srv/elsewhere").serve();
    run(&named, &folder("/srv/elsewhere", &elsewhere));
    let said = named.root("prosodyctl --root cert import /srv/elsewhere");
    seen.equal(&format!("where it is named: {}", said.all()), said.status, 0);
    let refused = server.root("mkdir /srv/empty; prosodyctl --root cert import /srv/empty");
    seen.equal(&refused.all(), refused.status, 1);
    let alone = recipe().command(["prosodyctl", "--root", "cert", "import", LIVE]).run();
    seen.equal(&alone.all(), alone.status, 1);
    let keys = server.root("grep -rl 'PRIVATE KEY' /var/lib/prosody").stdout;
    seen.that("no key in the data", !keys.contains(".key"), keys);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosodyctl_imports_as_root_for_a_main_file_of_ones_own() {
    const MAIN: &str =
        "pidfile = '/var/lib/prosody/prosody.pid'\nmodules_enabled = { 'tls' }\nVirtualHost 'chat.example'\n";
    let pair = Authority::new().issue(&NAMES);
    let source = Source::new();
    source.run(&certbot(DOMAIN, &pair));
    let recipe = source.mounted(Recipe::new(TRIXIE)).file("/etc/prosody/prosody.cfg.lua", MAIN);
    // Prosody's own `reload` sends SIGHUP to a server that must be there.
    let server = recipe.serve();
    let mut seen = Observations::default();
    server.root("mkdir -p -m 755 /etc/prosody/certs").ok();
    let import = "prosodyctl --root cert import chat.example /etc/letsencrypt/live";
    let said = server.root(import);
    seen.equal(&said.all(), said.status, 0);
    let key = "/etc/prosody/certs/chat.example.key";
    let copy = server.root(&format!("stat -c %U {key}; cat {key}")).stdout;
    seen.equal("the owner and the key", copy.trim(), format!("prosody\n{}", pair.key.trim()).as_str());
    // Root runs no Lua of Prosody's user.
    server.root("chown prosody /etc/prosody/prosody.cfg.lua").ok();
    let refused = server.root(import);
    seen.equal(&refused.all(), refused.status, 77);
    seen.that("the file is named", refused.stderr.contains("prosody.cfg.lua"), &refused.stderr);
    // What the sentence says, one way and then the other.
    server.root("chown root /etc/prosody/prosody.cfg.lua /etc/prosody").ok();
    let said = server.root(import);
    seen.equal(&format!("given to root: {}", said.all()), said.status, 0);
    let copy = format!(
        "chown prosody /etc/prosody/prosody.cfg.lua; cd /etc/prosody/certs && rm {DOMAIN}.* && \
         cp /etc/letsencrypt/live/{DOMAIN}/fullchain.pem {DOMAIN}.crt && \
         cp /etc/letsencrypt/live/{DOMAIN}/privkey.pem {DOMAIN}.key && chown prosody {DOMAIN}.*"
    );
    server.root(&copy).ok();
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let served = Wire::of(&server.name).certificate_of(DOMAIN);
    seen.equal("copied beside it", served, pair.fingerprint);
    seen.report();
}

/// A key that a custom file names, and that Prosody's user cannot read.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_key_that_prosody_cannot_read_is_not_said_to_be_served() {
    const HOST: &str = "b.example";
    let pair = Authority::new().issue(&[HOST]);
    let source = Source::new();
    source.run(&flat(MOUNT, HOST, &pair));
    let host = format!(
        "VirtualHost '{HOST}'\n  ssl = {{ key = '{MOUNT}/{HOST}.key', certificate = '{MOUNT}/{HOST}.crt' }}\n"
    );
    let server = source.server(TRIXIE, MOUNT).file("/etc/prosody/conf.d/b.cfg.lua", host).serve();
    let mut seen = Observations::default();
    let said = server.said();
    seen.that("no claim", !said.stderr.contains("Certificate of b.example"), &said.stderr);
    let uid = server.as_prosody("id -u").ok();
    let is_warned = complaints(&said).iter().any(|line| {
        line.contains("conf.d/b.cfg.lua") && line.contains(&format!("{HOST}.key, which uid {},", uid.trim()))
    });
    seen.that("a warning", is_warned, &said.stderr);
    let shown = server.root("prosody-entrypoint certificates").stdout;
    seen.that("certificates", shown.contains("none: options name"), shown);
    seen.report();
}

/// What many guides do, and Kubernetes with `subPath`.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_certificate_that_is_mounted_as_a_single_file_is_warned_about() {
    let pair = Authority::new().issue(&NAMES);
    let directory = std::env::temp_dir().join(unique("mounted"));
    std::fs::create_dir(&directory).unwrap();
    let mut recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN);
    let targets = [("crt", pair.full_chain()), ("key", pair.key)].map(|(kind, content)| {
        let file = directory.join(format!("{DOMAIN}.{kind}"));
        std::fs::write(&file, content).unwrap();
        (file.display().to_string(), format!("/etc/prosody/certs/{DOMAIN}.{kind}"))
    });
    for (file, target) in &targets {
        recipe = recipe.with(["--volume", &format!("{file}:{target}:ro")]);
    }
    let server = recipe.serve();
    // What the sentence says.
    let mount = format!("{}:/etc/prosody/certs:ro", directory.display());
    let better = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).with(["--volume", &mount]).serve();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(!better.logs().contains("Mounted as a single file"), "{}", better.logs());
    let said = server.said();
    let warning = format!("Mounted as a single file: {}, {}:", targets[0].1, targets[1].1);
    assert!(complaints(&said).iter().any(|line| line.contains(&warning)), "{}", said.stderr);
}

/// What is not there at the start, and then is.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_first_real_certificate_needs_no_restart() {
    let mut seen = Observations::default();
    type Case = (&'static str, Option<(&'static str, &'static str)>, fn(&Pair) -> String);
    // In the volume, but for the last two.
    let cases: [Case; 5] = [
        ("certbot's folders in an empty mount", Some((IMPORT, "/etc/letsencrypt/live")), certbots),
        ("an empty mount", Some((IMPORT, MOUNT)), |pair| flat(MOUNT, DOMAIN, pair)),
        ("a secret of Kubernetes' that comes later", Some(("PROSODY_CERTIFICATES", MOUNT)), kubernetes),
        ("nothing of a path", Some((IMPORT, "/srv/not/there/yet")), |pair| {
            folder("/srv/not/there/yet/chat", pair)
        }),
        ("the default", None, |pair| flat("/etc/prosody/certs", DOMAIN, pair)),
    ];
    for (what, setting, script) in cases {
        let pair = Authority::new().issue(&NAMES);
        let source = Source::new();
        let mut recipe = source.mounted(Recipe::new(TRIXIE)).env("PROSODY_DOMAIN", DOMAIN);
        if let Some((name, value)) = setting {
            recipe = recipe.env(name, value);
        }
        let server = recipe.serve();
        let is_warned = complaints(&server.said()).iter().any(|line| line.contains("self-signed"));
        seen.that(&format!("{what}: a warning at the start"), is_warned, server.logs());
        let is_in_the_volume = setting.is_some_and(|(_, path)| path.starts_with(MOUNT));
        let writer = if is_in_the_volume { &source.writer } else { &server };
        let mut wire = Wire::of(&server.name);
        let took = wire.time_until(DOMAIN, &pair.fingerprint, || run(writer, &script(&pair)));
        observe_renewal(&mut seen, what, took);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_storm_of_events_makes_one_reload() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&certbot(DOMAIN, &old));
    let server = source.server(TRIXIE, "/etc/letsencrypt/live").serve();
    let mut wire = Wire::of(&server.name);
    let mut seen = Observations::default();
    let mark = server.mark();
    let storm = format!(
        "cd {MOUNT}/live/{DOMAIN}\nn=0\nwhile [ $n -lt 3000 ]; do\n\
         echo $n >note-$((n % 50)); echo $n >>../../archive/{DOMAIN}/notes.pem; n=$((n + 1))\ndone\n\
         rm note-* ../../archive/{DOMAIN}/notes.pem\n{}",
        certbot(DOMAIN, &new)
    );
    let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&storm));
    observe_renewal(&mut seen, "after 6,000 writes", took);
    wait_until_nothing_is_under_way(&server);
    let said = server.since(mark);
    seen.equal(&format!("reloads: {}", said.stderr), reloads(&said), 1);
    seen.equal("complaints", complaints(&said), Vec::new());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn without_the_reload_a_renewal_waits_for_sighup() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&certbot(DOMAIN, &old));
    let directory = "/etc/letsencrypt/live";
    let deaf = source.server(TRIXIE, directory).env("PROSODY_CERTIFICATE_RELOAD", "false").serve();
    let other = source.server(TRIXIE, directory).serve();
    // What the other one has done, this one would have done too.
    Wire::of(&other.name).time_until(DOMAIN, &new.fingerprint, || source.run(&certbot(DOMAIN, &new)));
    let mut seen = Observations::default();
    let mut wire = Wire::of(&deaf.name);
    seen.equal("before SIGHUP", wire.certificate_of(DOMAIN), old.fingerprint);
    seen.equal("reloads", reloads(&deaf.said()), 0);
    reload(&deaf);
    wire.wait_for(DOMAIN, &new.fingerprint);
    seen.report();
}

// Keys.

/// A container's user and rights, and whom Prosody runs as then.
const WAYS: [(&str, &[&str], &str); 5] = [
    ("root", &[], "999"),
    (
        "root with four capabilities",
        &[
            "--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID", "--cap-add", "DAC_OVERRIDE",
            "--cap-add", "KILL",
        ],
        "999",
    ),
    ("root, read-only", &["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"], "999"),
    ("another user", &["--user", "12345:0"], "12345"),
    (
        "another user, read-only",
        &["--user", "12345:0", "--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"],
        "12345",
    ),
];

/// Whose the keys are, where they are, and who else can read them.
fn observe_keys(seen: &mut Observations, what: &str, server: &Container, uid: &str) {
    let runtime = "/run/prosody /dev/shm/prosody-12345";
    let script = format!(
        "for place in {runtime}; do [ ! -e $place/current ] || \
         find $place/current/certificates/ -type f -printf '%m %U %f\\n'; done"
    );
    let listing = server.root(&script).ok();
    seen.that(
        &format!("{what}: the key"),
        listing.lines().any(|line| line == format!("600 {uid} {DOMAIN}.pem")),
        &listing,
    );
    // Everywhere: no copy that is older, nor one under another name.
    let script = "grep -rlsF 'PRIVATE KEY' /run /dev/shm /tmp /var/lib/prosody /etc/prosody | \
                  while read -r file; do stat -c '%a %u %n' \"$file\"; done";
    for line in server.root(script).stdout.lines() {
        let is_kept = line.starts_with(&format!("600 {uid} "))
            && runtime.split(' ').any(|place| line.contains(&format!(" {place}/")));
        seen.that(&format!("{what}: a file with a key"), is_kept, line);
    }
    for user in ["4321:4321", "4321:0", "4321:999"] {
        let answer =
            server.as_user(user, "cat /run/prosody/*/certificates/* /dev/shm/*/*/certificates/* 2>/dev/null");
        seen.equal(&format!("{what}: what {user} can read"), answer.stdout.as_str(), "");
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn imported_keys_are_prosodys_alone() {
    let authority = Authority::new();
    let mut seen = Observations::default();
    for (what, arguments, uid) in WAYS {
        let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
        let (source, data) = (Source::new(), Volume::new());
        // Who is not root reads only what it may read.
        let owner = if uid == "999" { "0:0" } else { "12345:0" };
        let renew = |pair: &Pair| {
            format!("{}chown -R {owner} {MOUNT}\n", folder(&format!("{MOUNT}/.new"), pair))
                + &format!("cd {MOUNT}\nmkdir -p chat\nmv .new/privkey.pem .new/fullchain.pem chat/\n")
                + &format!("chown {owner} chat\nrmdir .new\n")
        };
        source.run(&renew(&old));
        let mut recipe = source.server(TRIXIE, MOUNT).volume(&data, "/var/lib/prosody");
        for &argument in arguments {
            recipe = recipe.with([argument]);
        }
        let server = recipe.serve();
        observe_keys(&mut seen, what, &server, uid);
        let mut wire = Wire::of(&server.name);
        seen.equal(what, wire.certificate_of(DOMAIN), old.fingerprint);
        let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&renew(&new)));
        observe_renewal(&mut seen, what, took);
        observe_keys(&mut seen, &format!("{what}, renewed"), &server, uid);
    }
    seen.report();
}

/// The key gets its text through another name of its file, in a directory that is not watched: no event tells of it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_was_incomplete_at_the_start_is_looked_at_again_without_an_event() {
    let pair = Authority::new().issue(&NAMES);
    let volume = Volume::new();
    // It starts no process before Prosody, because a shell blocks signals meanwhile, and so does Prosody once it serves.
    let program = "#!/bin/sh\nread -r go </etc/letsencrypt/other/go\nexec prosody \"$@\"\n";
    let script = "cd /volume\nmkdir certs other\n".to_owned()
        + &write("certs/fullchain.pem", &pair.full_chain())
        + &write("/volume/prosody", program)
        + "chmod 755 . prosody\n: >other/key\nln other/key certs/privkey.pem\nmkfifo -m 666 other/go\n";
    volume.prepare(TRIXIE, &script);
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_CERTIFICATES", &format!("{MOUNT}/certs"))
        .volume(&volume, MOUNT)
        .command([&format!("{MOUNT}/prosody"), "-F"])
        .start();
    server.wait_for_log("Serving chat.example");
    server
        .root(&(write(&format!("{MOUNT}/other/key"), &pair.key) + &format!("echo go >{MOUNT}/other/go")))
        .ok();
    server.wait_until_it_serves();
    Wire::of(&server.name).wait_for(DOMAIN, &pair.fingerprint);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn no_key_is_printed() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&folder(&format!("{MOUNT}/chat"), &old));
    // Two that cannot be taken: of a key, a part; of another, too much.
    let half: String = new.key.chars().take(100).collect();
    source.run(&folder(&format!("{MOUNT}/half"), &Pair { key: half, ..authority.issue(&NAMES) }));
    source.run(&write(&format!("{MOUNT}/keys.pem"), &format!("{}{}", old.key, new.key)));
    let server = source
        .server(TRIXIE, MOUNT)
        .env("PROSODY_ENTRYPOINT_LOG", "debug")
        .env("PROSODY_LOG_LEVEL", "debug")
        .serve();
    let mut wire = Wire::of(&server.name);
    wire.time_until(DOMAIN, &new.fingerprint, || source.run(&folder(&format!("{MOUNT}/chat"), &new)));
    let secrets: Vec<&str> = [&old.key, &new.key]
        .into_iter()
        .flat_map(|key| key.lines())
        .filter(|line| !line.starts_with("---"))
        .collect();
    let mut seen = Observations::default();
    let mut observe = |what: &str, said: &Answer| {
        let all = said.all();
        let is_shown = secrets.iter().any(|secret| all.contains(&secret[..secret.len().min(24)]));
        seen.that(what, !is_shown && !all.contains("PRIVATE KEY"), &all);
    };
    observe("the log", &server.said());
    for arguments in [
        &["render", "--dry-run"][..],
        &["render", "--json"],
        &["render", "--diff"],
        &["validate"],
        &["settings", "--effective"],
        &["certificates"],
        &["certificates", "--json"],
    ] {
        let command =
            ["exec", &server.name, "prosody-entrypoint"].into_iter().chain(arguments.iter().copied());
        let answer = docker(command);
        observe(&format!("{arguments:?}"), &answer);
    }
    seen.report();
}

// Choosing.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn hosts_and_directories_are_pairs() {
    let authority = Authority::new();
    // Each fits both hosts, and the one for the other host would be chosen: it is valid for longer.
    let names = ["a.example", "b.example"];
    let (a, b) = (authority.issue_for(&names, -1, 60), authority.issue_for(&names, -1, 90));
    let source = Source::new();
    source.run(&folder(&format!("{MOUNT}/a"), &a));
    source.run(&folder(&format!("{MOUNT}/b"), &b));
    let serve = |hostnames: &str, directories: &str| {
        let recipe = Recipe::new(TRIXIE)
            .env("PROSODY_VIRTUAL_HOSTS", "a.example,b.example")
            .env("PROSODY_IMPORT_CERTIFICATE_HOSTNAMES", hostnames)
            .env(IMPORT, directories);
        source.mounted(recipe).serve()
    };
    let mut seen = Observations::default();
    for (hostnames, directories, of_a, of_b) in [
        ("a.example b.example", "/etc/letsencrypt/a /etc/letsencrypt/b", Some(&a), Some(&b)),
        ("b.example a.example", "/etc/letsencrypt/a /etc/letsencrypt/b", Some(&b), Some(&a)),
        // Not as many: these hosts, from all directories.
        ("b.example", "/etc/letsencrypt/a /etc/letsencrypt/b", None, Some(&b)),
        ("a.example", "/etc/letsencrypt/a", Some(&a), None),
    ] {
        let what = format!("{hostnames}, {directories}");
        let server = serve(hostnames, directories);
        let mut wire = Wire::of(&server.name);
        for (host, expected) in [("a.example", of_a), ("b.example", of_b)] {
            let shown = wire.certificate_of(host);
            let name = [("a", &a), ("b", &b)].into_iter().find(|(_, pair)| pair.fingerprint == shown);
            let expected = expected.map(|pair| pair.fingerprint == a.fingerprint);
            let seen_one = name.map(|(name, _)| name == "a");
            seen.equal(&format!("{what}: {host}"), seen_one, expected);
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn names_are_compared_as_dns_compares_them() {
    let authority = Authority::new();
    let source = Source::new();
    let issue = |folder_name: &str, names: &[&str]| {
        let pair = authority.issue(names);
        source.run(&folder(&format!("{MOUNT}/{folder_name}"), &pair));
        pair.fingerprint
    };
    let german = issue("1", &["xn--mnchen-3ya.example"]);
    let upper = issue("2", &["UPPER.EXAMPLE"]);
    let lower = issue("3", &["lower.example"]);
    let wild = issue("4", &["*.wild.example"]);
    let two = issue("5", &["two.example", "three.example"]);
    let hosts = [
        ("münchen.example", Some(&german)),
        ("upper.example", Some(&upper)),
        ("LOWER.example", Some(&lower)),
        ("one.wild.example", Some(&wild)),
        ("deeper.one-more.wild.example", None),
        ("wild.example", None),
        ("two.example", Some(&two)),
        ("three.example", Some(&two)),
    ];
    let all: Vec<&str> = hosts.iter().map(|(host, _)| *host).collect();
    let mut seen = Observations::default();
    for &image in images() {
        let recipe = Recipe::new(image)
            .env("PROSODY_VIRTUAL_HOSTS", &all.join(","))
            .env("PROSODY_MODULES_ENABLED", "bosh") // for HTTPS
            .env(IMPORT, MOUNT);
        let server = source.mounted(recipe).serve();
        let mut wire = Wire::of(&server.name);
        for (host, expected) in hosts {
            let shown = wire.look(&host.to_lowercase());
            for (port, shown) in crate::wire::PORTS.into_iter().zip(shown) {
                let what = format!("{image}: {host} at {port}");
                match expected {
                    Some(expected) => seen.equal(&what, &shown, expected),
                    None => {
                        let is_imported = [&german, &upper, &lower, &wild, &two].contains(&&shown);
                        seen.that(&what, !is_imported, shown);
                    }
                }
            }
        }
    }
    seen.report();
}

/// Every kind of key that Prosody's OpenSSL takes, in every form that programs write.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_kind_of_key_is_served() {
    let kinds = [
        ("rsa", "openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048"),
        ("pkcs1", "openssl genrsa -traditional 2048"),
        ("p256", "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256"),
        ("sec1", "openssl ecparam -genkey -noout -name prime256v1"),
        ("parameters", "openssl ecparam -genkey -name prime256v1"),
        ("p384", "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-384"),
        ("p521", "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-521"),
        ("ed25519", "openssl genpkey -algorithm ed25519"),
    ];
    let source = Source::new();
    let fingerprints = kinds.map(|(kind, command)| {
        let script = format!(
            "set -e; mkdir {MOUNT}/{kind}; cd {MOUNT}/{kind}; {command} >privkey.pem 2>/dev/null; \
             openssl req -x509 -key privkey.pem -subj /CN=x -addext subjectAltName=DNS:{kind}.example -days 9 \
             -addext basicConstraints=critical,CA:FALSE >fullchain.pem; \
             openssl x509 -in fullchain.pem -outform der | sha256sum | cut -c 1-64"
        );
        source.writer.root(&script).ok()
    });
    let hosts: Vec<String> = kinds.iter().map(|(kind, _)| format!("{kind}.example")).collect();
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let recipe = Recipe::new(image)
            .env("PROSODY_VIRTUAL_HOSTS", &hosts.join(","))
            .env("PROSODY_MODULES_ENABLED", "bosh") // for HTTPS
            .env(IMPORT, MOUNT);
        let server = source.mounted(recipe).serve();
        let mut wire = Wire::of(&server.name);
        for (host, fingerprint) in hosts.iter().zip(&fingerprints) {
            let shown = wire.look(host);
            seen.equal(&format!("{image}: {host}"), shown, [(); 4].map(|()| fingerprint.clone()));
        }
    }
    seen.report();
}

// What is bad.

/// What is there beside a good certificate, in a directory of its own.
const BAD: [(&str, &str); 9] = [
    (
        "a file of 100 MB",
        "head -c 100000000 /dev/zero >chat.example.crt; cp ../new/privkey.pem chat.example.key",
    ),
    ("100 MB behind a certificate", "cp ../new/* .; yes 'more of it' | head -c 100000000 >>fullchain.pem"),
    (
        "loops",
        "ln -s . loop; ln -s .. up; ln -s self self; ln -s fullchain.pem fullchain.pem; \
         mkdir a; ln -s ../b a/b; mkdir b; ln -s ../a b/a",
    ),
    ("folders without end", "n=0; while [ $n -lt 500 ]; do mkdir d; cd d; n=$((n + 1)); done"),
    (
        "devices",
        "ln -s /dev/zero fullchain.pem; ln -s /dev/random privkey.pem; ln -s /dev/zero zero.pem; ln -s /dev/tty a.crt; \
         ln -s /proc/kmsg b.pem",
    ),
    (
        "FIFOs",
        "mkfifo fullchain.pem privkey.pem chat.example.crt chat.example.key; cp ../new/privkey.pem fifo.key",
    ),
    (
        "10,000 other files",
        "n=0; while [ $n -lt 10000 ]; do echo 'no certificate' >$n.pem; n=$((n + 1)); done",
    ),
    ("folders with names of files", "mkdir fullchain.pem privkey.pem chat.example.crt chat.example.key"),
    ("links to nowhere", "ln -s /nowhere fullchain.pem; ln -s /nowhere/chat privkey.pem"),
];

/// A server starts in time beside what is bad, takes none of it, and serves a good one when it comes and when it is
/// renewed.
fn observe_a_start(seen: &mut Observations, what: &str, source: &Source, bad: &Pair) -> (Container, Pair) {
    let start = Instant::now();
    let server = source.server(TRIXIE, MOUNT).serve();
    println!("{what}: served after {:.1} s", start.elapsed().as_secs_f64());
    seen.that(&format!("{what}: the start in time"), start.elapsed() < START, start.elapsed());
    let mut wire = Wire::of(&server.name);
    let shown = wire.certificate_of(DOMAIN);
    let is_self_signed = ![&bad.fingerprint, &"none".to_owned()].contains(&&shown);
    seen.that(&format!("{what}: self-signed"), is_self_signed, shown);
    let authority = Authority::new();
    let [good, next] = [(); 2].map(|()| authority.issue(&NAMES));
    for (which, pair) in [("a good one", &good), ("the next one", &next)] {
        let write = folder(&format!("{MOUNT}/good"), pair);
        let took = wire.time_until(DOMAIN, &pair.fingerprint, || source.run(&write));
        observe_renewal(seen, &format!("{what}, {which}"), took);
    }
    (server, next)
}

/// Beside everything at once and, where all is wanted, beside each alone.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn whatever_else_is_there_the_server_starts() {
    let mut seen = Observations::default();
    // It would be chosen, were it taken: it is valid for longer.
    let bad = Authority::new().issue_for(&NAMES, -1, 300);
    let place = |scripts: &[&str]| {
        let source = Source::new();
        source.run(&folder(&format!("{MOUNT}/new"), &bad));
        for (number, script) in scripts.iter().enumerate() {
            source.run(&format!("mkdir {MOUNT}/bad{number}; cd {MOUNT}/bad{number}\n{script}"));
        }
        source.run(&format!("rm -r {MOUNT}/new"));
        source
    };
    for (what, script) in BAD.into_iter().filter(|_| is_all_wanted()) {
        observe_a_start(&mut seen, what, &place(&[script]), &bad);
    }
    let source = place(&BAD.map(|(_, script)| script));
    let (server, good) = observe_a_start(&mut seen, "everything at once", &source, &bad);
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let shown = Wire::of(&server.name).certificate_of(DOMAIN);
    seen.equal(&format!("after a restart: {}", server.logs()), shown, good.fingerprint);
    seen.report();
}

/// However much room is left, all of the new generation is written or nothing of it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_full_runtime_directory_gets_no_half_of_a_key() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&NAMES), authority.issue(&NAMES));
    let source = Source::new();
    source.run(&folder(&format!("{MOUNT}/chat"), &old));
    let server = source
        .server(TRIXIE, MOUNT)
        .with(["--entrypoint", "sleep", "--tmpfs", "/run/prosody:size=256k"])
        .command(["infinity"])
        .start();
    let configure = || server.exec(["prosody-entrypoint", "lua5.4", "-v"]);
    let generation = || {
        server.root("cd /run/prosody && readlink current && find -L . ! -name filler -type f -exec md5sum {} + | sort")
    };
    let first = configure();
    assert_eq!(first.status, 0, "{first:?}");
    source.run(&folder(&format!("{MOUNT}/chat"), &new));
    let before = generation().ok();
    let mut seen = Observations::default();
    let mut refused = 0;
    // A page more each time.
    for pages in 0.. {
        let fill = format!(
            "cd /run/prosody && rm -f filler && dd if=/dev/zero of=filler bs=4096 2>/dev/null; \
             size=$(($(stat -c %s filler) - {pages} * 4096)); [ $size -ge 0 ] && truncate -s $size filler"
        );
        server.root(&fill).ok();
        let answer = configure();
        if answer.status == 0 {
            break;
        }
        refused += 1;
        seen.equal(&format!("{pages} pages: {}", answer.stderr), answer.status, 73);
        let is_named = answer.stderr.contains("/run/prosody") && answer.stderr.contains("No space left");
        seen.that(&format!("{pages} pages: what is full"), is_named, &answer.stderr);
        seen.equal(&format!("{pages} pages: what is there"), generation().ok(), before.clone());
    }
    seen.that("it was full at first", refused > 0, refused);
    let key = server.root("cat /run/prosody/current/certificates/chat.example.pem").ok();
    seen.that("then the new one", key.contains(new.key.trim()), "another key");
    seen.report();
}

// What is said of them.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_choice_is_explained() {
    let authority = Authority::new();
    let chosen = authority.issue_for(&NAMES, -1, 20);
    let expired = authority.issue_for(&NAMES, -30, -1);
    // A key of another certificate.
    let mixed = Pair { key: expired.key.clone(), ..authority.issue(&NAMES) };
    let source = Source::new();
    for (name, pair) in [("chosen", &chosen), ("expired", &expired), ("mixed", &mixed)] {
        source.run(&folder(&format!("{MOUNT}/{name}"), pair));
    }
    let server = source.server(TRIXIE, MOUNT).env("PROSODY_SELF_SIGNED_CERTIFICATES", "false").serve();
    let ask = |arguments: &str| server.root(&format!("prosody-entrypoint certificates {arguments}"));
    let mut seen = Observations::default();
    let text = ask("");
    for part in [
        DOMAIN,
        "/etc/letsencrypt/chosen/fullchain.pem",
        "Authority of the tests",
        "20 days",
        "/etc/letsencrypt/expired/fullchain.pem",
        "expired",
        "/etc/letsencrypt/mixed/fullchain.pem",
        "key",
    ] {
        seen.that(&format!("{part:?} is in the text"), text.stdout.contains(part), &text);
    }
    let json = ask("--json");
    let parsed: Result<Value, _> = serde_json::from_str(&json.stdout);
    seen.that("JSON", parsed.is_ok(), &json);
    for part in
        [DOMAIN, "/etc/letsencrypt/chosen/fullchain.pem", "Authority of the tests", "/etc/letsencrypt/mixed/"]
    {
        seen.that(&format!("{part:?} is in the JSON"), json.stdout.contains(part), &json);
    }
    for (arguments, status) in
        [("", 0), ("--json", 0), ("--warn-days 10", 0), ("--warn-days 30", 1), ("--warn-days 30 --json", 1)]
    {
        let answer = ask(arguments);
        seen.equal(&format!("certificates {arguments}: {}", answer.all()), answer.status, status);
    }

    // One that ends soon, and none.
    source.run(&folder(&format!("{MOUNT}/chosen"), &authority.issue_for(&NAMES, -1, 5)));
    seen.equal("five days left", ask("").status, 1);
    source.run(&format!("rm -r {MOUNT}/chosen {MOUNT}/expired {MOUNT}/mixed"));
    let none = ask("");
    seen.equal(&format!("none: {}", none.all()), none.status, 1);
    seen.that("whose it is", none.stdout.contains(DOMAIN), &none);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_ends_soon_is_warned_of_and_what_has_ended_is_served_where_there_is_no_other() {
    let authority = Authority::new();
    let mut seen = Observations::default();
    for (what, to) in [("ends soon", 5), ("has ended", -1)] {
        let pair = authority.issue_for(&NAMES, -60, to);
        let source = Source::new();
        source.run(&certbot(DOMAIN, &pair));
        let server = source.server(TRIXIE, "/etc/letsencrypt/live").serve();
        let said = server.said();
        let is_warned = complaints(&said).iter().any(|line| line.contains(DOMAIN));
        seen.that(&format!("{what}: a warning"), is_warned, &said.stderr);
        let mut wire = Wire::of(&server.name);
        seen.equal(what, wire.certificate_of(DOMAIN), pair.fingerprint);
        let new = authority.issue(&NAMES);
        let took = wire.time_until(DOMAIN, &new.fingerprint, || source.run(&certbot(DOMAIN, &new)));
        observe_renewal(&mut seen, what, took);
    }
    seen.report();
}
