//! A door for fuzz targets to what is parsed inside, with no promises.

use std::{ffi::OsString, time::Duration};

use crate::server::{Config, config, http, policy};

/// What is asked of the HTTP listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// With `NAME` for the name.
    pub path: &'static str,
    /// Of the election or the group.
    pub name: String,
    /// What the leader must proclaim.
    pub value: Option<Vec<u8>>,
    /// How old the news may be.
    pub max_age: Option<Duration>,
}

impl Question {
    pub(crate) fn about(path: &'static str) -> Self {
        Self { path, ..Self::default() }
    }
}

/// What an HTTP request for `target` asks. `None` where no part of Tenure gets to read it.
///
/// # Errors
/// The status and the message of the answer.
pub fn question(target: &[u8]) -> Option<Result<Question, (u16, String)>> {
    http::question(target)
}

/// What `tenured` is set up to do by a command line, the program's name not included.
///
/// # Errors
/// What `tenured` says on standard error.
pub fn flags(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, String> {
    config::of_flags(arguments)
}

/// What `tenured` is set up to do by the text of a file, and that as `tenured config show` writes it.
///
/// # Errors
/// What `tenured` says on standard error.
pub fn file(text: &str) -> Result<(Config, String), String> {
    config::of_file(text)
}

/// How many rules the text of a policy file has. Users and groups whose names begin with `x` are not there.
///
/// # Errors
/// What `tenured` says on standard error.
pub fn policy(text: &str) -> Result<usize, String> {
    policy::of_text(text)
}
