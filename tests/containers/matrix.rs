//! Where the image runs: every combination of user, capabilities, root file system, `no-new-privileges` and owner of
//! the data either serves, or stops at once with a sentence whose advice makes it serve.
//!
//! [`outcome`] says which. The tests compare it with what they see, and the table of `docs/where-it-runs.md` is made of
//! it: `UPDATE_DOCS=1 cargo test --test containers matrix` writes it anew.
//!
//! Two of the five axes make no difference. They are rotated through the combinations of the other three, so that every
//! pair of values occurs; `make test-all` tries all combinations.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::docker::{
    Answer, Container, Dialogue, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually,
    is_all_wanted, prepare,
};

const DOMAIN: &str = "chat.example";

/// How long a container may live that stops by itself, in seconds: it takes a second, on a busy machine more.
const LIFETIME: f64 = 10.0;

/// Who starts the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    /// An id without a passwd entry, in group 0, as OpenShift gives them.
    Arbitrary,
}

/// `--cap-drop` and `--cap-add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capabilities {
    Default,
    None,
    SetIds,
}

/// The volume at `/var/lib/prosody`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// A new named volume, to which Docker gives owner and mode of the image's directory.
    New,
    Root,
    Arbitrary,
    Other,
    GroupWritable,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    user: User,
    capabilities: Capabilities,
    read_only: bool,
    no_new_privileges: bool,
    data: Data,
}

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Prosody serves, as this uid and gid.
    Serves(u32, u32),
    /// It stops with this status.
    Stops(i32),
}

/// What becomes of a container. The root file system and `no-new-privileges` make no difference.
fn outcome(user: User, capabilities: Capabilities, data: Data) -> Outcome {
    use Outcome::{Serves, Stops};
    match (user, capabilities, data) {
        // Nobody to become, and Prosody does not run as root.
        (User::Root, Capabilities::None, _) => Stops(77),
        // The directory would have to be given away.
        (User::Root, Capabilities::SetIds, Data::Root) => Stops(77),
        (User::Root, _, Data::New | Data::Root) => Serves(999, 999),
        (User::Root, _, Data::Arbitrary) => Serves(12345, 12345),
        (User::Root, _, Data::Other) => Serves(1234, 1234),
        // Root's group is never a default.
        (User::Root, _, Data::GroupWritable) => Serves(1234, 999),
        (User::Arbitrary, _, Data::Root | Data::Other) => Stops(73),
        (User::Arbitrary, _, Data::New | Data::Arbitrary | Data::GroupWritable) => Serves(12345, 0),
    }
}

const USERS: [User; 2] = [User::Root, User::Arbitrary];
const CAPABILITIES: [Capabilities; 3] = [Capabilities::Default, Capabilities::SetIds, Capabilities::None];
const DATA: [Data; 5] = [Data::New, Data::Root, Data::Arbitrary, Data::Other, Data::GroupWritable];

impl User {
    /// The value of `--user`; the image's own user is root.
    fn option(self) -> Option<&'static str> {
        match self {
            User::Root => None,
            User::Arbitrary => Some("12345:0"),
        }
    }
}

impl Capabilities {
    fn options(self) -> &'static [&'static str] {
        match self {
            Capabilities::Default => &[],
            Capabilities::None => &["--cap-drop", "ALL"],
            Capabilities::SetIds => &["--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"],
        }
    }
}

impl Data {
    /// Owner, group and mode.
    fn owner(self) -> Option<(&'static str, &'static str)> {
        match self {
            Data::New => None,
            Data::Root => Some(("0:0", "0755")),
            Data::Arbitrary => Some(("12345:12345", "0755")),
            Data::Other => Some(("1234:1234", "0755")),
            Data::GroupWritable => Some(("1234:0", "0770")),
        }
    }
}

