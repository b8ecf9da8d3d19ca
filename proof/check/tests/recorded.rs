//! Recorded histories: each in `good` keeps every promise, each in `bad` breaks exactly the one that its head names.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use tenure_check::{History, Promise, Verdict, check};

fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

fn recorded(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories").join(kind);
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<_> = must(listed).iter().map(fs::DirEntry::path).collect();
    files.sort();
    files
}

fn read(file: &Path) -> History {
    History::read(BufReader::new(must(File::open(file)))).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn broken(verdicts: &[Verdict]) -> BTreeSet<Promise> {
    verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).map(|verdict| verdict.promise).collect()
}

/// The head's first note: `caught by chain, linear: what is wrong`.
fn named(history: &History) -> BTreeSet<Promise> {
    let names = || history.head.notes.first()?.strip_prefix("caught by ")?.split_once(": ").map(|(names, _)| names);
    let find = |name: &str| Promise::ALL.into_iter().find(|promise| promise.as_str() == name);
    let named = names().map(|names| names.split(", ").map(find).collect::<Option<BTreeSet<_>>>());
    named.flatten().unwrap_or_else(|| panic!("the first note names no promise: {:?}", history.head.notes))
}

#[test]
fn good_histories_keep_every_promise() {
    let files = recorded("good");
    assert!(files.len() >= 7);
    let mut looked_at = BTreeSet::new();
    for file in files {
        let verdicts = check(&read(&file));
        let violations: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.violations).collect();
        assert!(violations.is_empty(), "{}: {violations:#?}", file.display());
        looked_at.extend(verdicts.iter().filter(|verdict| verdict.checked > 0).map(|verdict| verdict.promise));
    }
    assert_eq!(looked_at, Promise::ALL.into(), "no promise is kept for want of something to look at");
}

#[test]
fn bad_histories_break_the_promise_that_they_name_and_no_other() {
    let mut caught = BTreeSet::new();
    for file in recorded("bad") {
        let history = read(&file);
        let verdicts = check(&history);
        assert_eq!(broken(&verdicts), named(&history), "{}: {verdicts:#?}", file.display());
        for violation in verdicts.iter().flat_map(|verdict| &verdict.violations) {
            let lines = &violation.lines;
            assert!(!lines.is_empty() && lines.iter().all(|line| *line < history.lines.len()), "{}", file.display());
        }
        caught.extend(broken(&verdicts));
    }
    assert_eq!(caught, Promise::ALL.into(), "every promise has a history that breaks it");
}

#[test]
fn a_history_is_written_as_it_was_read() {
    for file in recorded("good").into_iter().chain(recorded("bad")) {
        let mut written = Vec::new();
        let history = read(&file);
        history.write(&mut written).unwrap();
        assert_eq!(History::read(&written[..]).unwrap(), history, "{}", file.display());
    }
}
