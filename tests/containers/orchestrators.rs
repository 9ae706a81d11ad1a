//! The examples for Kubernetes (also with backups, and with shards), for Podman's Quadlet and for Docker Swarm (also with shards),
//! and the pod of the one for Movim.
//!
//! There is no Kubernetes here: its tools check the manifests, and Podman plays the pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docker::{
    Answer, Container, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually,
    in_place_of, is_all_wanted, require, unique,
};
use crate::router::{shares, wait_until_all_are_served};

/// Podman 5, kubectl, kubernetes-validate and systemd-analyze on Debian trixie.
const PODMAN: &str = "prosody-entrypoint-test-podman:latest";

/// The image's name in the examples.
const IMAGE: &str = "prosody-entrypoint:latest";

const ACCOUNT: &str = "admin@chat.example:correct-horse";

/// A copy of an example, in which `secrets/accounts` has the account.
struct Example(PathBuf);

impl Example {
    fn new(name: &str) -> Self {
        let example = Example(std::env::temp_dir().join(unique(name)));
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        fs::create_dir_all(example.0.join("secrets")).unwrap();
        for entry in fs::read_dir(original).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), example.0.join(entry.file_name())).unwrap();
        }
        fs::write(example.0.join("secrets/accounts"), ACCOUNT).unwrap();
        example
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A container in which Podman runs containers of its own.
struct Podman {
    container: Container,
    _storage: Volume,
}

