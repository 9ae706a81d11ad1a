//! Renders built-in and custom templates with the values of one plan.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use minijinja::Value;

use super::File;
use crate::facts::Facts;
use crate::facts::custom_files::CustomFile;
use crate::intent::hosts::{Host, Options, ServedHosts, hide_texts};
use crate::layout::{LIVE_SCRIPT, MAIN_FILE};
use crate::lua::{self, Dialect, Secrets};
use crate::report::{Report, SettingError};
use crate::settings::types;
use crate::templates::Templates;
use crate::templates::values::{lua_name, to_template};

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

/// Renders templates with the values of one plan. Errors go to the report.
pub struct Renderer<'a> {
    facts: &'a Facts,
    templates: Templates,
    context: Value,
    /// Templates with syntax errors, which are in the report.
    broken: Vec<String>,
    files: Vec<File>,
    /// The files that the main file includes, in order.
    includes: Vec<PathBuf>,
    report: &'a mut Report,
}

impl<'a> Renderer<'a> {
    /// Collects the values for templates, and compiles the templates.
    pub fn new(
        facts: &'a Facts,
        hosts: &ServedHosts,
        certificates: &BTreeMap<&str, PathBuf>,
        options: &Options,
        written: &types::CustomOptions,
        secrets: Secrets,
        report: &'a mut Report,
    ) -> Self {
        // Values in PROSODY_OPTIONS may be secrets. Options that no template mentions go to `other_options`.
        let secret_files: BTreeMap<&'static str, String> =
            facts.secret_files.iter().map(|(field, file)| (*field, file.path.clone())).collect();
        let (mut mentioned, mut other_options) = (Options::new(), Options::new());
        for (name, option) in options {
            let option = match written.get(name) {
                Some(_) => hide_texts(name, option),
                None => option.with_file_references(&secret_files),
            };
            let options = if is_mentioned(name) { &mut mentioned } else { &mut other_options };
            options.insert(name.clone(), option);
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
                let added = templates.add(name, text);
                let _ = added.map_err(|error| report.error(SettingError::about(&error.to_string())));
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
        Self { facts, templates, context, broken, files: Vec::new(), includes: Vec::new(), report }
    }

    /// All rendered files. The main file is the last, after the files that it includes.
    pub fn all(mut self, generation: &Path) -> Vec<File> {
        let custom_files = &self.facts.custom_files;
        for name in FRAGMENTS {
            self.fragment(name, generation);
            match name {
                "vhosts.cfg.lua" => self.custom_files(&custom_files.virtual_hosts, generation),
                "components.cfg.lua" => self.custom_files(&custom_files.components, generation),
                _ => {}
            }
        }
        self.custom_files(&custom_files.extra, generation);
        let includes: Vec<String> =
            self.includes.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let live_script = self.facts.runtime_dir.join(LIVE_SCRIPT);
        let live_script = live_script.to_string_lossy();
        let context = minijinja::context! { includes, live_script, ..self.context.clone() };
        let main = self.render(MAIN_FILE, context);
        self.files.extend(main.map(|content| File::new(MAIN_FILE, content)));
        self.files
    }

    /// Renders a fragment, and includes it unless it is empty except for comments.
    fn fragment(&mut self, name: &str, generation: &Path) {
        let Some(text) = self.render(name, self.context.clone()) else { return };
        let is_comment = |line: &str| line.is_empty() || (line.starts_with("--") && !line.starts_with("--["));
        if !text.lines().map(str::trim).all(is_comment) {
            self.include(File::new(name, text), generation);
        }
    }

    /// Includes custom files: Lua as it is, templates after rendering.
    fn custom_files(&mut self, custom: &[CustomFile], generation: &Path) {
        for file in custom {
            let Some(template) = &file.template else {
                self.includes.push(file.path.clone());
                continue;
            };
            let rendered = self.templates.render_text(&file.path, template, self.context.clone());
            let Some(content) = self.reported(rendered) else { continue };
            let path = rendered_name(&file.path, &self.facts.config_dir);
            if self.files.iter().any(|other| other.path == path) {
                let name = path.display();
                let why = advice!(
                    "{source}: another template is rendered as {name} already: rename it",
                    source = file.path.display()
                );
                self.report.error(SettingError::about(&why));
            }
            self.include(File { path, content, source: Some(file.path.clone()) }, generation);
        }
    }

    fn include(&mut self, file: File, generation: &Path) {
        self.includes.push(generation.join(&file.path));
        self.files.push(file);
    }

    /// Renders the template of a file.
    fn render(&mut self, name: &str, context: Value) -> Option<String> {
        let template = format!("{name}.j2");
        if self.broken.contains(&template) {
            return None;
        }
        let rendered = self.templates.render(&template, context);
        self.reported(rendered)
    }

    fn reported(&mut self, result: anyhow::Result<String>) -> Option<String> {
        result.map_err(|error| self.report.error(SettingError::about(&error.to_string()))).ok()
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

/// Whether a built-in template mentions an option in a quoted list of names. Quoted titles have capital letters.
fn is_mentioned(option: &str) -> bool {
    let quoted = TEMPLATES.iter().flat_map(|(_, text)| text.split('"').skip(1).step_by(2));
    let mut names = quoted.filter(|text| !text.contains(char::is_uppercase)).flat_map(|text| text.split(' '));
    names.any(|name| name == option)
}

/// Options as pairs of name and value, for templates.
fn pairs(options: &Options) -> Value {
    // Option names are checked on input, so that no invalid identifier gets here.
    let pair = |(name, value): (&String, &lua::Value)| Some([lua_name(name)?, to_template(value)]);
    options.iter().filter_map(pair).map(Value::from_iter).collect()
}
