//! Images with other community modules than Debian's, and with Prosody from source, from archives as upstream has them
//! (tests/images/sources). Bad input is in tests/sources.rs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::docker::{
    Answer, CLIENT, Container, Network, Observations, Recipe, docker, is_all_wanted, require, session, unique,
};

/// The archives of tests/images/sources.
const SOURCES: &str = "prosody-entrypoint-test-sources:latest";

const DOMAIN: &str = "chat.example";

/// The domain, and a host whose accounts are in a directory that nobody asks.
const HOSTS: &str = r#"[
    {"host": "chat.example"},
    {"host": "ldap.example", "modules_enabled": ["uses_library"],
     "options": {"authentication": "ldap2", "ldap": {"hostname": "localhost"}}}
]"#;

/// A copy of what the image is built from, and the archives.
struct Workshop {
    path: PathBuf,
}

impl Workshop {
    fn new() -> Self {
        require(SOURCES);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("sources"));
        fs::create_dir_all(path.join("target")).unwrap();
        let workshop = Workshop { path };
        let root = env!("CARGO_MANIFEST_DIR");
        workshop.run(&format!(
            "cd {root} && cp -R Cargo.toml Cargo.lock LICENSE .dockerignore docker src templates $OLDPWD"
        ));
        workshop.run(&format!("[ ! -e {root}/target/host-ca.crt ] || cp {root}/target/host-ca.crt target/"));
        let container = Recipe::new(SOURCES).create();
        docker(["cp", &format!("{}:/srv/archives", container.name), workshop.path.to_str().unwrap()]).ok();
        workshop
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(&self.path);
        // What the tests run with is for the images of other tests.
        command.env_remove("COLLECTION_SHA256").env_remove("PROSODY_SOURCE_SHA256");
        command
    }

    /// Runs a shell script there: what it prints.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        Answer::from(self.shell(script).output().unwrap()).ok()
    }

    #[track_caller]
    fn checksum(&self, archive: &str) -> String {
        self.run(&format!("sha256sum <archives/{archive} | cut -c -64"))
    }

    /// Builds an image as `make image` does with these variables.
    #[track_caller]
    fn build(&self, suite: &str, variables: &[(&str, &str)]) -> Image {
        let name = unique("image");
        let script = "arguments=$(docker/build-args)
            docker build -f docker/Dockerfile -t $image --build-arg SUITE=$suite $arguments . 2>&1";
        let mut command = self.shell(script);
        command.env("image", &name).env("suite", suite).envs(variables.iter().copied());
        let output = Answer::from(command.output().unwrap());
        let image = Image { name, stages: stages(&output.stdout) };
        assert_eq!(output.status, 0, "{}", output.all());
        image
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// An image of one test, with the images of its build's stages, which the classic builder leaves without a name.
struct Image {
    name: String,
    stages: Vec<String>,
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(["rmi", &self.name]);
        for stage in self.stages.iter().rev() {
            docker(["rmi", stage]);
        }
    }
}

/// The last image of each stage that the classic builder has made, from its output. Stages from the cache belong to others.
fn stages(output: &str) -> Vec<String> {
    let mut stages = Vec::new();
    let (mut last, mut is_new) = (None, false);
    for line in output.lines().chain(["Step : FROM the end"]) {
        if line.starts_with("Step ") && line.contains(" : FROM ") {
            stages.extend(last.take().filter(|_| is_new));
            is_new = false;
        } else if line == " ---> Using cache" {
            is_new = false;
        } else if let Some(id) = line.strip_prefix(" ---> ").filter(|id| !id.contains(' ')) {
            last = Some(id.to_owned());
        } else if line.starts_with("Step ") {
            is_new = true;
        }
    }
    stages
}

/// Serves the files of a folder by HTTP on the loopback interface, to the engine.
fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let content = fs::read(folder.join(name)).unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            // A broken connection fails the build.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    address
}

/// What a shell line prints, as root.
fn printed(container: &Container, script: &str) -> String {
    container.root(script).all().trim().to_owned()
}

