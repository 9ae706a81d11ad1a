//! Containers, by the Docker command line and the engine's interface, as far as these tests need them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine;
use prosody_entrypoint::health::{self, ANY_HOST, Service, Target};

/// Prosody 13.0 on Debian trixie.
pub const TRIXIE: &str = "prosody-entrypoint:latest";
/// Prosody 0.12 on Debian bookworm.
pub const BOOKWORM: &str = "prosody-entrypoint:bookworm";
/// The image without a shell, with Prosody 13.0.
pub const MINIMAL: &str = "prosody-entrypoint:minimal";
/// The same with BusyBox at [`BUSYBOX`]. With `IMAGE` of this name, the tests run it in place of [`TRIXIE`].
const MINIMAL_WITH_TOOLS: &str = "prosody-entrypoint-test-minimal:latest";
/// Programs for the tests. No `PATH` leads there, so that the server does not find them.
const BUSYBOX: &str = "/.test-tools/busybox";
/// A line for BusyBox's shell, whose own programs of these names lack what tests ask for.
const FULL_PROGRAMS: &str = r#"full() { program=$1; shift
        LD_LIBRARY_PATH=/.test-tools PATH="/.test-tools/bin:$PATH" "/.test-tools/$program" "$@"; }
    date() { full date "$@"; }; find() { full find "$@"; }; setpriv() { full setpriv "$@"; };"#;
/// slixmpp on Debian trixie.
pub const CLIENT: &str = "prosody-entrypoint-test-client:latest";

/// BIND on Debian trixie.
pub const NAMESERVER: &str = "prosody-entrypoint-test-nameserver:latest";

/// Chromium on Debian trixie.
pub const BROWSER: &str = "prosody-entrypoint-test-browser:latest";

/// How long a thing that takes a second or two on an idle machine may take on a busy one.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Whether every combination is to be tried (`make test-all`), and not only those that may differ.
pub fn is_all_wanted() -> bool {
    std::env::var_os("TEST_ALL").is_some()
}

/// The images where Prosody's version makes no difference: both only if every combination is wanted.
pub fn images() -> &'static [&'static str] {
    if is_all_wanted() { &[TRIXIE, BOOKWORM] } else { &[TRIXIE] }
}

/// A name that no other test, and no other run, has.
pub fn unique(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("pe-test-{kind}-{}-{count}", std::process::id())
}

/// What a command said, as text.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit status; of a process that a signal ended, 128 and the signal.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Standard output and standard error, one after the other.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output without the white space around it, where the command succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "the command failed: {self:?}");
        self.stdout.trim().to_owned()
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Answer {
            status: output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `docker` with these arguments.
pub fn docker<I, S>(arguments: I) -> Answer
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("docker cannot be run ({error}): these tests need Docker"))
        .into()
}

/// Runs a shell line of the host with these arguments, from `$0` on.
fn shell(script: &str, arguments: [&OsStr; 3]) -> Answer {
    Command::new("sh").args(["-c", script]).args(arguments).output().unwrap().into()
}

/// The image to run in place of one of ours: the environment variable `IMAGE` names the one for [`TRIXIE`].
pub fn in_place_of(image: &str) -> String {
    let other = std::env::var("IMAGE").ok().filter(|other| image == TRIXIE && !other.is_empty());
    other.unwrap_or_else(|| image.to_owned())
}

/// The words of a command, with BusyBox's program in place of the image's if `has_tools` and the image is without it.
fn by_busybox<'a>(has_tools: bool, command: &[&'a str]) -> Vec<&'a str> {
    let applet = command.first().map(|program| match program.rsplit('/').next() {
        Some("bash" | "sh") => "sh",
        _ => program,
    });
    match applet {
        Some(applet @ ("cat" | "env" | "grep" | "id" | "ls" | "sh" | "sleep" | "tar")) if has_tools => {
            [&[BUSYBOX, applet], &command[1..]].concat()
        }
        _ => command.to_vec(),
    }
}

/// Whether a container has the image without a shell, with tools for the tests.
fn has_tools(container: &str) -> bool {
    in_place_of(TRIXIE) == MINIMAL_WITH_TOOLS
        && engine::inspect(container)["Config"]["Image"] == MINIMAL_WITH_TOOLS
}

/// Runs a command in a container, as this user or as the container's.
pub fn exec(container: &str, user: &str, command: &[&str]) -> Answer {
    engine::exec(container, user, &by_busybox(has_tools(container), command))
}

