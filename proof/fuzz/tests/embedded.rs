//! Records in a store's file.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use bolero::{TypeGenerator, check};
use tenure_fuzz::Corpus;
use tenure_kv::{
    Entry, Key, Revision, State, Ttl,
    fuzzing::{decode_record, encode_record},
};

#[test]
fn file_record() {
    let corpus = Corpus::of("file_record");
    check!(name = "file_record").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Some((entry, ttl)) = decode_record("a.b", input) else { return };
            assert_eq!(encode_record(&entry, ttl).as_deref(), Some(input));
            assert_eq!((entry.key.as_str(), decode_record("a..b", input)), ("a.b", None));
        });
    });
}

#[derive(Clone, Debug, TypeGenerator)]
struct Written {
    kind: u8,
    body: Vec<u8>,
    revision: u64,
    ttl: u32,
    created: u64,
}

#[test]
fn file_record_written() {
    check!(name = "file_record_written").with_type::<Written>().for_each(|written| {
        let state = match written.kind % 3 {
            0 => State::Live(written.body.clone().into()),
            1 => State::Deleted(written.body.clone().into()),
            _ => State::Purged,
        };
        let created = SystemTime::UNIX_EPOCH + Duration::from_nanos(written.created);
        let entry = Entry { key: Key::new("a.b").unwrap(), revision: Revision::new(written.revision), state, created };
        let ttl = Ttl::from_secs(written.ttl).ok();
        let record = encode_record(&entry, ttl).unwrap();
        assert_eq!(decode_record("a.b", &record), Some((entry.clone(), ttl)));
        assert_eq!(decode_record("a.b", &record[..20]), None);
        assert_eq!(encode_record(&Entry { state: State::Expired, ..entry }, ttl), None);
    });
}
