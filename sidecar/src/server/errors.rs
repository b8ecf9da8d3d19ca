//! Errors of the store and of the primitives in the words of the wire.

use std::error::Error as _;

use tenure::{Error, Holder};

use super::sessions::millis;
use crate::protocol::{ErrorObject, Kind, Owner};

/// The daemon is on its way out.
pub(super) fn leaving() -> ErrorObject {
    ErrorObject::new(Kind::Unavailable, "the daemon is leaving and takes no new work; connect again in a moment")
}

/// No line came from the client for its heartbeat.
pub(super) const CLIENT_SILENT: &str = "client_silent";

/// A request that ended because its client had gone silent.
pub(super) fn silent() -> ErrorObject {
    ErrorObject::new(Kind::Lost, "no line came from this client for its heartbeat_ms, so its waits and leases were ended")
        .with("reason", CLIENT_SILENT)
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