/// Fails with a sentence where the engine does not answer or the image is not there.
#[track_caller]
pub fn require(image: &str) {
    let image = &in_place_of(image);
    static FOUND: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if FOUND.lock().unwrap().contains(image) {
        return;
    }
    if docker(["image", "inspect", image]).status != 0 {
        let engine = docker(["version", "--format", "{{.Server.Version}}"]);
        assert_eq!(
            engine.status, 0,
            "the Docker engine does not answer; these tests need it: {}",
            engine.stderr
        );
        panic!("there is no image {image}: `make image` builds it (`make test` does so by itself)");
    }
    FOUND.lock().unwrap().insert(image.to_owned());
}

/// Asks again and again until there is an answer; the question says why there is none yet. Most questions start a
/// process, so the pauses grow with the time that has passed.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut question: impl FnMut() -> Result<T, String>) -> T {
    const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];
    let start = Instant::now();
    loop {
        match question() {
            Ok(answer) => return answer,
            Err(reason) if start.elapsed() > patience => {
                panic!("{what}: not within {patience:?}: {reason}")
            }
            Err(_) => thread::sleep((start.elapsed() / 10).clamp(PAUSES[0], PAUSES[1])),
        }
    }
}

/// Waits until the server in a container answers; fails with the log where the container ends.
#[track_caller]
pub fn wait_until_it_serves(container: &str) {
    assert!(
        serves_or_ends(container),
        "the container ended with {}:\n{}",
        engine::inspect(container)["State"]["ExitCode"],
        engine::logs(container).all()
    );
}

/// Waits until the server in a container answers, or the container ends; says whether it answers.
///
/// The host opens a stream to the container's address: a `docker exec` takes far longer than the answer. The image's
/// own health check is for servers on other ports and for containers without an address, and is run once a second.
#[track_caller]
pub fn serves_or_ends(container: &str) -> bool {
    const LOOK_INSIDE: Duration = Duration::from_secs(1);
    // A start may wait 60 s for a database, which makes its tables first on a busy machine. An emulated one may take longer.
    let seconds = std::env::var("START_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let start = Duration::from_secs(seconds.unwrap_or(60 + PATIENCE.as_secs()));
    let mut targets = Vec::new();
    let mut looked: Option<Instant> = None;
    let mut inside = String::new();
    eventually("the server answers", start, || {
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_INSIDE) {
            let outside = health::check(&targets, LOOK_INSIDE);
            return outside.map(|()| true).map_err(|error| format!("{error}\n{inside}"));
        }
        let (runs, addresses) = engine::state(container);
        if !runs {
            return Ok(false);
        }
        targets = addresses.iter().filter_map(|address| address.parse().ok()).map(for_clients).collect();
        if looked.is_none() && !targets.is_empty() {
            looked = Some(Instant::now());
            return Err("not asked yet".to_owned());
        }
        let answer = engine::exec(container, "", &["prosody-entrypoint", "healthcheck"]);
        // Without an address there is no other way to ask.
        looked = (!targets.is_empty()).then(Instant::now);
        inside = format!("{}\nthe log:\n{}", answer.all(), engine::logs(container).all());
        if answer.status == 0 { Ok(true) } else { Err(inside.clone()) }
    })
}

/// The usual port for clients, whatever hosts are served there.
fn for_clients(address: IpAddr) -> Target {
    Target { service: Service::C2s, address: SocketAddr::new(address, 5222), host: ANY_HOST.to_owned() }
}

/// A network of one test.
pub struct Network {
    pub name: String,
}

impl Network {
    pub fn new() -> Self {
        Self::with([])
    }

    /// A network from which nothing else can be reached.
    pub fn internal() -> Self {
        Self::with(["--internal"])
    }

    fn with<const N: usize>(options: [&str; N]) -> Self {
        let name = unique("net");
        docker(["network", "create", &name].into_iter().chain(options)).ok();
        Network { name }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(["network", "rm", &self.name]);
    }
}

/// A volume of one test.
pub struct Volume {
    pub name: String,
}

impl Volume {
    pub fn new() -> Self {
        let name = unique("volume");
        docker(["volume", "create", &name]).ok();
        Volume { name }
    }

