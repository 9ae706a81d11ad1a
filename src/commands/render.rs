//! Shows or writes the plan, and starts nothing.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;

use crate::apply;
use crate::cli::Render;
use crate::configure::{
    PlanRequest, gone, log_report, make_plan, read_settings, served_certificates, written,
};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::{Places, current_generation};
use crate::lua::{self, Secrets};
use crate::os::trusted_file;
use crate::plan::Plan;
use crate::reload::preview::{Preview, preview};
use crate::text::several;

/// Shows or writes the plan. Returns 1 if `--diff` finds a difference.
pub fn run(options: &Render) -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings();
    let places = if options.diff { Places::of_running(&settings) } else { Places::find(&settings) };
    if let Some(main_file) = places.custom_main_file() {
        tracing::warn!("{} is the configuration: nothing is rendered", main_file.display());
        return Ok(ExitStatus::SUCCESS);
    }
    let shows = options.dry_run || options.diff || options.json;
    let output = options.output.as_deref().map(std::path::absolute).transpose();
    let output = output.context("finding the current directory").status(ExitStatus::CANNOT_WRITE)?;
    let generation = match &output {
        Some(directory) => Some(directory.clone()),
        None if options.diff => current_generation(&places.runtime_dir).ok(),
        None => None,
    };
    // `--diff` compares secrets, but shows placeholders.
    let secrets = if shows && !options.diff { Secrets::Hidden } else { Secrets::Written };
    let request = PlanRequest {
        secrets,
        generation,
        prepares_data_dir: !shows && output.is_none(),
        served_certificates: served_certificates(&places),
        ..PlanRequest::default()
    };
    let (facts, plan, report) = make_plan(&settings, places.clone(), report, &request, None)?;
    log_report(&report);

    if options.json {
        let text =
            serde_json::to_string_pretty(&plan).context("writing JSON").status(ExitStatus::OS_ERROR)?;
        print(&format!("{text}\n"))?;
    } else if options.dry_run {
        print(&listing(&plan))?;
    } else if options.diff {
        let differences = differences(&plan);
        // Another directory is no server's.
        let preview = output.is_none().then(|| preview(&settings, &places));
        let effect = preview.map_or_else(String::new, |preview| effect(&preview, differences.is_empty()));
        let text = differences + &effect;
        print(&text)?;
        return Ok(if text.is_empty() { ExitStatus::SUCCESS } else { ExitStatus::exited(1) });
    } else if let Some(directory) = output {
        apply::write_to(&directory, &plan)?;
    } else {
        apply::apply(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity)?;
        print(&format!("{}\n", plan.main_file().display()))?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Every file with its content, every link with its target.
fn listing(plan: &Plan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        // Writing to a string does not fail.
        let _ = writeln!(text, "==> {} <==\n{}", plan.generation.join(&file.path).display(), file.content);
    }
    for link in &plan.links {
        let _ = writeln!(text, "{} -> {}", plan.generation.join(&link.path).display(), link.target.display());
    }
    for import in &plan.imports {
        let (path, pair) = (plan.generation.join(&import.path), &import.pair);
        let _ =
            writeln!(text, "{} <- {}, {}", path.display(), pair.certificate.display(), pair.key.display());
    }
    for certificate in &plan.self_signed {
        let _ = writeln!(text, "a self-signed certificate for {}", certificate.names.join(", "));
    }
    text
}

/// A unified diff of each file that differs from the one in its place, without secrets.
fn differences(plan: &Plan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let path = plan.generation.join(&file.path);
        let old = trusted_file::text(&path).unwrap_or_default();
        if old == file.content {
            continue;
        }
        let (old, new) = (lua::hide_secrets(&old), lua::hide_secrets(&file.content));
        let name = path.display().to_string();
        if old == new {
            let _ = writeln!(text, "--- {name}\n+++ {name}\nA secret in it differs.");
        } else {
            let diff = similar::TextDiff::from_lines(&old, &new);
            let _ = write!(text, "{}", diff.unified_diff().header(&name, &name));
        }
    }
    for import in &plan.imports {
        let path = plan.generation.join(&import.path);
        if trusted_file::text(&path).ok().as_deref() != Some(&*import.pair.pem) {
            let _ = writeln!(text, "{} differs: {}", path.display(), import.pair.certificate.display());
        }
    }
    // Files that the plan lacks.
    let (files, _) = written(&plan.generation).unwrap_or_default();
    for name in gone(&files, plan) {
        let _ = writeln!(text, "Only in {}: {}", plan.generation.display(), name.display());
    }
    text
}

/// What differences mean for the running server, in a line each.
fn effect(preview: &Preview, is_same: bool) -> String {
    let (would_be, is) = match preview {
        Preview::NotKnown(_) if is_same => return String::new(),
        Preview::NotKnown(reason) => return format!("Live at a reload: not known, {reason}\n"),
        Preview::Refused(reason) => return format!("Refused by a reload: {reason}\n"),
        Preview::Known { would_be, is } => (would_be, is),
    };
    let mut text = String::new();
    for failed in &is.failed {
        // Writing to a string does not fail.
        let _ = writeln!(text, "Not as configured: {failed}");
    }
    let others = if would_be.restart.is_empty() { "everything" } else { "everything else" };
    let done =
        if would_be.done.is_empty() { String::new() } else { format!(" ({})", would_be.done.join("; ")) };
    if !is_same || !done.is_empty() {
        let _ = writeln!(text, "Live at a reload: {others}{done}");
    }
    for failed in &would_be.failed {
        let _ = writeln!(text, "Not live: {failed}");
    }
    if !would_be.restart.is_empty() {
        let _ = writeln!(text, "Live at a restart: {}", several(&would_be.restart));
    }
    text
}

/// Writes to standard output. A closed pipe is not a failure.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output").status(ExitStatus::CANNOT_WRITE)
        }
        _ => Ok(()),
    }
}
