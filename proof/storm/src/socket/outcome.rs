//! What an answer of the daemon means for the history.

use tenure_check::history::{Done, Failure, Outcome};
use tenure_sidecar::{CallError, protocol::Kind};

/// Done, at `revision`.
pub(super) fn at(revision: u64) -> Done {
    Done { revision: Some(revision), ..Done::default() }
}

/// An error of an operation that, lost, was certainly not done.
pub(super) fn of(error: &CallError) -> Outcome {
    let why = error.to_string();
    let kind = match error.kind() {
        Some(Kind::Timeout) => Failure::Timeout,
        Some(Kind::Conflict) => Failure::Conflict,
        Some(Kind::Lost | Kind::NotHeld) => Failure::Lost,
        Some(Kind::Unavailable) => Failure::Unavailable,
        Some(Kind::InvalidParams | Kind::InvalidRequest) => Failure::Invalid,
        Some(Kind::Limit | Kind::Denied | Kind::NotFound) => Failure::Other,
        // The connection ended, the outcome is unknown to the daemon too, or it is a kind that says nothing of it.
        _ => return Outcome::Unknown { why },
    };
    Outcome::Failed { kind, why }
}

/// An error of an operation of which, lost, it is not said that it was not done.
pub(super) fn open(error: &CallError) -> Outcome {
    match error.kind() {
        Some(Kind::Lost | Kind::NotHeld) => Outcome::Unknown { why: error.to_string() },
        _ => of(error),
    }
}

/// An error of giving something up: unless it says that it was lost, the daemon goes on with that by itself.
pub(super) fn of_release(error: &CallError) -> Outcome {
    match error.kind() {
        Some(Kind::Lost | Kind::NotHeld) => of(error),
        _ => Outcome::Unknown { why: error.to_string() },
    }
}