impl Podman {
    fn new() -> Self {
        let storage = Volume::new();
        let mut recipe = Recipe::new(PODMAN).volume(&storage, "/var/lib/containers");
        for capability in ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"] {
            recipe = recipe.with(["--cap-add", capability]);
        }
        for profile in ["seccomp", "apparmor", "systempaths"] {
            recipe = recipe.with(["--security-opt", &format!("{profile}=unconfined")]);
        }
        let container = recipe.with(["--device", "/dev/fuse", "--device", "/dev/net/tun"]).start();
        Podman { container, _storage: storage }
    }

    /// Runs a shell line beside Podman.
    fn run(&self, script: &str) -> Answer {
        self.container.root(script)
    }

    /// Loads our image, and creates a network. The engine gives the container its control groups read-only.
    fn load_image(&self) {
        self.run(
            "for mount in /sys/fs/cgroup/*; do mount -o remount,bind,rw $mount; done; umount /proc/sys; true",
        )
        .ok();
        self.load(&in_place_of(TRIXIE), IMAGE);
        self.run("podman network create --disable-dns pods").ok();
    }

    /// Loads an image of the engine under this name.
    fn load(&self, image: &str, name: &str) {
        require(image);
        let mut saved = Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
        let load = format!("podman load -q && podman tag {image} {name}");
        let loaded = Command::new("docker")
            .args(["exec", "-i", &self.container.name, "sh", "-c", &load])
            .stdin(saved.stdout.take().unwrap())
            .output()
            .unwrap();
        saved.wait().unwrap();
        Answer::from(loaded).ok();
    }

    /// Waits until a container of Podman's is healthy.
    fn wait_until_it_serves(&self, name: &str) {
        eventually("the server answers in Podman", PATIENCE, || {
            let answer = self.run(&format!("podman exec {name} prosody-entrypoint healthcheck"));
            let log = || self.run(&format!("podman logs {name}")).all();
            if answer.status == 0 { Ok(()) } else { Err(format!("{}\n{}", answer.all(), log())) }
        });
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_pod_for_kubernetes_serves_without_privileges_and_keeps_its_data() {
    let mut seen = Observations::default();
    let example = Example::new("kubernetes");
    let podman = Podman::new();
    podman.run("mkdir /srv/kubernetes").ok();
    podman.container.put_directory(&example.0, "/srv/kubernetes");
    podman.run("kubectl kustomize /srv/kubernetes >/srv/all.yaml").ok();
    let validated = podman.run("kubernetes-validate --strict /srv/all.yaml");
    seen.equal("kubernetes-validate", validated.status, 0);
    let resources = validated.all().lines().filter(|line| line.contains(" passed for resource ")).count();
    seen.equal("resources with a schema", resources, 7);
    // The check itself: an unknown field is found.
    let wrong = "sed 's/serviceName/serviceNames/' /srv/all.yaml >/srv/wrong.yaml; kubernetes-validate --strict /srv/wrong.yaml";
    seen.that("kubernetes-validate finds a wrong name", podman.run(wrong).status != 0, "");

    podman.load_image();
    podman.run("pod.py </srv/all.yaml >/srv/pod.yaml && podman kube play --network pods /srv/pod.yaml").ok();
    podman.wait_until_it_serves("prosody-0-prosody");
    for _ in 0..2 {
        let inside = |command: &str| podman.run(&format!("podman exec prosody-0-prosody {command}"));
        let status = inside("cat /proc/2/status").stdout;
        for line in [
            "Uid:\t999\t999\t999\t999",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            seen.that(line, status.contains(line), &status);
        }
        seen.that("a read-only root", inside("touch /x").status != 0, "");
        let account = inside("prosodyctl shell user list chat.example").all();
        seen.that("the account of the Secret", account.contains("admin@chat.example"), account);
        let options = inside("prosody-entrypoint settings --effective").stdout;
        seen.that("the settings of the ConfigMap", options.contains("PROSODY_FEATURES"), options);
        for probe in ["", "--live", "--ready"] {
            let answer = inside(&format!("prosody-entrypoint healthcheck {probe}"));
            seen.that(&format!("the probe {probe}"), answer.status == 0, answer);
        }
        // The second time, another pod with the same claim.
        let played = podman.run("podman kube play --network pods --replace /srv/pod.yaml");
        seen.equal("the pod is replaced", played.status, 0);
        podman.wait_until_it_serves("prosody-0-prosody");
    }
    makes_a_backup_in_a_pod_of_its_own(&podman, &mut seen);
    seen.report();
}

/// The CronJob of the example `backup`, beside the server.
fn makes_a_backup_in_a_pod_of_its_own(podman: &Podman, seen: &mut Observations) {
    let example = Example::new("backup");
    podman.run("mkdir /srv/backup").ok();
    podman.container.put_directory(&example.0, "/srv/backup");
    podman.run("kubectl kustomize /srv/backup >/srv/with-backup.yaml").ok();
    let validated = podman.run("kubernetes-validate --strict /srv/with-backup.yaml");
    seen.equal("kubernetes-validate, with backups", validated.status, 0);
    let resources = validated.all().lines().filter(|line| line.contains(" passed for resource ")).count();
    seen.equal("resources with a schema, with backups", resources, 10);

    let listing = "ls -l $(podman volume inspect --format '{{.Mountpoint}}' prosody-backups)";
    let play = "pod.py CronJob </srv/with-backup.yaml | podman kube play --network pods --replace -";
    for count in 1..=2 {
        podman.run(play).ok();
        let status = podman.run("podman wait prosody-backup-backup").ok();
        let log = podman.run("podman logs prosody-backup-backup").all();
        seen.that("the job saves the account", status == "0" && log.contains("of them 1 accounts"), &log);
        let backups = podman.run(listing).ok();
        let made = backups.lines().filter(|line| line.starts_with("-rw------- ") && line.ends_with("Z.tar"));
        seen.that("files for their owner alone", made.count() == count, backups);
    }
    seen.equal(
        "a read-only root",
        podman
            .run("podman inspect --format '{{.HostConfig.ReadonlyRootfs}}' prosody-backup-backup")
            .ok()
            .as_str(),
        "true",
    );
}

/// There is no cluster here, and Podman has no names for pods: the router's test has clients, with the same configuration.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_manifests_of_shards_for_kubernetes_are_valid() {
    let mut seen = Observations::default();
    let example = Example::new("kubernetes-shards");
    fs::write(example.0.join("secrets/database-password"), "correct-horse").unwrap();
    let tools = Recipe::new(PODMAN).start();
    tools.root("mkdir /srv/shards").ok();
    tools.put_directory(&example.0, "/srv/shards");
    tools.root("kubectl kustomize /srv/shards >/srv/all.yaml").ok();
    let validated = tools.root("kubernetes-validate --strict /srv/all.yaml");
    seen.equal("kubernetes-validate", validated.status, 0);
    let resources = validated.all().lines().filter(|line| line.contains(" passed for resource ")).count();
    seen.equal("resources with a schema", resources, 15);
    let all = tools.root("cat /srv/all.yaml").ok();
    let count = |text: &str| all.matches(text).count();
    // In the ConfigMap, and by the pods of the shards and of HAProxy.
    seen.equal("what uses the settings", count("name: prosody-settings-"), 3);
    seen.equal("a read-only root for each container", count("readOnlyRootFilesystem: true"), 4);
    seen.equal(
        "no privileges for any",
        (count("drop:\n            - ALL"), count("runAsNonRoot: true")),
        (4, 3),
    );
    seen.report();
}

