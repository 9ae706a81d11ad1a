//! The probes: whether a server is alive and ready, in each state that it can be in, and what a process manager is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docker::{
    BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, docker, eventually, images, unique,
};

const DOMAIN: &str = "chat.example";

/// The longest that a probe may take of a server that does not answer.
const LONGEST: Duration = Duration::from_secs(10);

fn recipe(image: &str) -> Recipe {
    Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN)
}

/// Notes a probe that does not succeed, or fails without these words on standard error.
#[track_caller]
fn observe(seen: &mut Observations, when: &str, server: &Container, probe: &str, fails: Option<&str>) {
    let answer = server.exec(["prosody-entrypoint", "healthcheck", probe]);
    let is_expected = match fails {
        None => answer.status == 0 && answer.all().is_empty(),
        Some(words) => answer.status == 1 && answer.stderr.contains(words) && answer.stdout.is_empty(),
    };
    seen.that(&format!("{when}: {probe} fails with {fails:?}"), is_expected, answer);
}

/// What a probe says as JSON. Its exit status agrees.
#[track_caller]
fn as_json(server: &Container, probe: &str) -> Value {
    let answer = server.exec(["prosody-entrypoint", "healthcheck", probe, "--json"]);
    let json: Value =
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    let succeeds = Value::from(answer.status == 0);
    let name = if probe == "--live" { "alive" } else { "ready" };
    assert_eq!((&json[name], json["reason"].is_null()), (&succeeds, answer.status == 0), "{probe}: {json}");
    json
}

