//! Summarises a community module in one line from its README.

use std::path::Path;

use crate::os::trusted_file;
use crate::text::cut;

/// In order of preference: only the first that exists is read.
const NAMES: [&str; 3] = ["README.md", "README.markdown", "README"];

/// The maximum number of bytes read from a README. The longest in the collection has 35 kB.
const LONGEST: u64 = 64 * 1024;

/// The maximum length of a summary, in characters.
const LONGEST_SUMMARY: usize = 300;

/// The summary of the module in a directory, or an empty string if there is none.
pub fn summary(folder: &Path) -> String {
    NAMES.iter().find_map(|name| read(&folder.join(name))).map(|text| find(&text)).unwrap_or_default()
}

fn read(path: &Path) -> Option<String> {
    let bytes = trusted_file::open(path).ok()?.regular().ok()?.beginning(LONGEST).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The `summary:` or `description:` of the YAML front matter, or else the first sentence of prose.
fn find(text: &str) -> String {
    let text = text.replace('\r', "");
    let mut keys = ["\nsummary:", "\ndescription:"].into_iter();
    let given = keys.find_map(|key| value(text.split_once(key)?.1));
    let summary = plain(&given.unwrap_or_else(|| first_sentence(&text)));
    cut(summary.trim_end_matches(['.', ':', ' ']), LONGEST_SUMMARY)
}

/// A YAML string: plain, quoted or a block, with the indented lines that follow.
fn value(yaml: &str) -> Option<String> {
    let mut lines = yaml.lines();
    let first = lines.next()?.trim_start_matches([' ', '|', '>', '-']).to_owned();
    let text = lines.take_while(|line| line.starts_with(' ')).fold(first, |text, line| text + line);
    let text = text.trim().trim_matches(['\'', '"']).replace("''", "'");
    (!text.is_empty()).then_some(text)
}

/// The first sentence of the first paragraph that begins with a word or a link and is not a heading.
fn first_sentence(markdown: &str) -> String {
    let is_heading = |text: &str| text.contains("\n==") || text.contains("\n--");
    let is_prose =
        |text: &&str| text.starts_with(|c: char| c.is_alphabetic() || c == '[') && !is_heading(text);
    let text = markdown.split("\n\n").map(str::trim_end).find(is_prose).unwrap_or_default();
    text.replace('\n', " ").split(". ").next().unwrap_or_default().to_owned()
}

/// Markdown as plain text on one line, without link targets and control characters.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once(']') {
        text.push_str(before);
        let target = match after.chars().next() {
            Some('(') => after.split_once(')'),
            Some('[') => after.split_once(']'),
            _ => None,
        };
        rest = target.map_or(after, |(_, rest)| rest);
    }
    text.push_str(rest);
    let text = text.replace(['[', '`', '*', '\\'], "").replace(char::is_control, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::tests::TestDir;

    #[test]
    fn the_summary_comes_from_the_front_matter() {
        for (front, summary) in [
            ("summary: RESTful XMPP API", "RESTful XMPP API"),
            (
                "labels:\n- 'Stage-Alpha'\nsummary: 'Spam filtering'\nrockspec:\n  build:\n    a: b",
                "Spam filtering",
            ),
            ("summary: \"XEP-0388: Extensible SASL Profile\"", "XEP-0388: Extensible SASL Profile"),
            ("summary: 'MQTT interface to Prosody''s pubsub'", "MQTT interface to Prosody's pubsub"),
            ("summary: 'XEP-077 IBR Registration Redirect.'", "XEP-077 IBR Registration Redirect"),
            (
                "summary: |\n    Credentials in a text file, as\n    used by reTurnServer\nlabels: x",
                "Credentials in a text file, as used by reTurnServer",
            ),
            ("summary: >-\n  Folded\n  text\n", "Folded text"),
            ("summary: Plain text that\n  goes on\nlabels: x", "Plain text that goes on"),
            ("summary: 'Quoted text that\n  goes on'", "Quoted text that goes on"),
            ("summary:\n  on the next line", "on the next line"),
            (
                "summary: mod_http_upload to mod_http_file_share migrator",
                "mod_http_upload to mod_http_file_share migrator",
            ),
            ("summary: See [XEP-0363], `x` and **y**", "See XEP-0363, x and y"),
            ("labels:\ndescription: HTTP File Upload", "HTTP File Upload"),
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
    fn without_front_matter_the_summary_is_the_first_sentence() {
        for (text, summary) in [
            (
                "# Introduction\n\nThis exposes [microblogging][xep277] on\nan HTTP server. More.\n",
                "This exposes microblogging on an HTTP server",
            ),
            ("Description\n===========\n\nLists users. More.\n", "Lists users"),
            (
                "---\nsummary: \nlabels:\n- x\n...\n\nSubscribes to a list using pubsub (XEP-0060). As\nentries",
                "Subscribes to a list using pubsub (XEP-0060)",
            ),
            ("---\nlabels: x\n---\n\nText", "Text"),
            ("mod\\_net\\_dovecotauth is a server.\n", "mod_net_dovecotauth is a server"),
            ("Per [XEP-0485: Info](https://xmpp.org/). More", "Per XEP-0485: Info"),
            (
                "# Introduction\n\n::: {.alert .alert-warning}\nThis is obsolete.\n:::\n\nThis closes connections.",
                "This closes connections",
            ),
            ("```\nmodule:depends(\"x\")\n```\n\n    code\n\nText", "Text"),
            ("------\n\n- a list\n\n| a | table |\n\n<b>\n\n> a quotation\n\nText", "Text"),
            ("These are:\n\n- a\n- b", "These are"),
            ("# Nothing but a heading\n", ""),
            ("", ""),
            ("---", ""),
            ("---\n---", ""),
        ] {
            assert_eq!(find(text), summary, "{text}");
        }
    }

    #[test]
    fn a_summary_is_one_short_line_without_control_characters() {
        assert_eq!(find("---\nsummary: \"a\tb\x1b[31m\u{9b}\"\n---\n"), "a b 31m");
        assert_eq!(find("a\\\u{1b}[31mb"), "a 31mb");
        let long = find(&"ü".repeat(1000));
        assert_eq!(long, format!("{}…", "ü".repeat(LONGEST_SUMMARY)));
    }

    #[test]
    fn truncated_markdown_is_accepted() {
        for (text, summary) in
            [("a [b](c", "a b(c"), ("a [b", "a b"), ("a \\", "a"), ("---\nsummary: 'a\n---\n", "a")]
        {
            assert_eq!(find(text), summary);
        }
    }

    #[test]
    fn only_the_beginning_of_the_first_regular_file_is_read() {
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
