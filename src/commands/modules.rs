//! Lists the modules that a start would load, and searches the collection.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::render::print;
use crate::cli::Modules as Options;
use crate::configure::{PlanRequest, log_report, make_plan, read_settings_to_show, wrong};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::{Facts, Places};
use crate::intent::modules::Role;
use crate::lua::Secrets;
use crate::os::privileges;
use crate::plan::modules::{Module, unusable_reasons};
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::survey::modules::closure::Findings;
use crate::survey::modules::{ModuleOrigin, Modules, readme};
use crate::text::{cut, nearest_few, several};

/// The widest cell that widens its column. A wider cell only shifts the rest of its own line.
const WIDEST: usize = 44;

/// The number of characters of a summary in a line.
const LONGEST_SUMMARY: usize = 80;

/// The number of shown settings that request one module.
const SHOWN: usize = 3;

/// Lists or searches modules. Returns 1 if a search finds nothing.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings_to_show();
    let places = Places::find(&settings);
    match &options.search {
        Some(word) => search(&settings, places, report, word, options.json),
        None => list(&settings, places, report, options.json),
    }
}

/// Lists the modules that a start would load.
fn list(settings: &Settings, places: Places, report: Report, as_json: bool) -> Result<ExitStatus, Failure> {
    if let Some(main_file) = places.custom_main_file() {
        tracing::warn!("{} is the configuration: which modules it loads is not known", main_file.display());
        return Ok(ExitStatus::SUCCESS);
    }
    let request = PlanRequest { secrets: Secrets::Hidden, whole: true, ..PlanRequest::default() };
    let (_, plan, report) = make_plan(settings, places, report, &request, None)?;
    log_report(&report);
    let mut modules: Vec<&Module> = plan.modules.iter().collect();
    modules.sort_by(|one, other| one.name.cmp(&other.name));
    if as_json {
        print_json(modules.into_iter().map(as_object).collect())?;
    } else {
        print(&table(&["MODULE", "FROM", "WHY", "NEEDS"], modules.into_iter().map(as_row).collect()))?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn origin(module: &Module) -> Option<&'static str> {
    module.file.as_ref().map(|file| file.origin.name())
}

fn as_row(module: &Module) -> Vec<String> {
    // A question mark means: only under some conditions.
    let name = |name: &str, is_conditional| format!("{name}{}", if is_conditional { "?" } else { "" });
    let mut why: Vec<String> = module.requests.iter().take(SHOWN).map(ToString::to_string).collect();
    if let more @ 1.. = module.requests.len() - why.len() {
        why.push(format!("and {more} more"));
    }
    let dependents = module.needed_by.iter().map(|(module, is_conditional)| name(module, *is_conditional));
    if dependents.len() > 0 {
        why.push(format!("needed by {}", several(dependents)));
    }
    let needs = several(module.needs.iter().map(|need| name(&need.name, need.is_conditional)));
    vec![module.name.clone(), origin(module).unwrap_or("missing").to_owned(), why.join("; "), needs]
}

fn as_object(module: &Module) -> Value {
    let requests = module.requests.iter().map(|request| {
        let (kind, host) = match &request.role {
            Role::Enabled => ("enabled", None),
            Role::EnabledOn(host) => ("enabled", Some(host)),
            Role::Available => ("available", None),
            Role::Component(host) => ("component", Some(host)),
            Role::Authentication => ("authentication", None),
            Role::Authorization => ("authorization", None),
            Role::Storage => ("storage", None),
        };
        object(json!({"kind": kind, "by": request.by, "host": host}))
    });
    let needed = module
        .needed_by
        .iter()
        .map(|(by, is_conditional)| json!({"kind": "needed", "by": by, "conditional": is_conditional}));
    let needs =
        module.needs.iter().map(|need| json!({"name": need.name, "conditional": need.is_conditional}));
    object(json!({
        "name": module.name,
        "from": origin(module),
        "path": module.file.as_ref().map(|file| file.path.to_string_lossy()),
        "needs": needs.collect::<Value>(),
        "reasons": requests.chain(needed).collect::<Value>(),
    }))
}

/// A module of the collection.
struct Entry {
    name: String,
    summary: String,
    /// Its origin if it is enabled, which may not be the collection. `None` if a start would refuse it.
    origin: Option<ModuleOrigin>,
    /// The reason why a start would refuse it, or why another origin is used.
    problem: Option<String>,
    path: String,
}

/// Searches the collection. Errors in settings do not matter, except in the collection's path.
fn search(
    settings: &Settings,
    places: Places,
    mut report: Report,
    word: &str,
    as_json: bool,
) -> Result<ExitStatus, Failure> {
    let setting = |variable: &str| variable.strip_suffix("_FILE").unwrap_or(variable).to_owned();
    let variable = settings.variable(Field::community_modules_dir);
    report.retain(|name| setting(name) == setting(&variable));
    if let Some(mistake) = report.errors().first() {
        return Err(wrong(mistake.clone()));
    }
    let facts = Facts::gather(settings, places, None)?;
    let words = words(word);
    // As Prosody's user, because its links must not give access to other users' files.
    let (problems, hits, others, hint) = privileges::as_user(&facts.identity, || {
        let modules = Modules::of(&facts, false);
        let found = modules.collection();
        let findings = Findings::follow(&modules, found.keys().cloned().collect(), &facts.identity);
        let entries = found.into_iter().map(|(name, path)| Entry::new(name, &path, &findings, &facts));
        let is_hit = |entry: &Entry| words.iter().all(|word| entry.text().contains(word));
        let (hits, others): (Vec<Entry>, Vec<Entry>) = entries.partition(is_hit);
        let hint = if hits.is_empty() { hint(&words, &others, &modules) } else { String::new() };
        (findings.problems, hits, others, hint)
    })?;
    problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    if as_json {
        print_json(hits.iter().map(Entry::as_object).collect())?;
    } else if !hits.is_empty() {
        print(&table(&["MODULE", "FROM", "SUMMARY"], hits.iter().map(Entry::as_row).collect()))?;
    }
    if !hits.is_empty() {
        return Ok(ExitStatus::SUCCESS);
    }
    let folder = facts.collection.display();
    let why = match &others[..] {
        [] => format!("there are no modules in {folder}: {variable} says where they are"),
        _ => format!("no module in {folder} has it in its name or summary{hint}"),
    };
    // Shown like an invalid value: without control characters, and truncated.
    let mistake = SettingError::new("--search", &why).with_value(word);
    Err(ExitStatus::exited(1).failure(mistake))
}

/// The words of a search, without the prefix `mod_`. A module must match all of them.
fn words(text: &str) -> Vec<String> {
    let words = text.split_whitespace().map(str::to_lowercase);
    words.map(|word| word.strip_prefix("mod_").unwrap_or(&word).to_owned()).collect()
}

impl Entry {
    fn new(name: String, path: &Path, findings: &Findings, facts: &Facts) -> Self {
        let found = findings.module(&name).map(|module| module.found.clone()).unwrap_or_default();
        let refused = unusable_reasons(&name, findings, &facts.prosody.version);
        let origin = found.file.filter(|_| refused.is_empty()).map(|file| file.origin);
        // The reasons against the files that were tried say more than that there is none.
        let tried = found.problem.map(|problem| problem.what).into_iter().chain(found.skipped);
        let tried: Vec<String> = tried.collect();
        let problems = if tried.is_empty() { refused } else { tried };
        Self {
            summary: readme::summary(path),
            origin,
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
            path: path.to_string_lossy().into_owned(),
            name,
        }
    }

    fn text(&self) -> String {
        format!("{} {}", self.name, self.summary).to_lowercase()
    }

    fn as_row(&self) -> Vec<String> {
        let mut summary = cut(&self.summary, LONGEST_SUMMARY);
        if let Some(problem) = &self.problem {
            summary.push_str(&format!(" ({problem})"));
        }
        vec![self.name.clone(), self.origin.map_or("unusable", ModuleOrigin::name).to_owned(), summary]
    }

    fn as_object(&self) -> Value {
        object(json!({
            "name": self.name,
            "summary": self.summary,
            "from": self.origin.map(ModuleOrigin::name),
            "problem": self.problem,
            "path": self.path,
        }))
    }
}

/// Suggests matching modules outside the collection, or else names near to the words.
fn hint(words: &[String], entries: &[Entry], modules: &Modules) -> String {
    let names = &modules.names();
    let elsewhere = names.iter().filter(|name| words.iter().all(|word| name.contains(word)));
    let elsewhere: Vec<String> = elsewhere
        .filter_map(|name| Some(format!("{name} ({})", modules.find(name).file.as_ref()?.origin.name())))
        .collect();
    if !elsewhere.is_empty() {
        return format!(", but there is {}", several(&elsewhere));
    }
    let texts: Vec<String> = entries.iter().map(Entry::text).collect();
    let mut parts = BTreeSet::new();
    for text in &texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        parts.extend(words.filter(|word| word.len() > 2));
    }
    let near = nearest_few(&words.join(" "), names.iter().map(String::as_str).chain(parts.iter().copied()));
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// The object without members that have no value.
fn object(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.retain(|_, value| !value.is_null());
    }
    object
}

