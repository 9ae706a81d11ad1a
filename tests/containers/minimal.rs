//! Which container tests run with the image without a shell: `minimal.txt`, which `tests/minimal` reads.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn the_list_for_the_minimal_image_names_tests_and_skips_a_fifth_at_most() {
    let arguments = ["--list", "--ignored", "--format", "terse"];
    let tests = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap().stdout;
    let tests = String::from_utf8(tests).unwrap();
    let tests: BTreeSet<_> = tests.lines().filter_map(|line| line.strip_suffix(": test")).collect();

    let mut listed = BTreeSet::new();
    let mut skipped = 0;
    for line in include_str!("minimal.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let mut words = line.splitn(3, ' ');
        let (kind, test, reason) = (words.next().unwrap(), words.next().unwrap_or_default(), words.next());
        assert!(tests.contains(test), "{line}: there is no such container test");
        assert!(listed.insert(test), "{test} is listed twice");
        match kind {
            "sample" => assert_eq!(reason, None, "{line}: a sample needs no reason"),
            "skip" => {
                assert!(reason.is_some(), "{line}: the reason is missing");
                skipped += 1;
            }
            _ => panic!("{line}: `sample` or `skip` was expected"),
        }
    }
    assert!(skipped * 5 <= tests.len(), "{skipped} of {} tests are skipped", tests.len());
}
