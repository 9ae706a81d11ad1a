//! Reads the report of Prosody's own `check features`.

use std::collections::BTreeSet;

use crate::text::Advice;

/// The features that hosts lack, each with the way to it.
pub fn missing(report: &str) -> Vec<Advice> {
    let mut found: Vec<(&str, &str, BTreeSet<&str>)> = Vec::new();
    let mut host = "";
    let mut is_lacking = false;
    for line in report.lines() {
        if let Some((status, feature)) = line.strip_prefix('\t').and_then(|line| line.split_once('\t')) {
            if !status.is_empty() {
                is_lacking = status == "(!)";
                if is_lacking {
                    found.push((host, feature, BTreeSet::new()));
                }
                continue;
            }
        } else if !line.is_empty() {
            host = line;
        }
        let module = line.rsplit_once("/doc/modules/mod_").map(|(_, module)| module);
        if let (Some(module), Some((_, _, modules)), true) = (module, found.last_mut(), is_lacking) {
            modules.insert(module);
        }
    }
    found.into_iter().map(|(host, feature, modules)| way(host, feature, &modules)).collect()
}

fn way(host: &str, feature: &str, modules: &BTreeSet<&str>) -> Advice {
    let component = |module: &&&str| ["muc", "http_file_share"].contains(module);
    let components: Vec<String> =
        modules.iter().filter(component).map(|module| format!("+NAME.{host}:{module}")).collect();
    let others: Vec<&str> = modules.iter().filter(|module| !component(module)).copied().collect();
    match () {
        () if modules.contains("turn_external") => {
            advice!("{host} lacks {feature}: set PROSODY_TURN_HOST and PROSODY_TURN_SECRET")
        }
        () if !components.is_empty() => {
            advice!("{host} lacks {feature}: add {} to PROSODY_COMPONENTS", components.join(" "))
        }
        () => advice!("{host} lacks {feature}: add {} to PROSODY_MODULES_ENABLED", others.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_features_are_named_with_the_way_to_them() {
        let report = "Feature report\nchat.example\n\tOK\tBlocking\n\t\tBlock communication\n\n\n\t(!)\tMobile\n\t\tHelp\n\n\
                      \t\tSuggested modules: \n\t\t  - smacks: https://prosody.im/doc/modules/mod_smacks\n\
                      \t\t  - csi_simple: https://prosody.im/doc/modules/mod_csi_simple\n\n\t(!)\tGroup chats\n\
                      \t\tSuggested component:\n\n\t\t\t-- Documentation: https://prosody.im/doc/modules/mod_muc\n\
                      \t\t\tComponent \"groups.chat.example\" \"muc\"\n\t\t\t    modules_enabled = {\n\nother.example\n\
                      \t(!)\tCalls\n\t\t  - turn_external: https://prosody.im/doc/modules/mod_turn_external\n";
        let found: Vec<String> = missing(report).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "chat.example lacks Mobile: add csi_simple smacks to PROSODY_MODULES_ENABLED",
                "chat.example lacks Group chats: add +NAME.chat.example:muc to PROSODY_COMPONENTS",
                "other.example lacks Calls: set PROSODY_TURN_HOST and PROSODY_TURN_SECRET",
            ]
        );
    }
}
