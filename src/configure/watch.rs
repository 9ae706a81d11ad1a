//! Watching certificates while a server runs.

use std::path::Path;

use time::OffsetDateTime;

use crate::facts::Places;
use crate::intent::certificates::{SearchPlace, sources};
use crate::layout::DEFAULT_CERTIFICATES;
use crate::os::watch::{self, Watch, Watched};
use crate::settings::Settings;
use crate::survey::certificates::{ScannedCertificates, scan_and_show};

/// Watches and scans the certificates. With a custom main file, these are the ones that Prosody finds itself. `None` if
/// the settings disable the watch.
pub fn scan(
    watch: &Watch,
    settings: &Settings,
    places: &Places,
    has_custom_main_file: bool,
) -> Option<(Watched, ScannedCertificates)> {
    if !is_reload_enabled(settings) {
        return None;
    }
    let sources = match has_custom_main_file {
        true => vec![SearchPlace { path: places.config_dir.join(DEFAULT_CERTIFICATES), only: None }],
        false => sources(settings, &places.config_dir),
    };
    let mut found = None;
    let watched = watch.add(|show: &mut dyn FnMut(&Path)| {
        found = Some(scan_and_show(&sources, OffsetDateTime::now_utc(), show));
    });
    Some((watched, found?))
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
            Some((watched, certificates)) => (watched.problems, Some(certificates)),
            None => (Vec::new(), None),
        },
        Err(error) if is_reload_enabled(settings) => (vec![watch::refused(*error)], None),
        Err(_) => (Vec::new(), None),
    }
}

fn is_reload_enabled(settings: &Settings) -> bool {
    settings.tls.certificate_reload.is_none_or(|on| on.0)
}
