//! What a community module's README says about it in one line.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The first one that is there is read.
const NAMES: [&str; 3] = ["README.md", "README.markdown", "README"];

/// How much of it is read. The longest in the collections has 35 kB.
const LONGEST: u64 = 64 * 1024;

/// A summary is a sentence and not a page, whatever stands in the README: this many characters.
const LONGEST_SUMMARY: usize = 300;

/// After these a stop does not end the sentence.
const ABBREVIATIONS: [&str; 5] = ["e.g", "i.e", "etc", "cf", "vs"];

/// The summary of the module in a folder; empty where nothing says what it does.
pub fn summary(folder: &Path) -> String {
    NAMES.iter().find_map(|name| read(&folder.join(name))).map(|text| find(&text)).unwrap_or_default()
}

/// Whatever the file is, this does not wait for it.
fn read(path: &Path) -> Option<String> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the YAML at the top gives as the summary, the description or the title; else the first sentence below it.
fn find(text: &str) -> String {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let front = lines.strip_prefix(&["---"]).unwrap_or_default();
    let end = front.iter().position(|line| matches!(*line, "---" | "..."));
    let (front, body) = end.map_or((&[][..], &lines[..]), |end| (&front[..end], &front[end + 1..]));
    // A title of one word is the module's name.
    let mut given =
        [("summary", 1), ("description", 1), ("title", 2)].into_iter().filter_map(|(key, words)| {
            Some(plain(&field(front, key))).filter(|text| text.split_whitespace().count() >= words)
        });
    let summary = given.next().unwrap_or_else(|| first_sentence(plain(&introduction(body))));
    summary.trim_end_matches(['.', ':', ' ']).to_owned()
}

fn first_sentence(mut text: String) -> String {
    let is_end = |&at: &usize| {
        text[at + 1..].starts_with(' ') && !ABBREVIATIONS.iter().any(|word| text[..at].ends_with(word))
    };
    if let Some(end) = text.match_indices(['.', '!', '?']).map(|(at, _)| at).find(is_end) {
        text.truncate(end + 1);
    }
    text
}

/// A value of YAML's: plain or quoted, a block, all of them over several lines, or a list of them.
fn field<'a>(front: &[&'a str], key: &str) -> String {
    let value = |line: &&'a str| line.strip_prefix(key)?.strip_prefix(':').map(str::trim);
    let Some((at, first)) = front.iter().enumerate().find_map(|(at, line)| Some((at, value(line)?))) else {
        return String::new();
    };
    let is_more = |line: &&&str| line.is_empty() || line.starts_with([' ', '\t', '-']);
    let more = front[at + 1..].iter().take_while(is_more).map(|line| line.trim());
    if first.starts_with(['|', '>']) {
        return more.collect::<Vec<&str>>().join(" ");
    }
    let mut value = first.to_owned();
    for line in more {
        // One line for each item, whatever it is written on.
        value.push(if line.starts_with("- ") { '\n' } else { ' ' });
        value.push_str(line.strip_prefix("- ").unwrap_or(line));
    }
    let value = value.trim();
    let (list, separator) = match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => (list, ','),
        None => (value, '\n'),
    };
    list.split(separator).map(|item| scalar(item.trim())).collect::<Vec<String>>().join("; ")
}

/// A value without its quotation marks.
fn scalar(text: &str) -> String {
    let within =
        |open: char, close: char| text.strip_prefix(open)?.rsplit_once(close).map(|(inner, _)| inner);
    if let Some(inner) = within('\'', '\'') {
        inner.replace("''", "'")
    } else if let Some(inner) = within('"', '"') {
        inner.replace("\\n", " ").replace('\\', "")
    } else {
        let text = text.split(" #").next().unwrap_or_default();
        if matches!(text, "~" | "null") { String::new() } else { text.to_owned() }
    }
}

