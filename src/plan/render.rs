//! Renders built-in and custom templates with the values of one plan.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use minijinja::Value;

use super::File;
use crate::facts::Facts;
use crate::facts::custom_files::CustomFile;
use crate::intent::hosts::{Host, Options, ServedHosts, hide_texts};
use crate::layout::MAIN_FILE;
use crate::lua::{self, Dialect, Secrets};
use crate::report::{Report, SettingError};
use crate::settings::types;
use crate::templates::Templates;
use crate::templates::values::{LuaName, to_template};

/// The built-in templates. A custom template of the same name replaces one.
const TEMPLATES: [(&str, &str); 6] = [
    ("prosody.cfg.lua.j2", include_str!("../../templates/prosody.cfg.lua.j2")),
    ("global.cfg.lua.j2", include_str!("../../templates/global.cfg.lua.j2")),
    ("modules.cfg.lua.j2", include_str!("../../templates/modules.cfg.lua.j2")),
    ("storage.cfg.lua.j2", include_str!("../../templates/storage.cfg.lua.j2")),
    ("vhosts.cfg.lua.j2", include_str!("../../templates/vhosts.cfg.lua.j2")),
    ("components.cfg.lua.j2", include_str!("../../templates/components.cfg.lua.j2")),
];

/// The fragments, in the order of their includes.
const FRAGMENTS: [&str; 5] =
    ["global.cfg.lua", "modules.cfg.lua", "storage.cfg.lua", "vhosts.cfg.lua", "components.cfg.lua"];

/// Renders templates with the values of one plan.
pub struct Renderer<'a> {
    templates: Templates,
    context: Value,
    facts: &'a Facts,
    /// Templates with syntax errors, which are in the report.
    broken: Vec<String>,
}

impl<'a> Renderer<'a> {
    /// Collects the values for templates, and compiles the templates. Syntax errors go to the report.
    pub fn new(
        facts: &'a Facts,
        hosts: &ServedHosts,
        certificates: &BTreeMap<&str, PathBuf>,
        options: &Options,
        written: &types::CustomOptions,
        secrets: Secrets,
        report: &mut Report,
    ) -> Self {
        // Values in PROSODY_OPTIONS may be secrets. Options that no template mentions go to `other_options`.
        let secret_files: BTreeMap<&'static str, String> =
            facts.secret_files.iter().map(|(field, file)| (*field, file.path.clone())).collect();
        let (mut mentioned, mut other_options) = (Options::new(), Options::new());
        for (name, option) in options {
            match written.get(name).is_some() {
                true if is_mentioned(name) => drop(mentioned.insert(name.clone(), hide_texts(name, option))),
                true => drop(other_options.insert(name.clone(), hide_texts(name, option))),
                false => drop(mentioned.insert(name.clone(), option.with_file_references(&secret_files))),
            }
        }
        let section = |host: &Host, is_component| section(host, is_component, certificates, &secret_files);
        let virtual_hosts: Value = hosts.virtual_hosts.iter().map(|host| section(host, false)).collect();
        let components: Value = hosts.components.iter().map(|host| section(host, true)).collect();
        let context = Value::from_pairs([
            (
                "options",
                Value::from_pairs(mentioned.iter().map(|(name, value)| (name.as_str(), to_template(value)))),
            ),
            ("other_options", pairs(&other_options)),
            ("virtual_hosts", virtual_hosts),
            ("components", components),
            ("prosody_version", Value::from(facts.prosody.version.to_string())),
            ("config_dir", Value::from(facts.config_dir.to_string_lossy().into_owned())),
            ("data_dir", Value::from(facts.data_dir.to_string_lossy().into_owned())),
        ]);
        let mut templates =
            Templates::new(Dialect { version: facts.prosody.dialect(), secrets }, hosts.names().count());
        let custom_templates = &facts.custom_files.templates;
        for (name, text) in TEMPLATES {
            if !custom_templates.iter().any(|template| template.path.file_name() == Some(OsStr::new(name))) {
                if let Err(error) = templates.add(name, text) {
                    report.error(SettingError::about(&error.to_string()));
                }
            }
        }
        let mut broken = Vec::new();
        for template in custom_templates {
            let name = template.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = template.template.clone().unwrap_or_default();
            if let Err(error) = templates.add_file(name.clone(), &template.path, text) {
                report.error(SettingError::about(&error.to_string()));
                broken.push(name);
            }
        }
        Self { templates, context, facts, broken }
    }

