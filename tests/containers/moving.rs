//! What the READMEs of other images tell their users to run, with the image's name changed and nothing else, and what the
//! pages `docs/moving-from-….md` say that is different.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::docker::{
    Answer, BOOKWORM, CLIENT, Container, Network, Observations, Recipe, TRIXIE, Volume, client, docker,
    images, require, unique, wait_until_it_serves,
};

const IMAGES: [&str; 2] = [TRIXIE, BOOKWORM];

/// The words of a command line as a shell reads it, as far as these have them: `\` at the end of a line, and `'…'`.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.replace("\\\n", " ").chars() {
        match character {
            '\'' => is_quoted = !is_quoted,
            ' ' | '\t' | '\n' if !is_quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A command that begins with `docker run`, on this image. Each folder of the host is one of these volumes, which Docker does
/// not fill; no port is published, and the name is our own, so that tests can run beside each other.
fn readme(line: &str, image: &str, folders: &[&Volume]) -> Recipe {
    let mut words = words(line).into_iter().skip_while(|word| word != "run").skip(1);
    let mut folders = folders.iter();
    let mut recipe = Recipe::new(image);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        recipe = match word.as_str() {
            "-d" => recipe,
            "-it" => recipe.with(["-it"]),
            "-p" | "--publish" | "--name" => {
                value();
                recipe
            }
            "-e" => recipe.with(["-e", &value()]),
            "-v" | "--volume" => {
                let mount = value();
                let (_, path) = mount.split_once(':').unwrap();
                let folder = &folders.next().unwrap().name;
                recipe.with(["--mount", &format!("type=volume,src={folder},dst={path},volume-nocopy")])
            }
            option if option.starts_with('-') => panic!("{option}: these tests know nothing of it"),
            // The image's name, and what follows it.
            _ => return words.fold(recipe, |recipe, word| recipe.word(&word)),
        };
    }
    panic!("no image in {line}")
}

/// Whether these accounts of a server, `local:password` each, can log in with a real client.
fn can_log_in(server: &Container, domain: &str, accounts: [&str; 2]) -> Answer {
    client(&format!("container:{}", server.name), domain, accounts, &["login"])
}

/// The modules of a host that runs, as Prosody itself names them.
fn modules(server: &Container, host: &str) -> String {
    server.exec(["prosodyctl", "shell", "module", "list", host]).ok()
}

/// A shell line that makes modules, which do nothing, on a volume.
fn empty_modules(names: &str) -> String {
    format!("cd /volume; for name in {names}; do mkdir mod_$name; touch mod_$name/mod_$name.lua; done")
}

/// A shell line that makes a host's certificate, and its key, where it runs.
fn certificate(host: &str) -> String {
    format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={host} \
         -addext subjectAltName=DNS:{host},DNS:upload.{host} -keyout {host}.key -out {host}.crt 2>/dev/null"
    )
}

/// The certificate that the server shows clients of a host.
fn certificate_of(server: &str, host: &str) -> String {
    let ask = format!(
        "openssl s_client -starttls xmpp -xmpphost {host} -connect 127.0.0.1:5222 </dev/null 2>/dev/null | openssl x509"
    );
    docker(["exec", server, "/bin/sh", "-c", &ask]).stdout
}