/// HAProxy on Debian trixie.
const HAPROXY: &str = "prosody-entrypoint-test-proxies:latest";

/// Of the image in the example's folder `database`.
const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:17";

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_pod_for_movim_serves_without_privileges_and_keeps_posts_in_postgresql() {
    let mut seen = Observations::default();
    let example = Example::new("movim");
    let settings = fs::read_to_string(example.0.join("movim.env")).unwrap();
    fs::write(example.0.join("movim.env"), settings.replace("localhost", "chat.example")).unwrap();
    let podman = Podman::new();
    podman.run("mkdir /srv/movim").ok();
    podman.container.put_directory(&example.0, "/srv/movim");
    podman.run("/srv/movim/manifest >/srv/movim.yaml && kubernetes-validate --strict /srv/movim.yaml").ok();

    podman.load_image();
    podman.load(POSTGRESQL, "prosody-example-postgresql:17");
    let play = "/srv/movim/manifest | podman kube play --network pods -";
    podman.run(play).ok();
    podman.wait_until_it_serves("movim-prosody");
    for account in ["alice chat.example secret-a", "bob chat.example secret-b"] {
        podman.run(&format!("podman exec movim-prosody prosodyctl register {account}")).ok();
    }
    for (container, user) in [("prosody", "999"), ("database", "")] {
        let inspect = |field: &str| {
            podman.run(&format!("podman inspect --format '{{{{{field}}}}}' movim-{container}")).ok()
        };
        let status = podman.run(&format!("cat /proc/{}/status", inspect(".State.Pid"))).ok();
        for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            seen.that(&format!("{container}: {line}"), status.contains(line), &status);
        }
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap_or_default();
        seen.that(&format!("the user of {container}"), uid.starts_with(user) && !uid.starts_with('0'), uid);
        seen.equal("a read-only root", inspect(".HostConfig.ReadonlyRootfs").as_str(), "true");
    }

    let log_in = || {
        let mut client = Dialogue::of_client(&format!("container:{}", podman.container.name), "movim.py");
        let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = podman.run(&format!("podman inspect --format '{own}' movim-prosody")).ok();
        client.request(&format!("log-in {address} chat.example")).and_then(|()| client.answer()).unwrap();
        client
    };
    let ask = |client: &mut Dialogue, request: &str| {
        let answer = client.request(request).and_then(|()| client.answer());
        answer.unwrap_or_else(|reason| {
            panic!("{request}: {reason}\n{}", podman.run("podman logs movim-prosody").all())
        })
    };
    let mut client = log_in();
    ask(&mut client, "create");
    ask(&mut client, "post first");
    drop(client);
    let query = "SELECT COUNT(*) FROM prosodyarchive WHERE store = 'pubsub_tea' AND value LIKE '%first%'";
    let psql = "podman exec movim-database psql --dbname=prosody --tuples-only --no-align --command";
    seen.equal("posts in PostgreSQL", podman.run(&format!("{psql} \"{query}\"")).ok(), "1".to_owned());

    // Another pod with the same claims.
    podman.run(&play.replace("play", "play --replace")).ok();
    podman.wait_until_it_serves("movim-prosody");
    let read = ask(&mut log_in(), "read first");
    seen.that(
        "the post in the community is kept",
        read.contains("\"pubsub.chat.example\": \"alice@chat.example\""),
        read,
    );
    podman.run("/srv/movim/manifest | podman kube down -").ok();
    let left = podman.run("podman volume ls --quiet").ok();
    for claim in ["movim-data", "movim-database"] {
        seen.that(&format!("{claim} stays"), left.lines().any(|volume| volume == claim), &left);
    }
    seen.report();
}

