//! Certificates that are watched while a server runs.

use std::path::Path;

use time::OffsetDateTime;

use crate::facts::Places;
use crate::intent::certificates::{SearchPlace, sources};
use crate::layout::DEFAULT_CERTIFICATES;
use crate::os::watch::{self, Watch, Watched};
use crate::settings::Settings;
use crate::survey::certificates::{ScannedCertificates, scan_and_show};

/// What was found of certificates while they are watched.
pub struct WatchedCertificates {
    /// What is watched.
    pub watched: Watched,
    /// What was found.
    pub certificates: ScannedCertificates,
}

/// Has the certificates watched and looks at them, with `own_configuration` where Prosody looks for them by itself. `None`
/// where they are not to be watched.
pub fn scan(
    watch: &Watch,
    settings: &Settings,
    places: &Places,
    own_configuration: bool,
) -> Option<WatchedCertificates> {
    if !is_reloading(settings) {
        return None;
    }
    let sources = match own_configuration {
        true => vec![SearchPlace { path: places.config_dir.join(DEFAULT_CERTIFICATES), only: None }],
        false => sources(settings, &places.config_dir),
    };
    let mut found = None;
    let watched = watch.add(|show: &mut dyn FnMut(&Path)| {
        found = Some(scan_and_show(&sources, OffsetDateTime::now_utc(), show));
    });
    Some(WatchedCertificates { watched, certificates: found? })
}

/// Has certificates watched. Returns what is not, a sentence each, for the server does without; and what was found.
pub fn start(
    watch: &nix::Result<Watch>,
    settings: &Settings,
    places: &Places,
    own_configuration: bool,
) -> (Vec<String>, Option<ScannedCertificates>) {
    match watch {
        Ok(watch) => match scan(watch, settings, places, own_configuration) {
            Some(looked) => (looked.watched.problems, Some(looked.certificates)),
            None => (Vec::new(), None),
        },
        Err(error) if is_reloading(settings) => (vec![watch::refused(*error)], None),
        Err(_) => (Vec::new(), None),
    }
}

/// Whether certificates that change are to be served without anybody's doing.
fn is_reloading(settings: &Settings) -> bool {
    settings.tls.certificate_reload.is_none_or(|on| on.0)
}