    /// Runs a shell line on the volume, at `/volume`, as root.
    #[track_caller]
    pub fn prepare(&self, image: &str, script: &str) {
        let mount = format!("{}:/volume", self.name);
        let shell = ["--entrypoint", "/bin/sh", image, "-ec", script];
        docker(["run", "--rm", "--network", "none", "-v", &mount].into_iter().chain(shell)).ok();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        docker(["volume", "rm", "-f", &self.name]);
    }
}

/// Runs a shell line on volumes, each at `/volumes/` and its name, as root.
#[track_caller]
pub fn prepare(image: &str, volumes: &[Volume], script: &str) {
    let mut arguments = ["run", "--rm", "--network", "none"].map(str::to_owned).to_vec();
    for Volume { name } in volumes {
        arguments.extend(["--volume".to_owned(), format!("{name}:/volumes/{name}")]);
    }
    arguments.extend(["--entrypoint", "/bin/sh", image, "-ec", script].map(str::to_owned));
    docker(arguments).ok();
}

/// A container that is still being described.
pub struct Recipe {
    image: String,
    arguments: Vec<String>,
    command: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Recipe {
    pub fn new(image: &str) -> Self {
        Recipe { image: image.to_owned(), arguments: Vec::new(), command: Vec::new(), files: Vec::new() }
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend(["--env".to_owned(), format!("{name}={value}")]);
        self
    }

    /// More arguments of `docker run`.
    pub fn with<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    /// On this network, under these names.
    pub fn on(mut self, network: &Network, names: &[&str]) -> Self {
        self.arguments.extend(["--network".to_owned(), network.name.clone()]);
        for name in names {
            self.arguments.extend(["--network-alias".to_owned(), (*name).to_owned()]);
        }
        self
    }

    /// With this volume at that path.
    pub fn volume(mut self, volume: &Volume, path: &str) -> Self {
        self.arguments.extend(["--volume".to_owned(), format!("{}:{path}", volume.name)]);
        self
    }

    /// With this file, owned by root, put there before the start. Its directory must exist.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// What follows the image's name.
    pub fn command<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.command = command.map(str::to_owned).to_vec();
        self
    }

    /// One more word of what follows the image's name.
    pub fn word(mut self, word: &str) -> Self {
        self.command.push(word.to_owned());
        self
    }

    /// Makes the container with its files, and does not start it.
    #[track_caller]
    pub fn create(self) -> Container {
        require(&self.image);
        let name = unique("container");
        let image = in_place_of(&self.image);
        let has_tools = image == MINIMAL_WITH_TOOLS;
        let mut arguments = vec!["create", "--name", &name];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let command: Vec<_> = self.command.iter().map(String::as_str).collect();
        let entrypoint = arguments.iter().position(|argument| *argument == "--entrypoint");
        let command = if let Some(program) = entrypoint.map(|position| position + 1) {
            let command = by_busybox(has_tools, &[&[arguments[program]], &command[..]].concat());
            arguments[program] = command[0];
            command[1..].to_vec()
        } else {
            by_busybox(has_tools, &command)
        };
        arguments.push(&image);
        arguments.extend(command);
        docker(&arguments).ok();
        let container = Container { name };
        if !self.files.is_empty() {
            container.put_all(&self.files);
        }
        container
    }

    /// Makes the container and starts it.
    #[track_caller]
    pub fn start(self) -> Container {
        let container = self.create();
        engine::start(&container.name).ok();
        container
    }

    /// Runs the container to its end.
    #[track_caller]
    pub fn run(self) -> Answer {
        let container = self.create();
        docker(["start", "--attach", &container.name])
    }

    /// Runs the container to its end and leaves it, so that what it left behind can be looked at.
    #[track_caller]
    pub fn run_and_keep(self) -> (Answer, Container) {
        let container = self.create();
        let answer = docker(["start", "--attach", &container.name]);
        (answer, container)
    }

    /// Starts a server and waits until it answers its own health check.
    #[track_caller]
    pub fn serve(self) -> Container {
        let container = self.start();
        container.wait_until_it_serves();
        container
    }
}

/// A container of one test.
pub struct Container {
    pub name: String,
}

impl Container {
    /// Writes one file into the container, running or not, as root's and readable by all. Directories that are
    /// missing are made.
    #[track_caller]
    pub fn put(&self, path: &str, content: &[u8]) {
        self.put_all(&[(path.to_owned(), content.to_vec())]);
    }

