//! What an answer means for the history, by what the documentation of its error says.

use tenure::Error;
use tenure_check::history::{Done, Failure, Outcome};
use tenure_kv::Revision;

/// Done, at `revision`.
pub(super) fn at(revision: Revision) -> Done {
    Done { revision: Some(revision.get()), ..Done::default() }
}

/// An error of an operation that, lost, was certainly not done.
pub(super) fn of(error: &Error) -> Outcome {
    let kind = match error {
        Error::NotAcquired { .. } => Failure::Timeout,
        Error::Lost { .. } => Failure::Lost,
        Error::Conflict { .. } => Failure::Conflict,
        Error::Unavailable { .. } => Failure::Unavailable,
        Error::Invalid { .. } => Failure::Invalid,
        // What a later version may add says least when it is taken as unknown.
        _ => return Outcome::Unknown { why: error.to_string() },
    };
    Outcome::Failed { kind, why: error.to_string() }
}

/// An error of an operation whose documentation does not say that, lost, it was not done.
pub(super) fn open(error: &Error) -> Outcome {
    match error {
        Error::Lost { .. } => Outcome::Unknown { why: error.to_string() },
        _ => of(error),
    }
}

/// An error of the store itself.
pub(crate) fn of_store(error: &tenure_kv::Error) -> Outcome {
    let kind = match error {
        tenure_kv::Error::Conflict { .. } => Failure::Conflict,
        tenure_kv::Error::Unavailable { .. } => Failure::Unavailable,
        tenure_kv::Error::Invalid { .. } => Failure::Invalid,
        _ => return Outcome::Unknown { why: error.to_string() },
    };
    Outcome::Failed { kind, why: error.to_string() }
}
