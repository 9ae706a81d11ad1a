//! Every place that users of other images mount something at: the server finds it, relative paths in it mean what they
//! meant, and `prosodyctl` through `docker exec` needs no flag.

use std::path::PathBuf;
use std::{env, fs};

use crate::docker::{
    BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, images, prepare,
    unique,
};

const DOMAIN: &str = "chat.example";

/// A configuration of the user's own that has all of its files beside it, under the names they have there.
const MAIN: &str = r#"
plugin_paths = { "/etc/prosody/modules" }
modules_enabled = { "saslauth", "tls", "roster", "disco", "admin_shell", "of_modules" }
log = { info = "*console" }
certificates = "certs"
Include "conf.d/*.cfg.lua"
VirtualHost "chat.example"
Include "vhost.d/*.cfg.lua"
Include "cmpt.d/*.cfg.lua"
"#;

/// The files that users mount, as they lie on their host, for the containers to read.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let folder = Folder { path: env::temp_dir().join(unique("folder")) };
        fs::create_dir(&folder.path).unwrap();
        folder
    }

    /// A whole /etc/prosody without a main file: a host in `conf.d` that names its certificate by a relative path, one in
    /// `vhost.d`, a component in `cmpt.d`, a module, and a certificate that is found by its name.
    fn etc() -> Self {
        let folder = Self::new();
        folder.certificate("certs/chat.example", DOMAIN);
        folder.certificate("certs/named", "of-conf.example");
        folder.module("modules/mod_of_modules.lua");
        folder.write(
            "conf.d/host.cfg.lua",
            "VirtualHost \"of-conf.example\"\n\
             \tssl = { certificate = \"certs/named.crt\"; key = \"certs/named.key\" }\n",
        );
        folder.write("vhost.d/host.cfg.lua", "VirtualHost \"of-vhost.example\"\n");
        folder.write("cmpt.d/rooms.cfg.lua", "Component \"of-cmpt.example\" \"muc\"\n");
        folder
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A certificate for a host, `NAME.crt` and `NAME.key`, that says which file it is from.
    fn certificate(&self, name: &str, host: &str) {
        let mut wanted = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        self.write(&format!("{name}.crt"), &wanted.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// A module that says so when it is loaded.
    fn module(&self, name: &str) {
        self.write(name, "module:log(\"info\", \"this is a module of the user's\");\n");
    }

    /// The mount of what is in this folder, read-only.
    fn at(&self, name: &str, path: &str) -> [String; 2] {
        ["--volume".to_owned(), format!("{}:{path}:ro", self.path.join(name).display())]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn mounted(recipe: Recipe, [option, mount]: [String; 2]) -> Recipe {
    recipe.with([&option, &mount])
}

/// A volume that Docker does not fill from the image: it is as a bind mount of a folder that is new.
fn as_bind_mount(recipe: Recipe, volume: &Volume, path: &str) -> Recipe {
    recipe.with(["--mount", &format!("type=volume,src={},dst={path},volume-nocopy", volume.name)])
}

/// Without a flag `prosodyctl` has the configuration that is in force, and writes as whom the server runs as.
fn observe_prosodyctl(seen: &mut Observations, what: &str, server: &Container, hosts: &[&str]) {
    let host = hosts[0];
    let check = server.exec(["prosodyctl", "check", "config"]);
    seen.that(&format!("{what}: check config"), check.status == 0, check);
    let listed = server.exec(["prosodyctl", "shell", "host", "list"]);
    for host in hosts {
        seen.that(
            &format!("{what}: the running server has {host}"),
            listed.status == 0 && listed.stdout.contains(host),
            &listed,
        );
    }
    let made = server.register("romeo", host, "secret");
    seen.that(&format!("{what}: an account on {host}"), made.status == 0, &made);
    let pid = server.server_pid();
    let owners = server.root(&format!(
        "find /var/lib/prosody -name romeo.dat -printf '%U\n'; stat -c %u /proc/{pid} /var/lib/prosody"
    ));
    let owners: Vec<&str> = owners.stdout.lines().collect();
    let is_one = |owners: &[&str]| owners.len() == 3 && owners.iter().all(|owner| *owner == owners[0]);
    seen.that(
        &format!("{what}: Prosody's user owns the account, the server and the data"),
        is_one(&owners) && owners[0] != "0",
        &owners,
    );
}

/// The name in the certificate that the server shows clients of a host.
fn certificate_of(server: &Container, host: &str) -> String {
    let ask = format!(
        "openssl s_client -starttls xmpp -xmpphost {host} -connect 127.0.0.1:5222 </dev/null 2>&1 | openssl x509 -noout -subject"
    );
    server.root(&ask).all()
}

/// All of [`Folder::etc`] is there, and its relative paths mean what they meant.
fn observe_all(seen: &mut Observations, what: &str, server: &Container) {
    observe_prosodyctl(
        seen,
        what,
        server,
        &[DOMAIN, "of-conf.example", "of-vhost.example", "of-cmpt.example"],
    );
    for (host, file) in [(DOMAIN, "certs/chat.example"), ("of-conf.example", "certs/named")] {
        let shown = certificate_of(server, host);
        seen.that(&format!("{what}: the certificate of {host} is {file}"), shown.contains(file), shown);
    }
    observe_module(seen, what, server, "of_modules");
}

fn observe_module(seen: &mut Observations, what: &str, server: &Container, module: &str) {
    let logs = server.logs();
    let is_loaded =
        logs.lines().any(|line| line.contains(&format!(":{module}")) && line.contains("of the user's"));
    seen.that(&format!("{what}: mod_{module} is loaded"), is_loaded, logs);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn nothing_is_mounted() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let server = Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN).serve();
        observe_prosodyctl(&mut seen, image, &server, &[DOMAIN, "conference.chat.example"]);
    }
    seen.report();
}

/// As Docker makes it where a user's folder is not there yet.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn all_of_the_configuration_directory_is_empty() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Folder::new();
        let server = mounted(Recipe::new(image), folder.at("", "/etc/prosody")).env("PROSODY_DOMAIN", DOMAIN);
        observe_prosodyctl(&mut seen, image, &server.serve(), &[DOMAIN]);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn all_of_the_configuration_directory_has_no_main_file() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Folder::etc();
        let server = mounted(Recipe::new(image), folder.at("", "/etc/prosody"))
            .env("PROSODY_VIRTUAL_HOSTS", DOMAIN)
            .env("PROSODY_MODULES_ENABLED", "of_modules");
        observe_all(&mut seen, image, &server.serve());
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn all_of_the_configuration_directory_has_a_main_file() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let folder = Folder::etc();
        folder.write("prosody.cfg.lua", MAIN);
        // Prosody's own `prosodyctl` would become the user `prosody`, who is another one.
        let data = Volume::new();
        data.prepare(image, "touch /volume/x && chown -R 1000:1000 /volume");
        let server = mounted(Recipe::new(image), folder.at("", "/etc/prosody"));
        observe_all(&mut seen, image, &server.volume(&data, "/var/lib/prosody").serve());
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_main_file_alone_is_mounted() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Folder::new();
        let main = MAIN.replace(", \"of_modules\"", "");
        // Folders that are not there are an error to 0.12's and 13.0's `Include`.
        let main: Vec<&str> = main.lines().filter(|line| !line.starts_with("Include")).collect();
        folder.write("prosody.cfg.lua", &main.join("\n"));
        let mount = folder.at("prosody.cfg.lua", "/etc/prosody/prosody.cfg.lua");
        observe_prosodyctl(&mut seen, image, &mounted(Recipe::new(image), mount).serve(), &[DOMAIN]);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_folder_of_the_configuration_directory_is_mounted_alone() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Folder::etc();
        folder.module("enabled/mod_of_enabled.lua");
        let mut server = Recipe::new(image)
            .env("PROSODY_VIRTUAL_HOSTS", DOMAIN)
            .env("PROSODY_MODULES_ENABLED", "of_modules of_enabled");
        for name in ["certs", "conf.d", "vhost.d", "cmpt.d", "modules"] {
            server = mounted(server, folder.at(name, &format!("/etc/prosody/{name}")));
        }
        let server = mounted(server, folder.at("enabled", "/opt/prosody-modules-enabled")).serve();
        observe_all(&mut seen, image, &server);
        observe_module(&mut seen, image, &server, "of_enabled");
    }
    seen.report();
}

