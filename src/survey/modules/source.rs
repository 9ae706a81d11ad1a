//! Reads the needs and the metadata of a Prosody module from its source.
//!
//! The source is split into tokens ([`crate::lua::tokens`]) and not run. So comments and strings are not mistaken for
//! code, but a name that is built at run time is not seen.

use std::collections::HashMap;

use memchr::memmem;

use crate::lua::tokens::Token::{Name, Symbol, Text};
use crate::lua::tokens::Tokens;

/// The maximum length of a name, in bytes, because it is a file's name.
const LONGEST: usize = 255;

/// The prefix of a metadata line (Prosody 13.0).
const METADATA: &[u8] = b"--%";

/// The needs and metadata of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleSource {
    /// The modules that it depends on (`module:depends`), each once, in order of appearance.
    pub modules: Vec<Need>,
    /// The libraries of modules that it loads (`module:require`), each once, in order of appearance.
    pub libraries: Vec<Need>,
    /// The libraries of Prosody and Lua that it loads (`require`), each once, in order of appearance.
    pub lua_libraries: Vec<Need>,
    /// Whether it begins like a Lua program.
    pub is_lua: bool,
    /// The Lua versions that it supports; empty for all. This and the next fields come from metadata lines,
    /// `--% key: value` (Prosody 13.0, `core/modulemanager.lua`).
    pub lua: Vec<String>,
    /// The features of Prosody that it requires.
    pub requires: Vec<String>,
    /// The features of Prosody that it conflicts with.
    pub conflicts: Vec<String>,
}

/// A module or library that a module needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    /// Whether it is needed only in some cases: the call is in a function, a branch, a loop or a `pcall`.
    pub is_conditional: bool,
    /// Whether the module works without it if it is disabled (`module:depends("x", true)`, since 13.0).
    pub is_soft: bool,
}

/// A list of needs, each once, in order of appearance.
#[derive(Debug, Default)]
pub struct Needs {
    pub list: Vec<Need>,
    places: HashMap<String, usize>,
}

impl Needs {
    /// Adds a need. A repeated need is conditional, or soft, only if it is so each time.
    pub fn add(&mut self, name: &str, is_conditional: bool, is_soft: bool) {
        match self.places.get(name) {
            Some(place) => {
                self.list[*place].is_conditional &= is_conditional;
                self.list[*place].is_soft &= is_soft;
            }
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push(Need { name: name.to_owned(), is_conditional, is_soft });
            }
        }
    }
}

/// Reads a module's source. Accepts any bytes, in linear time.
pub fn read(source: &[u8]) -> ModuleSource {
    let mut found = ModuleSource { is_lua: begins_as_lua(source), ..ModuleSource::default() };
    // Few modules have metadata.
    let lines = if memmem::find(source, METADATA).is_some() { source } else { &[] };
    // Prosody ignores a last line without a line feed.
    for line in lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
        if let Some((key, values)) = metadata(line) {
            match key {
                "lua" => found.lua = values,
                "requires" => found.requires = values,
                "conflicts" => found.conflicts = values,
                _ => {}
            }
        }
    }

    // Most modules state their needs at the beginning. After the last of these words, there are none.
    let words = [&b"depends"[..], b"require"].into_iter();
    let ends = words.filter_map(|word| Some(memmem::rfind(source, word)? + word.len()));
    let Some(end) = ends.max() else { return found };
    let rest = source.len() - end;
    let [mut modules, mut libraries, mut lua_libraries] = [(); 3].map(|()| Needs::default());
    let mut tokens = Tokens::new(source);
    // The number of open blocks (`function`, `if`, `do`, `repeat`; each ends with `end` or `until`).
    let mut depth = 0_usize;
    let mut before = [Symbol(b';'); 2];
    while let Some(token) = tokens.next().filter(|_| tokens.rest().len() >= rest) {
        // The list that an argument belongs to, and whether the call is protected: `pcall(require, "x")`.
        let call = match (before, token) {
            (_, Name(b"function" | b"if" | b"do" | b"repeat")) => {
                depth += 1;
                None
            }
            (_, Name(b"end" | b"until")) => {
                depth = depth.saturating_sub(1);
                None
            }
            ([Name(b"module"), Symbol(b':')], Name(b"depends")) => Some((&mut modules, false)),
            ([Name(b"module"), Symbol(b':')], Name(b"require")) => Some((&mut libraries, false)),
            ([_, Symbol(b'.' | b':')], _) => None,
            ([Name(b"pcall"), Symbol(b'(')], Name(b"require")) => Some((&mut lua_libraries, true)),
            (_, Name(b"require")) => Some((&mut lua_libraries, false)),
            _ => None,
        };
        if let Some((list, is_protected)) = call {
            if let Some((name, is_soft)) = argument(tokens.clone(), is_protected) {
                list.add(name, depth > 0 || is_protected, is_soft);
            }
        }
        before = [before[1], token];
    }
    ModuleSource {
        modules: modules.list,
        libraries: libraries.list,
        lua_libraries: lua_libraries.list,
        ..found
    }
}