    /// Writes files, as [`Container::put`] does.
    #[track_caller]
    pub fn put_all(&self, files: &[(String, Vec<u8>)]) {
        engine::put(&self.name, &tar(files)).ok();
    }

    /// Copies what is in a directory of the host into one of the container, which runs. It may be on a tmpfs, where
    /// `docker cp` finds nothing.
    #[track_caller]
    pub fn put_directory(&self, from: &Path, to: &str) {
        let tar = by_busybox(has_tools(&self.name), &["tar"]).join(" ");
        let script =
            format!(r#"tar -C "$0" --owner 0 --group 0 -c . | docker exec -i "$1" {tar} -C "$2" -x"#);
        shell(&script, [from.as_os_str(), self.name.as_ref(), to.as_ref()]).ok();
    }

    /// Copies what is in a directory of the container into one of the host, as [`Container::put_directory`] does.
    #[track_caller]
    pub fn get_directory(&self, from: &str, to: &Path) {
        let tar = by_busybox(has_tools(&self.name), &["tar"]).join(" ");
        let script = format!(r#"docker exec "$1" {tar} -C "$0" -c . | tar -C "$2" -x"#);
        shell(&script, [from.as_ref(), self.name.as_ref(), to.as_os_str()]).ok();
    }

    /// Runs a command in the container, as its user.
    pub fn exec<const N: usize>(&self, command: [&str; N]) -> Answer {
        exec(&self.name, "", &command)
    }

    /// Runs a shell line in the container, as this user.
    pub fn as_user(&self, user: &str, script: &str) -> Answer {
        let programs = if has_tools(&self.name) { FULL_PROGRAMS } else { "" };
        exec(&self.name, user, &["/bin/sh", "-c", &format!("{programs} {script}")])
    }

    /// Runs a shell line in the container, as root.
    pub fn root(&self, script: &str) -> Answer {
        self.as_user("0", script)
    }

    /// Runs a shell line in the container as the user and group of its server, which alone may
    /// look at all of the server's /proc (root lacks CAP_SYS_PTRACE in a container).
    #[track_caller]
    pub fn as_prosody(&self, script: &str) -> Answer {
        let pid = self.server_pid();
        let ids = self.root(&format!("stat -c %u:%g /proc/{pid}")).ok();
        self.as_user(&ids, script)
    }

    /// What the container wrote until now, standard output and standard error together.
    pub fn logs(&self) -> String {
        self.said().all()
    }

    /// What was written until now: standard output is Prosody's, standard error ours.
    pub fn said(&self) -> Answer {
        engine::logs(&self.name)
    }

    /// The present, for [`Container::since`].
    pub fn mark(&self) -> SystemTime {
        SystemTime::now()
    }

    /// What was written since. The engine keeps the time of each line.
    pub fn since(&self, mark: SystemTime) -> Answer {
        let time = mark.duration_since(UNIX_EPOCH).expect("the clock is right");
        engine::logs_since(&self.name, &format!("{}.{:09}", time.as_secs(), time.subsec_nanos()))
    }

    /// Sends a signal to the container's first process.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        engine::kill(&self.name, signal).ok();
    }

    /// A field of `docker inspect`, by its Go template.
    #[track_caller]
    pub fn inspect(&self, template: &str) -> String {
        docker(["inspect", "--format", template, &self.name]).ok()
    }

    /// The container's address in its first network; empty without one.
    pub fn address(&self) -> String {
        engine::state(&self.name).1.into_iter().next().unwrap_or_default()
    }

    /// Whether the container's first process is alive.
    pub fn runs(&self) -> bool {
        engine::state(&self.name).0
    }

    /// Waits until the server answers.
    #[track_caller]
    pub fn wait_until_it_serves(&self) {
        wait_until_it_serves(&self.name);
    }

    /// Waits until the log has this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), PATIENCE, || {
            let logs = self.logs();
            if logs.contains(text) { Ok(()) } else { Err(logs) }
        });
    }

    /// The pid of Prosody in the container: the child of the container's first process.
    #[track_caller]
    pub fn server_pid(&self) -> String {
        self.root("cat /proc/1/task/1/children").ok()
    }

    /// Registers the accounts alice and bob, as a user of the image would.
    #[track_caller]
    pub fn register_accounts(&self, domain: &str) {
        for (user, password) in [("alice", "secret-a"), ("bob", "secret-b")] {
            self.register(user, domain, password).ok();
        }
    }

    /// Makes an account beside the running server. The server, too, writes now and then, and a database may refuse one of two
    /// that write at once: MariaDB's empty tables, and SQLite's file without a write-ahead log. Prosody does not try again.
    pub fn register(&self, user: &str, domain: &str, password: &str) -> Answer {
        let register = || self.exec(["prosodyctl", "register", user, domain, password]);
        let answer = register();
        let is_refused =
            ["Deadlock found", "database is locked"].iter().any(|why| answer.all().contains(why));
        if is_refused { register() } else { answer }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(["rm", "--force", "--volumes", &self.name]);
    }
}

