//! Records in the bucket, which any client of the bucket may have written.
//!
//! The value of `challenge.<name>` is an id that is only compared, and so are the notes `held`, `broken` and
//! `transferred`: there is nothing to parse in them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use bolero::check;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tenure::{
    MAX_NAME,
    fuzzing::{self, Read},
};
use tenure_fuzz::Corpus;
use tenure_kv::{Entry, Key, MAX_VALUE, Revision, State};

/// What was read is written so that the same is read, and none of `fields` is lost.
fn comes_back(read: impl Fn(Bytes) -> Option<Read>, fields: &[&str], value: &[u8]) {
    let Some(first) = read(Bytes::copy_from_slice(value)) else { return };
    let written: Json = serde_json::from_slice(&first.written).unwrap();
    // What is wrong in a member that nobody knows is no matter.
    let given: Json = serde_json::from_slice(value).unwrap_or_default();
    for field in fields {
        // Lists are taken for records too, by the order of their items.
        let given = given.get(*field).filter(|given| !given.is_null() && **given != json!({}) && **given != json!(""));
        assert!(given.is_none() || given == written.get(*field), "{field}: {given:?} is written as {written}");
    }
    let second = read(first.written.clone()).unwrap_or_else(|| panic!("{first:?} is not read again"));
    assert_eq!((second.said, second.written), (first.said, first.written));
}

const ELECTION: [&str; 11] =
    ["session", "candidate", "host", "pid", "label", "priority", "value", "value_b64", "term", "writes", "since_ms"];
const MEMBER: [&str; 12] =
    ["session", "nonce", "write", "host", "pid", "label", "address", "metadata", "zone", "weight", "state", "value"];

fn entry(key: &str, value: Bytes) -> Entry {
    let key = Key::new(key).unwrap();
    Entry { key, revision: Revision::new(7), state: State::Live(value), created: SystemTime::UNIX_EPOCH }
}

#[test]
fn session() {
    let corpus = Corpus::of("session");
    check!(name = "session").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            comes_back(|value| fuzzing::session(&value), &["lease_ms", "beat", "host", "pid", "label"], input)
        })
    });
}

#[test]
fn ticket() {
    let corpus = Corpus::of("ticket");
    check!(name = "ticket").for_each(|input: &[u8]| {
        corpus.each(input, |input| comes_back(|value| fuzzing::ticket(&value), &["host", "pid", "label"], input))
    });
}

#[test]
fn epoch() {
    let corpus = Corpus::of("epoch");
    check!(name = "epoch").for_each(|input: &[u8]| {
        corpus.each(input, |input| comes_back(|value| fuzzing::epoch(&value), &["id", "settled"], input))
    });
}

/// A leader's record and a candidate's are the same.
#[test]
fn election() {
    let corpus = Corpus::of("election");
    check!(name = "election").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            comes_back(|value| fuzzing::election(&entry("election.e", value)), &ELECTION, input);
            let (record, value) = fuzzing::proclaimed(input).unwrap();
            assert!(value == input && record.len() <= MAX_VALUE);
        });
    });
}

#[test]
fn member() {
    let corpus = Corpus::of("member");
    check!(name = "member").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            comes_back(|value| fuzzing::member(&entry("member.g.m", value)), &MEMBER, input);
            assert!(fuzzing::member(&entry("member.g", Bytes::copy_from_slice(input))).is_none());
        });
    });
}

/// What a key of the bucket says.
#[test]
fn bucket_key() {
    let corpus = Corpus::of("bucket_key");
    check!(name = "bucket_key").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Some(key) = std::str::from_utf8(input).ok().and_then(|text| Key::new(text).ok()) else { return };
            if let Some((name, session)) = fuzzing::parse_ticket(&key) {
                let number = key.as_str().strip_prefix(&format!("lock.{name}.{session}-")).unwrap();
                assert!(session.len() == 32 && number.bytes().all(|byte| byte.is_ascii_digit()), "{key}");
                assert!(name.len() < MAX_NAME * 2 && Key::new(name).is_ok());
            }
            if let Some((group, id)) = fuzzing::parse_member(&key) {
                assert_eq!(key.as_str(), format!("member.{group}.{id}"));
                assert!(!id.contains('.') && Key::new(group).is_ok());
            }
        });
    });
}