/// What the log and the server say of modules from the archive.
fn observe_the_collection(seen: &mut Observations, server: &Container) {
    let log = server.logs();
    seen.that("a library by its name and by its path", log.contains("libraries: function, function"), &log);
    seen.that("one of many modules", log.contains("number 7\n"), &log);
    let search = server.exec(["prosody-entrypoint", "modules", "--search", "number 300"]);
    seen.equal(
        "the search",
        search.stdout.lines().nth(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")),
        Some("numbered_300 collection Number 300 of many".to_owned()),
    );
    for (what, script, expected) in [
        ("all modules", "ls -d mod_* | wc -l | awk '{ print ($1 > 425) }'", "1"),
        ("what is beside the modules", "ls -A | grep -v '^mod_'", "ldap.lib.lua"),
        ("the library where upstream has it", "ls mod_lib_ldap/ldap.lib.lua", "mod_lib_ldap/ldap.lib.lua"),
        (
            "our module",
            "cmp mod_net_proxy/mod_net_proxy.lua /expected.lua && ls mod_net_proxy",
            "README.md\nmod_net_proxy.lua",
        ),
        (
            "icons that the pages lack",
            "grep -l apple-touch-icon -r mod_invites_page mod_invites_register_web",
            "",
        ),
        (
            "the style sheet of the pages",
            "grep -c /share/bootstrap4/css/bootstrap.min.css mod_password_reset/password_reset/password_reset.html",
            "1",
        ),
        (
            "other owners and modes",
            "find . ! -user 0 -o ! -group 0 -o ! -perm -444 -o -perm /022 -o -type d ! -perm -111",
            "",
        ),
    ] {
        let seen_there = printed(server, &format!("cd /opt/prosody-modules-available && {{ {script}; }}"));
        seen.equal(what, seen_there.as_str(), expected);
    }
}

/// Prosody from source is in the places of Debian's package, and nothing of the package is left.
fn observe_prosody(seen: &mut Observations, server: &Container, version: &str) {
    let about = server.exec(["prosodyctl", "about"]).stdout;
    // The archive of trunk lacks a module that Debian's package has.
    let module = if version.starts_with("hg:") { "" } else { "mod_motd.lua" };
    seen.equal("the version", about.lines().next(), Some(format!("Prosody {version}").as_str()));
    for (what, script, expected) in [
        (
            "the installed package",
            "dpkg-query -W -f '${Status}\n' prosody 2>&1 | grep -v 'no packages found'",
            "",
        ),
        (
            "its files",
            "ls -d /usr/lib/prosody/util/erlparse.lua /usr/bin/ejabberd2prosody /usr/lib/systemd/system/prosody.service 2>/dev/null",
            "",
        ),
        (
            "packages of files",
            "find /usr/lib/prosody /usr/bin/prosody* ! -type d -exec dpkg -S {} + 2>/dev/null",
            "",
        ),
        ("modules that the source lacks", "ls /usr/lib/prosody/modules | grep -x mod_motd.lua", module),
        ("the migrator", "ls /usr/bin/prosody-migrator", "/usr/bin/prosody-migrator"),
        ("the license", "ls /usr/share/doc/prosody", "copyright"),
        ("the data directory", "stat -c '%U:%g %a' /var/lib/prosody", "prosody:0 770"),
        (
            "other owners and modes",
            "find /usr/lib/prosody /usr/bin/prosody* ! -user 0 -o ! -perm -444 -o -perm /022",
            "",
        ),
        ("what apt would remove", "apt-get --simulate autoremove | grep -c ^Remv", "0"),
        ("packages that lack others", "apt-get check -qq", ""),
        (
            "debugging information",
            "for file in /usr/lib/prosody/util/*.so; do grep -l .debug_info $file; done",
            "",
        ),
    ] {
        seen.equal(what, printed(server, script).as_str(), expected);
    }
}

/// A server with modules of the collection.
fn server(image: &Image, network: &Network) -> Container {
    let server = Recipe::new(&image.name)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_VIRTUAL_HOSTS", HOSTS)
        .env("PROSODY_MODULES_ENABLED", "numbered_7")
        .file("/expected.lua", include_bytes!("../../docker/modules/mod_net_proxy/mod_net_proxy.lua"))
        .on(network, &[DOMAIN, "upload.chat.example", "conference.chat.example"])
        .serve();
    server.register_accounts(DOMAIN);
    server
}

/// Builds an image with every module and Prosody from source, and uses it.
fn an_image_serves(workshop: &Workshop, suite: &str, variables: &[(&str, &str)], version: &str) {
    let image = workshop.build(suite, variables);
    let network = Network::new();
    let server = server(&image, &network);
    let answer = session(&network, DOMAIN, &[]);
    assert_eq!(answer.status, 0, "{answer:?}\n{}", server.logs());
    let mut seen = Observations::default();
    observe_the_collection(&mut seen, &server);
    observe_prosody(&mut seen, &server, version);
    let log = server.logs();
    let errors = log.lines().filter(|line| line.split_whitespace().nth(1) == Some("error"));
    seen.equal("errors in the log", errors.collect(), Vec::<&str>::new());
    seen.report();
}

/// Every module and trunk, by URLs.
#[test]
#[ignore = "needs Docker, the images and Debian's package archive: make test"]
fn an_image_of_archives_serves() {
    require(CLIENT);
    let workshop = Workshop::new();
    let address = serve(workshop.path.join("archives"));
    let variables = [("COLLECTION", "modules.tar.bz2"), ("PROSODY_SOURCE", "trunk.tar.xz")];
    let variables: BTreeMap<String, String> = variables
        .into_iter()
        .flat_map(|(name, archive)| {
            let url = format!("http://{address}/{archive}");
            [(name.to_owned(), url), (format!("{name}_SHA256"), workshop.checksum(archive))]
        })
        .collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    an_image_serves(&workshop, "trixie", &variables, "hg:0123456789ab");
}

/// A clone of the modules, with a release of Prosody from a file on one suite and a clone of trunk on the other.
#[test]
#[ignore = "needs Docker, the images and Debian's package archive: make test"]
fn images_of_clones_and_files_serve() {
    if !is_all_wanted() {
        return;
    }
    require(CLIENT);
    let workshop = Workshop::new();
    workshop.run(
        "tar -xjf archives/modules.tar.bz2; mv prosody-modules-* modules; mkdir modules/.hg; echo >modules/.hg/hgrc
         tar -xJf archives/trunk.tar.xz; mv prosody-trunk trunk; rm trunk/.hg_archival.txt
         mkdir trunk/.hg; printf '\\001\\043\\105\\147\\211\\253' >trunk/.hg/dirstate",
    );
    let release = workshop.run("tar -xzOf archives/release.tar.gz --wildcards '*/prosody.release'");
    let checksum = workshop.checksum("release.tar.gz");
    for (suite, source, checksum, version) in [
        ("trixie", "archives/release.tar.gz", checksum.as_str(), release.as_str()),
        ("bookworm", "trunk", "", "hg:0123456789ab"),
    ] {
        let variables =
            [("COLLECTION", "modules"), ("PROSODY_SOURCE", source), ("PROSODY_SOURCE_SHA256", checksum)];
        an_image_serves(&workshop, suite, &variables, version);
    }
}
