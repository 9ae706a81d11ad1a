//! The templates that Prosody's configuration is rendered from.
//!
//! They are Jinja templates whose every `{{ value }}` is written as a Lua literal ([`crate::lua`]), so that a
//! template cannot forget to escape. Jinja's own ways around escaping (`safe`, `autoescape`, captured
//! blocks) give plain strings here, and strings are quoted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Rest;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
};

use crate::lua::{self, Dialect, Secrets};

/// Named templates, which include each other by these names, and the dialect of Lua that they render.
pub struct Templates {
    environment: Environment<'static>,
    dialect: Dialect,
    /// Where a template was read from, by its name.
    paths: BTreeMap<String, PathBuf>,
}

impl Templates {
    /// No templates yet.
    pub fn new(dialect: Dialect) -> Templates {
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
        // Only with this does an error say which name is undefined.
        environment.set_debug(true);
        environment.set_formatter(formatter(dialect));
        environment.add_filter("verbatim_lua_code", lua::verbatim_lua_code);
        environment.add_filter("pick", pick);
        Templates {
            environment,
            dialect,
            paths: BTreeMap::new(),
        }
    }

    /// Adds a template under a name, or replaces the one that has it.
    ///
    /// # Errors
    ///
    /// A mistake in its syntax, as `NAME:LINE: what is wrong`.
    pub fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        source: impl Into<Cow<'static, str>>,
    ) -> anyhow::Result<()> {
        let name = name.into();
        self.paths.remove(name.as_ref());
        self.compile(name, source.into())
    }

    /// The same for a template that was read from a file. Errors name that file.
    ///
    /// # Errors
    ///
    /// A mistake in its syntax, as `PATH:LINE: what is wrong`.
    pub fn add_file(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        path: &Path,
        source: String,
    ) -> anyhow::Result<()> {
        let name = name.into();
        self.paths.insert(name.to_string(), path.to_owned());
        self.compile(name, source.into())
    }

    fn compile(
        &mut self,
        name: Cow<'static, str>,
        source: Cow<'static, str>,
    ) -> anyhow::Result<()> {
        self.environment
            .add_template_owned(name, source)
            .map_err(|error| anyhow!(self.message(&error)))
    }

    /// Renders the template of that name. `context` is a table of the names that the template may use.
    ///
    /// # Errors
    ///
    /// A name that is not defined, a value that has no Lua literal, or any other mistake, as
    /// `NAME:LINE: what is wrong`. No secret is in it.
    pub fn render(&self, name: &str, context: Value) -> anyhow::Result<String> {
        render_in(&self.environment, name, context.clone())
            .map_err(|error| anyhow!(self.message_without_secrets(&error, name, context)))
    }

    /// Renders a template that no other includes, read from the file `path`.
    ///
    /// # Errors
    ///
    /// As [`Templates::add_file`] and [`Templates::render`].
    pub fn render_text(&self, path: &Path, source: &str, context: Value) -> anyhow::Result<String> {
        let mut alone = Templates {
            environment: self.environment.clone(),
            dialect: self.dialect,
            paths: self.paths.clone(),
        };
        let name = path.to_string_lossy().into_owned();
        alone.add_file(name.clone(), path, source.to_owned())?;
        alone.render(&name, context)
    }

    /// What minijinja says about a value may quote it, and a template can capture what a secret was written as.
    /// So a message is taken from a second run, in which every secret is hidden from the start.
    fn message_without_secrets(&self, error: &Error, name: &str, context: Value) -> String {
        if self.dialect.secrets == Secrets::Hidden {
            return self.message(error);
        }
        let mut environment = self.environment.clone();
        environment.set_formatter(formatter(Dialect {
            secrets: Secrets::Hidden,
            ..self.dialect
        }));
        match render_in(&environment, name, context) {
            Err(error) => self.message(&error),
            Ok(_) => format!(
                "{}the template fails on text that it made from a secret",
                self.place(innermost(error))
            ),
        }
    }

    fn message(&self, error: &Error) -> String {
        let error = innermost(error);
        let what = match (error.kind(), error.detail()) {
            (ErrorKind::SyntaxError, Some(detail)) => format!("syntax error: {detail}"),
            (_, Some(detail)) => detail.to_owned(),
            (kind, None) => kind.to_string(),
        };
        format!("{}{what}", self.place(error))
    }

    fn place(&self, error: &Error) -> String {
        let Some(name) = error.name() else {
            return String::new();
        };
        let file = match self.paths.get(name) {
            Some(path) => path.to_string_lossy(),
            None => name.into(),
        };
        match error.line() {
            Some(line) => format!("{file}:{line}: "),
            None => format!("{file}: "),
        }
    }
}

/// The filter `pick`: those of the named options that there are, as pairs of a name to write and a value.
fn pick(options: &Value, names: Rest<String>) -> Result<Value, Error> {
    let mut picked = Vec::new();
    for name in names.iter() {
        let value = options.get_attr(name)?;
        let Some(identifier) = lua::Name::new(name).filter(|_| !value.is_undefined()) else {
            continue;
        };
        picked.push(Value::from(vec![identifier.into_value(), value]));
    }
    Ok(Value::from(picked))
}

fn render_in(environment: &Environment, name: &str, context: Value) -> Result<String, Error> {
    environment.get_template(name)?.render(context)
}

/// The error that the others are consequences of ("error in an included template"), where it says its place.
fn innermost(error: &Error) -> &Error {
    let causes = std::iter::successors(Some(error), |&error| {
        error.source()?.downcast_ref::<Error>()
    });
    causes
        .filter(|cause| cause.line().is_some())
        .last()
        .unwrap_or(error)
}

fn formatter(
    dialect: Dialect,
) -> impl Fn(&mut Output, &mut State, &Value) -> Result<(), Error> + Send + Sync + 'static {
    move |out, state, value| {
        if !matches!(state.auto_escape(), AutoEscape::None) {
            // Here filters would be given literals, those of secrets too, to make text from (`join` does).
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "autoescape is not for Lua: every value is written as a literal already",
            ));
        }
        lua::write(out, value, dialect)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    }
}
