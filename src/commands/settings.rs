//! `settings`: the catalogue of settings, their effective values, and what features stand for.

use super::render::print;
use crate::cli::{Format, Settings as Options};
use crate::configure::read_settings;
use crate::exit_status::{ExitStatus, Failure};
use crate::settings::{features, reference};

/// Prints the catalogue, the effective values or the features.
/// Errors: 78 if effective values are requested and a setting is invalid.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    if options.effective {
        let (settings, report) = read_settings();
        print(&reference::effective(&settings))?;
        crate::configure::log_report(&report);
        crate::configure::refuse(&settings, report)?;
        return Ok(ExitStatus::SUCCESS);
    }
    if options.features {
        print(&if options.json { features::json() } else { features::table() })?;
        return Ok(ExitStatus::SUCCESS);
    }
    print(&match options.format {
        Format::Table => reference::table(),
        Format::Markdown => reference::markdown(),
        Format::JsonSchema => reference::json_schema(),
        Format::Env => reference::env_file(),
    })?;
    Ok(ExitStatus::SUCCESS)
}
