//! What each feature of `PROSODY_FEATURES` stands for: modules and options.

use std::fmt::Write as _;

use serde_json::json;

use super::types::{CustomOptions, Feature, SettingType};
use crate::lua::{self, Dialect, Secrets, Value, Version};

impl Feature {
    pub const ALL: [Feature; 3] = [Feature::Invites, Feature::ModernLogin, Feature::PublicServer];

    /// What users get by it.
    pub fn meaning(self) -> &'static str {
        match self {
            Feature::Invites => {
                "invitation links for people without a client: a page with clients and a QR code, registration on the web, \
                 and password reset by a link"
            }
            Feature::ModernLogin => {
                "SASL2, Bind 2, FAST and inline stream management: one round trip to log in again"
            }
            Feature::PublicServer => {
                "limits on registration, spam reports that reach the administrators and the spammer's server, and a spam \
                 filter"
            }
        }
    }

    /// Its modules, without those that they need.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Feature::Invites => &["invites_page", "invites_register_web", "http_libjs", "password_reset"],
            Feature::ModernLogin => &["sasl2", "sasl2_bind2", "sasl2_sm", "sasl2_fast"],
            Feature::PublicServer => &[
                "register_limits", "watchregistrations", "mimicking", "tombstones", "spam_reporting",
                "watch_spam_reports", "report_forward", "anti_spam",
            ],
        }
    }

    /// Whether it works with Prosody 0.12. The SASL2 of 0.12's collection does not: with it, no client could log in.
    pub fn works_on_12(self) -> bool {
        self != Feature::ModernLogin
    }

    /// Its global options, as `PROSODY_OPTIONS` would have them.
    pub fn options(self) -> CustomOptions {
        CustomOptions::parse(self.options_json()).unwrap_or_default()
    }

    fn options_json(self) -> &'static str {
        match self {
            // The modules' own list of clients loads the badges of app stores from other hosts.
            Feature::Invites => include_str!("features/invites.json"),
            Feature::ModernLogin => "{}",
            Feature::PublicServer => include_str!("features/public-server.json"),
        }
    }
}

/// Every feature with its modules and options, for a terminal.
pub fn table() -> String {
    let mut text = String::new();
    for feature in Feature::ALL {
        let _ = writeln!(
            text,
            "{}{}: {}",
            if text.is_empty() { "" } else { "\n" },
            feature.as_str(),
            feature.meaning()
        );
        let _ = writeln!(text, "  modules: {}", feature.modules().join(" "));
        for (name, value) in feature.options().iter() {
            let _ = writeln!(text, "  {name} = {}", literal(value.unwrap_or(&Value::Nil)));
        }
    }
    text
}

fn literal(value: &Value) -> String {
    let mut text = String::new();
    let dialect = Dialect { version: Version::Lua54, secrets: Secrets::Hidden };
    // Values from JSON have a literal.
    let _ = lua::write(&mut text, value, dialect);
    text.replace('\n', "\n  ")
}

/// The same as JSON.
pub fn json() -> String {
    let feature = |feature: Feature| {
        let options: serde_json::Value = serde_json::from_str(feature.options_json()).unwrap_or_default();
        let content =
            json!({ "meaning": feature.meaning(), "modules": feature.modules(), "options": options });
        (feature.as_str().to_owned(), content)
    };
    let features: serde_json::Map<_, _> = Feature::ALL.into_iter().map(feature).collect();
    format!("{:#}\n", serde_json::Value::Object(features))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_listed_with_valid_options() {
        assert_eq!(Feature::ALL.map(Feature::as_str), Feature::CHOICES);
        for feature in Feature::ALL {
            let options = CustomOptions::parse(feature.options_json()).unwrap();
            assert!(options.iter().all(|(_, value)| value.is_some()), "{feature:?}");
        }
    }

    #[test]
    fn the_list_of_clients_loads_nothing_from_other_hosts() {
        let options = Feature::Invites.options();
        let clients = options.get("site_apps").flatten().unwrap();
        assert!(!clients.items().is_empty());
        for client in clients.items() {
            assert!(client.get("image").unwrap().as_str().unwrap().starts_with("assets/logos/"));
            for button in client.get("download").unwrap().get("buttons").unwrap().items() {
                assert_eq!(button.get("image"), None, "{button:?}");
            }
        }
    }
}
