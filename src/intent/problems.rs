//! Messages about problems of the image, the directories and custom files.

use std::fmt;

use crate::facts::custom_files::{self, Reason};
use crate::facts::prosody::{Prosody, Version};
use crate::facts::{Facts, Problem};
use crate::layout::{DATA_DIR, ROOT_ANCHOR};
use crate::os::trusted_file;
use crate::os::users::User;
use crate::report::{Report, SettingError};
use crate::settings::catalogue::{Field, PREFIX};
use crate::settings::{Settings, compat, input};
use crate::text::{Advice, MOST_HINTS, reason};

/// Reports the problems in the facts, and unknown variables.
pub fn report(settings: &Settings, facts: &Facts, report: &mut Report) {
    let Version { text, release } = &facts.prosody.version;
    if release.is_none() {
        report.warning(format!(
            "Prosody's version is {text:?}, which is no release; it is configured as the newest release would be"
        ));
    }
    for problem in &facts.problems {
        match problem {
            Problem::HiddenModules { missing } => {
                report.error(SettingError::about(&hidden_modules(&facts.prosody, missing)));
            }
            Problem::PluginPathsNoList => report.error(SettingError::new(
                &settings.variable(Field::options),
                "`plugin_paths`: expected a list of absolute paths",
            )),
            Problem::NoPluginPath(path) => {
                let (field, path) = match &settings.modules.plugin_paths {
                    Some(_) => (Field::plugin_paths, path.display().to_string()),
                    // Values in PROSODY_OPTIONS may be secret.
                    None => (Field::options, "a folder in `plugin_paths`".to_owned()),
                };
                let variable = settings.variable(field);
                report.setting_warning(format!(
                    "{variable}: {path} is no directory: no modules are found there"
                ));
            }
            Problem::NoCollection(path) => report.setting_warning(format!(
                "{}: {} is no directory: no modules are found there",
                settings.variable(Field::community_modules_dir),
                path.display()
            )),
            // Without DANE, Prosody does not read it.
            Problem::RootAnchor(error) if settings.tls.use_dane.is_some_and(|on| on.0) => {
                report.error(SettingError::new(
                    &settings.variable(Field::use_dane),
                    &format!("DNSSEC's trust anchor {ROOT_ANCHOR} cannot be read: {}", reason(error)),
                ));
            }
            Problem::RootAnchor(_) => {}
            Problem::OtherImagesPlace(path, field) => {
                let ours = if *field == Field::data_dir { DATA_DIR } else { "/etc/prosody/certs" };
                report.warning(advice!(
                    "{path}: another image keeps its files there, and nothing here uses them: set {}={path}, or mount them \
                     at {ours}",
                    field.variable()
                ));
            }
            Problem::CustomFile(problem) => report.error(SettingError::about(&problem.to_string())),
            Problem::Identity(why) => report.error(SettingError::about(why)),
            Problem::Unreadable(problem) => {
                let user @ User { uid, gid, .. } = &facts.identity;
                let advice = user.permission_to_read();
                report.error(SettingError::about(&format!(
                    "{problem}; Prosody reads it as uid {uid}, gid {gid}: {advice}"
                )));
            }
        }
    }
    for (path, setting) in &facts.custom_files.left_out {
        report.warning(advice!(
            "{} is a template of another image's and left out: {setting} replaces it, remove the file",
            path.display()
        ));
    }
    unknown_names(settings, Some(facts), report);
    for name in facts.custom_files.environment().into_iter().filter(|name| settings.is_secret(name)) {
        report.setting_warning(advice!(
            "{name}: a custom file reads it, but a secret is not in Prosody's environment: use a template \
             (`.cfg.lua.j2`), or a variable that does not begin with PROSODY_"
        ));
    }
}

/// Warns about unknown variables, unless a custom file reads them.
pub fn unknown_names(settings: &Settings, facts: Option<&Facts>, report: &mut Report) {
    let read = facts.map(|facts| facts.custom_files.environment()).unwrap_or_default();
    // If custom files define the hosts, `DOMAIN` is no sign that variables without our prefix are meant for us.
    let is_meant =
        !settings.has_other_images_domain() || !facts.is_some_and(|facts| facts.custom_files.define_host());
    let is_unknown = |name: &&String| !read.contains(name.as_str()) && (is_meant || name.starts_with(PREFIX));
    for (count, name) in settings.source.unknown.iter().filter(is_unknown).enumerate() {
        report.setting_warning(compat::hint(name).unwrap_or_else(|| {
            let suggestion = (count < MOST_HINTS).then(|| input::suggestion(name)).flatten();
            let hint = suggestion.map_or_else(String::new, |known| format!("; did you mean {known}?"));
            format!("{name}: there is no such setting{hint}")
        }));
    }
}

/// The message that Prosody's own modules are hidden, for example by a volume, or belong to an older version.
pub fn hidden_modules(prosody: &Prosody, missing: &str) -> Advice {
    advice!(
        "{folder}: there is no {missing}, which is one of the own modules of Prosody {version}: a volume or another \
         mount there hides them; remove it, and mount modules of yours elsewhere: at /etc/prosody/modules, or in a \
         folder that PROSODY_PLUGIN_PATHS names (`plugin_paths` in a prosody.cfg.lua of your own)",
        // The path from Prosody's build ends with a slash.
        folder = prosody.plugin_dir.components().as_path().display(),
        version = prosody.version,
    )
}

impl fmt::Display for custom_files::Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.reason {
            Reason::DanglingLink => f.write_str(&advice!("is a link to nothing; correct or remove it")),
            Reason::NotRegular => f.write_str(&advice!("is not a regular file; remove or rename it")),
            Reason::TooLarge => f.write_str(&advice!("is larger than 1 MiB; split it")),
            Reason::NotUtf8 => {
                f.write_str(&advice!("is not UTF-8, which a template must be; save it as UTF-8"))
            }
            Reason::WildcardInDirectory => {
                f.write_str("only the last part of PROSODY_EXTRA_CONFIG may have wildcards (* and ?)")
            }
            Reason::Name => f.write_str(&advice!(
                "its name has * or ? in it, a pattern to Prosody, or is not UTF-8; rename it"
            )),
            Reason::Untrusted(owner) => f.write_str(&trusted_file::untrusted(*owner)),
            Reason::Refused(error) => f.write_str(&reason(error)),
            Reason::Io(error) => write!(f, "{}; it must be there and readable", reason(error)),
        }
    }
}
