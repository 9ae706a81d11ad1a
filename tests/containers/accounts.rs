//! Accounts that settings name: made at the start where they do not exist, and never touched after that.

use std::fmt::Write;

use crate::docker::{
    BOOKWORM, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, client, eventually, images,
    is_all_wanted, require,
};

const DOMAIN: &str = "chat.example";

/// How the log says which accounts there were already.
const LEFT: &str = "Left as they are, with their passwords, because they exist: ";

/// A server for the domain, on a network.
fn server(image: &str, network: &Network) -> Recipe {
    require(image);
    Recipe::new(image).on(network, &[DOMAIN]).env("PROSODY_DOMAIN", DOMAIN)
}

/// Whether two accounts, `local:password` each, can log in.
fn can_log_in(network: &Network, accounts: [&str; 2]) -> bool {
    client(&network.name, DOMAIN, accounts, &["login"]).status == 0
}

/// How many accounts of the domain there are in files.
fn count(server: &Container) -> usize {
    let listing = server.root("ls /var/lib/prosody/chat%2eexample/accounts 2>/dev/null | wc -l").ok();
    listing.parse().unwrap()
}

/// Waits until the module has said what it has done.
#[track_caller]
fn wait_for(server: &Container, text: &str) {
    eventually(text, PATIENCE, || match server.logs() {
        logs if logs.contains(text) => Ok(()),
        logs => Err(logs),
    });
}

/// What is printable in Latin, and a letter and a picture from further on.
fn every_character() -> String {
    (' '..='\u{17f}').filter(|c| !c.is_control()).chain(['Ж', '\u{1f600}']).collect()
}

