//! Reads the report of Prosody's own `check features`.

use std::collections::BTreeSet;

use crate::text::Advice;

/// A feature that a host lacks.
struct Lacking<'a> {
    host: &'a str,
    feature: &'a str,
    /// The modules to enable on the host, or to add as components.
    modules: BTreeSet<&'a str>,
    /// Modules that the host's rooms lack.
    of_rooms: Option<&'a str>,
}

/// The features that hosts lack, each with the way to it.
pub fn missing(report: &str) -> Vec<Advice> {
    let mut found: Vec<Lacking> = Vec::new();
    let mut host = "";
    let mut is_lacking = false;
    for line in report.lines() {
        if !line.starts_with('\t') && !line.is_empty() {
            host = line;
        }
        // The name of a feature has one tab before its status, and what belongs to it has two.
        let status = line.strip_prefix('\t').and_then(|line| line.split_once('\t'));
        if let Some((status, feature)) = status.filter(|(status, _)| !status.is_empty()) {
            is_lacking = status == "(!)";
            if is_lacking {
                found.push(Lacking { host, feature, modules: BTreeSet::new(), of_rooms: None });
            }
        } else if let Some(last) = found.last_mut().filter(|_| is_lacking) {
            if let Some((_, modules)) = line.split_once(" is missing the following modules: ") {
                last.of_rooms = Some(modules);
            }
            last.modules.extend(line.rsplit_once("/doc/modules/mod_").map(|(_, module)| module));
        }
    }
    found.iter().map(way).collect()
}

fn way(lacking: &Lacking) -> Advice {
    let Lacking { host, feature, modules, of_rooms } = lacking;
    if let Some(modules) = of_rooms {
        return advice!("{host} lacks {feature}: add {modules} to PROSODY_MUC_MODULES");
    }
    if modules.contains("turn_external") {
        return advice!("{host} lacks {feature}: set PROSODY_TURN_HOST and PROSODY_TURN_SECRET");
    }
    let (components, others): (Vec<&str>, Vec<&str>) =
        modules.iter().partition(|module| ["muc", "http_file_share"].contains(module));
    if components.is_empty() {
        return advice!("{host} lacks {feature}: add {} to PROSODY_MODULES_ENABLED", others.join(" "));
    }
    let components: Vec<String> = components.iter().map(|module| format!("+NAME.{host}:{module}")).collect();
    advice!("{host} lacks {feature}: add {} to PROSODY_COMPONENTS", components.join(" "))
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
                      \t(!)\tGroup chats\n\t\tComponent \"rooms.other.example\" is missing the following modules: muc_mam\n\n\
                      \t\t\t-- Documentation: https://prosody.im/doc/modules/mod_muc\n\
                      \t(!)\tCalls\n\t\t  - turn_external: https://prosody.im/doc/modules/mod_turn_external\n";
        let found: Vec<String> = missing(report).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "chat.example lacks Mobile: add csi_simple smacks to PROSODY_MODULES_ENABLED",
                "chat.example lacks Group chats: add +NAME.chat.example:muc to PROSODY_COMPONENTS",
                "other.example lacks Group chats: add muc_mam to PROSODY_MUC_MODULES",
                "other.example lacks Calls: set PROSODY_TURN_HOST and PROSODY_TURN_SECRET",
            ]
        );
    }
}