/// Reloads, and waits until the log says so.
#[track_caller]
fn reload(server: &Container) {
    let mark = server.mark();
    server.signal("HUP");
    eventually("the reload", PATIENCE, || {
        let said = server.since(mark);
        if said.stderr.contains("Reloading") { Ok(()) } else { Err(said.all()) }
    });
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_start_that_waits_is_alive_and_not_ready() {
    let mut seen = Observations::default();
    let recipe = || recipe(TRIXIE).env("PROSODY_DATABASE_URL", "postgresql://a:b@127.0.0.1/c");
    for (when, recipe) in [("waiting", recipe()), ("waiting, --init", recipe().with(["--init"]))] {
        let server = recipe.start();
        server.wait_for_log("Waiting up to");
        observe(&mut seen, when, &server, "--live", None);
        observe(&mut seen, when, &server, "--ready", Some("the start has not ended"));
        seen.equal(when, as_json(&server, "--live"), json!({ "alive": true, "reason": null }));
        let json = as_json(&server, "--ready");
        seen.equal(when, [&json["was_ready"], &json["hosts_not_loaded"]], [&Value::Null; 2]);
    }
    seen.report();
}

/// A stopped process is not alive, in each kind of container.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_stopped_server_is_not_alive() {
    let own = format!("pidfile = '/run/prosody/server.pid'\nVirtualHost '{DOMAIN}'\n");
    let mut seen = Observations::default();
    for (when, recipe) in [
        ("rendered", recipe(TRIXIE)),
        ("0.12", recipe(BOOKWORM)),
        ("--init", recipe(TRIXIE).with(["--init"])),
        ("another user", recipe(TRIXIE).with(["--user", "12345:0", "--tmpfs", "/var/lib/prosody:mode=0777"])),
        ("a custom main file", Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", own)),
    ] {
        let server = recipe.serve();
        let pid = server.root("cat /run/prosody/server/prosody.pid || cat /run/prosody/server.pid").ok();
        observe(&mut seen, when, &server, "--live", None);
        observe(&mut seen, when, &server, "--ready", None);
        server.root(&format!("kill -STOP {pid}")).ok();
        observe(&mut seen, when, &server, "--live", Some("is stopped"));
        observe(&mut seen, when, &server, "--ready", Some("is stopped"));
        server.root(&format!("kill -CONT {pid}")).ok();
        observe(&mut seen, when, &server, "--live", None);
        observe(&mut seen, when, &server, "--ready", None);
    }
    seen.report();
}

/// A server that hangs is alive, and each probe ends, however many have asked in vain.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_that_hangs_is_alive_and_not_ready() {
    let module = "module:add_timer(0.1, function () while io.open('/srv/hang') do end return 0.1 end)";
    let mut seen = Observations::default();
    for &image in images() {
        let server = recipe(image)
            .env("PROSODY_MODULES_ENABLED", "hang")
            .file("/etc/prosody/modules/mod_hang.lua", module)
            .serve();
        observe(&mut seen, "before", &server, "--ready", None);
        server.put("/srv/hang", b"");
        eventually("the server hangs", PATIENCE, || {
            let answer = server.exec(["prosody-entrypoint", "healthcheck", "--ready"]);
            if answer.status == 1 { Ok(()) } else { Err(answer.all()) }
        });
        // More than the queue of a socket has.
        let many = "for i in $(seq 40); do prosody-entrypoint healthcheck --ready & done 2>/dev/null; wait";
        server.root(many).ok();
        let before = Instant::now();
        observe(&mut seen, "hanging", &server, "--ready", Some("Prosody does not answer"));
        seen.that("within its time", before.elapsed() < LONGEST, before.elapsed());
        observe(&mut seen, "hanging", &server, "--live", None);
        server.root("rm /srv/hang").ok();
        eventually("it is ready again", PATIENCE, || {
            let answer = server.exec(["prosody-entrypoint", "healthcheck", "--ready"]);
            if answer.status == 0 { Ok(()) } else { Err(answer.all()) }
        });
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_that_stops_is_alive_and_not_ready() {
    let module = "module:hook_global('server-stopping', function () \
                  while not io.open('/srv/go') do require 'util.async'.sleep(0.05) end end, 500)";
    let mut seen = Observations::default();
    for &image in images() {
        let server = recipe(image)
            .env("PROSODY_MODULES_ENABLED", "slow")
            .file("/etc/prosody/modules/mod_slow.lua", module)
            .serve();
        server.signal("TERM");
        server.wait_for_log("Received SIGTERM");
        observe(&mut seen, "stopping", &server, "--ready", Some("Prosody is stopping"));
        observe(&mut seen, "stopping", &server, "--live", None);
        server.put("/srv/go", b"");
        eventually("the end", PATIENCE, || if server.runs() { Err(server.logs()) } else { Ok(()) });
    }
    seen.report();
}

/// A host that is not loaded counts always, a module only before the first success.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn hosts_count_always_and_modules_the_first_time() {
    const COMPONENT: &str = "/etc/prosody/modules/mod_gate.lua";
    const MODULE: &str = "/etc/prosody/modules/mod_extra.lua";
    const HOSTS: &str = "/srv/hosts";
    let broken = "error('not today')";
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let server = recipe(image)
            .env("PROSODY_COMPONENTS", "+gate.chat.example:gate")
            .env("PROSODY_MODULES_ENABLED", "extra")
            .env("PROSODY_EXTRA_CONFIG", HOSTS)
            .file(HOSTS, "")
            .file(COMPONENT, broken)
            .file(MODULE, broken)
            .serve();
        observe(&mut seen, "a broken component", &server, "--ready", Some("not loaded: gate.chat.example"));
        let json = as_json(&server, "--ready");
        seen.equal("the component", &json["hosts_not_loaded"], &json!(["gate.chat.example"]));
        observe(&mut seen, "a broken component", &server, "--live", None);

        server.put(COMPONENT, b"");
        reload(&server);
        let extra = "extra on chat.example is not loaded";
        observe(&mut seen, "a broken module", &server, "--ready", Some(extra));

        server.put(MODULE, b"");
        reload(&server);
        seen.equal("not yet", &as_json(&server, "--ready")["was_ready"], &json!(false));
        observe(&mut seen, "all is there", &server, "--ready", None);

        server.put(MODULE, broken.as_bytes());
        reload(&server);
        observe(&mut seen, "a module that breaks later", &server, "--ready", None);
        let json = as_json(&server, "--ready");
        seen.that("it is listed", json["not_as_configured"][0].is_string(), &json);
        seen.equal("it was ready", &json["was_ready"], &json!(true));

        server.put(COMPONENT, broken.as_bytes());
        server.put(HOSTS, b"Component 'other.chat.example' 'gate'\n");
        reload(&server);
        observe(&mut seen, "a host that breaks later", &server, "--ready", Some("other.chat.example"));
    }
    seen.report();
}

