//! Errors of the store and of the primitives in the words of the wire.

use std::error::Error as _;

use tenure::{Error, Holder};

use super::sessions::millis;
use crate::protocol::{ErrorObject, Kind, Owner};

/// The daemon is on its way out.
pub(super) fn leaving() -> ErrorObject {
    ErrorObject::new(Kind::Unavailable, "the daemon is leaving and takes no new work; connect again in a moment")
}

/// The store did not even open a session.
pub(super) fn not_reached() -> ErrorObject {
    ErrorObject::new(Kind::Unavailable, "the store did not answer in time, so nothing was even tried")
}

pub(super) use super::tally::CLIENT_SILENT;

/// A request that ended because its client had gone silent.
pub(super) fn silent() -> ErrorObject {
    ErrorObject::new(Kind::Lost, "no line came from this client for its heartbeat_ms, so its waits and leases were ended")
        .with("reason", CLIENT_SILENT)
}

/// A parameter that is wrong.
pub(super) fn param(param: &str, said: impl Into<String>) -> ErrorObject {
    ErrorObject::new(Kind::InvalidParams, said).with("param", param)
}

/// A failure of the primitives; where the call is wrong, with the parameter that its message is about: `fields`
/// are the words of messages and the parameters they stand for.
pub(super) fn naming(error: &Error, fields: &[(&str, &str)]) -> ErrorObject {
    let said = of(error);
    if !matches!(error, Error::Invalid { .. }) {
        return said;
    }
    let words = said.message.strip_prefix("the ").or_else(|| said.message.strip_prefix("a ")).unwrap_or_default();
    match fields.iter().find(|(word, _)| words.starts_with(word)) {
        Some((_, param)) => said.clone().with("param", *param),
        None => said,
    }
}

/// Refuses what is no name of an election or a group.
pub(super) fn check_name(param: &str, name: &str) -> Result<(), ErrorObject> {
    if name.len() > tenure::MAX_NAME {
        return Err(self::param(param, format!("the {param} has {} bytes; the limit is {}", name.len(), tenure::MAX_NAME)));
    }
    match tenure_kv::Key::new(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(self::param(param, error.to_string().replacen("key", param, 1))),
    }
}

/// A failure of the primitives.
pub(super) fn of(error: &Error) -> ErrorObject {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    match error {
        Error::Invalid { .. } => ErrorObject::new(Kind::InvalidParams, message),
        Error::NotAcquired { waited, holder, .. } => {
            let error = ErrorObject::new(Kind::Timeout, message).with("waited_ms", millis(*waited));
            match holder.as_deref().map(owner).map(serde_json::to_value) {
                Some(Ok(holder)) => error.with("holder", holder),
                _ => error,
            }
        }
        Error::Lost { loss, .. } => ErrorObject::new(Kind::Lost, message).with("reason", loss.as_str()),
        Error::Conflict { revision, .. } => {
            let error = ErrorObject::new(Kind::Conflict, message);
            match revision {
                Some(revision) => error.with("revision", revision.get()),
                None => error,
            }
        }
        Error::Unavailable { .. } => ErrorObject::new(Kind::Unavailable, message),
        // Whatever else there may be one day says least when it is taken as unknown.
        _ => ErrorObject::new(Kind::UnknownOutcome, message),
    }
}

/// A failure of the store.
pub(super) fn of_store(error: tenure_kv::Error) -> ErrorObject {
    of(&error.into())
}

/// A holder or waiter as `lock.get` shows it.
pub(super) fn owner(holder: &Holder) -> Owner {
    let since = holder.since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Owner {
        fence: holder.token.get(),
        label: holder.label.clone(),
        session: holder.session.clone(),
        host: holder.host.clone(),
        pid: holder.pid,
        since_ms: millis(since),
    }
}