fn print_json(objects: Vec<Value>) -> Result<(), Failure> {
    print(&format!("{:#}\n", Value::Array(objects)))
}

/// Formats columns for a terminal, without trailing spaces.
fn table(heading: &[&str], mut rows: Vec<Vec<String>>) -> String {
    rows.insert(0, heading.iter().map(|&cell| cell.to_owned()).collect());
    let mut widths = vec![0; heading.len()];
    for row in &rows {
        for (cell, widest) in row.iter().zip(&mut widths) {
            let width = cell.chars().count();
            if width <= WIDEST {
                *widest = width.max(*widest);
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (cell, &width) in row.iter().zip(&widths) {
            // File names can contain control characters.
            text.push_str(&format!("{:width$}  ", cell.replace(char::is_control, "?")));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::modules::ModuleRequest;
    use crate::survey::modules::source::Need;

    #[test]
    fn long_lists_are_truncated_only_in_the_table() {
        let on = |host: usize| {
            ModuleRequest::new("x", "PROSODY_VIRTUAL_HOSTS", Role::EnabledOn(format!("{host}.example")))
        };
        let need = |number: usize| Need { name: format!("n{number}"), is_conditional: true, is_soft: false };
        let module = Module {
            name: "x".to_owned(),
            file: None,
            requests: (1..=5).map(on).collect(),
            needed_by: (1..=7).map(|user| (format!("m{user}"), user % 2 == 0)).collect(),
            needs: (1..=6).map(need).collect(),
        };
        let why = "PROSODY_VIRTUAL_HOSTS, on 1.example; PROSODY_VIRTUAL_HOSTS, on 2.example; \
                   PROSODY_VIRTUAL_HOSTS, on 3.example; and 2 more; needed by m1, m2?, m3, m4?, m5 and 2 more";
        assert_eq!(as_row(&module), ["x", "missing", why, "n1?, n2?, n3?, n4?, n5? and 1 more"]);

        let shown = as_object(&module);
        assert_eq!(shown["reasons"].as_array().map(Vec::len), Some(12));
        assert_eq!(shown["needs"].as_array().map(Vec::len), Some(6));
        assert_eq!(shown.get("from"), None);
    }

    #[test]
    fn a_table_has_columns_and_no_control_characters() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let wide = "w".repeat(WIDEST + 1);
        let rows = vec![
            row(["ü", "b\x1b[2J", ""]),
            row(["long", "", "d"]),
            row([&wide, "e", "f"]),
            row(["", "", ""]),
        ];
        assert_eq!(
            table(&["A", "B", "C"], rows),
            format!("A     B      C\nü     b?[2J\nlong         d\n{wide}  e      f\n\n")
        );
    }

    #[test]
    fn search_words_have_no_module_prefix() {
        assert_eq!(words("  mod_REST\tOAuth "), ["rest", "oauth"]);
        assert_eq!(words("mod_"), [""]);
        assert!(words(" ").is_empty());
    }
}
