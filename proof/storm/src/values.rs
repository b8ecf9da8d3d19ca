//! What the checker wants to know of a write, read off its key and its value; no I/O.

use serde::Deserialize;
use tenure_check::history::{Value, Write, WriteState};
use tenure_kv::{Entry, State};

/// What records of leaders, candidates and members have in common.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    session: Option<String>,
    candidate: Option<String>,
    term: Option<u64>,
    value: Option<String>,
    id: Option<String>,
}

/// The line for `entry`, written in the incarnation `epoch` of the bucket.
pub(crate) fn write(entry: &Entry, epoch: u64) -> Write {
    let (state, value, note) = match &entry.state {
        State::Live(value) => (WriteState::Live, live(entry.key.as_str(), value), None),
        State::Deleted(note) => {
            let note = Some(String::from_utf8_lossy(note).into_owned()).filter(|note| !note.is_empty());
            (WriteState::Deleted, Value::default(), note)
        }
        State::Purged => (WriteState::Purged, Value::default(), None),
        State::Expired => (WriteState::Expired, Value::default(), None),
    };
    Write { revision: entry.revision.get(), epoch, key: entry.key.as_str().to_owned(), state, value, note, at: None }
}

fn live(key: &str, value: &[u8]) -> Value {
    let record = || serde_json::from_slice::<Record>(value).unwrap_or_default();
    let range = key.split('.').next().unwrap_or_default();
    match range {
        "data" => Value { nonce: String::from_utf8(value.to_vec()).ok(), ..Value::default() },
        "lock" => Value { session: ticket(key).map(str::to_owned), ..Value::default() },
        "election" | "candidate" => {
            let Record { session, candidate, term, value, .. } = record();
            // What a candidate would say is not said yet.
            Value { nonce: value.filter(|value| range == "election" && is_nonce(value)), session, term, candidate }
        }
        "member" => {
            let Record { session, value, .. } = record();
            Value { nonce: value, session, ..Value::default() }
        }
        // Which incarnation of the bucket this is.
        "meta" => Value { nonce: record().id, ..Value::default() },
        _ => Value::default(),
    }
}

/// A leader's first value is nobody's: it is not proclaimed by an operation of its own.
fn is_nonce(value: &str) -> bool {
    value.strip_prefix('n').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The session in a ticket's key, `lock.<name>.<session>-<n>`.
fn ticket(key: &str) -> Option<&str> {
    key.rsplit_once('.')?.1.rsplit_once('-').map(|(session, _)| session)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tenure_kv::{Key, Revision};

    use super::*;

    fn read(key: &str, state: State) -> Write {
        let key = Key::new(key).unwrap();
        write(&Entry { key, revision: Revision::new(7), state, created: SystemTime::UNIX_EPOCH }, 2)
    }

    #[test]
    fn values_say_what_promises_are_about() {
        let leader = read("election.e", State::Live(r#"{"session":"s","candidate":"s-1","value":"n5","term":3}"#.into()));
        let value = Value { nonce: Some("n5".into()), session: Some("s".into()), term: Some(3), candidate: Some("s-1".into()) };
        assert_eq!((leader.value, leader.epoch, leader.revision), (value, 2, 7));
        assert_eq!(read("lock.a.b.s-1", State::Live("{}".into())).value.session.as_deref(), Some("s"));
        assert_eq!(read("member.g.m", State::Live(r#"{"session":"s","value":"n"}"#.into())).value.nonce.as_deref(), Some("n"));
        assert_eq!(read("data.x", State::Live("n9".into())).value.nonce.as_deref(), Some("n9"));
        let gone = read("lock.a.s-1", State::Deleted("broken".into()));
        assert_eq!((gone.state, gone.note.as_deref()), (WriteState::Deleted, Some("broken")));
        assert_eq!(read("session.s", State::Live("no json".into())).value, Value::default());
    }
}