/// Systemd itself does not run here: its socket is a listener's, and the command is the unit's.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn quadlets_unit_serves_and_tells_systemd_so() {
    const LISTEN: &str = "import os, socket\n\
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        listener.bind('/run/notify'); os.chmod('/run/notify', 0o777)\n\
        while True: print(listener.recv(4096).decode(), flush=True)\n";
    let mut seen = Observations::default();
    let example = Example::new("quadlet");
    let podman = Podman::new();
    podman.run("mkdir -p /etc/containers/systemd").ok();
    podman.container.put_directory(&example.0, "/etc/containers/systemd");
    podman.run("/usr/libexec/podman/quadlet --dryrun").ok();
    podman.run("mkdir /run/units && /usr/libexec/podman/quadlet /run/units").ok();
    let verified = podman.run("systemd-analyze verify /run/units/prosody.service");
    seen.equal("systemd-analyze verify", (verified.status, verified.all()), (0, String::new()));

    podman.load_image();
    podman.container.put("/srv/listen.py", LISTEN.as_bytes());
    podman.run("python3 /srv/listen.py >/srv/notified & until [ -S /run/notify ]; do sleep 0.05; done").ok();
    podman.run("podman secret create prosody-accounts /etc/containers/systemd/secrets/accounts").ok();
    podman.run("podman volume create prosody").ok();
    // Systemd would replace %t and %N, and there is no control group of a service to split.
    let command = "sed -n 's/^ExecStart=//p' /run/units/prosody.service | sed 's/--cgroups=split//; s|%t/%N|/run/unit|'";
    podman.run(&format!("{command} >/srv/start && NOTIFY_SOCKET=/run/notify timeout 60 sh /srv/start")).ok();
    podman.wait_until_it_serves("prosody");
    seen.equal("ready", podman.run("grep -c '^READY=1$' /srv/notified").stdout.trim(), "1");
    let account = podman.run("podman exec prosody prosodyctl shell user list chat.example").all();
    seen.that("the account of the secret", account.contains("admin@chat.example"), account);
    let stop = "sed -n 's/^ExecStop=//p' /run/units/prosody.service | sed 's|%t/%N|/run/unit|' >/srv/stop && sh /srv/stop";
    podman.run(stop).ok();
    seen.equal("stopping", podman.run("grep -c '^STOPPING=1$' /srv/notified").stdout.trim(), "1");
    seen.report();
}

/// The network between the containers of a swarm and the host.
const BRIDGE: &str = "docker_gwbridge";

/// A swarm of this engine alone, on loopback, with one stack.
struct Swarm {
    stack: String,
    /// Whether the engine had the network that a swarm leaves behind.
    had_bridge: bool,
}

