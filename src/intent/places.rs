//! Checks of the directories in the settings.

use std::path::Path;

use crate::facts::Facts;
use crate::layout::DEFAULT_CERTIFICATES;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::Field;

/// Directories of the system. They must not belong to Prosody.
const SYSTEM: [&str; 16] = [
    "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run",
    "/sys", "/tmp", "/usr", "/var",
];

/// Reports unsuitable directories. Those for configuration, runtime and data must differ, because their owners differ.
pub fn check(settings: &Settings, facts: &Facts, report: &mut Report) {
    let places = [
        (Field::data_dir, &facts.data_dir),
        (Field::runtime_dir, &facts.runtime_dir),
        (Field::config_dir, &facts.config_dir),
    ];
    for (field, path) in &places[..2] {
        if SYSTEM.iter().any(|system| Path::new(system) == path.as_path()) {
            let why = advice!("{} is the system's: name a directory below it", path.display());
            report.error(SettingError::new(&settings.variable(*field), &why));
        }
    }
    let tls = &settings.tls;
    let imported = tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let imported = imported.map(|path| (Field::import_certificate_directories, path));
    for (field, path) in tls.certificates.iter().map(|path| (Field::certificates, path)).chain(imported) {
        let path: &Path = path.as_ref();
        // A change anywhere in it is looked at, so a place with data of Prosody's would be looked at all the time.
        let why = match () {
            () if path.starts_with(&facts.runtime_dir) || facts.runtime_dir.starts_with(path) => {
                advice!("has the copies that are served in it: name another directory")
            }
            () if facts.data_dir.starts_with(path) => advice!(
                "has Prosody's data in it, which change all the time: name a directory for certificates alone, such as {}",
                facts.data_dir.join(DEFAULT_CERTIFICATES).display()
            ),
            () => continue,
        };
        let why = format!("{} {why}", path.display());
        report.error(SettingError::new(&settings.variable(field), &why));
    }
    for (index, (field, path)) in places.iter().enumerate() {
        for (other_field, other) in &places[..index] {
            if path == other || (*other_field == Field::runtime_dir && path.starts_with(other)) {
                let why = format!(
                    "{} is the directory of {} too: each needs one of its own",
                    path.display(),
                    settings.variable(*other_field)
                );
                report.error(SettingError::new(&settings.variable(*field), &why));
            }
        }
    }
}
