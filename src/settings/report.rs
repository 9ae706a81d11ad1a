//! Everything that is wrong with the settings, in one list.

use std::fmt;

/// One thing that a person has to change before the server can start.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    variable: String,
    value: Option<String>,
    why: String,
}

impl Mistake {
    /// A mistake in the setting `variable`; `why` says what was expected, and never holds a secret.
    pub fn new(variable: &str, why: &str) -> Self {
        Self { variable: variable.to_owned(), value: None, why: why.to_owned() }
    }

    /// A mistake in a file; `text` begins with the file's name.
    pub fn in_file(text: &str) -> Self {
        Self { variable: String::new(), value: None, why: text.to_owned() }
    }

    /// Shows the value as well. Not for secrets.
    pub fn with_value(mut self, value: &str) -> Self {
        const SHOWN: usize = 80;
        let mut text: String = value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        if value.chars().count() > SHOWN {
            text.push('…');
        }
        self.value = Some(text);
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}=\"{value}\": {}", self.variable, self.why),
            None if self.variable.is_empty() => f.write_str(&self.why),
            None => write!(f, "{}: {}", self.variable, self.why),
        }
    }
}

/// What was found while reading and planning.
#[derive(Debug, Default)]
pub struct Report {
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
    notices: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a mistake, once.
    pub fn mistake(&mut self, mistake: Mistake) {
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Adds a warning: it is logged, or an error under `PROSODY_ENTRYPOINT_STRICT`.
    pub fn warning(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Adds something that is not as it should be, but that no setting is wrong about. It is logged as a warning.
    pub fn notice(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// Adds a line for the log at debug.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The mistakes so far.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// The warnings and notices so far.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().chain(&self.notices).map(String::as_str)
    }

    /// The lines for the log at debug.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Turns the warnings into mistakes, as `PROSODY_ENTRYPOINT_STRICT` asks.
    pub fn make_strict(&mut self) {
        for warning in self.warnings.drain(..) {
            let (variable, why) = warning.split_once(": ").unwrap_or(("PROSODY_ENTRYPOINT_STRICT", &warning));
            self.mistakes.push(Mistake::new(variable, why));
        }
    }
}

impl fmt::Display for Report {
    /// All mistakes, one a line, under a line that counts them, and the warnings below them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => f.write_str("One thing is wrong, nothing was started:")?,
            count => write!(f, "{count} things are wrong, nothing was started:")?,
        }
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        if !self.warnings.is_empty() {
            f.write_str("\nBesides:")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  {warning}")?;
        }
        Ok(())
    }
}
