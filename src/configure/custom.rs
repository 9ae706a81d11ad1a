//! The pipeline for a custom `prosody.cfg.lua`. It renders nothing, and reports errors in the file before the start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Ready, environment, lock, log_report, refuse, wrong};
use crate::exit_status::Failure;
use crate::facts::prosody::{self, Prosody};
use crate::facts::{self, Places, custom_files};
use crate::os::trusted_file;
use crate::os::users::User;
use crate::report::{Report, SettingError};
use crate::settings::catalogue::{Field, PREFIX};
use crate::settings::{Settings, catalogue};
use crate::text::reason;
use crate::{accounts, apply, intent};

/// Prepares the start with a custom main file. The program gets the whole environment.
/// Errors: those of [`check`] and [`lock::data_dir`]; 73 or 77 if the data directory is not usable.
pub fn configure(
    settings: &Settings,
    report: Report,
    places: Places,
    main_file: PathBuf,
    is_server: bool,
) -> Result<Ready, Failure> {
    let (report, user, prosody) = check(settings, report, &places, &main_file)?;
    apply::prepare_data_dir(&places.data_dir, &user)?;
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let data_lock = if is_server { lock::data_dir(&places.data_dir, &user, lock::WAIT)? } else { None };
    let data_locks = data_lock.into_iter().collect();
    if is_server {
        apply::refuse_half_moved(&places.data_dir, &user, None)?;
        apply::prepare_log_dir(&user);
        apply::prepare_pid_dir(&user)?;
        log_report(&report);
        apply::warn_about_data(&places.data_dir, &user)?;
        tracing::info!("The configuration is {}, untouched", main_file.display());
        let has_effect =
            |field: &Field| has_effect(*field) || [Field::accounts, Field::account].contains(field);
        let given = settings.source.given.iter().filter(|(field, _)| !has_effect(field));
        let given = given.map(|(_, given)| given.variable.as_str());
        // Variables without our prefix may be meant for another program, or for the custom main file.
        let without_effect: Vec<&str> = given.filter(|name| name.starts_with(PREFIX)).collect();
        if !without_effect.is_empty() {
            tracing::warn!("Ignored, because prosody.cfg.lua is in use: {}", without_effect.join(", "));
        }
        if let Some((accounts, prosody)) = intent::accounts::text(settings).zip(prosody.as_ref()) {
            let program = prosody::prosodyctl()?;
            let environment = environment::complete(variables.clone(), &main_file, &places.data_dir);
            accounts::make(&accounts, &program, prosody, &user, &environment);
        }
    }
    Ok(Ready {
        user,
        main_file,
        data_dir: places.data_dir,
        runtime_dir: places.runtime_dir,
        is_13: prosody.is_some_and(|prosody| prosody.is_13()),
        environment: variables,
        databases: Vec::new(),
        data_locks,
    })
}

/// Checks a custom main file, and the settings that have an effect beside it. Returns the remaining report, the user to
/// run Prosody as, and the installed Prosody, if any.
/// Errors: 78 if the file, a setting or Prosody's installation is wrong; 77 if Prosody cannot run as the chosen user.
pub fn check(
    settings: &Settings,
    mut report: Report,
    places: &Places,
    main_file: &Path,
) -> Result<(Report, User, Option<Prosody>), Failure> {
    check_main_file(main_file)?;
    if settings.is_given(Field::shards) {
        return Err(wrong(SettingError::new(
            &settings.variable(Field::shards),
            &advice!(
                "{} decides which hosts are served: remove the file, or this setting",
                main_file.display()
            ),
        )));
    }
    // Other variables have no effect here. The custom main file may read them.
    let without_file = |name: &str| name.strip_suffix("_FILE").unwrap_or(name).to_owned();
    let fields = catalogue::settings().map(|setting| setting.field);
    let fields = fields.filter(|field| has_effect(*field) || *field == Field::accounts);
    let mut names: Vec<String> = fields.map(|field| without_file(&settings.variable(field))).collect();
    names.extend(["LOCAL", "PASSWORD"].map(str::to_owned));
    names.extend(settings.is_given(Field::account).then(|| "DOMAIN".to_owned()));
    report.retain(|variable| names.contains(&without_file(variable)));
    let report = refuse(settings, report)?;
    // Without Prosody, the program reports the error.
    let prosody = prosody::find(std::env::var_os("PATH").as_deref()).ok();
    if let Some((prosody, missing)) =
        prosody.as_ref().and_then(|prosody| Some((prosody, prosody.hidden_module()?)))
    {
        return Err(wrong(SettingError::about(&intent::problems::hidden_modules(prosody, missing))));
    }
    let user = facts::identity(settings, &places.data_dir)?;
    let readable = facts::as_user(&user, &places.data_dir, || trusted_file::open(main_file))?;
    readable.map_err(|error| unreadable(main_file, &user, &error.into()))?;
    Ok((report, user, prosody))
}

/// Whether a setting has an effect beside a custom main file.
fn has_effect(field: Field) -> bool {
    field == Field::certificate_reload
        || catalogue::Entrypoint::SECTION.settings.iter().any(|setting| setting.field == field)
}

/// Refuses entries that are not regular files, and files with `${…}`, which is not Lua.
fn check_main_file(main_file: &Path) -> Result<(), Failure> {
    let why = match fs::metadata(main_file) {
        Ok(found) if found.is_file() => {
            if !custom_files::is_other_images_template(main_file) {
                return Ok(());
            }
            advice!(
                "it has `${{…}}` in it, which another image's start replaces and Lua does not know: remove the file \
                 and use settings, or write Lua"
            )
        }
        Ok(found) if found.is_dir() => advice!(
            "it is a directory, which Docker makes where the file to mount does not exist: correct the mount"
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            advice!("it is a link to nothing: correct or remove it")
        }
        _ => advice!("it is no regular file: correct or remove it"),
    };
    Err(wrong(SettingError::about(&format!("{}: {why}", main_file.display()))))
}

/// The error for a file that Prosody's user cannot read. Prosody would report it as missing.
fn unreadable(main_file: &Path, user: &User, error: &io::Error) -> Failure {
    let (why, User { uid, gid, .. }) = (reason(error), user);
    wrong(SettingError::about(&format!(
        "{}: Prosody's user (uid {uid}, gid {gid}) cannot read it ({why}): {}",
        main_file.display(),
        user.permission_to_read()
    )))
}
