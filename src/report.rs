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

    /// A mistake in a file or in several settings; `text` begins with their names.
    pub fn about(text: &str) -> Self {
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
    remarks: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a mistake, once.
    pub fn mistake(&mut self, mistake: Mistake) {
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Leaves out the mistakes about variables that do not matter.
    pub fn retain(&mut self, matters: impl Fn(&str) -> bool) {
        self.mistakes.retain(|mistake| matters(&mistake.variable));
    }

    /// Adds a warning about a setting, `PROSODY_X: why`. It is logged, or an error under `PROSODY_ENTRYPOINT_STRICT`.
    pub fn warning(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Adds something that is not as it should be, but that no setting is wrong about. It is logged as a warning.
    pub fn notice(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// Leaves out what no setting is wrong about: whoever asks is told in another way.
    pub fn forget_notices(&mut self) {
        self.notices.clear();
    }

    /// Adds something that is as it should be and worth a line in the log.
    pub fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// The remarks so far.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
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
            self.mistakes.push(Mistake::about(&warning));
        }
    }
}

impl fmt::Display for Report {
    /// All mistakes, one a line, under a line that counts them, and the warnings about settings below them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => f.write_str("One thing is wrong, nothing was started:")?,
            count => write!(f, "{count} things are wrong, nothing was started:")?,
        }
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        let mut heading = "\nBesides:";
        for warning in &self.warnings {
            write!(f, "{heading}\n  {warning}")?;
            heading = "";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_turns_warnings_about_settings_alone_into_mistakes() {
        let mut report = Report::default();
        report.warning("PROSODY_DOMIAN: there is no such setting".to_owned());
        report.notice("No certificate for PROSODY_X: self-signed".to_owned());
        report.make_strict();
        assert_eq!(report.mistakes(), [Mistake::about("PROSODY_DOMIAN: there is no such setting")]);
        assert_eq!(report.warnings().count(), 1);
        assert_eq!(
            report.to_string(),
            "One thing is wrong, nothing was started:\n  PROSODY_DOMIAN: there is no such setting"
        );
    }

    #[test]
    fn a_value_is_shown_on_one_line_and_cut_short() {
        let mistake = Mistake::new("PROSODY_X", "wrong").with_value("a\n\"b\"");
        assert_eq!(mistake.to_string(), r#"PROSODY_X="a\n\"b\"": wrong"#);
        let long = Mistake::new("PROSODY_X", "wrong").with_value(&"ü".repeat(100_000)).to_string();
        assert_eq!(long, format!("PROSODY_X=\"{}…\": wrong", "ü".repeat(80)));
    }
}
