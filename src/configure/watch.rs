//! Watching certificates and the configuration while a server runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::facts::{Places, configuration_places};
use crate::intent::certificates::{SearchPlace, sources};
use crate::layout::DEFAULT_CERTIFICATES;
use crate::os::directory;
use crate::os::watch::{self, Watch, Watched};
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::Boolean;
use crate::survey::certificates::{ScannedCertificates, scan_and_show};

/// Whether the settings enable the watch for the configuration. An error in this setting does, so that it is reported.
pub fn is_config_reload_enabled(settings: &Settings) -> bool {
    let has_error = || settings.is_given(Field::config_reload);
    settings.entrypoint.config_reload.map_or_else(has_error, |Boolean(is_enabled)| is_enabled)
}

fn is_certificate_reload_enabled(settings: &Settings) -> bool {
    settings.tls.certificate_reload.is_none_or(|Boolean(is_enabled)| is_enabled)
}

/// Watches the configuration, and watches and scans the certificates, if the settings enable it. With a custom main file,
/// the certificates are the ones that Prosody finds itself. `None` if the settings disable both.
pub fn scan(
    watch: &Watch,
    settings: &Settings,
    places: &Places,
    has_custom_main_file: bool,
) -> Option<(Watched, Option<ScannedCertificates>)> {
    let (configuration, certificates) =
        (is_config_reload_enabled(settings), is_certificate_reload_enabled(settings));
    if !configuration && !certificates {
        return None;
    }
    let sources = match has_custom_main_file {
        true => vec![SearchPlace { path: places.config_dir.join(DEFAULT_CERTIFICATES), only: None }],
        false => sources(settings, &places.config_dir),
    };
    let mut found = None;
    let watched = watch.add(|show: &mut dyn FnMut(&Path)| {
        if configuration {
            show_configuration(settings, places, show);
        }
        found = certificates.then(|| scan_and_show(&sources, OffsetDateTime::now_utc(), show));
    });
    Some((watched, found))
}

/// Whether a file of the configuration has changed since a time. A file that was emptied and is still being written has,
/// without an event.
pub fn has_changed_since(time: SystemTime, settings: &Settings, places: &Places) -> bool {
    let now = SystemTime::now();
    let is_new = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| {
            let seconds = u64::try_from(found.ctime()).unwrap_or_default();
            let changed = UNIX_EPOCH + Duration::new(seconds, found.ctime_nsec() as u32);
            // A clock that was set back must not make it new for long.
            found.is_file() && (time..=now).contains(&changed)
        })
    };
    configuration_places(settings, &places.config_dir).into_iter().any(|place| {
        is_new(&place)
            || directory::list(&place).is_ok_and(|names| names.iter().any(|name| is_new(&place.join(name))))
    })
}

/// Passes each path of the configuration to `show`: files, folders, and what links and folders in these lead to.
fn show_configuration(settings: &Settings, places: &Places, show: &mut dyn FnMut(&Path)) {
    for place in configuration_places(settings, &places.config_dir) {
        show(&place);
        // A module may be a folder. Kubernetes' own entries are hidden, and links lead to them.
        let names = directory::list(&place).unwrap_or_default();
        let visible = names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."));
        let below = visible.map(|name| place.join(name));
        below.filter(|path| path.is_symlink() || path.is_dir()).for_each(|path| show(&path));
    }
}

