//! The templates that Prosody's configuration is rendered from.
//!
//! They are Jinja templates. Every `{{ value }}` is written as a Lua literal ([`crate::lua`]), so that a template
//! cannot forget to escape. Jinja's ways around escaping (`safe`, `autoescape`, captured blocks) give plain strings
//! here, and strings are quoted.

pub mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Rest;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use self::values::{lua_name, verbatim_lua_code};
use crate::lua::{Dialect, Secrets};

/// The maximum recursion of templates and blocks, in minijinja's unit: an include costs ten, a block one. With
/// minijinja's default of 500, a debug build overflows a stack of 2 MiB.
const RECURSION_LIMIT: usize = 100;

/// The limits for one template: instructions of the template engine and bytes of output, each for the server as a whole
/// and for each host. Our own templates need about a thousandth for the server and a twentieth for a host.
const MAX_INSTRUCTIONS: u64 = 1_000_000;
const MAX_INSTRUCTIONS_OF_HOST: u64 = 20_000;
const MAX_OUTPUT: usize = 1 << 20;

/// Named templates, which can include each other by name, and the dialect of Lua that they render.
pub struct Templates {
    environment: Environment<'static>,
    dialect: Dialect,
    /// The files that templates were read from, by the name of the template.
    paths: BTreeMap<String, PathBuf>,
    /// The maximum number of bytes that a template may render.
    max_output: usize,
}

impl Templates {
    /// Creates an empty set of templates for a server with so many hosts.
    pub fn new(dialect: Dialect, hosts: usize) -> Templates {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .keep_trailing_newline(true)
                .build()
                .expect("the delimiters are minijinja's own"),
        );
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        // Required for errors to contain the name of an undefined variable.
        environment.set_debug(true);
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_fuel(Some(MAX_INSTRUCTIONS + MAX_INSTRUCTIONS_OF_HOST * hosts as u64));
        environment.set_formatter(formatter(dialect));
        environment.add_filter("verbatim_lua_code", verbatim_lua_code);
        environment.add_filter("pick", pick);
        Templates { environment, dialect, paths: BTreeMap::new(), max_output: MAX_OUTPUT * (hosts + 1) }
    }

    /// Adds a template, or replaces the one with the same name.
    /// Errors: a syntax error, as `NAME:LINE: REASON`.
    pub fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        source: impl Into<Cow<'static, str>>,
    ) -> anyhow::Result<()> {
        let added = self.environment.add_template_owned(name, source);
        added.map_err(|error| anyhow!(self.message(&error)))
    }

    /// Adds or replaces a template that was read from a file, whose path replaces the name in errors.
    pub fn add_file(&mut self, name: String, path: &Path, source: String) -> anyhow::Result<()> {
        self.paths.insert(name.clone(), path.to_owned());
        self.add(name, source)
    }

    /// Renders a template by name. `context` is a table with the template's variables.
    /// Errors: an undefined variable, a value without a Lua literal, or any other error, as `NAME:LINE: REASON`. It
    /// contains no secret.
    pub fn render(&self, name: &str, context: Value) -> anyhow::Result<String> {
        self.render_in(&self.environment, name, context.clone())
            .map_err(|error| anyhow!(self.message_without_secrets(&error, name, context)))
    }

    /// Renders a single template, read from the file `path`. It can include the others, but they cannot include it.
    /// Errors: as [`Templates::add_file`] and [`Templates::render`].
    pub fn render_text(&self, path: &Path, source: &str, context: Value) -> anyhow::Result<String> {
        let mut templates = Templates {
            environment: self.environment.clone(),
            dialect: self.dialect,
            paths: self.paths.clone(),
            max_output: self.max_output,
        };
        let name = path.to_string_lossy().into_owned();
        templates.add_file(name.clone(), path, source.to_owned())?;
        templates.render(&name, context)
    }

    fn render_in(&self, environment: &Environment, name: &str, context: Value) -> Result<String, Error> {
        let mut output = Limited { text: Vec::new(), max: self.max_output };
        match environment.get_template(name)?.render_captured_to(context, &mut output) {
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                let (path, max) = (self.path(name), self.max_output >> 20);
                let reason = format!("{path}: the template renders more than {max} MiB, expected less");
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            }
            // Templates and values are UTF-8.
            rendered => rendered.map(|_| String::from_utf8(output.text).unwrap_or_default()),
        }
    }

    /// The message of an error, without secrets. minijinja's messages may quote values, and a template can capture the
    /// literal of a secret. So the message is that of a second run, in which all secrets are hidden.
    fn message_without_secrets(&self, error: &Error, name: &str, context: Value) -> String {
        if self.dialect.secrets == Secrets::Hidden {
            return self.message(error);
        }
        let mut environment = self.environment.clone();
        environment.set_formatter(formatter(Dialect { secrets: Secrets::Hidden, ..self.dialect }));
        match self.render_in(&environment, name, context) {
            Err(error) => self.message(&error),
            Ok(_) => format!("{}the template fails on text that it made from a secret", self.location(error)),
        }
    }

    fn message(&self, error: &Error) -> String {
        // The outer errors only name the including templates.
        let cause = causes(error).last().unwrap_or(error);
        let reason = match (cause.kind(), cause.detail()) {
            (ErrorKind::SyntaxError, Some(detail)) => format!("syntax error: {detail}"),
            (ErrorKind::OutOfFuel, _) => "the template takes too long, expected a loop that ends".to_owned(),
            (_, Some(detail)) => detail.to_owned(),
            (kind, None) => kind.to_string(),
        };
        format!("{}{reason}", self.location(error))
    }

    fn location(&self, error: &Error) -> String {
        let innermost = causes(error).filter(|cause| cause.line().is_some()).last();
        match innermost.and_then(|cause| cause.name().zip(cause.line())) {
            Some((name, line)) => format!("{}:{line}: ", self.path(name)),
            None => String::new(),
        }
    }

    /// The file of a template, or the name of one of ours.
    fn path(&self, name: &str) -> String {
        self.paths.get(name).map_or_else(|| name.to_owned(), |path| path.display().to_string())
    }
}