/// Whether a source can be Lua, judged by its first statement (Lua 5.4 manual, section 3.3). This detects other files
/// with the name of a module, such as a web page or a picture.
fn begins_as_lua(source: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 10] =
        [b"local", b"function", b"if", b"for", b"while", b"repeat", b"do", b"return", b"break", b"goto"];
    // A first line that begins with `#` is for the kernel.
    let source = match source.strip_prefix(b"#") {
        Some(rest) => rest.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default(),
        None => source.strip_prefix("\u{feff}".as_bytes()).unwrap_or(source),
    };
    if source.contains(&0) {
        return false;
    }
    let mut tokens = Tokens::new(source);
    match (tokens.next(), tokens.next()) {
        (None, _) | (Some(Symbol(b'(' | b';' | b':')), _) => true,
        (Some(Name(name)), following) => {
            let continues = |symbol| b".[:=,({".contains(&symbol);
            KEYWORDS.contains(&name)
                || matches!(following, Some(Text(_)))
                || matches!(following, Some(Symbol(symbol)) if continues(symbol))
        }
        _ => false,
    }
}

/// The first argument of a call if it is a literal string, and whether the second is `true`: `f "x"`, `f("x")`,
/// `f("x", true)`. After `pcall(f`, the string follows a comma.
fn argument<'a>(mut tokens: Tokens<'a>, is_protected: bool) -> Option<(&'a str, bool)> {
    let mut first = tokens.next()?;
    if first == Symbol(if is_protected { b',' } else { b'(' }) {
        first = tokens.next()?;
    }
    let Text(text) = first else { return None };
    let following = [tokens.next(), tokens.next()];
    // `f("x" .. y)` is built at run time.
    if following == [Some(Symbol(b'.')); 2] {
        return None;
    }
    let is_soft = following == [Some(Symbol(b',')), Some(Name(b"true"))];
    let text = std::str::from_utf8(text).ok()?;
    let is_name = !text.is_empty() && text.len() <= LONGEST && !text.contains('\\');
    (is_name && !text.contains(char::is_control)).then_some((text, is_soft))
}