/// With a custom main file, the check of Docker is all.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn with_a_custom_main_file_ready_is_the_plain_check() {
    let mut seen = Observations::default();
    let own = format!("VirtualHost '{DOMAIN}'\nComponent 'missing.{DOMAIN}' 'missing'\n");
    let server = Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", own).serve();
    let json = as_json(&server, "--ready");
    let unknown = ["was_ready", "hosts_not_loaded", "databases", "not_as_configured", "waits_for_restart"];
    for name in unknown {
        seen.that(&format!("{name} is not known"), json.get(name) == Some(&Value::Null), &json);
    }
    seen.equal("it answers", &json["ready"], &json!(true));
    seen.report();
}

/// A folder with the socket of a process manager.
struct Manager {
    folder: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(unique("notify"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let socket = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let manager = Manager { folder, socket };
        manager.allow(0o777);
        manager
    }

    fn allow(&self, mode: u32) {
        fs::set_permissions(self.folder.join("notify.sock"), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A server that is to notify on this socket.
    fn server(&self, recipe: Recipe, socket: &str) -> Recipe {
        let mount = format!("{}:/run/notify", self.folder.display());
        recipe.with(["--volume", &mount]).env("NOTIFY_SOCKET", socket)
    }

    /// The next message, without the time that a reload has.
    #[track_caller]
    fn next(&self, server: &Container) -> String {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message);
        let length = length.unwrap_or_else(|error| panic!("no message: {error}: {}", server.logs()));
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        match message.split_once("\nMONOTONIC_USEC=") {
            Some((message, time)) if time.parse::<u64>().is_ok_and(|time| time > 0) => {
                format!("{message} at")
            }
            _ => message,
        }
    }

    /// Whether there is no other message.
    fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let received = self.socket.recv(&mut [0; 256]);
        self.socket.set_nonblocking(false).unwrap();
        received.is_err()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_process_manager_hears_of_start_reload_and_stop() {
    let own = format!("VirtualHost '{DOMAIN}'\n");
    let mut seen = Observations::default();
    for (when, recipe) in [
        ("13.0", recipe(TRIXIE).file("/etc/prosody/conf.d/own.cfg.lua", "")),
        ("0.12", recipe(BOOKWORM).file("/etc/prosody/conf.d/own.cfg.lua", "")),
        ("a custom main file", Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", own)),
    ] {
        let manager = Manager::new();
        let server = manager.server(recipe, "/run/notify/notify.sock").serve();
        let mut next = |what: &str, message: &str| {
            seen.equal(&format!("{when}: {what}"), manager.next(&server).as_str(), message);
        };
        next("the start", "READY=1");
        reload(&server);
        next("a reload", "RELOADING=1 at");
        next("its end", "READY=1");
        if when != "a custom main file" {
            // SIGHUP to Prosody itself.
            server.root("kill -HUP $(cat /run/prosody/server/prosody.pid)").ok();
            next("a reload by Prosody", "RELOADING=1 at");
            next("its end", "READY=1");
            server.put("/etc/prosody/conf.d/own.cfg.lua", b"x = \n");
            let mark = server.mark();
            server.signal("HUP");
            eventually("the refusal", PATIENCE, || {
                let said = server.since(mark);
                if said.stderr.contains("Not reloaded") { Ok(()) } else { Err(said.all()) }
            });
        }
        docker(["stop", "--time", "30", &server.name]).ok();
        next("the stop", "STOPPING=1");
        seen.that(&format!("{when}: nothing else"), manager.is_silent(), when);
    }
    seen.report();
}

/// A process manager that is not there stops nobody: Prosody 13.0 alone would exit.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_process_manager_that_cannot_be_reached_is_a_warning() {
    let mut seen = Observations::default();
    let manager = Manager::new();
    manager.allow(0o600);
    let _stream = UnixListener::bind(manager.folder.join("stream.sock")).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(manager.folder.join("stream.sock"), open).unwrap();
    for (socket, why) in [
        ("/run/notify/nothing.sock", "No such file or directory"),
        ("/run/notify/notify.sock", "Permission denied"),
        ("/run/notify/stream.sock", "Protocol wrong type for socket"),
        ("@abstract", "Prosody can use no other sockets than paths"),
        ("", ""),
    ] {
        let server = manager.server(recipe(TRIXIE), socket).serve();
        let said = server.said().stderr;
        let warning = format!("NOTIFY_SOCKET={socket}: {why}: nobody is told");
        seen.equal(
            &format!("{socket}: one warning: {said}"),
            said.matches("NOTIFY_SOCKET").count(),
            usize::from(!why.is_empty()),
        );
        seen.that(socket, why.is_empty() || said.contains(&warning), &said);
    }
    seen.report();
}