/// A folder that only its users know, and the one in the data where `prosodyctl install` puts modules.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn modules_are_mounted_elsewhere_and_with_the_data() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Folder::new();
        folder.module("mod_of_folder.lua");
        let data = Volume::new();
        data.prepare(
            image,
            "mkdir /volume/custom_plugins && chown -R 1000:1000 /volume && \
             echo 'module:log(\"info\", \"this is a module of the user'\"'\"'s\")' \
             >/volume/custom_plugins/mod_of_data.lua",
        );
        let server = mounted(Recipe::new(image), folder.at("", "/usr/lib/prosody-modules"))
            .volume(&data, "/var/lib/prosody")
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_PLUGIN_PATHS", "/usr/lib/prosody-modules")
            .env("PROSODY_MODULES_ENABLED", "of_folder of_data")
            .serve();
        observe_prosodyctl(&mut seen, image, &server, &[DOMAIN]);
        observe_module(&mut seen, image, &server, "of_folder");
        observe_module(&mut seen, image, &server, "of_data");
    }
    seen.report();
}

/// What Debian's own configuration says of the log, in a folder that is new, or was another image's.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn log_files_are_written_where_a_folder_is_mounted_for_them() {
    const LOG: &str =
        "log = { info = \"/var/log/prosody/prosody.log\", error = \"/var/log/prosody/prosody.err\" }\n";
    let folder = Folder::new();
    folder.write("main/prosody.cfg.lua", &format!("{LOG}{}", MAIN.replace("log = ", "x_log = ")));
    folder.module("main/modules/mod_of_modules.lua");
    folder.write("main/certs/none", "");
    for name in ["conf.d", "vhost.d", "cmpt.d"] {
        folder.write(&format!("main/{name}/none"), "");
    }
    folder.write("fragment/conf.d/log.cfg.lua", LOG);

    let mut seen = Observations::default();
    for &image in images() {
        for (configuration, owner) in [("main", "0:0"), ("fragment", "4321:4322")] {
            let what = format!("{image}, {configuration}, an empty folder of {owner}");
            let volumes = [Volume::new(), Volume::new()];
            let [data, log] = &volumes;
            let script =
                "cd /volumes; touch $data/x; chown 1000:1000 $data; chown $owner $log; chmod 0755 $log";
            let names = format!("data={} log={} owner={owner}", data.name, log.name);
            prepare(image, &volumes, &format!("{names}; {script}"));
            let server = mounted(Recipe::new(image), folder.at(configuration, "/etc/prosody"))
                .env("PROSODY_VIRTUAL_HOSTS", DOMAIN)
                .volume(data, "/var/lib/prosody");
            let server = as_bind_mount(server, log, "/var/log/prosody").serve();
            eventually("the log file", PATIENCE, || {
                let log = server.root("cat /var/log/prosody/prosody.log");
                if log.stdout.contains("Activated service 'c2s'") { Ok(()) } else { Err(log.all()) }
            });
            let owners = server.root("stat -c %u /var/log/prosody /var/log/prosody/*").stdout;
            seen.equal(&what, owners.as_str(), "1000\n1000\n1000\n");
        }
    }

    // The image's own folder, whoever Prosody runs as.
    let data = Volume::new();
    data.prepare(TRIXIE, "touch /volume/x && chown 1000:1000 /volume");
    let recipe = || mounted(Recipe::new(TRIXIE), folder.at("fragment", "/etc/prosody"));
    for (what, recipe) in [
        ("the default user", recipe()),
        ("the data's owner", recipe().volume(&data, "/var/lib/prosody")),
        ("--user", recipe().with(["--user", "12345:0"])),
    ] {
        let server = recipe.serve();
        let log = server.root("cat /var/log/prosody/prosody.log").stdout;
        seen.that(&format!("the image's own folder, {what}"), log.contains("Prosody"), server.logs());
    }
    seen.report();
}