// OpusVL's.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn opusvls_modules_are_available_enabled_and_disabled() {
    let mut seen = Observations::default();
    for &image in images() {
        // Not all of the community's modules are in the image.
        let example = "docker run -e PROSODY_MODULES_AVAILABLE='lastlog firewall swedishchef' opusvl/prosody";
        let refused = readme(example, image, &[]).run();
        seen.equal(&format!("{image}: the status"), refused.status, 78);
        for words in ["no module `swedishchef`", "put the module into a folder of PROSODY_PLUGIN_PATHS"] {
            seen.that(&format!("{image}: {words:?}"), refused.stderr.contains(words), &refused);
        }
        let folder = Volume::new();
        folder.prepare(image, &empty_modules("swedishchef"));
        let collection = Volume::new();
        // Docker fills a volume that is empty.
        collection.prepare(image, &empty_modules("lastlog firewall swedishchef"));
        for (volume, path) in
            [(&folder, "/etc/prosody/modules"), (&collection, "/opt/prosody-modules-available")]
        {
            let server = readme(example, image, &[]).volume(volume, path).serve();
            let listed = modules(&server, "localhost");
            for module in ["lastlog", "firewall", "swedishchef"] {
                let what = format!("{image}, {path}: {module} is not enabled");
                seen.that(&what, !listed.contains(module), &listed);
            }
            let made = server.exec(["prosodyctl", "shell", "module", "load", "swedishchef", "localhost"]);
            seen.that(
                &format!("{image}, {path}: it is there"),
                made.stdout.contains("Loaded for localhost"),
                &made,
            );
        }

        let example = "docker run -e PROSODY_MODULES_ENABLED='websocket server_contact_info' opusvl/prosody";
        let listed = modules(&readme(example, image, &[]).serve(), "localhost");
        for module in ["websocket", "server_contact_info", "roster"] {
            seen.that(&format!("{image}: {module} is enabled"), listed.contains(module), &listed);
        }

        let example = "docker run -e PROSODY_MODULES_DISABLED='s2s carbons' opusvl/prosody";
        let server = readme(example, image, &[]).serve();
        let listed = modules(&server, "localhost");
        seen.that(&format!("{image}: carbons is disabled"), !listed.contains("carbons"), &listed);
        let logs = server.logs();
        seen.that(&format!("{image}: s2s is disabled"), !logs.contains("Activated service 's2s'"), &logs);
    }
    seen.report();
}

/// The variables of its older versions are named, and those that were asked for in their place work.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn variables_of_opusvls_older_versions_are_named() {
    let mut seen = Observations::default();
    let example = "docker run -e PROSODY_CORE_MODULES='mam admin_telnet' -e PROSODY_COMM_MODULES='lastlog firewall' \
                   -e PROSODY_MODULES_DISABLED='ping carbons' -e PROSODY_BOOTSTRAP=1 \
                   -e PROSODY_BOOTSTRAP_ADMIN_XIDS='example@localhost.dev user2@localhost.dev' opusvl/prosody";
    let server = readme(example, TRIXIE, &[]).serve();
    let logs = server.logs();
    for (name, setting) in [
        ("PROSODY_CORE_MODULES", "PROSODY_MODULES_ENABLED"),
        ("PROSODY_COMM_MODULES", "PROSODY_MODULES_ENABLED"),
        ("PROSODY_BOOTSTRAP", "PROSODY_VIRTUAL_HOSTS"),
        ("PROSODY_BOOTSTRAP_ADMIN_XIDS", "PROSODY_ADMINS"),
    ] {
        let line = format!("{name}: this is another image's, and has no effect here: use {setting}");
        seen.that(name, logs.contains(&line), &logs);
    }
    let listed = modules(&server, "localhost");
    seen.that("what is disabled", !listed.contains("ping") && !listed.contains("carbons"), &listed);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn opusvls_storage_is_in_the_database_that_it_names() {
    const PASSWORD: (&str, &str) = ("/run/database-password", "pa\"ss");
    let mut seen = Observations::default();
    for &image in images() {
        let network = Network::new();
        let database = Recipe::new("prosody-entrypoint-test-postgresql:15")
            .env("POSTGRES_PASSWORD_FILE", PASSWORD.0)
            .file(PASSWORD.0, PASSWORD.1)
            .on(&network, &["postgresql"])
            .start();
        let ask = |sql: &str| database.as_user("postgres", &format!("psql -At prosody -c '{sql}'")).stdout;
        for (example, is_all) in [
            ("docker run -e PROSODY_DEFAULT_STORAGE='sql' opusvl/prosody", true),
            (
                "docker run -e PROSODY_STORAGE_ACCOUNTS='sql' -e PROSODY_STORAGE_ARCHIVE='sql' opusvl/prosody",
                false,
            ),
        ] {
            // The password is the only one of these that has no default there, and so none here.
            let server = readme(example, image, &[])
                .on(&network, &["localhost.example"])
                .env("PROSODY_DB_PASSWORD", PASSWORD.1)
                .env("PROSODY_VIRTUAL_HOSTS", "localhost.example")
                .serve();
            server.register("alice", "localhost.example", "secret-a").ok();
            let login =
                client(&network.name, "localhost.example", ["alice:secret-a", "alice:secret-a"], &["login"]);
            seen.that(&format!("{image}: {example}: alice logs in"), login.status == 0, &login);
            let stores = ask("SELECT DISTINCT store FROM prosody ORDER BY 1");
            let has_accounts = stores.lines().any(|store| store == "accounts");
            seen.that(&format!("{image}: {example}: accounts in SQL"), has_accounts, &stores);
            let files = server.root("ls /var/lib/prosody/localhost%2eexample 2>/dev/null").stdout;
            if is_all {
                seen.equal(&format!("{image}: {example}: files"), files.as_str(), "");
            } else {
                let is_one = stores.trim() == "accounts" && !files.lines().any(|file| file == "accounts");
                seen.that(&format!("{image}: {example}: only that store"), is_one, (&stores, &files));
            }
            drop(server);
            ask("DROP TABLE prosody, prosodyarchive");
        }
    }
    seen.report();
}

