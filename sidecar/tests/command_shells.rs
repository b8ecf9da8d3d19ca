//! What `tenure` tells shells and manuals about itself. No daemon is needed for it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{collections::BTreeSet, process::Command};

use command_stage::{outcome, result, tenure};

const COMMANDS: [&str; 15] = [
    "lock",
    "elect",
    "members",
    "join",
    "kv",
    "locks",
    "wait",
    "watch",
    "status",
    "top",
    "doctor",
    "permissions",
    "rpc",
    "completions",
    "man",
];

#[test]
fn a_shell_completes_commands_and_flags() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, errors) = result(&mut tenure(["completions", shell]));
        assert_eq!((code, errors.as_str()), (0, ""), "{shell}");
        for word in COMMANDS.iter().chain(&["history", "break", "fence"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script_of = |shell: &str| result(&mut tenure(["completions", shell])).1;
    let script = script_of("bash");
    let path = directory.path().join("tenure");
    std::fs::write(&path, script).unwrap();
    let complete = |words: &str, at: usize| {
        let typed = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _tenure tenure \"${{COMP_WORDS[COMP_CWORD]}}\" ''; echo \"${{COMPREPLY[@]}}\"",
            path.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &typed]).output().unwrap();
        let reply = String::from_utf8(output.stdout).unwrap();
        reply.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert!(complete("tenure lo", 1).is_superset(&["lock".to_owned(), "locks".to_owned()].into()));
    // With names that nobody tells, too.
    assert!(script_of("bash").contains("__complete") && script_of("zsh").contains("_tenure_names' "));
    assert!(complete("tenure kv put --f", 3).contains("--fence"));
}

#[test]
fn there_is_a_page_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let (code, errors) = outcome(&mut tenure(["man", directory.path().to_str().unwrap()]));
    assert_eq!((code, errors.as_str()), (0, ""));
    let page =
        |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for command in COMMANDS {
        assert!(page(&format!("tenure-{command}.1")).contains("tenure"), "{command}");
    }
    let put = page("tenure-kv-put.1");
    assert!(put.contains("fence") && put.contains("gzip"), "{put}");
    let daemon = page("tenured.8");
    assert!(daemon.contains(".TH tenured 8") && daemon.contains("socket\\-mode"), "{daemon}");
    let (code, main, errors) = result(&mut tenure(["man"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(main, page("tenure.1"));
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    for (arguments, remedy) in [
        (&["completions"][..], "SHELL"),
        (&["completions", "cmd"], "bash, elvish, fish, powershell, zsh"),
        (&["man", "a", "b"], "tenure man --help"),
        (&["lokc", "x"], "(did you mean lock?)"),
        (&["lock", "x", "--wiat", "3s", "--", "true"], "(did you mean --wait?)"),
        (&["members", "x", "-o", "jsno"], "(did you mean json?)"),
    ] {
        let (code, errors) = outcome(&mut tenure(arguments));
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.contains(remedy), "{arguments:?}: {errors}");
    }
    let (code, errors) = outcome(&mut tenure(["man", "/no/such/directory"]));
    assert_eq!((code, errors.lines().count()), (125, 1), "{errors}");
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in COMMANDS {
        let (code, output, _) = result(&mut tenure([command, "--help"]));
        assert!(code == 0 && output.contains("Example") && output.contains("  tenure "), "{command}: {output}");
    }
}
