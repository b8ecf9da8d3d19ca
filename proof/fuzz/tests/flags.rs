//! The daemon's configuration: its command line, its file, and the policy.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use bolero::check;
use tenure_fuzz::Corpus;
use tenure_sidecar::{fuzzing, server::Config};

/// The command line that asks for `config`.
fn words(config: &Config) -> Vec<OsString> {
    let limits = &config.limits;
    let mut words: Vec<OsString> =
        vec!["--store".into(), config.store.clone().into(), "--socket".into(), config.socket.clone().into()];
    let mut flag = |name: &str, value: String| words.push(format!("--{name}={value}").into());
    flag("socket-mode", format!("{:o}", config.access.mode));
    config.access.group.iter().for_each(|group| flag("socket-group", group.clone()));
    config.policy.iter().for_each(|path| flag("policy", path.to_str().unwrap().to_owned()));
    config.lease.iter().for_each(|lease| flag("lease", format!("{}ns", lease.as_nanos())));
    flag("drain", format!("{}s {}ns", config.drain.as_secs(), config.drain.subsec_nanos()));
    flag("busy-poll", format!("{}ns", config.busy_poll.as_nanos()));
    flag("stall", format!("{}ms", limits.stall_ms));
    flag("min-check-interval", format!("{}ms", limits.min_check_interval_ms));
    for (name, number) in [
        ("max-line", limits.line_bytes),
        ("max-requests", limits.requests),
        ("max-leases", limits.leases),
        ("max-subscriptions", limits.subscriptions),
        ("max-lease-lengths", limits.lease_lengths),
        ("max-connections", limits.connections),
        ("max-connections-per-uid", limits.connections_per_uid),
        ("max-requests-per-uid", limits.requests_per_uid),
        ("max-leases-per-uid", limits.leases_per_uid),
        ("max-subscriptions-per-uid", limits.subscriptions_per_uid),
    ] {
        flag(name, number.to_string());
    }
    words
}

fn assert_sound(config: &Config) {
    let limits = &config.limits;
    assert!(config.access.mode <= 0o777 && limits.line_bytes >= 1_024, "{config:?}");
    assert!(config.lease.is_none_or(|lease| (tenure::MIN_LEASE..=tenure::MAX_LEASE).contains(&lease)), "{config:?}");
    let counts = [limits.requests, limits.leases, limits.subscriptions, limits.lease_lengths, limits.connections];
    assert!(counts.iter().all(|count| (1..=1 << 40).contains(count)), "{config:?}");
}

/// One word on a line.
#[test]
fn flags() {
    let corpus = Corpus::of("flags");
    check!(name = "flags").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            if input.contains(&0) || input.windows(4).any(|window| window == b"/dev" || window == b"/pro") {
                return;
            }
            let arguments = input.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
            match fuzzing::flags(arguments) {
                Ok(config) => {
                    assert_sound(&config);
                    let again = fuzzing::flags(words(&config)).unwrap_or_else(|error| panic!("{error}: {config:?}"));
                    assert_eq!(format!("{again:?}"), format!("{config:?}"));
                }
                Err(said) => assert!(!said.is_empty() && !said.contains('\n'), "{said}"),
            }
        });
    });
}

/// What `tenured config show` makes of a file is a file that means the same.
#[test]
fn config() {
    let corpus = Corpus::of("config");
    check!(name = "config").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            match fuzzing::file(text) {
                Ok((config, shown)) => {
                    assert_sound(&config);
                    let (again, same) = fuzzing::file(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
                    assert_eq!(format!("{again:?}"), format!("{config:?}"));
                    // Where each is from is no part of it.
                    let values = |text: &str| {
                        text.lines().filter_map(|line| line.rsplit_once(" # ")).map(|(v, _)| v.to_owned()).collect::<Vec<_>>()
                    };
                    assert_eq!(values(&same), values(&shown));
                }
                Err(said) => {
                    let line = said.strip_prefix("tenured.toml:").and_then(|rest| rest.split_once(": "));
                    assert!(line.is_some_and(|(line, _)| line.parse::<usize>().is_ok_and(|line| line > 0)), "{said}");
                    assert!(!said.contains('\n'), "{said}");
                }
            }
        });
    });
}

#[test]
fn policy() {
    let corpus = Corpus::of("policy");
    check!(name = "policy").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            match fuzzing::policy(text) {
                Ok(rules) => {
                    // A rule more is a rule more, wherever it stands; and one more mistake is found.
                    let more = |rule: &str| fuzzing::policy(&format!("{text}\n{rule}"));
                    let rule = if rules > 0 && !text.contains("[[deny]]") { "[[allow]]" } else { "[[deny]]" };
                    if let Ok(found) = more(&format!("{rule}\nuser = 1\nmethods = \"lock\"\n")) {
                        assert_eq!(found, rules + 1);
                    }
                    assert!(more("[[allow]]\nmethods = \"lock\"\n").is_err());
                }
                Err(said) => {
                    let line = said.strip_prefix("policy.toml:").and_then(|rest| rest.split_once(": "));
                    assert!(line.is_some_and(|(line, _)| line.parse::<usize>().is_ok_and(|line| line > 0)), "{said}");
                    assert!(!said.contains('\n'), "{said}");
                }
            }
        });
    });
}
