//! The modules and options of features, and what they need besides.

use super::hosts::{Host, Options, ServedHosts};
use crate::facts::Facts;
use crate::facts::custom_files::CustomFiles;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::Feature;

/// The path of the style sheets and scripts that the pages of `invites` load, and of shared files in the official image.
const SHARE: &str = "/share";

/// The features that are set and work with this version.
pub fn of(settings: &Settings, facts: &Facts) -> impl Iterator<Item = Feature> {
    let is_13 = facts.prosody.is_13();
    let features = settings.features.features.iter().flat_map(|features| features.iter().copied());
    features.filter(move |feature| is_13 || feature.works_on_12())
}

/// The source of a feature's modules in messages.
pub fn source(settings: &Settings, feature: Feature) -> String {
    format!("{} ({})", settings.variable(Field::features), feature.as_str())
}

/// Sets the options of the features that are set.
pub fn options(settings: &Settings, facts: &Facts, options: &mut Options) {
    for feature in of(settings, facts) {
        let of_feature = feature.options();
        options.extend(of_feature.iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone()))));
    }
}

/// Warns about settings that a feature needs, or that disturb it.
pub fn check(
    settings: &Settings,
    facts: &Facts,
    hosts: &ServedHosts,
    options: &Options,
    is_loaded: impl Fn(&str) -> bool,
    report: &mut Report,
) {
    for feature in settings.features.features.iter().flat_map(|features| features.iter()) {
        if !facts.prosody.is_13() && !feature.works_on_12() {
            report.setting_warning(advice!(
                "{}: left out, because its modules do not work with Prosody {}, and no client could log in: leave it out, or \
                 use Prosody 13.0",
                source(settings, *feature),
                facts.prosody.version
            ));
        }
    }
    for feature in of(settings, facts) {
        let by = source(settings, feature);
        match feature {
            Feature::Invites if is_loaded("http_libjs") => {
                check_paths(&by, hosts, options, report);
            }
            Feature::Invites | Feature::ModernLogin => {}
            Feature::PublicServer => {
                check_contacts(&by, settings, &facts.custom_files, hosts, options, report)
            }
        }
    }
}

/// Warns if shared files have the same URL as the style sheets and scripts of the pages.
fn check_paths(by: &str, hosts: &ServedHosts, options: &Options, report: &mut Report) {
    let Some(name) = options.get("http_host").and_then(|host| host.as_str()) else { return };
    let is_at_share = |host: &&Host| {
        let path = host.options.get("http_paths").and_then(|paths| paths.get("file_share")?.as_str());
        host.module.as_deref() == Some("http_file_share") && path == Some(SHARE)
    };
    for Host { name: host, .. } in hosts.components.iter().filter(is_at_share) {
        report.setting_warning(advice!(
            "{by}: {name}{SHARE} has the files of {host}, and the style sheets of the pages too: write another path, such as \
             `/files`, for `file_share` into `http_paths`, in that component's `options` in PROSODY_COMPONENTS"
        ));
    }
}

/// Warns if nobody can be reached about abuse.
fn check_contacts(
    by: &str,
    settings: &Settings,
    files: &CustomFiles,
    hosts: &ServedHosts,
    options: &Options,
    report: &mut Report,
) {
    let has_contact = options.get("contact_info").is_some_and(|contacts| contacts.get("abuse").is_some());
    if !has_contact && !files.fragments().any(|file| file.summary.sets_contacts) {
        report.setting_warning(advice!(
            "{by}: other servers do not know where to report abuse: set PROSODY_CONTACT_ABUSE, for example to \
             mailto:abuse@example.org"
        ));
    }
    let has_admins = std::iter::once(options)
        .chain(hosts.virtual_hosts.iter().map(|host| &host.options))
        .any(|options| options.contains_key("admins"));
    if !has_admins
        && settings.accounts().next().is_none()
        && !files.fragments().any(|file| file.summary.sets_admins)
    {
        report.setting_warning(advice!(
            "{by}: reports and registrations are announced to administrators, and there is none: set PROSODY_ADMINS"
        ));
    }
}
