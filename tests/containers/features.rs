//! What users get by each feature of `PROSODY_FEATURES`.

use crate::docker::{BOOKWORM, Container, Dialogue, Network, Observations, Recipe, TRIXIE, require};

const DOMAIN: &str = "chat.example";

/// The files of Debian's packages that the pages load.
const LIBRARIES: [&str; 3] = [
    "https://chat.example:5281/share/bootstrap4/css/bootstrap.min.css",
    "https://chat.example:5281/share/bootstrap4/js/bootstrap.min.js",
    "https://chat.example:5281/share/jquery/jquery.min.js",
];

/// A server with a feature, alice and an administrator, and a client (tests/client/features.py) that can be asked.
struct Setup {
    client: Dialogue,
    server: Container,
    _network: Network,
}

impl Setup {
    #[track_caller]
    fn new(image: &str, environment: &[(&str, &str)]) -> Self {
        require(image);
        let network = Network::new();
        let recipe = Recipe::new(image)
            .on(&network, &[DOMAIN])
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_ADMINS", "admin@chat.example")
            .env("PROSODY_ACCOUNTS", "alice@chat.example:secret-a admin@chat.example:secret-b");
        let with = |recipe: Recipe, (name, value): &(&str, &str)| recipe.env(name, value);
        let server = environment.iter().fold(recipe, with).serve();
        server.wait_for_log("New accounts: ");
        let client = Dialogue::of_client(&network.name, "features.py");
        Setup { client, server, _network: network }
    }

    #[track_caller]
    fn ask(&mut self, request: &str) -> String {
        let answer = self.client.request(request).and_then(|()| self.client.answer());
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", self.server.logs()))
    }

    /// The answer about pages.
    #[track_caller]
    fn visit(&mut self, request: &str) -> serde_json::Value {
        serde_json::from_str(&self.ask(request)).unwrap()
    }

    /// A new invitation.
    #[track_caller]
    fn invitation(&self, image: &str) -> String {
        let answer = match image {
            BOOKWORM => {
                self.server.exec(["prosodyctl", "shell", "invite:create_account(\"chat.example\")"]).ok()
            }
            _ => self.server.exec(["prosodyctl", "shell", "invite", "create_account", DOMAIN]).ok(),
        };
        let link = answer.split_whitespace().find(|word| word.starts_with("https://"));
        link.unwrap_or_else(|| panic!("no link: {answer}")).to_owned()
    }
}

/// Checks that pages are complete, and that no request went elsewhere.
fn check_pages(seen: &mut Observations, what: &str, pages: &serde_json::Value, libraries: &[&str]) {
    seen.equal(&format!("{what}: missing"), &pages["missing"], &serde_json::json!([]));
    seen.equal(&format!("{what}: elsewhere"), &pages["elsewhere"], &serde_json::json!([]));
    let loaded = pages["loaded"].as_array().unwrap();
    for library in libraries {
        seen.that(&format!("{what} loads {library}"), loaded.contains(&(*library).into()), loaded);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_invitation_opens_complete_pages_and_registers_on_the_web() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let mut setup = Setup::new(image, &[("PROSODY_FEATURES", "invites")]);
        let link = setup.invitation(image);
        let pages = setup.visit(&format!("pages {link}"));
        check_pages(&mut seen, image, &pages, &LIBRARIES);
        let setups = pages["pages"].as_array().unwrap().len() - 1;
        seen.that(&format!("{image}: clients with pages of their own"), setups >= 2, &pages);

        // The collection of 0.12 has neither invites_register_web's password_policy nor password_reset.
        if image == BOOKWORM {
            let log = setup.server.logs();
            seen.that(
                "what is left out",
                log.contains("invites_register_web, password_reset left out"),
                &log,
            );
            continue;
        }
        let registered = setup.visit(&format!("register {link} carol correct-horse"));
        check_pages(&mut seen, "registration", &registered, &LIBRARIES);
        let answer = registered["answer"].as_str().unwrap();
        seen.that("the answer to a registration", answer.contains("You have created an account"), answer);
        setup.ask("login chat.example carol correct-horse");

        let reset = setup.visit("reset chat.example admin secret-b carol another-secret");
        check_pages(&mut seen, "password reset", &reset, &LIBRARIES[..1]);
        let answer = reset["answer"].as_str().unwrap();
        seen.that("the answer to a reset", answer.contains("Your password has been updated"), answer);
        setup.ask("login chat.example carol another-secret");
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_second_login_takes_one_round_trip() {
    let features = [("PROSODY_FEATURES", "modern-login")];
    let mut setup = Setup::new(TRIXIE, &features);
    assert_eq!(setup.ask("round-trips chat.example alice secret-a"), "first=2 second=1");
    setup.ask("login chat.example alice secret-a");

    // With 0.12's SASL2, no client could log in.
    let mut setup = Setup::new(BOOKWORM, &features);
    setup.ask("login chat.example alice secret-a");
    let log = setup.server.logs();
    assert!(log.contains("PROSODY_FEATURES (modern-login): left out"), "{log}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_spam_report_reaches_the_administrator() {
    let mut setup = Setup::new(TRIXIE, &[("PROSODY_FEATURES", "public-server")]);
    let text = setup.ask("report chat.example alice secret-a admin secret-b spammer@spam.example");
    assert_eq!(text, "alice@chat.example reported spam from spammer@spam.example: Buy my watches");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_address_can_make_only_a_few_accounts() {
    let open = ("PROSODY_ALLOW_REGISTRATION", "true");
    for image in [TRIXIE, BOOKWORM] {
        let mut setup = Setup::new(image, &[open, ("PROSODY_FEATURES", "public-server")]);
        assert_eq!(setup.ask("accounts chat.example 5"), "3", "{image}");
        let mut setup = Setup::new(image, &[open]);
        assert_eq!(setup.ask("accounts chat.example 5"), "5", "{image}");
    }
}