/// The first paragraph of Markdown that is no heading, code, table, list or box.
fn introduction(body: &[&str]) -> String {
    let is_underline =
        |line: &str| line.len() > 1 && line.chars().all(|c| matches!(c, '=' | '-' | '*' | ' '));
    let mut paragraph = String::new();
    let mut fence = None;
    for (at, line) in body.iter().enumerate() {
        let mark = ["```", "~~~", ":::"].into_iter().find(|mark| line.starts_with(mark));
        let is_inside = fence.is_some();
        if mark.is_some() && (fence.is_none() || fence == mark) {
            fence = if is_inside { None } else { mark };
        }
        let is_prose = !is_inside
            && mark.is_none()
            && !line.is_empty()
            && !["#", "|", "<", ">", "- ", "* ", "    ", "\t"].iter().any(|start| line.starts_with(start))
            && !is_underline(line)
            && !body.get(at + 1).is_some_and(|below| is_underline(below));
        if is_prose {
            paragraph.push(' ');
            paragraph.push_str(line);
        } else if !paragraph.is_empty() {
            break;
        }
    }
    paragraph
}

/// Markdown as plain text on one line: links without their targets, nothing for a terminal to act on.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut characters = markdown.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next_if(|c| !c.is_control())),
            '`' | '*' | '[' => {}
            ']' => {
                let target = match characters.peek() {
                    Some('(') => Some(('(', ')')),
                    Some('[') => Some(('[', ']')),
                    _ => None,
                };
                let Some((open, close)) = target else { continue };
                let mut depth = 0;
                for c in characters.by_ref() {
                    depth += i32::from(c == open) - i32::from(c == close);
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ if c.is_control() => text.push(' '),
            _ => text.push(c),
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    cut(&words.join(" "), LONGEST_SUMMARY)
}

/// No more than the first characters of a line.
pub fn cut(line: &str, characters: usize) -> String {
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::test_dir::TestDir;

    #[test]
    fn the_summary_stands_in_the_yaml_at_the_top() {
        for (front, summary) in [
            ("summary: RESTful XMPP API", "RESTful XMPP API"),
            (
                "labels:\n- 'Stage-Alpha'\nsummary: 'Spam filtering'\nrockspec:\n  build:\n    a: b",
                "Spam filtering",
            ),
            ("summary: \"XEP-0388: Extensible SASL Profile\"", "XEP-0388: Extensible SASL Profile"),
            ("summary: 'MQTT interface to Prosody''s pubsub'", "MQTT interface to Prosody's pubsub"),
            ("summary: \"Say \\\"hello\\\"\"", "Say \"hello\""),
            ("summary: 'XEP-077 IBR Registration Redirect.'", "XEP-077 IBR Registration Redirect"),
            (
                "summary: |\n    Credentials in a text file, as\n    used by reTurnServer\nlabels: x",
                "Credentials in a text file, as used by reTurnServer",
            ),
            ("summary: >-\n  Folded\n\n  text\n", "Folded text"),
            ("summary: Plain text that\n  goes on\nlabels: x", "Plain text that goes on"),
            ("summary: 'Quoted text that\n  goes on'", "Quoted text that goes on"),
            ("summary:\n  on the next line", "on the next line"),
            ("summary:\n- 'One thing'\n- another\nlabels: x", "One thing; another"),
            ("summary:\n  - One thing\n    of two lines\n  - another", "One thing of two lines; another"),
            ("summary: ['One thing', another]", "One thing; another"),
            ("summary: Something # to do: more", "Something"),
            (
                "summary: mod_http_upload to mod_http_file_share migrator",
                "mod_http_upload to mod_http_file_share migrator",
            ),
            ("summary: See [XEP-0363], `x` and **y**", "See XEP-0363, x and y"),
            ("labels:\ndescription: HTTP File Upload", "HTTP File Upload"),
            ("title: Cyrus SASL\nrockspec:\n  build:", "Cyrus SASL"),
            ("summary:\ndescription: A description\ntitle: A title", "A description"),
        ] {
            for end in ["---", "..."] {
                let text = format!("---\n{front}\n{end}\n\n# Introduction\n\nThe introduction.\n");
                assert_eq!(find(&text), summary, "{text}");
                assert_eq!(find(&format!("\u{feff}{}", text.replace('\n', "\r\n"))), summary, "{text}");
            }
        }
    }

    #[test]
    fn without_one_it_is_the_first_sentence() {
        for (text, summary) in [
            (
                "# Introduction\n\nThis exposes [microblogging][xep277] on\nan HTTP server. More.\n",
                "This exposes microblogging on an HTTP server",
            ),
            ("Description\n===========\n\nLists users, e.g. old ones. More.\n", "Lists users, e.g. old ones"),
            (
                "---\nsummary: \nlabels:\n- x\n...\n\nSubscribes to a list using pubsub (XEP-0060). As\nentries",
                "Subscribes to a list using pubsub (XEP-0060)",
            ),
            ("---\nlabels: x\n---\nText", "Text"),
            ("---\nsummary: ~\n---\nText", "Text"),
            ("---\ntitle: mod_x\n---\nText", "Text"),
            ("mod\\_net\\_dovecotauth is a server.\n", "mod_net_dovecotauth is a server"),
            ("Per [XEP-0485: Info](https://xmpp.org/a_(b).html). More", "Per XEP-0485: Info"),
            (
                "# Introduction\n\n::: {.alert .alert-warning}\nThis is obsolete.\n:::\n\nThis closes connections.",
                "This closes connections",
            ),
            ("```\nmodule:depends(\"x\")\n```\n~~~ lua\n~~~\n    code\n\nText", "Text"),
            ("------\n\n- a list\n* of things\n\n| a | table |\n\n<b>\n\n> a quotation\n\nText", "Text"),
            ("Prosody 0.12 has it! Or has it?", "Prosody 0.12 has it!"),
            ("These are:\n- a\n- b", "These are"),
            ("---\nA line across the page, and no YAML", "A line across the page, and no YAML"),
            ("# Nothing but a heading\n", ""),
            ("", ""),
            ("---", ""),
            ("---\n---", ""),
        ] {
            assert_eq!(find(text), summary, "{text}");
        }
    }

    #[test]
    fn a_summary_is_one_line_of_a_length_without_control_characters() {
        assert_eq!(find("---\nsummary: \"a\tb\x1b[31m\u{9b}\"\n---\n"), "a b 31m");
        assert_eq!(find("a\\\u{1b}[31mb"), "a 31mb");
        let long = find(&"ü".repeat(1000));
        assert_eq!(long, format!("{}…", "ü".repeat(LONGEST_SUMMARY)));
    }

    #[test]
    fn markdown_that_ends_too_early_is_read_to_its_end() {
        for (text, summary) in
            [("a [b](c", "a b"), ("a [b", "a b"), ("a \\", "a"), ("---\nsummary: 'a\n---\n", "'a")]
        {
            assert_eq!(find(text), summary);
        }
    }

    #[test]
    fn the_first_file_that_is_one_is_read_and_not_all_of_it() {
        let folder = TestDir::new();
        let path = folder.path();
        assert_eq!(summary(path), "");
        folder.write("README", "Plain");
        assert_eq!(summary(path), "Plain");
        folder.write("README.markdown", b"Latin-1: gr\xfc\xdfe");
        assert_eq!(summary(path), "Latin-1: gr\u{fffd}\u{fffd}e");
        nix::unistd::mkfifo(&path.join("README.md"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(summary(path), "Latin-1: gr\u{fffd}\u{fffd}e");
        std::fs::remove_file(path.join("README.md")).unwrap();
        folder.write("README.md", format!("{}\nToo far down", "- x\n".repeat(LONGEST as usize)));
        assert_eq!(summary(path), "");
    }
}