/// What stands in its own configuration directory and its users keep in a volume.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn opusvls_own_templates_are_no_configuration() {
    let mut seen = Observations::default();
    for &image in images() {
        let server = Recipe::new(image)
            .file(
                "/etc/prosody/conf.d/modules.cfg.lua",
                "modules_enabled = {\n\t\"mam\";\n\t${PROSODY_ENABLED_MODULES:-}\n}\n",
            )
            .file(
                "/etc/prosody/conf.d/logging.cfg.lua",
                "log = {\n\t${PROSODY_LOG_LEVEL:-info} = \"*console\";\n}\n",
            )
            .file("/etc/prosody/vhost.d/chat.cfg.lua", "VirtualHost \"chat.example\"\n")
            .serve();
        let logs = server.logs();
        for (file, setting) in [("modules", "PROSODY_MODULES_ENABLED"), ("logging", "PROSODY_LOG_LEVEL")] {
            let line =
                logs.lines().find(|line| line.contains(&format!("/etc/prosody/conf.d/{file}.cfg.lua")));
            let is_named = line.is_some_and(|line| line.contains(setting));
            seen.that(&format!("{image}: {file}.cfg.lua is left out"), is_named, &logs);
        }
        let hosts = server.exec(["prosodyctl", "shell", "host", "list"]).ok();
        let is_only = hosts.contains("chat.example") && !hosts.contains("localhost");
        seen.that(&format!("{image}: the only host is that of vhost.d"), is_only, &hosts);

        let main = Recipe::new(image)
            .file("/etc/prosody/prosody.cfg.lua", "network_backend = \"${PROSODY_NETWORK_BACKEND:-select}\"\nallow_registration = ${PROSODY_ALLOW_REGISTRATION:-false}\n")
            .run();
        seen.equal(&format!("{image}: its prosody.cfg.lua: {main:?}"), main.status, 78);
        let is_named =
            main.stderr.contains("/etc/prosody/prosody.cfg.lua") && main.stderr.contains("remove the file");
        seen.that(&format!("{image}: its prosody.cfg.lua is named"), is_named, &main);
    }
    seen.report();
}