impl Swarm {
    /// With the image under test in `IMAGE`, and these variables.
    fn new(file: &Path, variables: &[(&str, &str)]) -> Self {
        let state = docker(["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok();
        assert_eq!(state, "inactive", "this engine is in a swarm already; the test makes one and leaves it");
        let had_bridge = docker(["network", "inspect", BRIDGE]).status == 0;
        let swarm = Swarm { stack: unique("stack"), had_bridge };
        docker(["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"]).ok();
        let node = docker(["node", "ls", "--quiet"]).ok();
        for label in ["prosody=true", "proxy=true", "database=true"] {
            docker(["node", "update", "--label-add", label, &node]).ok();
        }
        let deployed = Command::new("docker")
            .args(["stack", "deploy", "--compose-file"])
            .arg(file)
            .arg(&swarm.stack)
            .env("IMAGE", in_place_of(TRIXIE))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Answer::from(deployed).ok();
        swarm
    }

    fn service(&self) -> String {
        format!("{}_prosody", self.stack)
    }

    /// A running container whose name begins with that of a service, or of a service and a slot.
    fn task(&self, name: &str) -> String {
        let filter = format!("name={}_{name}.", self.stack);
        eventually(name, PATIENCE, || {
            let running = docker(["ps", "--quiet", "--filter", &filter]).stdout;
            let first = running.split_whitespace().next().map(str::to_owned);
            first.ok_or_else(|| docker(["stack", "ps", "--no-trunc", &self.stack]).all())
        })
    }

    /// The only running container of the service, once it serves and is not this one.
    fn server_after(&self, before: &str) -> String {
        let label = format!("label=com.docker.swarm.service.name={}", self.service());
        eventually("the service has one server that answers", PATIENCE, || {
            let running = docker(["ps", "--quiet", "--filter", &label]).stdout;
            let tasks = || docker(["service", "ps", "--no-trunc", &self.service()]).all();
            match running.split_whitespace().collect::<Vec<_>>()[..] {
                [server] if server != before => {
                    let answer = docker(["exec", server, "prosody-entrypoint", "healthcheck"]);
                    if answer.status == 0 { Ok(server.to_owned()) } else { Err(answer.all()) }
                }
                _ => Err(format!("{running}\n{}", tasks())),
            }
        })
    }

    fn update(&self, option: &str, value: &str) -> Answer {
        docker(["service", "update", "--quiet", option, value, &self.service()])
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        docker(["stack", "rm", &self.stack]);
        let label = format!("label=com.docker.stack.namespace={}", self.stack);
        let network = format!("{}_default", self.stack);
        eventually("the stack is gone", PATIENCE, || {
            let left = docker(["ps", "--all", "--quiet", "--filter", &label]).stdout;
            let has_network = docker(["network", "inspect", &network]).status == 0;
            if left.is_empty() && !has_network { Ok(()) } else { Err(format!("{left} {network}")) }
        });
        docker(["swarm", "leave", "--force"]);
        let volumes = docker(["volume", "ls", "--quiet", "--filter", &label]).stdout;
        docker(["volume", "rm", "-f"].into_iter().chain(volumes.split_whitespace()));
        if !self.had_bridge {
            docker(["network", "rm", BRIDGE]);
        }
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_stack_for_a_swarm_updates_in_turn_and_rolls_back_a_wrong_setting() {
    let mut seen = Observations::default();
    let example = Example::new("swarm");
    let file = example.0.join("stack.yml");
    // A published port would be on every address, and the kernel may have no IPVS.
    let stack = fs::read_to_string(&file).unwrap();
    let (before, ports) = stack.split_once("    ports:\n").unwrap();
    let (_, after) = ports.split_once("    volumes:\n").unwrap();
    let after = after.replacen("    deploy:\n", "    deploy:\n      endpoint_mode: dnsrr\n", 1);
    let quick = after.replace("monitor: 15s", "monitor: 3s").replace("delay: 5s", "delay: 1s");
    fs::write(&file, format!("{before}    volumes:\n{quick}")).unwrap();
    require(&in_place_of(TRIXIE));

    let swarm = Swarm::new(&file, &[]);
    let first = swarm.server_after("");
    let users =
        |server: &str| docker(["exec", server, "prosodyctl", "shell", "user", "list", "chat.example"]).all();
    seen.that("the account of the secret", users(&first).contains("admin@chat.example"), users(&first));

    seen.equal("an update", swarm.update("--env-add", "PROSODY_LOG_LEVEL=debug").status, 0);
    let second = swarm.server_after(&first);
    let log = docker(["logs", &second]).all();
    seen.that("it did not have to wait for the first one", !log.contains("Another server uses"), &log);
    seen.that("the account is kept", users(&second).contains("admin@chat.example"), users(&second));

    swarm.update("--env-add", "PROSODY_C2S_PORTS=nonsense");
    let third = swarm.server_after(&second);
    seen.that(
        "the account is kept after a rollback",
        users(&third).contains("admin@chat.example"),
        users(&third),
    );
    // The command ends before the swarm has watched the old settings for long enough to call the rollback complete.
    eventually("the wrong setting is rolled back", PATIENCE, || {
        let format = "{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}";
        let update = docker(["service", "inspect", "--format", format, &swarm.service()]).ok();
        if update.starts_with("rollback_completed") { Ok(()) } else { Err(update) }
    });
    let tasks = docker(["service", "ps", "--no-trunc", "--format", "{{.Error}}", &swarm.service()]).ok();
    seen.that("its status", tasks.contains("78"), tasks);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_stack_for_a_swarm_of_shards_serves_sixty_domains_scales_and_heals() {
    let example = Example::new("swarm-shards");
    fs::write(example.0.join("secrets/database-password"), "correct-horse").unwrap();
    let file = example.0.join("stack.yml");
    // A published port would be on every address.
    let stack = fs::read_to_string(&file).unwrap();
    let (before, ports) = stack.split_once("    ports:\n").unwrap();
    let (_, after) = ports.split_once("    healthcheck:\n").unwrap();
    fs::write(&file, format!("{before}    healthcheck:\n{after}")).unwrap();
    for image in [TRIXIE, POSTGRESQL, HAPROXY] {
        require(image);
    }
    let swarm = Swarm::new(&file, &[("DATABASE_IMAGE", POSTGRESQL), ("PROXY_IMAGE", HAPROXY)]);
    let log = || docker(["stack", "ps", "--no-trunc", &swarm.stack]).all();
    let mut client = Dialogue::of_client(&format!("container:{}", swarm.task("proxy")), "routes.py");
    eventually("HAProxy listens", PATIENCE, || client.request("at 127.0.0.1").and_then(|()| client.answer()));
    let mut served = || wait_until_all_are_served(&mut client, 3 * PATIENCE, log);
    println!("all are served after {:?}", served());

    let map = || {
        let command = ["prosody-entrypoint", "shards", "--format", "haproxy-map"];
        docker(["exec", &swarm.task("prosody.1")].into_iter().chain(command)).ok()
    };
    let of_three = map();
    assert_eq!((shares(&of_three).len(), of_three.lines().count()), (3, 240), "{of_three}");

    // A quarter moves, all of it to the new one.
    docker(["service", "scale", "--detach", &format!("{}=4", swarm.service())]).ok();
    docker(["exec", &swarm.task("prosody.1"), "prosody-entrypoint", "shards", "--set", "4"]).ok();
    println!("all are served by four after {:?}", served());
    let of_four = map();
    let moved: Vec<_> = of_four.lines().filter(|line| !of_three.contains(line)).collect();
    assert!(moved.iter().all(|line| line.ends_with(" shard-3")), "{moved:?}");
    assert_eq!(moved.len(), shares(&of_four)["shard-3"]);
    assert!((20..120).contains(&moved.len()), "{} of 240 moved", moved.len());

    // A shard dies, then HAProxy's neighbour, then the database.
    let victims: &[&str] = if is_all_wanted() { &["prosody.2", "map", "database"] } else { &["prosody.2"] };
    for victim in victims {
        docker(["kill", &swarm.task(victim)]).ok();
        println!("all are served {:?} after the end of {victim}", served());
    }
    if is_all_wanted() {
        // Other settings, one task after another.
        swarm.update("--env-add", "PROSODY_LOG_LEVEL=warn");
        println!("all are served {:?} after an update", served());
    }
}
