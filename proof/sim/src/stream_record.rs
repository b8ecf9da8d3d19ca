//! The server's own stream as lines of the history.

use serde_json::Value as Json;
use tenure_check::history::{Line, Micros, Value, Write, WriteState};
use tenure_kv::{Entry, State};

/// A committed write.
pub(crate) fn write(entry: &Entry, epoch: u64, at: Micros) -> Line {
    let (state, note) = match &entry.state {
        State::Live(_) => (WriteState::Live, None),
        State::Deleted(note) => (WriteState::Deleted, Some(String::from_utf8_lossy(note).into_owned())),
        State::Purged => (WriteState::Purged, None),
        State::Expired => (WriteState::Expired, None),
    };
    Line::Write(Write {
        revision: entry.revision.get(),
        epoch,
        key: entry.key.to_string(),
        state,
        value: value(entry),
        note: note.filter(|note| !note.is_empty()),
        at: Some(at),
    })
}

/// Whose it is: a ticket's, a candidate's, a leader's or a member's session.
pub(crate) fn owner(entry: &Entry) -> Option<String> {
    value(entry).session
}

fn value(entry: &Entry) -> Value {
    let key = entry.key.as_str();
    let ticket = key.rsplit('.').next().and_then(|last| last.split_once('-')).map(|(session, _)| session.to_owned());
    match (key.split('.').next(), entry.value()) {
        (Some("lock"), _) => Value { session: ticket, ..Value::default() },
        (Some("data"), Some(bytes)) => Value { nonce: Some(String::from_utf8_lossy(bytes).into_owned()), ..Value::default() },
        (Some("election" | "candidate" | "member"), Some(bytes)) => {
            let json: Json = serde_json::from_slice(bytes).unwrap_or_default();
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            Value { nonce: text("value"), session: text("session"), term: json["term"].as_u64(), candidate: text("candidate") }
        }
        _ => Value::default(),
    }
}