/// Prosody itself says nothing where it cannot open a file of its log.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_folder_for_log_files_that_another_user_keeps_is_named() {
    let mut seen = Observations::default();
    let log = Volume::new();
    log.prepare(TRIXIE, "touch /volume/of-another && chown -R 4321:4322 /volume && chmod 0755 /volume");
    let words = "warn\t/var/log/prosody belongs to uid 4321, gid 4322, and Prosody cannot write there";
    let server = as_bind_mount(Recipe::new(TRIXIE), &log, "/var/log/prosody").serve();
    seen.that("of another user", server.logs().contains(words), server.logs());
    let owner = server.root("stat -c %u:%g /var/log/prosody /var/log/prosody/of-another").stdout;
    seen.equal("it is left alone", owner.as_str(), "4321:4322\n4321:4322\n");
    // What the sentence says.
    server.root("chown -R 999:999 /var/log/prosody").ok();
    let mark = server.mark();
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let said = server.since(mark).stderr;
    seen.that("nothing is left to do", !said.contains("/var/log/prosody"), said);

    // Without the rights it is said, and nothing else.
    let (data, fresh) = (Volume::new(), Volume::new());
    data.prepare(TRIXIE, "touch /volume/x && chown 1000:1000 /volume");
    fresh.prepare(TRIXIE, "chown 0:0 /volume && chmod 0755 /volume");
    let recipe = Recipe::new(TRIXIE)
        .volume(&data, "/var/lib/prosody")
        .with(["--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"]);
    let server = as_bind_mount(recipe, &fresh, "/var/log/prosody").serve();
    let words = "run `chown -R 1000:1000 /var/log/prosody`";
    seen.that("without the right", server.logs().contains(words), server.logs());

    drop(server);
    let read_only = Recipe::new(TRIXIE).volume(&data, "/var/lib/prosody").with(["--read-only"]).serve();
    let logs = read_only.logs();
    seen.that("nothing of the image's own folder", !logs.contains("/var/log/prosody"), &logs);
    seen.report();
}