/// The key and the values of a line `--% key: value, value`.
fn metadata(line: &[u8]) -> Option<(&str, Vec<String>)> {
    let line = std::str::from_utf8(line.strip_prefix(METADATA)?).ok()?;
    let (key, values) = line.split_once(':')?;
    let values = values.split([',', ' ']).map(str::trim).filter(|value| !value.is_empty());
    Some((key.trim_start_matches(' '), values.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(list: &[Need]) -> Vec<String> {
        list.iter()
            .map(|need| format!("{}{}", need.name, if need.is_conditional { "?" } else { "" }))
            .collect()
    }

    fn modules(source: &str) -> Vec<String> {
        needs(&read(source.as_bytes()).modules)
    }

    fn libraries(source: &str) -> Vec<String> {
        needs(&read(source.as_bytes()).libraries)
    }

    fn lua_libraries(source: &str) -> Vec<String> {
        needs(&read(source.as_bytes()).lua_libraries)
    }

    #[test]
    fn modules_are_found_in_every_call_syntax() {
        let source = "
            module:depends(\"a\")
            module:depends \"b\"; module:depends'c'
            local serve = module:depends[[d]].serve
            local x = module : depends ( [=[e]=] , true ).x .. 'y'
            module:depends(\"a\")";
        assert_eq!(modules(source), ["a", "b", "c", "d", "e"]);
        let soft: Vec<bool> = read(source.as_bytes()).modules.iter().map(|need| need.is_soft).collect();
        assert_eq!(soft, [false, false, false, false, true]);
    }

    #[test]
    fn only_calls_with_a_literal_name_count() {
        let source = "
            -- module:depends(\"comment\")
            --[[ module:depends 'comment' ]]
            local text = 'module:depends(\"text\")'
            module:depends(name)
            module:depends(\"auth_\" .. name)
            module:depends(\"\")
            other:depends('x') depends('y') module.depends('z')
            module:depends[[a\nb]] module:depends('\u{1b}')";
        assert_eq!(modules(source), Vec::<String>::new());
        let call = |length: usize| format!("module:depends('{}')", "x".repeat(length));
        assert_eq!(modules(&call(LONGEST)).len(), 1);
        assert_eq!(modules(&call(LONGEST + 1)), Vec::<String>::new());
    }

    #[test]
    fn a_call_in_a_block_is_conditional() {
        let source = "
            local function f(x) return x end
            if a then module:depends('branch') elseif b then module:depends('other') end
            for i = 1, 2 do module:depends('loop') end
            while x do repeat module:depends('loops') until y end
            function module.add_host(m) module:depends('host') if q then end end
            pcall(function () module:depends('tried') end)
            do module:depends('host') end
            module:depends('always')
            if c then module:depends('always') end";
        assert_eq!(modules(source), ["branch?", "other?", "loop?", "loops?", "host?", "tried?", "always"]);
    }

    #[test]
    fn libraries_are_found() {
        let source = "
            local a = module:require('ldap')
            local b = module:require \"muc/util\".x
            local st = require \"util.stanza\"
            local ok, c = pcall(require, 'cjson')
            local f = x.require('no') package.require 'no'";
        assert_eq!(libraries(source), ["ldap", "muc/util"]);
        assert_eq!(lua_libraries(source), ["util.stanza", "cjson?"]);
    }

    #[test]
    fn metadata_is_read_from_every_line() {
        let source = "--% requires: s2sout-pre-connect-event\nlocal x\n--%lua: 5.2, 5.4\r\n--%  conflicts: a b\n--% x: y\n";
        let found = read(source.as_bytes());
        assert_eq!(found.requires, ["s2sout-pre-connect-event"]);
        assert_eq!(found.lua, ["5.2", "5.4"]);
        assert_eq!(found.conflicts, ["a", "b"]);
        // Prosody ignores a last line without a line feed.
        assert_eq!(read(b"--% lua: 5.1").lua, Vec::<String>::new());
        assert_eq!(read(b"x\r--% lua: 5.1\n").lua, ["5.1"]);
    }

    #[test]
    fn other_files_are_not_lua() {
        for source in [
            "",
            "-- nothing",
            "#!/usr/bin/lua\nlocal x",
            "\u{feff}local x",
            "module:set_global()",
            "f 'x'",
            "f{}",
            "(f)()",
            "x, y = 1, 2",
            "x.y = 1",
            "x[1] = 2",
            "return {}",
            "::a:: goto a",
            ";",
            "--[[ a ]] do end",
        ] {
            assert!(read(source.as_bytes()).is_lua, "{source}");
        }
        for source in [
            "<!DOCTYPE html>", "this is not Lua", "{}", "\u{7f}ELF\0", "local x\0", "404: Not Found", "\"x\"",
        ] {
            assert!(!read(source.as_bytes()).is_lua, "{source}");
        }
    }

    #[test]
    fn reading_takes_linear_time() {
        for pattern in
            ["module:depends(", "require\"", "--%\n", "function ", "pcall(require,", "module:depends[["]
        {
            read(pattern.repeat(1024 * 1024 / pattern.len()).as_bytes());
        }
    }
}
