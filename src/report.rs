//! The messages of a start: errors, warnings, information and debug output.

use std::collections::HashSet;
use std::fmt;

use crate::text::{Advice, cut};

/// An error that the user must fix before the server can start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SettingError {
    variable: String,
    value: Option<String>,
    why: String,
}

impl SettingError {
    /// An error in the setting `variable`. `why` is the reason, without secrets.
    pub fn new(variable: &str, why: &str) -> Self {
        Self { variable: variable.to_owned(), value: None, why: why.to_owned() }
    }

    /// An error in a file or in several settings. `text` begins with their names.
    pub fn about(text: &str) -> Self {
        Self { variable: String::new(), value: None, why: text.to_owned() }
    }

    /// Adds the value to the message, truncated to 80 characters. Not for secrets.
    pub fn with_value(mut self, value: &str) -> Self {
        const SHOWN: usize = 80;
        self.value = Some(cut(value, SHOWN).chars().flat_map(char::escape_debug).collect());
        self
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}=\"{value}\": {}", self.variable, self.why),
            None if self.variable.is_empty() => f.write_str(&self.why),
            None => write!(f, "{}: {}", self.variable, self.why),
        }
    }
}

/// All messages of a start.
#[derive(Debug, Default)]
pub struct Report {
    errors: Vec<SettingError>,
    /// Every error so far, including those that [`Report::retain`] dropped.
    seen: HashSet<SettingError>,
    setting_warnings: Vec<String>,
    warnings: Vec<String>,
    pub infos: Vec<String>,
    pub debugs: Vec<String>,
    /// The last line of the errors, about a common reason of several.
    reason: Option<Advice>,
}

impl Report {
    /// Adds an error, unless the report has or had it already.
    pub fn error(&mut self, error: SettingError) {
        if self.seen.insert(error.clone()) {
            self.errors.push(error);
        }
    }

    pub fn reason(&mut self, reason: Advice) {
        self.reason = Some(reason);
    }

    pub fn has_error(&self, variable: &str) -> bool {
        self.errors.iter().any(|error| error.variable == variable)
    }

    /// Keeps only errors whose variable `matters`. The variable is empty for errors without one.
    pub fn retain(&mut self, matters: impl Fn(&str) -> bool) {
        self.errors.retain(|error| matters(&error.variable));
    }

    /// Adds a warning about a setting, `PROSODY_X: why`. With `PROSODY_ENTRYPOINT_STRICT` it is an error.
    pub fn setting_warning(&mut self, warning: impl Into<String>) {
        self.setting_warnings.push(warning.into());
    }

    /// Adds a warning that no setting causes. It is never an error.
    pub fn warning(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Drops the warnings that no setting causes, for a command whose output has the same information.
    pub fn forget_warnings(&mut self) {
        self.warnings.clear();
    }

    pub fn info(&mut self, info: String) {
        self.infos.push(info);
    }

    pub fn debug(&mut self, debug: String) {
        self.debugs.push(debug);
    }

    pub fn errors(&self) -> &[SettingError] {
        &self.errors
    }

    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.setting_warnings.iter().chain(&self.warnings).map(String::as_str)
    }

    pub fn setting_warnings(&self) -> &[String] {
        &self.setting_warnings
    }

    /// What [`Report::reason`] has set.
    pub fn last_line(&self) -> Option<&Advice> {
        self.reason.as_ref()
    }

    /// Turns warnings about settings into errors, for `PROSODY_ENTRYPOINT_STRICT`.
    pub fn make_strict(&mut self) {
        self.errors.extend(self.setting_warnings.drain(..).map(|warning| SettingError::about(&warning)));
    }
}

impl fmt::Display for Report {
    /// The number of errors, each error on its own line, and then the warnings about settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.len() {
            1 => f.write_str("One thing is wrong, nothing was started:")?,
            count => write!(f, "{count} things are wrong, nothing was started:")?,
        }
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        let mut heading = "\nAlso:";
        for warning in &self.setting_warnings {
            write!(f, "{heading}\n  {warning}")?;
            heading = "";
        }
        if let Some(reason) = &self.reason {
            write!(f, "\n{reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_turns_only_warnings_about_settings_into_errors() {
        let mut report = Report::default();
        report.setting_warning("PROSODY_DOMIAN: there is no such setting".to_owned());
        report.warning("No certificate for PROSODY_X: self-signed".to_owned());
        report.make_strict();
        assert_eq!(report.errors(), [SettingError::about("PROSODY_DOMIAN: there is no such setting")]);
        assert_eq!(report.warnings().count(), 1);
        assert_eq!(
            report.to_string(),
            "One thing is wrong, nothing was started:\n  PROSODY_DOMIAN: there is no such setting"
        );
    }

    #[test]
    fn a_value_is_shown_on_one_line_and_truncated() {
        let error = SettingError::new("PROSODY_X", "wrong").with_value("a\n\"b\"");
        assert_eq!(error.to_string(), r#"PROSODY_X="a\n\"b\"": wrong"#);
        let long = SettingError::new("PROSODY_X", "wrong").with_value(&"ü".repeat(100_000)).to_string();
        assert_eq!(long, format!("PROSODY_X=\"{}…\": wrong", "ü".repeat(80)));
    }
}
