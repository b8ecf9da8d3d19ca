//! A door for fuzz targets to what is parsed inside, with no promises.

use std::ffi::OsString;

use crate::server::{Config, options};

/// What `tenured` is set up to do by a command line, the program's name not included. It must name a store.
///
/// # Errors
/// What `tenured` says on standard error.
pub fn flags(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, String> {
    options::configured(arguments)
}
