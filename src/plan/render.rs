//! The text of every file: templates, ours and the user's, with the values of one plan.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use minijinja::Value;

use super::File;
use super::hosts::{self, Component, Hosts, Options};
use crate::facts::Facts;
use crate::facts::custom_files::UserFile;
use crate::layout::MAIN_FILE;
use crate::lua::{self, Dialect, Secrets};
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::templates::Templates;

/// Our templates, compiled in. A file of the same name in the templates directory replaces one.
const TEMPLATES: [(&str, &str); 6] = [
    ("prosody.cfg.lua.j2", include_str!("../../templates/prosody.cfg.lua.j2")),
    ("global.cfg.lua.j2", include_str!("../../templates/global.cfg.lua.j2")),
    ("modules.cfg.lua.j2", include_str!("../../templates/modules.cfg.lua.j2")),
    ("storage.cfg.lua.j2", include_str!("../../templates/storage.cfg.lua.j2")),
    ("vhosts.cfg.lua.j2", include_str!("../../templates/vhosts.cfg.lua.j2")),
    ("components.cfg.lua.j2", include_str!("../../templates/components.cfg.lua.j2")),
];

/// Renders templates with the values of one plan.
pub struct Renderer<'a> {
    templates: Templates,
    context: Value,
    facts: &'a Facts,
    /// Templates with a mistake in their syntax, which is in the report.
    broken: Vec<String>,
}

impl<'a> Renderer<'a> {
    /// Takes what templates are given, and compiles them. A mistake in one is added to the report.
    pub fn new(
        settings: &Settings,
        facts: &'a Facts,
        hosts: &Hosts,
        certificates: &BTreeMap<&str, PathBuf>,
        options: &Options,
        secrets: Secrets,
        report: &mut Report,
    ) -> Self {
        // What PROSODY_OPTIONS says may be a secret. Of it, templates are given that apart which they do not mention.
        let written =
            |name: &str| settings.anything.options.as_ref().is_some_and(|all| all.get(name).is_some());
        let (mut mentioned, mut other_options) = (Options::new(), Options::new());
        let value = |value: &Value| lua::refer(value, &facts.secret_files);
        for (name, option) in options {
            match written(name) {
                true if is_mentioned(name) => drop(mentioned.insert(name.clone(), lua::hidden(option))),
                true => drop(other_options.insert(name.clone(), lua::hidden(option))),
                false => drop(mentioned.insert(name.clone(), value(option))),
            }
        }
        let virtual_hosts: Vec<Value> = hosts
            .virtual_hosts
            .iter()
            .map(|host| section(&host.name, None, &host.options, host.names_certificate, certificates, facts))
            .collect();
        let components: Vec<Value> = hosts
            .components
            .iter()
            .map(|component| {
                let Component { name, options, names_certificate, .. } = component;
                section(name, Some(component), options, *names_certificate, certificates, facts)
            })
            .collect();
        let context = lua::table([
            ("options", lua::table(mentioned)),
            ("other_options", hosts::pairs(&other_options)),
            ("virtual_hosts", Value::from(virtual_hosts)),
            ("components", Value::from(components)),
            ("prosody_version", Value::from(facts.prosody.version.to_string())),
            ("config_dir", Value::from(facts.config_dir.to_string_lossy().into_owned())),
            ("data_dir", Value::from(facts.data_dir.to_string_lossy().into_owned())),
        ]);
        let mut templates = Templates::new(Dialect { version: facts.prosody.dialect(), secrets });
        let own = &facts.user_files.templates;
        for (name, text) in TEMPLATES {
            if !own.iter().any(|template| template.path.file_name() == Some(OsStr::new(name))) {
                if let Err(error) = templates.add(name, text) {
                    report.mistake(Mistake::about(&error.to_string()));
                }
            }
        }
        let mut broken = Vec::new();
        for template in own {
            let name = template.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = template.template.clone().unwrap_or_default();
            if let Err(error) = templates.add_file(name.clone(), &template.path, text) {
                report.mistake(Mistake::about(&error.to_string()));
                broken.push(name);
            }
        }
        Self { templates, context, facts, broken }
    }

    /// A fragment's text, unless it would be empty but for comments.
    pub fn fragment(&self, name: &str, report: &mut Report) -> Option<String> {
        let text = self.render(&format!("{name}.j2"), self.context.clone(), report)?;
        let is_comment = |line: &str| line.is_empty() || (line.starts_with("--") && !line.starts_with("--["));
        let is_empty = text.lines().map(str::trim).all(is_comment);
        (!is_empty).then_some(text)
    }

    /// The main file's text, which includes these files.
    pub fn main(&self, includes: &[PathBuf], report: &mut Report) -> Option<String> {
        let includes: Vec<String> = includes.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let context = minijinja::context! { includes, ..self.context.clone() };
        self.render(&format!("{MAIN_FILE}.j2"), context, report)
    }

    /// The user's files as they are, and the user's templates rendered.
    pub fn user_files(
        &self,
        own: &[UserFile],
        generation: &Path,
        files: &mut Vec<File>,
        includes: &mut Vec<PathBuf>,
        report: &mut Report,
    ) {
        for file in own {
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
                        report.mistake(Mistake::about(&why));
                    }
                    includes.push(generation.join(&path));
                    files.push(File { path, content, source: Some(file.path.clone()) });
                }
                Err(error) => report.mistake(Mistake::about(&error.to_string())),
            }
        }
    }

    fn render(&self, name: &str, context: Value, report: &mut Report) -> Option<String> {
        if self.broken.iter().any(|broken| broken == name) {
            return None;
        }
        self.templates
            .render(name, context)
            .map_err(|error| report.mistake(Mistake::about(&error.to_string())))
            .ok()
    }
}

/// Where a rendered `conf.d/x.cfg.lua.j2` stands: beside the main file, so that relative paths in it mean the
/// configuration directory, and under a name that no fragment of ours has.
fn rendered_name(path: &Path, config_dir: &Path) -> PathBuf {
    let relative = path.strip_prefix(config_dir).unwrap_or(path).to_string_lossy();
    let flat = relative.trim_start_matches('/').replace('/', "--");
    format!("own--{}", flat.strip_suffix(".j2").unwrap_or(&flat)).into()
}

/// A host's or component's section, for templates.
fn section(
    name: &str,
    component: Option<&Component>,
    options: &Options,
    names_certificate: bool,
    certificates: &BTreeMap<&str, PathBuf>,
    facts: &Facts,
) -> Value {
    let mut options = options.clone();
    if !facts.secret_files.is_empty() {
        options.values_mut().for_each(|value| *value = lua::refer(value, &facts.secret_files));
    }
    let certificate = certificates.get(name).filter(|_| !names_certificate);
    if let Some(path) = certificate {
        options.insert("certificate".into(), Value::from(path.to_string_lossy().into_owned()));
    }
    let options = hosts::pairs(&options);
    let module = component.map(|component| component.module.as_deref().map_or(Value::from(()), Value::from));
    let mut section = vec![("name", Value::from(name)), ("options", options)];
    section.extend(module.map(|module| ("module", module)));
    lua::table(section)
}

/// Whether a built-in template has a place for an option.
fn is_mentioned(option: &str) -> bool {
    let quoted = format!("\"{option}\"");
    TEMPLATES.iter().any(|(_, text)| text.contains(&quoted))
}