/// Volumes of these owners, each then given away where a sentence says so (`chown -R`), in one container.
fn volumes(wanted: &[(Data, Option<&str>)]) -> Vec<Volume> {
    let volumes: Vec<Volume> = wanted.iter().map(|_| Volume::new()).collect();
    let mut script = String::new();
    for (Volume { name }, (data, given_to)) in volumes.iter().zip(wanted) {
        let path = format!("/volumes/{name}");
        if let Some((owner, mode)) = data.owner() {
            // To an empty volume Docker gives owner and mode of the image's directory.
            script += &format!("touch {path}/kept\nchown -R {owner} {path}\nchmod {mode} {path}\n");
        }
        if let Some(owner) = given_to {
            script += &format!("touch {path}/kept\nchown -R '{owner}' {path}\n");
        }
    }
    if !script.is_empty() {
        prepare(TRIXIE, &volumes, &script);
    }
    volumes
}

/// One way out that a sentence offers, as its quoted fragments say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    capabilities: Vec<String>,
    user: Option<String>,
    /// For `chown -R`, on the data.
    owner: Option<String>,
}

/// The ways out that a sentence offers. Fragments with an "or" between them are two ways; others belong together.
fn ways(sentence: &str) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    let mut between = String::new();
    for (number, part) in sentence.split('`').enumerate() {
        let words: Vec<&str> = part.split_whitespace().collect();
        let is_advice = number % 2 == 1
            && words.first().is_some_and(|first| ["--cap-add", "--user", "chown"].contains(first));
        if !is_advice {
            between.push_str(part);
            continue;
        }
        let is_other = between
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|word| word == "or" || word == "else");
        if ways.is_empty() || is_other {
            ways.push(Way::default());
        }
        between.clear();
        let way = ways.last_mut().expect("one was just pushed where there was none");
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word {
                "--cap-add" => way.capabilities.extend(words.next().map(str::to_owned)),
                "--user" => way.user = words.next().map(str::to_owned),
                "chown" => way.owner = words.find(|word| !word.starts_with('-')).map(str::to_owned),
                _ => {}
            }
        }
    }
    ways
}

/// A client that serves all sessions of a test (tests/client/sessions.py).
struct Sessions {
    client: Dialogue,
}

impl Sessions {
    fn new(network: &Network) -> Self {
        Sessions { client: Dialogue::of_client(&network.name, "sessions.py") }
    }

    /// A session with a server; `more` is what its request says after the address.
    fn hold(&mut self, request: &str, server: &Container, more: &[&str]) -> Result<(), String> {
        let address = server.address();
        if address.is_empty() {
            return Err(format!("it stopped with {}", server.inspect("{{.State.ExitCode}}")));
        }
        let request = [&[request, &address], more].concat().join(" ");
        self.client.request(&request)?;
        self.client.answer().map(drop).map_err(|error| format!("{request}: {error}"))
    }
}

/// A part of the matrix, with what its containers share.
struct Slice {
    sessions: Sessions,
    // After the client: a network in use cannot be removed.
    network: Network,
}

/// A server of a cell, perhaps changed as a sentence says.
struct Server {
    container: Container,
    // After the container: a volume in use cannot be removed.
    _volume: Volume,
}

impl Slice {
    fn new() -> Self {
        let network = Network::new();
        let sessions = Sessions::new(&network);
        Slice { sessions, network }
    }

    fn create(&self, cell: Cell, way: &Way, volume: Volume) -> Server {
        let mut recipe = Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .volume(&volume, "/var/lib/prosody")
            .on(&self.network, &[]);
        if let Some(user) = way.user.as_deref().or(cell.user.option()) {
            recipe = recipe.with(["--user", user]);
        }
        for option in cell.capabilities.options() {
            recipe = recipe.with([option]);
        }
        for capability in &way.capabilities {
            recipe = recipe.with(["--cap-add", capability]);
        }
        if cell.read_only {
            recipe = recipe.with(["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"]);
        }
        if cell.no_new_privileges {
            recipe = recipe.with(["--security-opt", "no-new-privileges"]);
        }
        Server { container: recipe.create(), _volume: volume }
    }

