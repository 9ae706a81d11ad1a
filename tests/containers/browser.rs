//! The pages of the feature `invites` in a browser, as people see them who got a link.

use std::path::Path;

use serde_json::{Value, json};

use crate::docker::{
    BOOKWORM, BROWSER, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, docker, eventually, exec,
};
use crate::features::{DOMAIN, Setup};

/// Somebody with a browser (tests/browser/visitor.py).
pub struct Visitor(Dialogue);

impl Visitor {
    /// A visitor on a network, or in that of a container, whose browser trusts the self-signed certificates of these hosts
    /// of a server.
    #[track_caller]
    pub fn new(network: &str, server: &str, hosts: &[&str]) -> Self {
        let mut recipe = Recipe::new(BROWSER)
            .with(["--network", network])
            .file("/visitor.py", include_bytes!("../browser/visitor.py"))
            .command(["python3", "/visitor.py"]);
        for host in hosts {
            let path = format!("/var/lib/prosody/self-signed/{host}.crt");
            let file = format!("/{host}.crt");
            recipe = recipe.file(&file, exec(server, "0", &["cat", &path]).ok()).word(&file);
        }
        Visitor(Dialogue::with(recipe))
    }

    /// Does what tests/browser/visitor.py describes.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> String {
        let answer = self.0.request(request).and_then(|()| self.0.answer());
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}"))
    }

    /// The page as it is.
    #[track_caller]
    fn page(&mut self) -> Value {
        serde_json::from_str(&self.ask("page")).unwrap()
    }

    /// What the browser says about the field with the focus.
    #[track_caller]
    fn complaint(&mut self) -> String {
        self.page()["invalid"].as_str().unwrap().to_owned()
    }

    /// Does something that leads to a page, keeps a picture of it in target/screenshots, and checks it: it has its style
    /// and its images, it is not wider than the window, nothing failed, and nothing was asked for elsewhere. Returns its
    /// text.
    #[track_caller]
    pub fn visit(&mut self, seen: &mut Observations, request: &str, name: &str) -> String {
        self.ask(request);
        self.ask(&format!("screenshot {name}"));
        let page = self.page();
        seen.equal(&format!("{name}: status"), &page["status"], &json!(200));
        // A font that Bootstrap names.
        let font = page["font"].as_str().unwrap();
        seen.that(&format!("{name}: style"), font.contains("Segoe UI"), font);
        seen.equal(&format!("{name}: images without content"), &page["broken"], &json!([]));
        seen.equal(&format!("{name}: wider than the window"), &page["wide"], &json!(false));
        let origin: Vec<&str> = page["url"].as_str().unwrap().split('/').take(3).collect();
        let expected = json!({ "origins": [origin.join("/")], "failed": [], "console": [] });
        let traffic: Value = serde_json::from_str(&self.ask("traffic")).unwrap();
        seen.equal(&format!("{name}: traffic"), &traffic, &expected);
        page["text"].as_str().unwrap().to_owned()
    }

    /// Fills in a form.
    #[track_caller]
    pub fn fill(&mut self, fields: &[(&str, &str)]) {
        for (field, text) in fields {
            self.ask(&format!("type {field} {text}"));
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        let _ = std::fs::create_dir_all(&folder);
        docker(["cp", &format!("{}:/screenshots/.", self.0.container.name), &folder.to_string_lossy()]);
    }
}

/// Notes a failure where a page lacks one of the texts, or has one of the others.
#[track_caller]
fn check(seen: &mut Observations, what: &str, page: &str, texts: &[&str], others: &[&str]) {
    for text in texts {
        seen.that(&format!("{what}: {text:?}"), page.contains(text), page);
    }
    for text in others {
        seen.that(&format!("{what}: no {text:?}"), !page.contains(text), page);
    }
}

/// The version of Prosody in the names of pictures.
fn version(image: &str) -> &str {
    if image == BOOKWORM { "0.12" } else { "13.0" }
}

/// A server that is asked nothing in vain: the log has no error.
#[track_caller]
fn check_log(seen: &mut Observations, setup: &Setup) {
    let log = setup.server.logs();
    let errors: Vec<_> =
        log.lines().filter(|line| line.contains("error\t") || line.contains("raceback")).collect();
    seen.that("no errors in the log", errors.is_empty(), errors);
}