/// A program in a container of its own that answers each line on its standard input by one on its standard output.
pub struct Dialogue {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub container: Container,
}

impl Dialogue {
    /// Starts a script of `tests/client` on a network or in that of a container (`container:NAME`).
    #[track_caller]
    pub fn of_client(network: &str, script: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client");
        let mut recipe = Recipe::new(CLIENT).with(["--network", network]);
        for file in std::fs::read_dir(folder).unwrap() {
            let (name, path) = file.map(|file| (file.file_name(), file.path())).unwrap();
            if path.extension().is_some_and(|extension| extension == "py") {
                recipe = recipe.file(&format!("/{}", name.to_string_lossy()), std::fs::read(path).unwrap());
            }
        }
        Self::with(recipe.command(["python3", &format!("/{script}")]))
    }

    /// Starts the container.
    #[track_caller]
    pub fn with(recipe: Recipe) -> Self {
        let container = recipe.with(["--interactive"]).create();
        let mut process = Command::new("docker")
            .args(["start", "--attach", "--interactive", &container.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker cannot be run");
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Dialogue { process, requests, answers, container }
    }

    /// Sends a request, and does not wait for its answer.
    pub fn request(&mut self, request: &str) -> Result<(), String> {
        writeln!(self.requests, "{request}").map_err(|error| format!("{request}: {error}"))
    }

    /// The answer to the first request that has had none yet: what follows its `ok`.
    pub fn answer(&mut self) -> Result<String, String> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|error| error.to_string())?;
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(answer.trim().to_owned()),
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // The client of Docker ends with the container, which its own Drop removes.
        docker(["kill", &self.container.name]);
        let _ = self.process.wait();
    }
}

/// Runs the client's steps (tests/client/session.py) as alice and bob.
#[track_caller]
pub fn session(network: &Network, domain: &str, steps: &[&str]) -> Answer {
    client(&network.name, domain, ["alice:secret-a", "bob:secret-b"], steps)
}

/// Runs the client's steps as two accounts, `local:password` each, on a network or in that of a container
/// (`container:NAME`).
#[track_caller]
pub fn client(network: &str, domain: &str, accounts: [&str; 2], steps: &[&str]) -> Answer {
    require(CLIENT);
    let name = unique("client");
    let mut arguments =
        vec!["create", "--name", &name, "--network", network, CLIENT, "python3", "/session.py", domain];
    arguments.extend(accounts);
    arguments.extend(steps);
    docker(&arguments).ok();
    let client = Container { name: name.clone() };
    client.put("/session.py", include_bytes!("../client/session.py"));
    docker(["start", "--attach", &name])
}

/// A tar archive (POSIX ustar) of files with absolute paths, owned by root, mode 0644.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, content) in files {
        let name = path.strip_prefix('/').expect("an absolute path");
        let mut header = [0u8; 512];
        header[..100][..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        // The checksum counts itself as eight spaces.
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Many observations of one container, so that each failure is seen and not only the first.
#[derive(Default)]
pub struct Observations {
    failures: Vec<String>,
}

impl Observations {
    /// Notes a failure where the condition does not hold.
    pub fn that(&mut self, what: &str, holds: bool, seen: impl Debug) {
        if !holds {
            self.failures.push(format!("{what}; seen: {seen:?}"));
        }
    }

    /// Notes a failure where the two differ.
    pub fn equal<T: PartialEq + Debug>(&mut self, what: &str, seen: T, expected: T) {
        if seen != expected {
            self.failures.push(format!("{what}: {expected:?} was expected, seen: {seen:?}"));
        }
    }

    /// Fails with all that was noted.
    #[track_caller]
    pub fn report(self) {
        assert!(
            self.failures.is_empty(),
            "{} of the observations failed:\n- {}",
            self.failures.len(),
            self.failures.join("\n- ")
        );
    }
}
