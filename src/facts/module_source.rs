//! What the source of a module of Prosody's says on its face: which modules and libraries it needs, and where it can be
//! loaded.
//!
//! As in [`super::lua_source`], tokens are read and nothing is run: what is in a comment or a string is not mistaken for
//! code, and a name that a program puts together at run time is not seen.

use super::lua_source::{Token, Tokens};

/// What a module says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleSource {
    /// The modules that it depends on (`module:depends`), each once, in their order.
    pub modules: Vec<Need>,
    /// The libraries that it loads (`module:require`, `require`), each once, in their order.
    pub libraries: Vec<Need>,
    /// The versions of Lua that it is for; empty for all. From here on Prosody 13.0's metadata lines, `--% key: value`
    /// (`core/modulemanager.lua`).
    pub lua: Vec<String>,
    /// The features of Prosody's that it cannot be loaded without.
    pub requires: Vec<String>,
    /// The features of Prosody's that it cannot be loaded beside.
    pub conflicts: Vec<String>,
}

/// Something that a module needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name.
    pub name: String,
    /// Whether it is needed in some cases only: it stands in a function, a branch or a loop, or in a `pcall`.
    pub is_conditional: bool,
}

/// Reads a module's source. Takes any bytes, and a time that grows with their number.
pub fn read(source: &[u8]) -> ModuleSource {
    let mut found = ModuleSource::default();
    for line in source.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some((key, values)) = metadata(line) {
            match key {
                "lua" => found.lua = values,
                "requires" => found.requires = values,
                "conflicts" => found.conflicts = values,
                _ => {}
            }
        }
    }

    let mut tokens = Tokens::new(source);
    // How many blocks are open (`function`, `if`, `do`, `repeat`: each ends with `end` or `until`).
    let mut depth = 0_usize;
    let mut before = [Token::Symbol(b';'); 2];
    while let Some(token) = tokens.next() {
        if let Token::Name(name) = token {
            match name {
                b"function" | b"if" | b"do" | b"repeat" => depth += 1,
                b"end" | b"until" => depth = depth.saturating_sub(1),
                b"depends" | b"require" => {
                    let is_method = before == [Token::Name(b"module"), Token::Symbol(b':')];
                    let is_field = matches!(before[1], Token::Symbol(b'.' | b':'));
                    // `pcall(require, "x")`
                    let is_protected = before == [Token::Name(b"pcall"), Token::Symbol(b'(')];
                    let list = match name {
                        b"depends" if is_method => Some(&mut found.modules),
                        b"require" if is_method || !is_field => Some(&mut found.libraries),
                        _ => None,
                    };
                    if let Some((list, name)) = list.zip(argument(tokens.clone(), is_protected)) {
                        add(list, name, depth > 0 || is_protected);
                    }
                }
                _ => {}
            }
        }
        before = [before[1], token];
    }
    found
}

/// The one argument of a call, where it is a string that is written out: `f "x"`, `f("x")`, `f("x", true)`; after
/// `pcall(f` it follows a comma.
fn argument<'a>(mut tokens: Tokens<'a>, is_protected: bool) -> Option<&'a str> {
    let mut first = tokens.next()?;
    if first == Token::Symbol(if is_protected { b',' } else { b'(' }) {
        first = tokens.next()?;
    }
    let Token::Text(text) = first else { return None };
    // `f("x" .. y)` is put together at run time.
    if tokens.next() == Some(Token::Symbol(b'.')) && tokens.next() == Some(Token::Symbol(b'.')) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && !text.contains('\\')).then_some(text)
}

/// Adds a need. One that is there already is conditional only where it is so each time.
fn add(list: &mut Vec<Need>, name: &str, is_conditional: bool) {
    match list.iter_mut().find(|need| need.name == name) {
        Some(need) => need.is_conditional &= is_conditional,
        None => list.push(Need { name: name.to_owned(), is_conditional }),
    }
}

/// The key and the values of a line `--% key: value, value`.
fn metadata(line: &[u8]) -> Option<(&str, Vec<String>)> {
    let line = std::str::from_utf8(line.strip_prefix(b"--%")?).ok()?;
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

    #[test]
    fn modules_are_seen_in_every_spelling() {
        let source = "
            module:depends(\"a\")
            module:depends \"b\"; module:depends'c'
            local serve = module:depends[[d]].serve
            local x = module : depends ( [=[e]=] , true ).x .. 'y'
            module:depends(\"a\")";
        assert_eq!(modules(source), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn what_is_no_call_of_a_name_is_left_alone() {
        let source = "
            -- module:depends(\"comment\")
            --[[ module:depends 'comment' ]]
            local text = 'module:depends(\"text\")'
            module:depends(name)
            module:depends(\"auth_\" .. name)
            module:depends(\"\")
            other:depends('x') depends('y') module.depends('z')";
        assert_eq!(modules(source), Vec::<String>::new());
    }

    #[test]
    fn what_stands_in_a_block_is_conditional() {
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
    fn libraries_are_seen() {
        let source = "
            local a = module:require('ldap')
            local b = module:require \"muc/util\".x
            local st = require \"util.stanza\"
            local ok, c = pcall(require, 'cjson')
            local f = x.require('no') package.require 'no'";
        assert_eq!(libraries(source), ["ldap", "muc/util", "util.stanza", "cjson?"]);
    }

    #[test]
    fn metadata_are_read_from_every_line() {
        let source = "--% requires: s2sout-pre-connect-event\nlocal x\n--%lua: 5.2, 5.4\r\n--%  conflicts: a b\n--% x: y\n";
        let found = read(source.as_bytes());
        assert_eq!(found.requires, ["s2sout-pre-connect-event"]);
        assert_eq!(found.lua, ["5.2", "5.4"]);
        assert_eq!(found.conflicts, ["a", "b"]);
    }

    #[test]
    fn the_time_is_linear() {
        for pattern in
            ["module:depends(", "require\"", "--%\n", "function ", "pcall(require,", "module:depends[["]
        {
            read(pattern.repeat(1024 * 1024 / pattern.len()).as_bytes());
        }
    }
}