fn invites(image: &str) -> Recipe {
    Recipe::new(image)
        .env("PROSODY_FEATURES", "invites")
        .env("PROSODY_OPTIONS", r#"{"allow_user_invites":true}"#)
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_invitation_offers_clients_for_each_device() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let version = version(image);
        let mut setup = Setup::with(invites(image), &[DOMAIN]);
        let mut visitor = Visitor::new(&setup.network.name, &setup.server.name, &[DOMAIN]);
        let link = setup.ask("invite chat.example alice secret-a");
        let open = format!("open {link}");

        let name = format!("invitation-{version}");
        let page = visitor.visit(&mut seen, &open, &name);
        check(&mut seen, &name, &page, &["chat with alice", "Dino", "Gajim"], &["Conversations", "Monal"]);
        visitor.ask("press Scan with mobile device");
        seen.equal(&format!("{version}: the QR code"), visitor.ask("qr"), link.clone());
        visitor.ask(&format!("screenshot qr-{version}"));
        visitor.ask("press Close");

        visitor.ask("press view all apps.");
        let page = visitor.page();
        check(&mut seen, &name, page["text"].as_str().unwrap(), &["Conversations", "Monal"], &[]);
        // The clients' own pages are their stores and the pages of this server.
        let links: Vec<_> = page["links"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        seen.that("links", links.len() >= 8, &links);

        // All links to pages of the server lead to one.
        let ours = links.iter().filter(|link| link.starts_with("https://chat.example:"));
        for (number, link) in ours.enumerate() {
            visitor.visit(&mut seen, &format!("open {link}"), &format!("link-{number}-{version}"));
        }

        visitor.ask("device android");
        let name = format!("android-{version}");
        let page = visitor.visit(&mut seen, &open, &name);
        check(&mut seen, &name, &page, &["Conversations", "yaxim"], &["Dino", "Monal", "Scan with"]);
        visitor.ask("device iphone");
        let name = format!("iphone-{version}");
        let page = visitor.visit(&mut seen, &open, &name);
        check(&mut seen, &name, &page, &["Monal", "Siskin"], &["Dino", "Conversations", "Scan with"]);
        let name = format!("iphone-setup-{version}");
        let page = visitor.visit(&mut seen, "follow Select", &name);
        check(&mut seen, &name, &page, &["Download and install Monal", "Accept invite using Monal"], &[]);
        let token = link.split('?').next_back().unwrap();
        let uri = format!("xmpp:alice@chat.example?roster;preauth={token};ibr=y");
        let links = &visitor.page()["links"];
        seen.that(&format!("{name}: {uri}"), links.as_array().unwrap().contains(&json!(uri)), links);
        check_log(&mut seen, &setup);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_invitation_becomes_an_account() {
    let mut seen = Observations::default();
    let mut setup = Setup::with(invites(TRIXIE), &[DOMAIN]);
    let mut visitor = Visitor::new(&setup.network.name, &setup.server.name, &[DOMAIN]);
    let link = setup.ask("invite chat.example alice secret-a");

    visitor.visit(&mut seen, &format!("open {link}"), "invitation");
    let page = visitor.visit(&mut seen, "follow register an account manually", "register");
    check(&mut seen, "register", &page, &["communicate with alice", "@chat.example"], &[]);
    // The browser checks what it can, the server the rest.
    visitor.ask("press Submit");
    check(&mut seen, "empty", &visitor.complaint(), &["fill out this field"], &[]);
    visitor.fill(&[("user", "carol"), ("password", "short")]);
    visitor.ask("press Submit");
    check(&mut seen, "a short password", &visitor.complaint(), &["8 characters or more"], &[]);
    for (user, told) in [("alice", "already in use"), ("a b@c", "invalid characters")] {
        visitor.fill(&[("user", user), ("password", "correct-horse")]);
        let page = visitor.visit(&mut seen, "follow Submit", "register-again");
        check(&mut seen, user, &page, &[told, "Create an account"], &["Congratulations"]);
    }
    // The first client for Linux.
    visitor.visit(&mut seen, &format!("open {link}"), "invitation");
    let page = visitor.visit(&mut seen, "follow Select", "register-dino");
    check(&mut seen, "register with Dino", &page, &["To begin chatting using Dino"], &[]);
    visitor.fill(&[("user", "Carol"), ("password", "correct-horse")]);
    let page = visitor.visit(&mut seen, "follow Submit", "registered");
    check(
        &mut seen,
        "registered",
        &page,
        &["You have created an account on chat.example", "Download Dino"],
        &[],
    );
    seen.equal("the new account", visitor.ask("value input[readonly]"), "carol@chat.example".to_owned());
    visitor.ask("press Show");
    seen.equal(
        "the password",
        visitor.ask("value input[type=text].form-control"),
        "correct-horse".to_owned(),
    );
    setup.ask("meet chat.example alice secret-a carol correct-horse");
    let page = visitor.visit(&mut seen, &format!("open {link}"), "used");
    check(&mut seen, "used", &page, &["this invite code has expired"], &["register"]);

    let reset = setup.ask("reset-link chat.example admin secret-b carol");
    let page = visitor.visit(&mut seen, &format!("open {reset}"), "reset");
    check(&mut seen, "reset", &page, &["Please enter a new password"], &[]);
    visitor.fill(&[("password", "short")]);
    visitor.ask("press Reset");
    check(&mut seen, "a short new password", &visitor.complaint(), &["8 characters or more"], &[]);
    visitor.fill(&[("password", "another-secret")]);
    let page = visitor.visit(&mut seen, "follow Reset", "was-reset");
    check(&mut seen, "was reset", &page, &["Your password has been updated"], &[]);
    setup.ask("login chat.example carol another-secret");
    let page = visitor.visit(&mut seen, &format!("open {reset}"), "reset-used");
    check(&mut seen, "a used link to reset", &page, &["This link has expired"], &[]);
    check_log(&mut seen, &setup);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_invitation_that_is_not_valid_any_more_says_so() {
    const BRIEF: &str = r#"{"host":"brief.example","options":{"invite_expiry":1}}"#;
    const HOSTS: [&str; 3] = [DOMAIN, "brief.example", "gone.example"];
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let version = version(image);
        let recipe = invites(image)
            .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
            .file("/srv/hosts", format!(r#"[{BRIEF},{{"host":"gone.example"}}]"#));
        let mut setup = Setup::with(recipe, &HOSTS);
        let mut visitor = Visitor::new(&setup.network.name, &setup.server.name, &HOSTS);

        // A form is open while a client uses the invitation, in band.
        let link = setup.ask("invite chat.example alice secret-a");
        visitor.visit(&mut seen, &format!("open {link}"), "invitation");
        if image == TRIXIE {
            visitor.visit(&mut seen, "follow register an account manually", "register-manually");
        } else {
            let log = setup.server.logs();
            let line = "invites_register_web, password_reset left out";
            seen.that("what the collection of 0.12 lacks", log.contains(line), &log);
        }
        let token = link.split('?').next_back().unwrap();
        setup.ask(&format!("accept chat.example {token} bob secret-c"));
        setup.ask("meet chat.example alice secret-a bob secret-c");
        let used = if image == TRIXIE {
            visitor.fill(&[("user", "carol"), ("password", "correct-horse")]);
            "follow Submit".to_owned()
        } else {
            format!("open {link}")
        };
        let name = format!("used-{version}");
        let page = visitor.visit(&mut seen, &used, &name);
        check(&mut seen, &name, &page, &["this invite code has expired"], &["Congratulations"]);

        if image == TRIXIE {
            // A form of somebody who lost the query of its address.
            let page =
                setup.ask("submit https://chat.example:5281/register token=none user=carol password=secret");
            check(&mut seen, "a form without a query", &page, &["this invite code has expired"], &[]);
        }

        let link = setup.invitation(image, "brief.example");
        let name = format!("expired-{version}");
        eventually("the invitation expires", PATIENCE, || {
            let page = visitor.visit(&mut seen, &format!("open {link}"), &name);
            if page.contains("this invite code has expired") { Ok(()) } else { Err(page) }
        });

        let link = setup.invitation(image, "gone.example");
        let page = visitor.visit(&mut seen, &format!("open {link}"), "invitation");
        check(&mut seen, "a host that is there", &page, &["Invite to gone.example"], &[]);
        setup.server.put("/srv/hosts", format!("[{BRIEF}]").as_bytes());
        setup.server.signal("HUP");
        // By HTTP, as a proxy would ask.
        let by_http = link.replace("https:", "http:").replace(":5281", ":5280");
        eventually("the host is gone", PATIENCE, || {
            visitor.ask(&format!("open {by_http}"));
            let page = visitor.page();
            let is_told = page["text"].as_str().unwrap().contains("Unknown host: gone.example");
            if is_told && page["status"] == 404 { Ok(()) } else { Err(page.to_string()) }
        });
        check_log(&mut seen, &setup);
    }
    seen.report();
}