    /// Starts what is expected of a cell, and compares.
    fn check(&mut self, cell: Cell, volume: Volume) -> Result<(), String> {
        let server = self.create(cell, &Way::default(), volume);
        succeed(docker(["start", &server.container.name]))?;
        match outcome(cell.user, cell.capabilities, cell.data) {
            Outcome::Serves(uid, gid) => self.goes_on_after_a_restart(cell, &server, uid, gid),
            Outcome::Stops(status) => {
                let sentence = stops(&server, status)?;
                drop(server);
                let ways = ways(&sentence);
                if ways.is_empty() {
                    return Err(format!("no way out is offered: {sentence}"));
                }
                let wanted: Vec<_> = ways.iter().map(|way| (cell.data, way.owner.as_deref())).collect();
                for (way, volume) in ways.iter().zip(volumes(&wanted)) {
                    let server = self.create(cell, way, volume);
                    self.serves(&server).map_err(|error| format!("{sentence}\n  {way:?}: {error}"))?;
                }
                Ok(())
            }
        }
    }

    /// A cell that serves: the right user, `docker exec` as whom one likes, a session, and its message after a restart.
    fn goes_on_after_a_restart(
        &mut self,
        cell: Cell,
        server: &Server,
        uid: u32,
        gid: u32,
    ) -> Result<(), String> {
        let mut checks = || {
            let container = &server.container;
            self.sessions.hold("ready", container, &[])?;
            runs_as(container, uid, gid)?;
            let prosodyctl = |user: Option<&str>, account: &str| {
                let password = format!("secret-{}", &account[..1]);
                let user = user.map(|user| ["--user", user]);
                let command = [&container.name, "prosodyctl", "register", account, DOMAIN, &password];
                docker(["exec"].into_iter().chain(user.into_iter().flatten()).chain(command))
            };
            succeed(prosodyctl(None, "alice"))?;
            let other = match cell.user {
                User::Root => prosodyctl(Some(&format!("{uid}:{gid}")), "bob"),
                User::Arbitrary => prosodyctl(Some("0"), "bob"),
            };
            // Where this root has no capability it can be nobody but root, whose files Prosody could not read. It has
            // none either where the container's own user has none and may not gain any (execve(2), no_new_privs).
            let may_be_refused = cell.user == User::Arbitrary
                && (cell.capabilities == Capabilities::None || cell.no_new_privileges);
            let other = match other {
                refused if may_be_refused && refused.status == 77 => {
                    if !refused.stderr.contains(&format!("--user {uid}:{gid}")) {
                        return Err(format!("prosodyctl as root does not say what to do: {refused:?}"));
                    }
                    prosodyctl(None, "bob")
                }
                answer => answer,
            };
            succeed(other)?;
            self.sessions.hold("talk", container, &[DOMAIN, "before-the-restart"])?;
            succeed(docker(["restart", &container.name]))?;
            self.sessions.hold("recall", container, &[DOMAIN, "before-the-restart"])
        };
        checks().map_err(|error| format!("{error}\n{}", server.container.logs()))
    }

    /// A session.
    fn serves(&mut self, server: &Server) -> Result<(), String> {
        let mut checks = || {
            let container = &server.container;
            succeed(docker(["start", &container.name]))?;
            self.sessions.hold("ready", container, &[])?;
            let register = format!(
                "prosodyctl register alice {DOMAIN} secret-a && prosodyctl register bob {DOMAIN} secret-b"
            );
            succeed(container.exec(["sh", "-c", &register]))?;
            self.sessions.hold("talk", container, &[DOMAIN, "at-last"])
        };
        checks().map_err(|error| format!("{error}\n{}", server.container.logs()))
    }
}

fn succeed(answer: Answer) -> Result<(), String> {
    if answer.status == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
}