/// Like [`scan`], at a start. A server can run without the watch, so its problems are returned, one sentence each.
pub fn start(
    watch: &nix::Result<Watch>,
    settings: &Settings,
    places: &Places,
    has_custom_main_file: bool,
) -> (Vec<String>, Option<ScannedCertificates>) {
    match watch {
        Ok(watch) => match scan(watch, settings, places, has_custom_main_file) {
            Some((watched, certificates)) => (watched.problems, certificates),
            None => (Vec::new(), None),
        },
        Err(error) if is_config_reload_enabled(settings) || is_certificate_reload_enabled(settings) => {
            (vec![watch::refused(*error)], None)
        }
        Err(_) => (Vec::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::tests::TestDir;

    /// The watched paths of the configuration, relative to the directory if they are in it.
    fn shown(directory: &TestDir, environment: &[(&str, &str)]) -> BTreeSet<String> {
        let path = |name: &str| directory.path().join(name).display().to_string();
        let environment = environment.iter().map(|(name, value)| {
            let value = if name.ends_with("_FILE") { path(value) } else { (*value).to_owned() };
            (name.into(), value.into())
        });
        let (settings, _) = Settings::read(environment);
        let none = PathBuf::from("/none");
        let places = Places { config_dir: path("etc").into(), data_dir: none.clone(), runtime_dir: none };
        let mut shown = BTreeSet::new();
        let mut show = |path: &Path| {
            let path = path.strip_prefix(directory.path()).unwrap_or(path);
            shown.insert(path.display().to_string());
        };
        show_configuration(&settings, &places, &mut show);
        shown
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn every_place_of_the_configuration_is_watched_even_if_it_is_missing() {
        let directory = TestDir::new();
        let fixed = ["etc/prosody.cfg.lua", "etc/vhost.d", "etc/cmpt.d"];
        let default = ["etc/conf.d", "etc/templates", "etc/modules", "/opt/prosody-modules-enabled"];
        assert_eq!(shown(&directory, &[]), set(&[&fixed[..], &default].concat()));

        directory.write("hosts", "a.example");
        let environment = [
            ("PROSODY_VIRTUAL_HOSTS_FILE", "hosts"),
            ("PROSODY_DB_PASSWORD_FILE", "missing"),
            ("PROSODY_STORAGE_ARCHIVE_FILE", "archive"),
            ("LOCAL", "a"),
            ("DOMAIN", "a.example"),
            ("PASSWORD_FILE", "password"),
            ("PROSODY_EXTRA_CONFIG", "own/*.lua"),
            ("PROSODY_EXTRA_CFG", "1"),
            ("PROSODY_TEMPLATES_DIR", "/templates"),
            ("PROSODY_PLUGIN_PATHS", "/modules"),
        ];
        let files = ["hosts", "missing", "archive", "password"];
        let other = ["etc/own", "etc/conf.d/extra.cfg.lua", "/templates", "/modules"];
        assert_eq!(shown(&directory, &environment), set(&[&fixed[..], &files, &other].concat()));

        let one_file = shown(&directory, &[("PROSODY_EXTRA_CONFIG", "/own/a.lua")]);
        assert!(one_file.contains("/own/a.lua") && !one_file.contains("etc/conf.d"), "{one_file:?}");
    }

    #[test]
    fn links_and_modules_in_the_folders_are_watched() {
        let directory = TestDir::new();
        directory.write("etc/conf.d/..2030_01/a.cfg.lua", "");
        directory.write("etc/conf.d/file.cfg.lua", "");
        directory.write("etc/modules/mod_one/mod_one.lua", "");
        directory.write("etc/modules/mod_two.lua", "");
        for (target, link) in [("..2030_01", "..data"), ("..data/a.cfg.lua", "a.cfg.lua"), ("/gone", "gone")]
        {
            symlink(target, directory.path().join("etc/conf.d").join(link)).unwrap();
        }
        let shown = shown(&directory, &[]);
        let below: Vec<&str> = shown
            .iter()
            .filter(|path| path.starts_with("etc/") && path.matches('/').count() == 2)
            .map(String::as_str)
            .collect();
        assert_eq!(below, ["etc/conf.d/a.cfg.lua", "etc/conf.d/gone", "etc/modules/mod_one"]);
    }

    #[test]
    fn a_file_that_was_emptied_has_changed() {
        let directory = TestDir::new();
        for file in ["hosts", "conf.d/a.cfg.lua"] {
            directory.write(file, "a.example");
            let path = directory.path().join(file);
            let variables = [("PROSODY_VIRTUAL_HOSTS_FILE", directory.path().join("hosts"))];
            let variables = variables.map(|(name, path)| (name.into(), path.into()));
            let (settings, _) = Settings::read(variables);
            let none = PathBuf::from("/none");
            let config_dir = directory.path().to_owned();
            let places = Places { config_dir, data_dir: none.clone(), runtime_dir: none };
            let changed = fs::metadata(&path).unwrap();
            let changed = UNIX_EPOCH + Duration::new(changed.ctime() as u64, changed.ctime_nsec() as u32);
            let later = changed + Duration::from_nanos(1);
            assert!(has_changed_since(changed, &settings, &places), "{file}");
            assert!(!has_changed_since(later, &settings, &places), "{file}");
            let _open = loop {
                // The clock of files has steps.
                let open = fs::File::create(&path).unwrap();
                directory.write(file, "a.example");
                if has_changed_since(later, &settings, &places) {
                    break open;
                }
            };
        }
    }

    #[test]
    fn each_setting_enables_its_own_watch() {
        let directory = TestDir::new();
        let places = Places {
            config_dir: directory.path().to_owned(),
            data_dir: "/none".into(),
            runtime_dir: "/none".into(),
        };
        let watch = Watch::new().unwrap();
        watch.pause();
        let scanned = |configuration: &str, certificates: &str| {
            let variables =
                [("PROSODY_CONFIG_RELOAD", configuration), ("PROSODY_CERTIFICATE_RELOAD", certificates)];
            let (settings, _) = Settings::example(&variables);
            let scanned = scan(&watch, &settings, &places, false);
            let refused = start(&Err(nix::errno::Errno::EMFILE), &settings, &places, false).0;
            assert_eq!(refused.len(), usize::from(scanned.is_some()));
            scanned.map(|(watched, certificates)| {
                watch.discard();
                directory.write("conf.d/a.cfg.lua", "");
                std::fs::remove_dir_all(directory.path().join("conf.d")).unwrap();
                let is_relevant =
                    watch.settle(&watched, std::time::Duration::ZERO, std::time::Duration::ZERO);
                (is_relevant, certificates.is_some())
            })
        };
        assert_eq!(scanned("", ""), Some((false, true)));
        assert_eq!(scanned("true", ""), Some((true, true)));
        assert_eq!(scanned("true", "false"), Some((true, false)));
        assert_eq!(scanned("treu", "false"), Some((true, false)));
        assert_eq!(scanned("false", "false"), None);
    }
}