fn observe(image: &str) {
    let network = Network::new();
    let data = Volume::new();
    let password = every_character();
    let accounts = serde_json::json!([
        {"jid": format!("alice@{DOMAIN}"), "password": password},
        {"jid": format!("Bob@{}", DOMAIN.to_uppercase()), "password": "secret-b", "admin": true},
    ]);
    let start = |accounts: &str| {
        let recipe = server(image, &network).volume(&data, "/var/lib/prosody");
        recipe.env("PROSODY_ACCOUNTS", accounts).serve()
    };
    let mut seen = Observations::default();

    let first = start(&accounts.to_string());
    // Who has rights is the first.
    wait_for(&first, "New accounts: bob@chat.example, alice@chat.example");
    let alice = format!("alice:{password}");
    seen.that("both log in", can_log_in(&network, [&alice, "bob:secret-b"]), first.logs());
    seen.equal(
        "a file of accounts that is left",
        first.root("[ -e /run/prosody/server/accounts ]").status,
        1,
    );
    seen.that("the log says nothing of passwords", !first.logs().contains("secret-b"), first.logs());
    let kept = first.root("cat /var/lib/prosody/chat%2eexample/accounts/*").ok();
    drop(first);

    let second = start("alice@chat.example:another bob@chat.example:another carol@chat.example:secret-c");
    wait_for(&second, LEFT);
    let logs = second.logs();
    seen.that(
        "who is left is named",
        logs.contains(&format!("{LEFT}alice@chat.example, bob@chat.example")),
        &logs,
    );
    seen.that("who is new is named", logs.contains("New accounts: carol@chat.example\n"), &logs);
    seen.that("the old passwords work", can_log_in(&network, [&alice, "bob:secret-b"]), &logs);
    seen.that("the new one does", can_log_in(&network, ["carol:secret-c", "bob:secret-b"]), &logs);
    seen.that("others do not", !can_log_in(&network, ["alice:another", "bob:secret-b"]), &logs);
    let now = second.root("cd /var/lib/prosody/chat%2eexample/accounts && cat alice.dat bob.dat").ok();
    seen.equal("the accounts are as they were", now, kept);
    seen.report();
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn accounts_are_made_once_and_never_changed_trixie() {
    observe(TRIXIE);
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn accounts_are_made_once_and_never_changed_bookworm() {
    observe(BOOKWORM);
}

/// What a program called `prosody` finds of the accounts that it was started with.
const LOOK: &str = "#!/bin/sh
stat -c '%a %U %G' /run/prosody/server/accounts
cat /run/prosody/server/accounts
echo in the environment: $(tr '\\0' '\\n' </proc/self/environ | grep -c hush)
echo in the generation: $(grep -rl hush /run/prosody/current/ | wc -l)
";

#[test]
#[ignore = "needs the Docker engine and the images"]
fn what_the_server_is_handed_is_its_own() {
    for arguments in [["--user", "0"], ["--user", "4321"], ["--env", "PROSODY_UID=4321"]] {
        let container = Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_ACCOUNTS", "alice@chat.example:hush bob@chat.example:hush")
            .with(arguments)
            .with(["--tmpfs", "/var/lib/prosody:mode=1777"])
            .file("/usr/local/sbin/prosody", LOOK)
            .command(["/bin/sh", "/usr/local/sbin/prosody"]);
        // A program of another name is no server: it is handed nothing.
        let answer = container.run();
        assert!(answer.stderr.contains("No such file"), "{arguments:?}: {}", answer.all());
    }
    for (arguments, owner) in [
        (["--user", "0"], "600 prosody prosody"),
        (["--user", "4321"], "600 UNKNOWN root"),
        (["--env", "PROSODY_UID=4321"], "600 UNKNOWN prosody"),
    ] {
        let container = Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_ACCOUNTS", "alice@chat.example:hush bob@chat.example:hush")
            .with(arguments)
            .with(["--tmpfs", "/var/lib/prosody:mode=1777", "--tmpfs", "/shim:exec,mode=1777"])
            .with(["--entrypoint", "/bin/sh"])
            .file("/usr/local/sbin/look", LOOK)
            .command([
                "-c",
                "cp /usr/local/sbin/look /shim/prosody && chmod +x /shim/prosody && exec prosody-entrypoint /shim/prosody",
            ]);
        let answer = container.run();
        let lines: Vec<&str> = answer.stdout.lines().collect();
        let expected = [
            owner,
            "alice@chat.example\t\thush",
            "bob@chat.example\t\thush",
            "in the environment: 0",
            "in the generation: 0",
        ];
        assert_eq!(lines, expected, "{arguments:?}: {}", answer.all());
    }
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn every_provider_and_store_has_accounts() {
    for image in [TRIXIE, BOOKWORM] {
        for (name, value) in [
            ("PROSODY_AUTHENTICATION", "internal_plain"),
            ("PROSODY_DEFAULT_STORAGE", "sqlite"),
            ("PROSODY_OPTIONS", r#"{"password_hash": "SHA-256"}"#),
        ] {
            if image == BOOKWORM && name != "PROSODY_DEFAULT_STORAGE" && !is_all_wanted() {
                continue;
            }
            let network = Network::new();
            let recipe = server(image, &network).env(name, value);
            let server = recipe
                .env("PROSODY_ACCOUNTS", "alice@chat.example:secret-a,bob@chat.example:secret-b")
                .serve();
            wait_for(&server, "New accounts: alice@chat.example, bob@chat.example");
            assert!(
                can_log_in(&network, ["alice:secret-a", "bob:secret-b"]),
                "{image}, {name}: {}",
                server.logs()
            );
        }
        // One whose accounts are made elsewhere.
        let network = Network::new();
        let recipe = server(image, &network).env("PROSODY_AUTHENTICATION", "anonymous");
        let server = recipe.env("PROSODY_ACCOUNTS", "alice@chat.example:hush").serve();
        wait_for(&server, "The account alice@chat.example cannot be made: ");
        assert!(!server.logs().contains("hush"), "{}", server.logs());
    }
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn what_cannot_be_read_is_not_written_over() {
    for image in [TRIXIE, BOOKWORM] {
        let network = Network::new();
        let data = Volume::new();
        let folder = "/volume/chat%2eexample/accounts";
        let script = format!(
            "mkdir -p {folder}; echo precious >{folder}/alice.dat; chown -R 999:999 /volume; chown 0:0 {folder}/alice.dat; chmod 600 {folder}/alice.dat; : >{folder}/dan.dat; chown 999:999 {folder}/dan.dat"
        );
        data.prepare(image, &script);
        let recipe = server(image, &network).volume(&data, "/var/lib/prosody");
        let server = recipe
            .env("PROSODY_ACCOUNTS", "alice@chat.example:x bob@chat.example:secret-b dan@chat.example:x")
            .serve();
        for name in ["alice", "dan"] {
            let text =
                format!("The account {name}@chat.example cannot be made: whether it exists cannot be read");
            wait_for(&server, &text);
        }
        wait_for(&server, "New accounts: bob@chat.example");
        let kept = server.root("cat /var/lib/prosody/chat%2eexample/accounts/alice.dat").ok();
        assert_eq!(kept, "precious", "{image}");
        assert_eq!(
            server.root("wc -c </var/lib/prosody/chat%2eexample/accounts/dan.dat").ok(),
            "0",
            "{image}"
        );
    }
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn an_account_has_the_role_that_it_was_given() {
    let network = Network::new();
    let accounts = r#"[{"jid": "a@chat.example", "password": "x", "role": "prosody:admin"},
        {"jid": "b@chat.example", "password": "x", "admin": true}, "c@chat.example:x",
        {"jid": "d@chat.example", "password": "x", "role": "no:such"}]"#;
    let server = server(TRIXIE, &network).env("PROSODY_ACCOUNTS", accounts).serve();
    wait_for(&server, "New accounts: a@chat.example, b@chat.example, c@chat.example\n");
    let logs = server.logs();
    assert!(logs.contains("The account d@chat.example cannot be made: there is no role no:such"), "{logs}");
    for (jid, role) in [
        ("a@chat.example", "prosody:admin"),
        ("b@chat.example", "prosody:admin"),
        ("c@chat.example", "prosody:member"),
    ] {
        let answer = server.exec(["prosodyctl", "shell", "user", "role", jid]);
        assert!(answer.all().contains(role), "{jid}: {}", answer.all());
    }
    assert_eq!(count(&server), 3);
}

/// A provider that does not see an account, as one whose database was locked when it looked.
const FORGETFUL: &str = r#"
local accounts = module:open_store("accounts");
module:provides("auth", {
	user_exists = function () return nil, "not now"; end;
	create_user = function (username, password) return accounts:set(username, { password = password }); end;
});
"#;

#[test]
#[ignore = "needs the Docker engine and the images"]
fn what_is_stored_is_an_account_whatever_its_provider_sees() {
    for image in [TRIXIE, BOOKWORM] {
        let network = Network::new();
        let data = Volume::new();
        let folder = "/volume/chat%2eexample/accounts";
        let account = "return { [\"password\"] = \"precious\" };";
        let script =
            format!("mkdir -p {folder}; echo '{account}' >{folder}/alice.dat; chown -R 999:999 /volume");
        data.prepare(image, &script);
        let server = server(image, &network)
            .volume(&data, "/var/lib/prosody")
            .file("/etc/prosody/modules/mod_auth_forgetful.lua", FORGETFUL)
            .env("PROSODY_AUTHENTICATION", "forgetful")
            .env("PROSODY_ACCOUNTS", "alice@chat.example:x bob@chat.example:x")
            .serve();
        wait_for(&server, &format!("{LEFT}alice@chat.example"));
        wait_for(&server, "New accounts: bob@chat.example");
        assert_eq!(server.root("cat /var/lib/prosody/chat%2eexample/accounts/alice.dat").ok(), account);
    }
}

/// What another provider's users have stored belongs to them, whether they have an account here or not.
#[test]
#[ignore = "needs the Docker engine and the images"]
fn an_account_that_cannot_have_its_role_is_not_made_and_nothing_is_lost() {
    let network = Network::new();
    let data = Volume::new();
    data.prepare(
        TRIXIE,
        "mkdir -p /volume/chat%2eexample/roster; echo 'return {}' >/volume/chat%2eexample/roster/bob.dat; chown -R 999:999 /volume",
    );
    let recipe = server(TRIXIE, &network)
        .volume(&data, "/var/lib/prosody")
        .env("PROSODY_STORAGE_ACCOUNT_ROLES", "none")
        .env(
            "PROSODY_ACCOUNTS",
            r#"[{"jid": "bob@chat.example", "password": "x", "role": "prosody:admin"}]"#,
        );
    let server = recipe.serve();
    wait_for(&server, "The account bob@chat.example cannot be made: it cannot have the role prosody:admin");
    assert_eq!(count(&server), 0, "{}", server.logs());
    assert_eq!(server.root("ls /var/lib/prosody/chat%2eexample/roster").ok(), "bob.dat");
}

/// Files of the user's own say something else of the host, and of all hosts.
#[test]
#[ignore = "needs the Docker engine and the images"]
fn what_the_users_files_say_of_modules_keeps_no_account_away() {
    for (path, content) in [
        (
            "/etc/prosody/vhost.d/chat.cfg.lua",
            "VirtualHost \"chat.example\"\nmodules_enabled = { \"motd\" }\n",
        ),
        ("/etc/prosody/conf.d/few.cfg.lua", "modules_enabled = { \"saslauth\", \"tls\", \"disco\" }\n"),
    ] {
        let network = Network::new();
        let recipe = server(TRIXIE, &network).file(path, content);
        let server = recipe.env("PROSODY_ACCOUNTS", "alice@chat.example:secret-a").serve();
        wait_for(&server, "New accounts: alice@chat.example");
        assert_eq!(server.root("[ -e /run/prosody/server/accounts ]").status, 1, "{path}");
    }
}

#[test]
#[ignore = "needs the Docker engine and the images"]
fn a_reload_makes_accounts_too() {
    for &image in images() {
        let network = Network::new();
        let secrets = Volume::new();
        secrets.prepare(image, "echo alice@chat.example:secret-a >/volume/accounts");
        let recipe = server(image, &network).volume(&secrets, "/run/secrets");
        let server = recipe.env("PROSODY_ACCOUNTS_FILE", "/run/secrets/accounts").serve();
        wait_for(&server, "New accounts: alice@chat.example");
        secrets.prepare(image, "echo alice@chat.example:other bob@chat.example:secret-b >/volume/accounts");
        let said = crate::reload::reload(&server);
        assert!(!said.stderr.contains("restart"), "{}", said.all());
        wait_for(&server, "New accounts: bob@chat.example");
        assert!(can_log_in(&network, ["alice:secret-a", "bob:secret-b"]), "{}", server.logs());
        assert_eq!(server.root("[ -e /run/prosody/server/accounts ]").status, 1);
    }
}

/// Thousands of accounts: more than a variable can hold.
#[test]
#[ignore = "needs the Docker engine and the images"]
fn thousands_of_accounts_do_not_keep_anybody_waiting() {
    let total = if is_all_wanted() { 10_000 } else { 2_000 };
    let more = format!("and {} more", total - 5);
    let network = Network::new();
    let data = Volume::new();
    let secrets = Volume::new();
    let mut list = String::new();
    for number in 0..total {
        let padding = "p".repeat(80);
        writeln!(list, "user{number}@chat.example:{padding}{number}").unwrap();
    }
    // A variable may be 128 KiB long (execve(2)).
    assert!(list.len() > 128 * 1024);
    let start = || {
        server(TRIXIE, &network)
            .volume(&data, "/var/lib/prosody")
            .volume(&secrets, "/run/secrets")
            .file("/run/secrets/accounts", &list)
            .env("PROSODY_ACCOUNTS_FILE", "/run/secrets/accounts")
            // Hashing all the passwords takes a minute, beside everything else.
            .env("PROSODY_AUTHENTICATION", "internal_plain")
            .serve()
    };
    let first = start();
    let user = |number: usize| format!("user{number}:{}{number}", "p".repeat(80));
    // The first of them need not wait for the last.
    assert!(can_log_in(&network, [&user(0), &user(1)]), "{} accounts", count(&first));
    eventually("all accounts", PATIENCE * 15, || match first.logs() {
        logs if logs.contains(&more) => Ok(()),
        logs => Err(logs.chars().rev().take(500).collect()),
    });
    assert_eq!(count(&first), total);
    assert!(can_log_in(&network, [&user(0), &user(total - 1)]));
    drop(first);

    let second = start();
    eventually("all accounts are found", PATIENCE, || match second.logs() {
        logs if logs.contains(LEFT) && logs.contains(&more) => Ok(()),
        logs => Err(logs),
    });
}

/// Nothing is added to a file of the user's own, so they are made before the start.
#[test]
#[ignore = "needs the Docker engine and the images"]
fn a_configuration_of_ones_own_has_accounts_too() {
    for image in [TRIXIE, BOOKWORM] {
        require(image);
        let network = Network::new();
        let data = Volume::new();
        let own = "certificates = \"/var/lib/prosody/certs\"; c2s_require_encryption = false\n\
            allow_unencrypted_plain_auth = true\n\
            VirtualHost \"chat.example\"\nComponent \"rooms.chat.example\" \"muc\"\n";
        let start = |accounts: &str| {
            Recipe::new(image)
                .on(&network, &[DOMAIN])
                .volume(&data, "/var/lib/prosody")
                .file("/etc/prosody/prosody.cfg.lua", own)
                .env("PROSODY_ACCOUNTS", accounts)
                .start()
        };
        let first = start("alice@chat.example:secret-a dora@rooms.chat.example:x erin@other.example:x");
        first.wait_for_log("New accounts: alice@chat.example");
        let logs = first.logs();
        for host in ["rooms.chat.example", "other.example"] {
            assert!(logs.contains(&format!("cannot be made: there is no virtual host {host}")), "{logs}");
        }
        assert!(!logs.contains("Without effect"), "{logs}");
        let kept = first.root("cat /var/lib/prosody/chat%2eexample/accounts/alice.dat").ok();
        assert_eq!(
            first.root("stat -c '%a %U' /var/lib/prosody/chat%2eexample/accounts/alice.dat").ok(),
            "640 prosody"
        );
        drop(first);
        let second = start("alice@chat.example:another");
        second.wait_for_log(&format!("{LEFT}alice@chat.example"));
        assert_eq!(
            second.root("cat /var/lib/prosody/chat%2eexample/accounts/alice.dat").ok(),
            kept,
            "{image}"
        );
        assert!(!second.logs().contains("another") && !logs.contains("secret-a"), "{}", second.logs());
    }
}

/// In `prosodyctl`, one host's provider could answer for another.
#[test]
#[ignore = "needs the Docker engine and the images"]
fn a_configuration_of_ones_own_has_accounts_on_each_of_its_hosts() {
    for &image in images() {
        let accounts = "same@a.example:p u2@b.example:p same@b.example:p u3@a.example:p u4@b.example:p";
        let server = Recipe::new(image)
            .file("/etc/prosody/prosody.cfg.lua", "VirtualHost \"a.example\"\nVirtualHost \"b.example\"\n")
            .env("PROSODY_ACCOUNTS", accounts)
            .start();
        server.wait_for_log("New accounts: ");
        let found = server.root("cd /var/lib/prosody && ls a%2eexample/accounts b%2eexample/accounts").ok();
        let expected =
            "a%2eexample/accounts:\nsame.dat\nu3.dat\n\nb%2eexample/accounts:\nsame.dat\nu2.dat\nu4.dat";
        assert_eq!(found, expected, "{image}");
    }
}