/// Prosody is the one process beside PID 1, with these ids.
fn runs_as(container: &Container, uid: u32, gid: u32) -> Result<(), String> {
    let processes = docker(["top", &container.name, "-eo", "pid,uid,gid,args"]).stdout;
    let servers: Vec<Vec<&str>> = processes
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<&str>| words.get(3).is_some_and(|program| !program.contains("entrypoint")))
        .collect();
    let (uid, gid) = (uid.to_string(), gid.to_string());
    match &servers[..] {
        [words] if words[1..3] == [&uid, &gid] => Ok(()),
        _ => Err(format!("one process of {uid}:{gid} was expected:\n{processes}")),
    }
}

/// The container stops by itself, at once, with this status and one sentence, which is the answer.
fn stops(server: &Server, status: i32) -> Result<String, String> {
    let container = &server.container;
    eventually("the container stops by itself", PATIENCE, || {
        if container.runs() { Err(container.logs()) } else { Ok(()) }
    });
    let state = container.inspect("{{.State.StartedAt}} {{.State.FinishedAt}} {{.State.ExitCode}}");
    let [started, finished, exit_code] = state.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("an unexpected state: {state}"));
    };
    let logs = container.logs();
    // At midnight the time of day begins anew. Docker may note a start after the end, a millisecond or so.
    let half_a_day = 43_200.0;
    let lifetime = (seconds_of_day(finished) - seconds_of_day(started) + half_a_day)
        .rem_euclid(2.0 * half_a_day)
        - half_a_day;
    if lifetime > LIFETIME {
        return Err(format!("it lived for {lifetime} s:\n{logs}"));
    }
    if exit_code != status.to_string() {
        return Err(format!("status {status} was expected, seen: {exit_code}\n{logs}"));
    }
    let ours = |line: &&str| line.split_whitespace().next() == Some("entrypoint");
    let error = |line: &&str| line.split_whitespace().nth(1) == Some("error");
    match &logs.lines().filter(error).collect::<Vec<_>>()[..] {
        [sentence] if logs.lines().all(|line| ours(&line)) => Ok((*sentence).to_owned()),
        _ => Err(format!("one sentence of ours was expected:\n{logs}")),
    }
}

/// The time of day of `2025-11-21T10:35:07.942704197Z`.
fn seconds_of_day(timestamp: &str) -> f64 {
    let time = timestamp.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'));
    time.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN))
}

/// What is tried for a user and its capabilities: each owner of the data, with one combination of the axes that make no
/// difference, or with all of them.
fn cells(user: User, capabilities: Capabilities, all: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for data in DATA {
        // As numbers, so that the combinations take turns.
        let (user_turn, turn) = (user as usize, capabilities as usize + data as usize);
        for (read_only, no_new_privileges) in [(false, false), (false, true), (true, false), (true, true)] {
            let is_its_turn = read_only == ((user_turn + turn) % 2 == 1)
                && no_new_privileges == ((user_turn + data as usize) % 2 == 1);
            if all || is_its_turn {
                cells.push(Cell { user, capabilities, read_only, no_new_privileges, data });
            }
        }
    }
    cells
}

/// Checks the cells of a user with these capabilities.
fn slice(user: User, capabilities: Capabilities) {
    let mut slice = Slice::new();
    let mut seen = Observations::default();
    let cells = cells(user, capabilities, is_all_wanted());
    let wanted: Vec<_> = cells.iter().map(|cell| (cell.data, None)).collect();
    for (cell, volume) in cells.into_iter().zip(volumes(&wanted)) {
        if let Err(error) = slice.check(cell, volume) {
            seen.that(&format!("{cell:?}"), false, Text(error));
        }
    }
    seen.report();
}

/// Text whose lines stay lines.
struct Text(String);