/// The filter `pick`: the defined options among `names`, as pairs of a Lua name and a value. Each text may have several
/// names, separated by spaces, which are parsed faster than a list.
fn pick(options: &Value, names: Rest<String>) -> Result<Value, Error> {
    let mut picked = Vec::new();
    for name in names.iter().flat_map(|names| names.split_whitespace()) {
        let value = options.get_attr(name)?;
        let name = lua_name(name).filter(|_| !value.is_undefined());
        picked.extend(name.map(|name| Value::from(vec![name, value])));
    }
    Ok(Value::from(picked))
}

/// Keeps what is written, up to a number of bytes.
struct Limited {
    text: Vec<u8>,
    max: usize,
}

impl io::Write for Limited {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.text.len() + more.len() > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error and its causes, outermost first.
fn causes(error: &Error) -> impl Iterator<Item = &Error> {
    std::iter::successors(Some(error), |&error| error.source()?.downcast_ref::<Error>())
}

fn formatter(
    dialect: Dialect,
) -> impl Fn(&mut Output, &mut State, &Value) -> Result<(), Error> + Send + Sync + 'static {
    move |out, state, value| {
        if !matches!(state.auto_escape(), AutoEscape::None) {
            // With autoescape, filters such as `join` would get the literals of values, including secrets, as text.
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "autoescape is not for Lua: every value is written as a literal already",
            ));
        }
        values::write(out, value, dialect)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;
    use crate::lua::{Secret, Version};

    const WRITTEN: Dialect = Dialect { version: Version::Lua54, secrets: Secrets::Written };
    const HIDDEN: Dialect = Dialect { secrets: Secrets::Hidden, ..WRITTEN };

    fn render_with(dialect: Dialect, source: &str, context: Value) -> Result<String, String> {
        let mut templates = Templates::new(dialect, 1);
        let rendered = templates
            .add("global.cfg.lua.j2", source.to_owned())
            .and_then(|()| templates.render("global.cfg.lua.j2", context));
        rendered.map_err(|error| format!("{error:#}"))
    }

    fn render(source: &str, context: Value) -> String {
        render_with(WRITTEN, source, context).unwrap()
    }

    fn error(source: &str, context: Value) -> String {
        render_with(WRITTEN, source, context).unwrap_err()
    }

    fn secret() -> Value {
        Value::from_object(Secret::new("hunter2".into()))
    }

    #[test]
    fn values_and_names_are_rendered_and_tags_leave_no_lines() {
        let source = "\
{# What clients use #}
{% if ports %}
{{ name }} = {{ ports }};
{% endif %}
    {% for host, secret in components|items %}
Component({{ host }})
    component_secret = {{ secret }};
    {% endfor %}
";
        let context = context! {
            name => lua_name("c2s_ports").unwrap(),
            ports => vec![5222, 5223],
            components => context! { irc => secret(), xmpp => "plain" },
        };
        let expected = "\
c2s_ports = { 5222, 5223 };
Component(\"irc\")
    component_secret = --[[secret]] \"hunter2\";
Component(\"xmpp\")
    component_secret = \"plain\";
";
        assert_eq!(render(source, context), expected);
    }

    #[test]
    fn only_verbatim_lua_code_writes_text_verbatim() {
        let context = || context! { v => "os.exit()", s => secret() };
        assert_eq!(render("{{ v|verbatim_lua_code }}", context()), "os.exit()");
        assert_eq!(render("{{ v|verbatim_lua_code ~ v }}", context()), "\"os.exit()os.exit()\"");
        assert_eq!(
            error("{{ s|verbatim_lua_code }}", context()),
            "global.cfg.lua.j2:1: verbatim_lua_code takes a string, not a value of kind Plain"
        );
        assert_eq!(
            error("{{ [v|verbatim_lua_code] }}", context()),
            "global.cfg.lua.j2:1: item 1: a value of kind Plain has no Lua literal"
        );
    }

    #[test]
    fn filters_and_operators_cannot_read_secrets() {
        for source in [
            "{{ s ~ '' }}",
            "{{ s|string }}",
            "{{ s|safe }}",
            "{{ s|escape }}",
            "{{ s|upper|lower }}",
            "{{ s|trim }}",
            "{{ s|replace('x', s) }}",
            "{{ '%s %r'|format(s, s) }}",
            "{{ ('%s'|safe)|format(s) }}",
            "{{ [s, s]|join(', ') }}",
            "{{ [s|safe, s]|join(s) }}",
            "{{ [s]|pprint }}",
            "{{ {'a': [s]} ~ '' }}",
            "{{ dict(a=s)|string }}",
            "{{ namespace(a=s) ~ '' }}",
            "{{ debug() }}",
            "{{ s|indent }}",
            "{{ s|list }}",
            "{{ s|length }}",
            "{{ s|first }}",
            "{{ s|reverse }}",
            "{{ s|sort }}",
            "{{ s|int }}",
            "{{ s|split('n') }}",
            "{{ s[0] }}",
            "{{ s[1:] }}",
            "{{ s + s }}",
            "{{ s * 2 }}",
            "{{ s / s }}",
            "{{ s() }}",
            "{{ s.expose() }}",
            "{{ s.text }}",
            "{{ missing[s] }}",
            "{% for c in s %}{{ c }}{% endfor %}",
            "{% include s %}",
            "{% autoescape 'html' %}{{ s|escape }}{% endautoescape %}",
            "{% autoescape 'html' %}{% set x = [s, 'x'|safe]|join %}{% endautoescape %}{{ x }}",
        ] {
            let result = render_with(WRITTEN, source, context! { s => secret() });
            let text = result.unwrap_or_else(|error| error);
            assert!(!text.contains("hunter2"), "{source} gave {text}");
        }
        let facts = "{{ s == s }} {{ s == 'hunter2' }} {{ s is string }} {{ 'hunter2' in [s] }}";
        assert_eq!(render(facts, context! { s => secret() }), "true false false false");
    }

    /// A capture contains the literal of a secret. That is fine in the output, which contains the secret anyway.
    #[test]
    fn no_error_quotes_a_secret_that_a_template_captured() {
        let capture = "{% set x %}{{ s }}{% endset %}";
        for rest in ["{% include x %}", "{{ x / 2 }}", "{{ {x: none}[x].y }}", "{{ {x: [none]} }}"] {
            let error = error(&format!("{capture}\n{rest}"), context! { s => secret() });
            assert!(error.starts_with("global.cfg.lua.j2:2: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(
            error(&format!("{capture}{{{{ 1 / (x|length - 22) }}}}"), context! { s => secret() }),
            "global.cfg.lua.j2:1: the template fails on text that it made from a secret"
        );
    }

    #[test]
    fn hidden_secrets_are_hidden_in_captures_too() {
        let source = "{{ s }} {{ [s] }} {% set x %}{{ s }}{% endset %}{{ x|verbatim_lua_code }}";
        assert_eq!(
            render_with(HIDDEN, source, context! { s => secret() }).unwrap(),
            r#""<secret>" { "<secret>" } "<secret>""#
        );
    }

    #[test]
    fn autoescape_is_refused() {
        assert_eq!(
            error("{% autoescape true %}{{ v }}{% endautoescape %}", context! { v => "x" }),
            "global.cfg.lua.j2:1: autoescape is not for Lua: every value is written as a literal already"
        );
        let mut templates = Templates::new(WRITTEN, 1);
        templates.add("page.html", "{{ v }}").unwrap();
        assert_eq!(templates.render("page.html", context! { v => "<" }).unwrap(), "\"<\"");
    }

    #[test]
    fn errors_have_a_file_a_line_and_a_reason() {
        for (source, expected) in [
            ("\n{{ missing }}", "2: `missing` is undefined"),
            ("\n{{ table.missing }}", "2: `table.missing` is undefined"),
            ("\n{% if missing %}{% endif %}", "2: `missing` is undefined"),
            ("\n{% for x in missing %}{% endfor %}", "2: `missing` is undefined"),
            ("\n{{ 1|missing }}", "2: filter missing is unknown"),
            ("\n{{ table.missing() }}", "2: map has no method named missing"),
            ("\n{{ [1, none] }}", "2: item 2: none cannot stand in a list, which would end there"),
            ("\n{{ 18446744073709551615 }}", "2: an integer that does not fit into Lua's 64 bits"),
            ("\n\n{% if %}", "3: syntax error: unexpected end of block"),
            ("\n{% include 'missing.j2' %}", "2: tried to include non-existing template 'missing.j2'"),
        ] {
            let table = context! { table => context! { a => 1 } };
            assert_eq!(error(source, table), format!("global.cfg.lua.j2:{expected}"));
        }
    }

    #[test]
    fn errors_contain_the_path_of_a_templates_file() {
        let path = Path::new("/etc/prosody/templates/global.cfg.lua.j2");
        let mut templates = Templates::new(WRITTEN, 1);
        templates.add("prosody.cfg.lua.j2", "a\n{% include 'global.cfg.lua.j2' %}").unwrap();
        templates.add("global.cfg.lua.j2", "replaced").unwrap();
        templates.add_file("global.cfg.lua.j2".into(), path, "b\n\n{{ missing }}".into()).unwrap();
        let error = templates.render("prosody.cfg.lua.j2", context! {}).unwrap_err();
        assert_eq!(error.to_string(), "/etc/prosody/templates/global.cfg.lua.j2:3: `missing` is undefined");
        let error = templates.add_file("global.cfg.lua.j2".into(), path, "{{".into()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("/etc/prosody/templates/global.cfg.lua.j2:1: syntax"), "{error}");

        templates.add("fragment.j2", "{{ missing }}").unwrap();
        let error = templates.render("fragment.j2", context! {}).unwrap_err();
        assert_eq!(error.to_string(), "fragment.j2:1: `missing` is undefined");
        let error = templates.render("other.j2", context! {}).unwrap_err();
        assert_eq!(error.to_string(), "template \"other.j2\" does not exist");
    }

    #[test]
    fn endless_recursion_is_an_error() {
        for source in [
            "{% include 'global.cfg.lua.j2' %}",
            "{% import 'global.cfg.lua.j2' as me %}",
            "{% block b %}{{ self.b() }}{% endblock %}",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        ] {
            assert_eq!(
                error(source, context! {}),
                "global.cfg.lua.j2:1: recursion limit exceeded",
                "{source}"
            );
        }
        let error = error("{% extends 'global.cfg.lua.j2' %}", context! {});
        assert!(error.contains("cycle in template inheritance"), "{error}");
    }

    #[test]
    fn a_template_that_takes_too_long_or_writes_too_much_is_refused() {
        let refusal = |source: &str| {
            let templates = Templates::new(WRITTEN, 1);
            templates.render_text(Path::new("/x.j2"), source, context! {}).unwrap_err().to_string()
        };
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert_eq!(refusal(endless), "/x.j2:1: the template takes too long, expected a loop that ends");
        let long = format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "-- too much\n".repeat(100));
        assert_eq!(refusal(&long), "/x.j2: the template renders more than 2 MiB, expected less");
    }
}
