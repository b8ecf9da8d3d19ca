//! A door for fuzz targets to what is parsed inside, with no promises.

use std::ffi::OsString;

use crate::server::{Config, config, policy};

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