impl std::fmt::Debug for Text {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

macro_rules! slices {
    ($($name:ident: $user:ident, $capabilities:ident;)*) => {
        $(
            #[test]
            #[ignore = "needs Docker and the images: make test"]
            fn $name() {
                slice(User::$user, Capabilities::$capabilities);
            }
        )*
    };
}

slices! {
    root: Root, Default;
    root_with_setuid_and_setgid: Root, SetIds;
    root_without_capabilities: Root, None;
    arbitrary_user: Arbitrary, Default;
    arbitrary_user_with_setuid_and_setgid: Arbitrary, SetIds;
    arbitrary_user_without_capabilities: Arbitrary, None;
}

#[test]
fn every_pair_of_values_is_tried() {
    let all: Vec<Cell> = USERS
        .into_iter()
        .flat_map(|user| CAPABILITIES.map(|capabilities| cells(user, capabilities, false)))
        .flatten()
        .collect();
    assert_eq!(all.len(), 30);
    // Each axis as the number of a value, and how many values it has.
    let values = |cell: &Cell| {
        let Cell { user, capabilities, read_only, no_new_privileges, data } = *cell;
        [user as usize, capabilities as usize, read_only.into(), no_new_privileges.into(), data as usize]
    };
    let counts = [USERS.len(), CAPABILITIES.len(), 2, 2, DATA.len()];
    for (one, other) in (0..counts.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
        let pairs: BTreeSet<_> = all.iter().map(values).map(|cell| (cell[one], cell[other])).collect();
        assert_eq!(pairs.len(), counts[one] * counts[other], "axes {one} and {other}: {pairs:?}");
    }
}

/// The table for readers.
fn table() -> String {
    let mut table = String::from("| user | capabilities |");
    for data in DATA {
        let heading = match data.owner() {
            None => "new volume".to_owned(),
            Some((owner, mode)) => format!("{owner} {mode}"),
        };
        table += &format!(" {heading} |");
    }
    table += &format!("\n|{}\n", " --- |".repeat(2 + DATA.len()));
    for user in USERS {
        for capabilities in CAPABILITIES {
            let name = match capabilities {
                Capabilities::Default => "default",
                Capabilities::SetIds => "SETUID, SETGID",
                Capabilities::None => "none",
            };
            table += &format!("| {} | {name} |", user.option().unwrap_or("root"));
            for data in DATA {
                table += &match outcome(user, capabilities, data) {
                    Outcome::Serves(uid, gid) => format!(" serves as {uid}:{gid} |"),
                    Outcome::Stops(status) => format!(" stops, {status} |"),
                };
            }
            table += "\n";
        }
    }
    table
}

/// The documented table is the one that the other tests hold against real containers.
#[test]
fn the_documented_table_is_the_one_that_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/where-it-runs.md");
    let page = fs::read_to_string(&path).expect("docs/where-it-runs.md cannot be read");
    let is_row = |line: &&str| line.starts_with("| ");
    let documented: String = page
        .lines()
        .skip_while(|line| !is_row(line))
        .take_while(is_row)
        .map(|line| format!("{line}\n"))
        .collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page.replacen(&documented, &table(), 1))
            .expect("docs/where-it-runs.md cannot be written");
        return;
    }
    assert_eq!(
        documented,
        table(),
        "docs/where-it-runs.md is stale: UPDATE_DOCS=1 cargo test --test containers matrix"
    );
}

#[test]
fn advice_is_understood() {
    let way = |capabilities: &[&str], user: Option<&str>, owner: Option<&str>| Way {
        capabilities: capabilities.iter().map(|&name| name.to_owned()).collect(),
        user: user.map(str::to_owned),
        owner: owner.map(str::to_owned),
    };
    let sentence = "cannot become uid 999 (EPERM): add `--cap-add SETUID --cap-add SETGID` to the container, or start \
                    it with `--user 999:999`";
    assert_eq!(ways(sentence), [way(&["SETUID", "SETGID"], None, None), way(&[], Some("999:999"), None)]);
    let sentence = "`/var/lib/prosody` is not or no longer ours: run `chown -R 999:999 /var/lib/prosody` and start the \
                    container with `--user 999:999`, or add `--cap-add CHOWN`";
    assert_eq!(ways(sentence), [way(&[], Some("999:999"), Some("999:999")), way(&["CHOWN"], None, None)]);
    assert_eq!(ways("do `ls` or something else"), []);
}
