//! What users get by each feature of `PROSODY_FEATURES`. The pages of `invites` are in browser.rs.

use crate::docker::{BOOKWORM, Container, Dialogue, Network, Observations, Recipe, TRIXIE};

pub const DOMAIN: &str = "chat.example";

/// A server with a feature, alice and an administrator, and a client (tests/client/features.py) that can be asked.
pub struct Setup {
    client: Dialogue,
    pub server: Container,
    pub network: Network,
}

impl Setup {
    #[track_caller]
    fn new(image: &str, environment: &[(&str, &str)]) -> Self {
        let with = |recipe: Recipe, (name, value): &(&str, &str)| recipe.env(name, value);
        Self::with(environment.iter().fold(Recipe::new(image), with), &[DOMAIN])
    }

    /// With hosts that can be reached by their names. Nothing else can be reached.
    #[track_caller]
    pub fn with(recipe: Recipe, hosts: &[&str]) -> Self {
        let network = Network::internal();
        let server = recipe
            .on(&network, hosts)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_ADMINS", "admin@chat.example")
            .env("PROSODY_ACCOUNTS", "alice@chat.example:secret-a admin@chat.example:secret-b")
            .serve();
        server.wait_for_log("New accounts: ");
        let client = Dialogue::of_client(&network.name, "features.py");
        Setup { client, server, network }
    }

    #[track_caller]
    pub fn ask(&mut self, request: &str) -> String {
        let answer = self.client.request(request).and_then(|()| self.client.answer());
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", self.server.logs()))
    }

    /// A new invitation to a host.
    #[track_caller]
    pub fn invitation(&self, image: &str, host: &str) -> String {
        let answer = match image {
            BOOKWORM => {
                let command = format!("invite:create_account(\"{host}\")");
                self.server.exec(["prosodyctl", "shell", &command]).ok()
            }
            _ => self.server.exec(["prosodyctl", "shell", "invite", "create_account", host]).ok(),
        };
        let link = answer.split_whitespace().find(|word| word.starts_with("https://"));
        link.unwrap_or_else(|| panic!("no link: {answer}")).to_owned()
    }
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

#[test]
#[ignore = "needs Docker and the images: make test"]
fn names_that_could_be_mistaken_are_not_given_away() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let environment = [("PROSODY_ALLOW_REGISTRATION", "true"), ("PROSODY_FEATURES", "public-server")];
        let mut setup = Setup::new(image, &environment);
        let told = setup.ask("hear chat.example admin secret-b paypal secret-p");
        seen.that(
            &format!("{image}: a new account"),
            told.contains("paypal") && told.contains("chat.example"),
            &told,
        );
        let answer = setup.ask("sign-up chat.example paypa1 secret-q");
        seen.that(&format!("{image}: a name that looks like another"), answer != "ok", &answer);
        // Prosody remembers that a name of a new account was free, so this is an account from the start.
        setup.server.exec(["prosodyctl", "shell", "user:delete(\"alice@chat.example\")"]).ok();
        let answer = setup.ask("sign-up chat.example alice secret-r");
        seen.that(&format!("{image}: the name of a removed account"), answer != "ok", &answer);
    }
    seen.report();
}
