//! What it means for whoever called that a call failed: the exit code, and one line.

use super::exit::{self, Failure};
use crate::{CallError, protocol::Kind};

/// The exit code when `method` was called and nobody said what came of it: what is not known to leave
/// nothing behind may have been done.
pub(super) fn silence(method: &str) -> u8 {
    // What is acquired or subscribed to ends with the connection.
    let harmless = matches!(
        method,
        "hello"
            | "ping"
            | "status"
            | "cancel"
            | "rpc.discover"
            | "subscription.cancel"
            | "lock.acquire"
            | "lock.check"
            | "lock.get"
            | "lock.list"
            | "lock.observe"
            | "election.campaign"
            | "election.leader"
            | "election.candidates"
            | "election.list"
            | "election.observe"
            | "member.join"
            | "member.list"
            | "member.groups"
            | "member.watch"
            | "kv.get"
            | "kv.keys"
            | "kv.history"
            | "kv.watch"
    );
    if harmless { exit::FAILED } else { exit::UNKNOWN }
}

/// The exit code when `method` was refused like this. No kind is one of a later daemon.
pub(super) fn code(method: &str, kind: Option<Kind>) -> u8 {
    match kind {
        Some(Kind::ParseError | Kind::InvalidRequest | Kind::MethodNotFound | Kind::InvalidParams | Kind::Unsupported) => {
            exit::USAGE
        }
        Some(Kind::Timeout) => exit::NOT_ACQUIRED,
        Some(Kind::Conflict) => exit::CONFLICT,
        Some(Kind::NotHeld | Kind::Lost) => exit::LOST,
        Some(Kind::NotFound) => exit::NOT_THERE,
        Some(Kind::Denied) => exit::DENIED,
        Some(Kind::Unavailable | Kind::Limit) => exit::FAILED,
        Some(Kind::UnknownOutcome | Kind::Internal | Kind::Cancelled) | None => silence(method),
    }
}

/// What a failed call of `method` means.
pub(super) fn failure(method: &str, error: &CallError) -> Failure {
    match error.object() {
        Some(object) => {
            // No bucket is not the same as no value in it.
            let no_bucket = object.kind() == Some(Kind::NotFound) && object.data.contains_key("bucket");
            let code = if no_bucket { exit::FAILED } else { code(method, object.kind()) };
            let said = if code == exit::USAGE { object.message.clone() } else { format!("tenured: {}", object.message) };
            Failure::new(code, said)
        }
        None if matches!(error, CallError::Closed) => {
            Failure::new(silence(method), "tenured closed the connection; see its log, and try again")
        }
        None => Failure::new(silence(method), format!("tenured: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_never_told_as_a_failure() {
        for method in ["kv.put", "kv.create", "kv.update", "kv.delete", "kv.purge", "lock.break", "of.a.later.daemon"] {
            assert_eq!(silence(method), exit::UNKNOWN, "{method}");
            for kind in [Some(Kind::UnknownOutcome), Some(Kind::Internal), Some(Kind::Cancelled), None] {
                assert_eq!(code(method, kind), exit::UNKNOWN, "{method}: {kind:?}");
            }
        }
        assert_eq!(code("kv.get", Some(Kind::UnknownOutcome)), exit::FAILED);
    }
}
