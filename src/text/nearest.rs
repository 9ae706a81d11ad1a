//! The nearest known word, for "did you mean".

/// After this many unknown names, no nearest ones are searched for, so that any number of them is cheap.
pub const MOST_HINTS: usize = 100;

/// Finds the choice that is nearest to `word`, ignoring case, or none.
///
/// A choice is near if it differs by at most a third of the word's letters (at least one) that are dropped, added,
/// changed or swapped with their neighbour. The first of equally near choices wins. If none is near, a single choice
/// is returned that begins with the word or vice versa: `warning` for `warn`.
pub fn nearest<'a>(word: &str, choices: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let letters = word.chars().count();
    let limit = (letters / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    let mut prefixed: Vec<&str> = Vec::new();
    for choice in choices {
        let known = choice.to_ascii_lowercase();
        if is_short_for(&known, &word) || is_short_for(&word, &known) {
            prefixed.push(choice);
        }
        // Skip choices with a very different length, so that a word of 100 kB is cheap.
        if known.chars().count().abs_diff(letters) > limit {
            continue;
        }
        let edits = strsim::osa_distance(&word, &known);
        if edits <= limit && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, choice));
        }
    }
    match (best, &prefixed[..]) {
        (Some((_, choice)), _) => Some(choice),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// The nearest choices, at most three.
pub fn nearest_few<'a>(word: &str, choices: impl Iterator<Item = &'a str> + Clone) -> Vec<&'a str> {
    let mut near: Vec<&str> = Vec::new();
    while let Some(one) = nearest(word, choices.clone().filter(|one| !near.contains(one))) {
        near.push(one);
        if near.len() == 3 {
            break;
        }
    }
    near
}

/// Whether `short`, of three letters or more, is the beginning of `long`. `muc` does not match `muc_mam`, because `_`
/// begins another word.
fn is_short_for(short: &str, long: &str) -> bool {
    short.chars().count() >= 3
        && long.strip_prefix(short).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(word: &str) -> Option<&'static str> {
        let levels = ["debug", "info", "warn", "error", "warnings"];
        nearest(word, levels.into_iter())
    }

    #[test]
    fn finds_each_kind_of_typing_error() {
        assert_eq!(near("debg"), Some("debug"));
        assert_eq!(near("infoo"), Some("info"));
        assert_eq!(near("wArm"), Some("warn"));
        assert_eq!(near("erorr"), Some("error"), "neighbours swapped");
    }

    #[test]
    fn finds_nothing_if_nothing_is_near() {
        assert_eq!(near("verbose"), None);
        assert_eq!(near("i"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }

    #[test]
    fn a_longer_or_shorter_form_is_near() {
        assert_eq!(near("informational"), Some("info"));
        assert_eq!(near("deb"), Some("debug"));
        assert_eq!(near("wa"), None, "two letters say nothing");
        assert_eq!(nearest("war", ["warn", "warnings"].into_iter()), Some("warn"), "one edit");
        assert_eq!(nearest("mod", ["modern", "moderate"].into_iter()), None, "two of them");
        assert_eq!(nearest("http_upload", ["http"].into_iter()), None, "another module");
    }
}