    /// All rendered files. The main file is the last, after the files that it includes.
    pub fn all(&self, facts: &Facts, generation: &Path, report: &mut Report) -> Vec<File> {
        let mut files = Vec::new();
        let mut includes: Vec<PathBuf> = Vec::new();
        for fragment in FRAGMENTS {
            if let Some(content) = self.fragment(fragment, report) {
                files.push(File::new(fragment, content));
                includes.push(generation.join(fragment));
            }
            let custom = match fragment {
                "vhosts.cfg.lua" => &facts.custom_files.virtual_hosts,
                "components.cfg.lua" => &facts.custom_files.components,
                _ => continue,
            };
            self.custom_files(custom, generation, &mut files, &mut includes, report);
        }
        self.custom_files(&facts.custom_files.extra, generation, &mut files, &mut includes, report);
        if let Some(content) = self.main(&includes, report) {
            files.push(File::new(MAIN_FILE, content));
        }
        files
    }

    /// A fragment's text, unless it is empty except for comments.
    fn fragment(&self, name: &str, report: &mut Report) -> Option<String> {
        let text = self.render(&format!("{name}.j2"), self.context.clone(), report)?;
        let is_comment = |line: &str| line.is_empty() || (line.starts_with("--") && !line.starts_with("--["));
        let is_empty = text.lines().map(str::trim).all(is_comment);
        (!is_empty).then_some(text)
    }

    /// The main file's text, with these includes.
    fn main(&self, includes: &[PathBuf], report: &mut Report) -> Option<String> {
        let includes: Vec<String> = includes.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let context = minijinja::context! { includes, ..self.context.clone() };
        self.render(&format!("{MAIN_FILE}.j2"), context, report)
    }

    /// Includes custom files: Lua as it is, templates after rendering.
    fn custom_files(
        &self,
        custom: &[CustomFile],
        generation: &Path,
        files: &mut Vec<File>,
        includes: &mut Vec<PathBuf>,
        report: &mut Report,
    ) {
        for file in custom {
            let Some(template) = &file.template else {
                includes.push(file.path.clone());
                continue;
            };
            match self.templates.render_text(&file.path, template, self.context.clone()) {
                Ok(content) => {
                    let path = rendered_name(&file.path, &self.facts.config_dir);
                    if files.iter().any(|other| other.path == path) {
                        let name = path.display();
                        let why = format!(
                            "{source}: another template is rendered as {name} already: rename it",
                            source = file.path.display()
                        );
                        report.error(SettingError::about(&why));
                    }
                    includes.push(generation.join(&path));
                    files.push(File { path, content, source: Some(file.path.clone()) });
                }
                Err(error) => report.error(SettingError::about(&error.to_string())),
            }
        }
    }

    fn render(&self, name: &str, context: Value, report: &mut Report) -> Option<String> {
        if self.broken.iter().any(|broken| broken == name) {
            return None;
        }
        self.templates
            .render(name, context)
            .map_err(|error| report.error(SettingError::about(&error.to_string())))
            .ok()
    }
}

/// The path of a rendered `conf.d/x.cfg.lua.j2`: beside the main file, because Prosody resolves relative paths there,
/// with a name that differs from all fragments.
fn rendered_name(path: &Path, config_dir: &Path) -> PathBuf {
    let relative = path.strip_prefix(config_dir).unwrap_or(path).to_string_lossy();
    let flat = relative.trim_start_matches('/').replace('/', "--");
    format!("own--{}", flat.strip_suffix(".j2").unwrap_or(&flat)).into()
}

/// The section of a host or component, as a value for templates.
fn section(
    host: &Host,
    is_component: bool,
    certificates: &BTreeMap<&str, PathBuf>,
    secret_files: &BTreeMap<&'static str, String>,
) -> Value {
    let name = host.name.as_str();
    let mut options = host.options.clone();
    if !secret_files.is_empty() {
        options.values_mut().for_each(|value| *value = value.with_file_references(secret_files));
    }
    if let Some(path) = certificates.get(name).filter(|_| !host.names_certificate) {
        options.insert("certificate".into(), lua::Value::from(path.to_string_lossy().into_owned()));
    }
    let mut section = vec![("name", Value::from(name)), ("options", pairs(&options))];
    if is_component {
        section.push(("module", host.module.as_deref().map_or(Value::from(()), Value::from)));
    }
    Value::from_pairs(section)
}

fn is_mentioned(option: &str) -> bool {
    let quoted = format!("\"{option}\"");
    TEMPLATES.iter().any(|(_, text)| text.contains(&quoted))
}

/// Options as pairs of name and value, for templates.
fn pairs(options: &Options) -> Value {
    // Option names are checked on input, so that no invalid identifier gets here.
    let pair =
        |(name, value): (&String, &lua::Value)| Some([LuaName::new(name)?.into_value(), to_template(value)]);
    options.iter().filter_map(pair).map(Value::from_iter).collect()
}
