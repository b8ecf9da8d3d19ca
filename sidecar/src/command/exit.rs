//! The codes the command exits with, and the failure that carries one.

use std::fmt;

/// Not there: nobody leads, the key has no value, nobody holds the lock.
pub(crate) const NOT_THERE: u8 = 1;
/// Wrong usage: a flag, a name, a duration.
pub(crate) const USAGE: u8 = 64;
/// What was expected is not so, or what fences no longer holds: nothing was written.
pub(crate) const CONFLICT: u8 = 73;
/// It may have been written: read it back.
pub(crate) const UNKNOWN: u8 = 74;
/// The lock was not acquired in time; `-E` changes it.
pub(crate) const NOT_ACQUIRED: u8 = 75;
/// This user may not.
pub(crate) const DENIED: u8 = 77;
/// The command was stopped, because the lock could not be kept.
pub(crate) const LOST: u8 = 79;
/// Tenure itself failed: no daemon, no store.
pub(crate) const FAILED: u8 = 125;
/// The command was found and could not be run.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// The code that says: ended by this signal.
pub(crate) fn by_signal(number: i32) -> u8 {
    u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX)
}

/// Why the command ends, in one line that says how to mend it, and the code it ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Empty when there is nothing to say.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(FAILED, message.to_string())
    }

    /// An end that needs no words, such as a signal from the user.
    pub(crate) const fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }
}
