//! Paths of files and directories.

use super::names::texts;

texts! {
    /// An absolute path.
    Path("path", "absolute paths", "/srv/prosody") = |text| absolute(text).map(str::to_owned);

    /// An absolute path without `;`, for `plugin_paths`: Prosody joins these paths with `;`.
    PluginPath("absolute path without `;`", "absolute paths without `;`", "/srv/modules") = |text| {
        let path = absolute(text)?;
        if path.contains(';') {
            return Err("expected an absolute path without `;`, which ends a path here".into());
        }
        Ok(path.to_owned())
    };

    /// A path, or a pattern with `*` and `?` in its last component. It may be relative to the configuration directory.
    Glob("path or glob", "paths or globs", "conf.d/*.cfg.lua") = |text| {
        let path = without_nul(text)?;
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if directory.contains(['*', '?']) {
            return Err("expected a path or a glob: `*` and `?` can stand in its last part only".into());
        }
        Ok(path.to_owned())
    };
}

impl AsRef<std::path::Path> for Path {
    fn as_ref(&self) -> &std::path::Path {
        self.as_str().as_ref()
    }
}

impl AsRef<std::path::Path> for PluginPath {
    fn as_ref(&self) -> &std::path::Path {
        self.as_str().as_ref()
    }
}

fn without_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') {
        return Err("expected a path: a NUL cannot stand in it".into());
    }
    Ok(text)
}

fn absolute(text: &str) -> Result<&str, String> {
    if !text.starts_with('/') {
        return Err("expected an absolute path: it does not begin with `/`".into());
    }
    without_nul(text)
}

#[cfg(test)]
mod tests {
    use super::super::SettingType;
    use super::*;

    #[test]
    fn paths_are_absolute() {
        assert_eq!(Path::parse("/a b/ü").unwrap().as_str(), "/a b/ü");
        assert!(Path::parse("certs").unwrap_err().contains("begin with `/`"));
        assert!(Path::parse("~/certs").unwrap_err().contains("begin with `/`"));
        assert!(Path::parse("/a\0b").unwrap_err().contains("NUL"));
    }

    #[test]
    fn plugin_paths_contain_no_semicolon() {
        assert!(PluginPath::parse("/srv/modules").is_ok());
        assert!(PluginPath::parse("/srv/a;/srv/b").unwrap_err().contains("`;`"));
        assert!(PluginPath::parse("modules").is_err());
    }

    #[test]
    fn globs_may_be_relative_and_have_wildcards_in_the_last_component() {
        assert!(Glob::parse("conf.d/*.cfg.lua").is_ok());
        assert!(Glob::parse("/srv/extra.cfg.lua").is_ok());
        assert!(Glob::parse("*").is_ok());
        assert!(Glob::parse("*/a.cfg.lua").unwrap_err().contains("last part"));
        assert!(Glob::parse("a\0").is_err());
    }
}