// The official one.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_official_images_first_example_is_a_server() {
    let mut seen = Observations::default();
    for &image in images() {
        let example = "docker run -d --name prosody -p 5222:5222 prosody/prosody";
        let server = readme(example, image, &[]).serve();
        server.register_accounts("localhost");
        let login = can_log_in(&server, "localhost", ["alice:secret-a", "bob:secret-b"]);
        seen.that(&format!("{image}: they log in"), login.status == 0, &login);
        let names = server.logs().contains("Serving localhost");
        seen.that(&format!("{image}: the log says for which host"), names, server.logs());
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn romeo_keeps_the_password_that_he_was_given_first() {
    const EXAMPLE: &str = "docker run -it \\
   -p 5222:5222 \\
   -p 5269:5269 \\
   -e LOCAL=romeo \\
   -e DOMAIN=shakespeare.lit \\
   -e PASSWORD=juliet4ever \\
   -v /data/prosody/configuration:/etc/prosody \\
   -v /logs/prosody:/var/log/prosody \\
   -v /data/prosody/modules:/usr/lib/prosody-modules \\
   prosody/prosody:0.12";
    const DOMAIN: &str = "shakespeare.lit";
    let mut seen = Observations::default();
    for &image in images() {
        let network = Network::new();
        let folders = [(); 3].map(|()| Volume::new());
        let folders = [&folders[0], &folders[1], &folders[2]];
        let can_log_in = |password: &str| {
            let romeo = format!("romeo:{password}");
            client(&network.name, DOMAIN, [&romeo, &romeo], &["login"])
        };

        let first = readme(EXAMPLE, image, &folders).on(&network, &[DOMAIN]).serve();
        first.wait_for_log("New accounts: romeo@shakespeare.lit");
        let login = can_log_in("juliet4ever");
        seen.that(
            &format!("{image}: Romeo logs in"),
            login.status == 0,
            format!("{login:?}\n{}", first.logs()),
        );
        docker(["stop", &first.name]).ok();

        // A variable is a new container's, the data are the old one's.
        let other = EXAMPLE.replace("juliet4ever", "rosaline");
        let second = readme(&other, image, &folders)
            .on(&network, &[DOMAIN])
            .with(["--volumes-from", &first.name])
            .serve();
        second.wait_for_log(
            "Left as they are, with their passwords, because they exist: romeo@shakespeare.lit",
        );
        let login = can_log_in("juliet4ever");
        seen.that(&format!("{image}: his old password works"), login.status == 0, &login);
        let login = can_log_in("rosaline");
        seen.that(&format!("{image}: another one does not"), login.status != 0, &login);
        let change = "printf 'verona\\nverona\\n' | prosodyctl passwd romeo@shakespeare.lit";
        let changed = second.exec(["/bin/sh", "-c", change]);
        let login = can_log_in("verona");
        seen.that(&format!("{image}: prosodyctl changes it"), login.status == 0, (&changed, &login));
        let owner = second.root("stat -c %U /var/log/prosody").stdout;
        seen.equal(&format!("{image}: whose the folder for log files is"), owner.trim(), "prosody");
        let is_said = |word| first.logs().contains(word) || second.logs().contains(word);
        seen.that(
            &format!("{image}: no password is in the log"),
            !is_said("juliet4ever") && !is_said("rosaline"),
            (),
        );
        drop(second);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn modules_in_the_folder_that_the_official_readme_suggests_are_found() {
    let mut seen = Observations::default();
    for &image in images() {
        let folder = Volume::new();
        folder.prepare(image, &empty_modules("of_mine"));
        let server = Recipe::new(image)
            .volume(&folder, "/usr/lib/prosody-modules")
            .env("PROSODY_PLUGIN_PATHS", "/usr/lib/prosody-modules")
            .env("PROSODY_ENABLE_MODULES", "of_mine,firewall")
            .serve();
        let listed = modules(&server, "localhost");
        for module in ["of_mine", "firewall"] {
            seen.that(&format!("{image}: {module}"), listed.contains(module), &listed);
        }
    }
    seen.report();
}

// JensErat's and etherfoundry's, whose users have a configuration of their own.

/// What JensErat's README says of the log and the modules.
const JENSERAT: &str = r#"
daemonize = false;
log = {
  -- Log error messages to stderr
  error = "/dev/stderr";
  -- Log warnings to stdout, change to 'info' or 'debug' for more verbose logging
  warn = "/dev/stdout";
}
"#;

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_configuration_as_jenserats_readme_has_it_runs() {
    const EXAMPLE: &str = "docker run -d \\
    	--name 'prosody' \\
    	--publish 5222:5222 \\
    	--publish 5269:5269 \\
    	--volume /srv/prosody/etc/:/etc/prosody \\
    	--volume /srv/prosody/lib:/var/lib/prosody \\
    	jenserat/prosody";
    const ALL: &str = "plugin_paths = { \"/opt/prosody-modules\" }";
    const SOME: &str = "plugin_paths = {\n  \"/opt/prosody-modules/mod_auth_ldap\",\n  \"/opt/prosody-modules/mod_carbons\",\n  \
                        \"/opt/prosody-modules/mod_firewall\"\n}";
    let mut seen = Observations::default();
    for image in IMAGES {
        // A clone of all of the community's modules.
        let clone = Volume::new();
        clone.prepare(image, &empty_modules("firewall that_nobody_has"));
        let all = [(ALL, false), (SOME, false), (ALL, true)];
        for (plugin_paths, has_clone) in all.into_iter().take(if image == TRIXIE { 3 } else { 1 }) {
            let what = format!("{image}, {plugin_paths}, {has_clone}");
            let [etc, data] = [(); 2].map(|()| Volume::new());
            // Both belong to the user that his image has.
            data.prepare(image, "touch /volume/x && chown -R 104:106 /volume && chmod 750 /volume");
            let certificates =
                format!("mkdir /volume/certs && cd /volume/certs && {}", certificate("localhost"));
            etc.prepare(image, &format!("{certificates} && chown -R 104:106 /volume && chmod 750 /volume"));
            let main = format!(
                "{JENSERAT}{plugin_paths}\nmodules_enabled = {{ \"roster\", \"saslauth\", \"tls\", \"disco\", \"carbons\", \
                 \"admin_shell\", \"firewall\", \"that_nobody_has\" }}\nVirtualHost \"localhost\"\n"
            );
            etc.prepare(image, &format!("cat >/volume/prosody.cfg.lua <<'END'\n{main}\nEND\n"));
            let server = readme(EXAMPLE, image, &[&etc, &data]).env("PROSODY_LOG_LEVEL", "debug");
            let server = match has_clone {
                true => server.volume(&clone, "/opt/prosody-modules-available").serve(),
                false => server.serve(),
            };
            let listed = modules(&server, "localhost");
            for module in ["carbons", "firewall"] {
                seen.that(&format!("{what}: {module}"), listed.contains(module), &listed);
            }
            let logs = docker(["logs", &server.name]);
            let is_missing = |text: &str| text.contains("Unable to load module 'that_nobody_has'");
            let said = (is_missing(&logs.stdout), is_missing(&logs.stderr));
            let expected = (!has_clone, !has_clone);
            seen.equal(&format!("{what}: an error in both files of the log: {logs:?}"), said, expected);
            let line = "Ignored, because prosody.cfg.lua is in use: PROSODY_LOG_LEVEL";
            seen.that(&format!("{what}: {line}"), logs.stderr.contains(line), &logs);

            // `docker exec -ti prosody /bin/bash`
            let shell = server.exec(["/bin/bash", "-c", "id -u; prosodyctl register romeo localhost secret"]);
            seen.that(&format!("{what}: bash is root's"), shell.stdout.starts_with("0\n"), &shell);
            let owners = server.root("cd /var/lib/prosody/localhost/accounts && stat -c %u romeo.dat /proc/$(cat /proc/1/task/1/children)");
            seen.equal(&format!("{what}: of whom all is"), owners.all().as_str(), "104\n104\n");
            let login = can_log_in(&server, "localhost", ["romeo:secret", "romeo:secret"]);
            seen.that(&format!("{what}: Romeo logs in"), login.status == 0, &login);
        }
    }
    seen.report();
}

/// What etherfoundry's own file has beside comments.
const ETHERFOUNDRY: &str = r#"
pidfile = "/var/run/prosody/prosody.pid"
daemonize = false
admins = { }
modules_enabled = {
		"roster"; "saslauth"; "tls"; "dialback"; "disco"; "private"; "vcard"; "version"; "uptime"; "time"; "ping"; "pep";
		"register"; "admin_adhoc"; "posix"; "legacyauth";
};
modules_disabled = {
};
allow_registration = false;
ssl = {
	key = "/etc/prosody/certs/localhost.key";
	certificate = "/etc/prosody/certs/localhost.crt";
}
c2s_require_encryption = false
s2s_secure_auth = false
authentication = "internal_plain"
log = {
	info = "*console";
}
VirtualHost "localhost"
VirtualHost "example.com"
	enabled = false
	ssl = {
		key = "/etc/prosody/certs/example.com.key";
		certificate = "/etc/prosody/certs/example.com.crt";
	}
"#;

#[test]
#[ignore = "needs Docker and the images: make test"]
fn volumes_of_etherfoundrys_image_are_taken_over() {
    let mut seen = Observations::default();
    for image in IMAGES {
        let [etc, data] = [(); 2].map(|()| Volume::new());
        let account = "return {\n\t[\"password\"] = \"secret\";\n};\n";
        data.prepare(
            image,
            &format!(
                "mkdir -p /volume/localhost/accounts && printf '{}' >/volume/localhost/accounts/romeo.dat && \
                 chown -R 100:101 /volume && chmod 750 /volume",
                account.replace('\n', "\\n").replace('\t', "\\t")
            ),
        );
        etc.prepare(
            image,
            &format!(
                "mkdir /volume/certs && cd /volume/certs && {} && chown -R 100:101 . && chmod 600 localhost.key\n\
                 cat >/volume/prosody.cfg.lua <<'END'\n{ETHERFOUNDRY}\nEND\n",
                certificate("localhost")
            ),
        );
        let server =
            Recipe::new(image).volume(&etc, "/etc/prosody").volume(&data, "/var/lib/prosody").serve();
        let login = can_log_in(&server, "localhost", ["romeo:secret", "romeo:secret"]);
        seen.that(
            &format!("{image}: Romeo logs in"),
            login.status == 0,
            format!("{login:?}\n{}", server.logs()),
        );
        let pid = server.server_pid();
        let status = server.exec(["prosodyctl", "status"]);
        seen.that(&format!("{image}: the file of its pid"), status.stdout.contains(&pid), &status);
        let owner = server.root(&format!("stat -c %u /proc/{pid}")).stdout;
        seen.equal(&format!("{image}: whom it runs as"), owner.trim(), "100");

        let size = docker(["image", "inspect", "--format", "{{.Size}}", image]).ok();
        let is_below = size.parse::<u64>().is_ok_and(|size| size < 160_000_000);
        seen.that(&format!("{image}: the image's size"), is_below, &size);

        // `docker exec --user=root -it running_instance_name ash`, and its package manager.
        let shells =
            server.root("command -v bash; command -v sh; command -v apt-get; command -v ash; command -v apk");
        seen.equal(
            &format!("{image}: shells"),
            shells.stdout.as_str(),
            "/usr/bin/bash\n/usr/bin/sh\n/usr/bin/apt-get\n",
        );
    }
    seen.report();
}

/// Its image brings a file that an empty volume is filled with; ours needs none.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_empty_volume_for_the_configuration_is_no_error() {
    for &image in images() {
        let etc = Volume::new();
        let server = Recipe::new(image).volume(&etc, "/etc/prosody").serve();
        assert!(server.logs().contains("Serving localhost"), "{image}: {}", server.logs());
        assert_eq!(server.root("ls -A /etc/prosody").stdout, "", "{image}: nothing is written there");
    }
}

// SaraSmiseth's.

/// The Compose file of its README in a folder of its own, as a project of its own.
struct Compose {
    folder: PathBuf,
    project: String,
}

impl Compose {
    /// With these mounts and variables. What it publishes is left out, so that tests can run beside each other.
    fn new(image: &str, certs: &str, data: &str, environment: &[(&str, &str)]) -> Self {
        require(image);
        let project = unique("compose");
        let folder = env::temp_dir().join(&project);
        fs::create_dir_all(folder.join("certs/domain.tld")).unwrap();
        let made = rcgen::generate_simple_self_signed(["domain.tld".to_owned()]).unwrap();
        fs::write(folder.join("certs/domain.tld/fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(folder.join("certs/domain.tld/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::create_dir(folder.join("data")).unwrap();
        let environment: String =
            environment.iter().map(|(name, value)| format!("      {name}: '{value}'\n")).collect();
        let text = format!(
            "version: '3.7'

services:
  server:
    image: {image}
    restart: unless-stopped
    environment:
      DOMAIN: domain.tld
{environment}    volumes:
      - ./certs:{certs}
      - ./data:{data}
"
        );
        fs::write(folder.join("docker-compose.yml"), text).unwrap();
        Compose { folder, project }
    }

    /// `docker-compose`, or `docker compose` where that is the one there is.
    fn run(&self, arguments: &[&str]) -> Answer {
        let is_plugin = docker(["compose", "version"]).status == 0;
        let mut command = Command::new(if is_plugin { "docker" } else { "docker-compose" });
        let command =
            command.args(is_plugin.then_some("compose")).args(["-p", &self.project]).args(arguments);
        command.current_dir(&self.folder).output().expect("Compose cannot be run").into()
    }

    #[track_caller]
    fn up(&self) -> String {
        self.run(&["up", "-d"]).ok();
        let id = self.run(&["ps", "-q", "server"]).ok();
        wait_until_it_serves(&id);
        id
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.folder.join("certs/domain.tld/fullchain.pem")).unwrap()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        self.run(&["down", "--volumes"]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn has_account(folder: &Path) -> bool {
    folder.join("data/domain%2etld/accounts/me.dat").exists()
}

/// Its folders are below /usr/local: they are mounted elsewhere, or two variables say where they are.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn sarasmiseths_compose_file_needs_other_paths_or_two_variables() {
    let (certs, data) = ("/usr/local/etc/prosody/certs", "/usr/local/var/lib/prosody");
    let told = [("PROSODY_CERTIFICATES", certs), ("PROSODY_DATA_DIR", data)];
    let mut seen = Observations::default();
    for &image in images() {
        for (what, compose) in [
            ("other paths", Compose::new(image, "/etc/prosody/certs", "/var/lib/prosody", &[])),
            ("two variables", Compose::new(image, certs, data, &told)),
        ] {
            let what = format!("{image}, {what}");
            let server = compose.up();
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            let shown = lines(&certificate_of(&server, "domain.tld"));
            seen.equal(&format!("{what}: the certificate"), shown, lines(&compose.certificate()));
            // `adduser` asks for the password on a terminal.
            let made = compose
                .run(&["exec", "-T", "server", "prosodyctl", "register", "me", "domain.tld", "secret"]);
            seen.that(&format!("{what}: an account"), made.status == 0, &made);
            seen.that(&format!("{what}: it is in ./data"), has_account(&compose.folder), ());
            let listed = docker(["exec", &server, "prosodyctl", "shell", "host", "list"]).stdout;
            for host in ["domain.tld", "conference.domain.tld", "upload.domain.tld", "proxy.domain.tld"] {
                seen.that(&format!("{what}: {host}"), listed.contains(host), &listed);
            }
            let upgrade = compose.run(&["exec", "-T", "server", "bash", "-c", "prosodyctl about"]);
            seen.that(&format!("{what}: bash"), upgrade.status == 0, &upgrade);
            let logs = compose.run(&["logs"]).all();
            seen.that(&format!("{what}: logs"), logs.contains("Serving domain.tld"), &logs);
        }
    }
    let unchanged = Compose::new(TRIXIE, certs, data, &[]);
    let server = unchanged.up();
    unchanged.run(&["exec", "-T", "server", "prosodyctl", "register", "me", "domain.tld", "secret"]).ok();
    let logs = docker(["logs", &server]).all();
    seen.that("unchanged: nothing is in ./data", !has_account(&unchanged.folder), &logs);
    let line = "No certificate for domain.tld";
    seen.that(&format!("unchanged: {line}"), logs.contains(line), &logs);
    seen.report();
}

/// All of it is in an SQLite file, its archive under the name that another module had for it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn data_of_sarasmiseths_image_need_three_settings() {
    const DOMAIN: &str = "chat.example";
    const UPLOAD: &str = "upload.chat.example";
    const MAIN: &str = r#"
modules_enabled = {
	"roster", "saslauth", "tls", "dialback", "disco", "blocklist", "private", "vcard4", "vcard_legacy", "mam", "carbons",
	"csi_simple", "version", "uptime", "time", "ping", "pep", "register", "admin_adhoc", "announce", "lastactivity",
}
log = { info = "*console" }
default_storage = "sql"
sql = { driver = "SQLite3", database = "prosody.sqlite" }
archive_store = "archive2"
storage = { archive2 = "sql" }
archive_expires_after = "1y"
VirtualHost "chat.example"
disco_items = { { "upload.chat.example" } }
Component "upload.chat.example" "http_file_share"
Component "conference.chat.example" "muc"
	modules_enabled = { "muc_mam" }
"#;
    let network = Network::new();
    let [data, certs] = [(); 2].map(|()| Volume::new());
    data.prepare(BOOKWORM, "touch /volume/.keep && chown -R 999:999 /volume");
    let copies =
        "for kind in crt key; do cp chat.example.$kind upload.chat.example.$kind; done && chmod 644 *";
    certs.prepare(BOOKWORM, &format!("cd /volume && {} && {copies}", certificate(DOMAIN)));
    let server = |image: &str, data: &Volume| {
        Recipe::new(image)
            .volume(data, "/var/lib/prosody")
            .volume(&certs, "/etc/prosody/certs")
            .on(&network, &[DOMAIN, UPLOAD])
    };
    let there = |program: &str| {
        server(BOOKWORM, &data)
            .with(["--user", "999:999", "--entrypoint", program])
            .file("/etc/prosody/prosody.cfg.lua", MAIN)
    };
    for (name, password) in [("alice", "secret-a"), ("bob", "secret-b")] {
        there("/usr/bin/prosodyctl").command(["register", name, DOMAIN, password]).run().ok();
    }
    let there = there("/usr/bin/prosody").command(["-F"]).start();
    there.wait_for_log("Activated service 'https'");
    let accounts = ["alice:secret-a", "bob:secret-b"];
    let text = unique("message");
    let steps = ["login", "message", "archive", "upload", "--text", &text];
    let written = client(&network.name, DOMAIN, accounts, &steps);
    assert_eq!(written.status, 0, "{written:?}\n{}", there.logs());
    let link = written.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(link.starts_with("https://upload.chat.example:5281/file_share/"), "{link}");
    drop(there);

    let mut seen = Observations::default();
    for image in [BOOKWORM, TRIXIE] {
        let without = server(image, &data).env("DOMAIN", DOMAIN).serve();
        let login = client(&network.name, DOMAIN, accounts, &["login"]);
        seen.that(&format!("{image}: without the settings nobody is known"), login.status != 0, &login);
        let is_named = without.logs().contains("prosody.sqlite: nothing uses these data")
            && without.logs().contains("set PROSODY_DEFAULT_STORAGE=sqlite");
        seen.that(&format!("{image}: the log names the setting"), is_named, without.logs());
        drop(without);

        let server = server(image, &data)
            .env("DOMAIN", DOMAIN)
            .env("PROSODY_DEFAULT_STORAGE", "sqlite")
            .env("PROSODY_OPTIONS", r#"{"archive_store": "archive2"}"#)
            .env("PROSODY_ARCHIVE_EXPIRES_AFTER", "1y")
            .serve();
        let read = client(&network.name, DOMAIN, accounts, &["login", "archive", "--text", &text]);
        seen.that(
            &format!("{image}: accounts and archive"),
            read.status == 0,
            format!("{read:?}\n{}", server.logs()),
        );
        let get = "import ssl, sys, urllib.request as r; c = ssl._create_unverified_context(); \
                   sys.exit(r.urlopen(sys.argv[1], context=c).read() != bytes(range(256)) * 64)";
        let got = Recipe::new(CLIENT).on(&network, &[]).command(["python3", "-c", get]).word(&link).run();
        seen.that(&format!("{image}: {link}"), got.status == 0, &got);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_sarasmiseths_image_does_by_itself_is_asked_for_here() {
    const DOMAIN: &str = "domain.tld";
    let mut seen = Observations::default();
    for &image in images() {
        let rendered =
            |recipe: Recipe| recipe.env("DOMAIN", DOMAIN).command(["render", "--dry-run"]).run().ok();
        let asked = rendered(
            Recipe::new(image)
                .env("PROSODY_ALLOW_REGISTRATION", "true")
                .env("PROSODY_RESTRICT_ROOM_CREATION", "false")
                .env("DOMAIN_PUBSUB", "pubsub.domain.tld")
                .env("PROSODY_ADMINS", "\"me@example.com\", \"admin@example.net\""),
        );
        let account = |recipe: Recipe| rendered(recipe.env("LOCAL", "me").env("PASSWORD", "secret"));
        let rooms = "Component \"conference.domain.tld\" \"muc\"";
        let without = account(Recipe::new(image));
        seen.that(&format!("{image}: no rooms beside an account"), !without.contains(rooms), &without);
        let with = account(Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN));
        seen.that(&format!("{image}: rooms where they are asked for"), with.contains(rooms), &with);
        let plain = rendered(Recipe::new(image));
        for (line, by_itself) in [
            ("allow_registration = true", ""),
            ("restrict_room_creation = false", "restrict_room_creation = \"local\""),
            ("Component \"pubsub.domain.tld\" \"pubsub\"", ""),
            ("admins = { \"me@example.com\", \"admin@example.net\" }", ""),
        ] {
            seen.that(&format!("{image}: {line} where it is asked for"), asked.contains(line), &asked);
            seen.that(&format!("{image}: not {line} by itself"), !plain.contains(line), &plain);
            seen.that(&format!("{image}: {by_itself} by itself"), plain.contains(by_itself), &plain);
        }
    }
    seen.report();
}
