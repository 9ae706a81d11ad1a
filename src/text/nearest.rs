//! The nearest known word, for "did you mean".

/// The choice that is nearest to `word`, if one is near enough to be what was meant: at most a third of the
/// word's letters (one at least) were dropped, added, changed or swapped with their neighbour. Case makes no
/// difference. Of equally near choices the first one is taken. Where none is near, the only choice that is the
/// beginning of the word or begins with it: `warning` for `warn`.
pub fn nearest<'a>(word: &str, choices: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().map(|c| c.to_ascii_lowercase()).collect();
    let limit = (word.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    let mut alike: Vec<&str> = Vec::new();
    for choice in choices {
        let letters: Vec<char> = choice.chars().map(|c| c.to_ascii_lowercase()).collect();
        if is_short_for(&letters, &word) || is_short_for(&word, &letters) {
            alike.push(choice);
        }
        // The difference in length alone rules a choice out, so that a word of 100 kB costs nothing.
        if letters.len().abs_diff(word.len()) > limit {
            continue;
        }
        let edits = distance(&word, &letters);
        if edits <= limit && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, choice));
        }
    }
    match (best, &alike[..]) {
        (Some((_, choice)), _) => Some(choice),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// Whether three letters or more are the beginning of a word. In `muc_mam` and `muc` a word of its own follows.
fn is_short_for(short: &[char], long: &[char]) -> bool {
    short.len() >= 3 && long.strip_prefix(short).is_some_and(|rest| !rest.is_empty() && rest[0] != '_')
}

/// The Damerau–Levenshtein distance in its restricted form (no letter is edited twice).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = last[j] + usize::from(a[i] != b[j]);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(word: &str) -> Option<&'static str> {
        let levels = ["debug", "info", "warn", "error", "warnings"];
        nearest(word, levels.into_iter())
    }

    #[test]
    fn finds_each_kind_of_slip() {
        assert_eq!(near("debg"), Some("debug"));
        assert_eq!(near("infoo"), Some("info"));
        assert_eq!(near("wArm"), Some("warn"));
        assert_eq!(near("erorr"), Some("error"), "neighbours swapped");
    }

    #[test]
    fn stays_silent_where_nothing_is_near() {
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

    #[test]
    fn counts_edits() {
        let count =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("abc", "abc"), 0);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