/// A volume over Prosody's own modules: filled by Docker it works, else nothing would.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn modules_of_prosodys_own_that_are_hidden_are_named() {
    const PLACE: &str = "/usr/lib/prosody/modules";
    let mut seen = Observations::default();
    let refused = |seen: &mut Observations, what: &str, recipe: Recipe, module: &str| {
        let container = recipe.start();
        eventually("the end", PATIENCE, || if container.runs() { Err(container.logs()) } else { Ok(()) });
        let status = container.inspect("{{.State.ExitCode}}");
        let answer = container.said();
        seen.equal(&format!("{what}: the status; {}", answer.all()), status.as_str(), "78");
        for words in [&format!("{PLACE}: there is no {module}"), "/etc/prosody/modules", "a volume"] {
            seen.that(&format!("{what}: {words:?}"), answer.stderr.contains(words), &answer);
        }
    };
    let [empty, of_0_12, of_13_0] = [(); 3].map(|()| Volume::new());
    for (image, volume) in [(BOOKWORM, &of_0_12), (TRIXIE, &of_13_0)] {
        let hidden = |recipe| as_bind_mount(recipe, &empty, PLACE);
        refused(&mut seen, image, hidden(Recipe::new(image)), "mod_c2s.lua");
        let own = Recipe::new(image).file("/etc/prosody/prosody.cfg.lua", "VirtualHost \"chat.example\"\n");
        refused(&mut seen, &format!("{image}, a main file"), hidden(own), "mod_c2s.lua");
        let asked = hidden(Recipe::new(image)).command(["validate"]);
        refused(&mut seen, &format!("{image}, validate"), asked, "mod_c2s.lua");

        let server = Recipe::new(image).volume(volume, PLACE).env("PROSODY_VIRTUAL_HOSTS", DOMAIN).serve();
        observe_prosodyctl(&mut seen, &format!("{image}, a new volume"), &server, &[DOMAIN]);
    }
    // What an earlier version's image has left in it.
    let upgraded = Recipe::new(TRIXIE).volume(&of_0_12, PLACE);
    refused(&mut seen, "modules of 0.12", upgraded, "mod_account_activity.lua");
    seen.report();
}

/// Debian's prosody.cfg.lua has this line, and so has what many made of it.
const PID_FILE: &str = "pidfile = \"/var/run/prosody/prosody.pid\"\n";

#[test]
#[ignore = "needs Docker and the images: make test"]
fn debians_pidfile_has_a_place() {
    let main = format!("{PID_FILE}log = {{ info = \"*console\" }}\nVirtualHost \"{DOMAIN}\"\n");
    let mut seen = Observations::default();
    for &image in images() {
        for arguments in [&[][..], &["--tmpfs", "/run"], &["--user", "999:999"]] {
            let recipe = || {
                let recipe = Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN);
                arguments.iter().fold(recipe, |recipe, argument| recipe.with([argument]))
            };
            for recipe in [
                recipe().file("/etc/prosody/prosody.cfg.lua", &main),
                recipe().file("/etc/prosody/conf.d/a.cfg.lua", PID_FILE),
            ] {
                let server = recipe.serve();
                docker(["restart", &server.name]).ok();
                server.wait_until_it_serves();
                let status = server.exec(["prosodyctl", "status"]).all();
                seen.that(&format!("{image} {arguments:?}"), status.contains("is running"), status);
            }
        }
    }
    seen.report();
}
