//! The daemon of a run: the same code as the `tenured` program, in a process of its own.

use super::{
    Fault,
    options::{Options, Place},
};

/// Serves the store to the workers until SIGTERM.
pub(super) async fn run(options: &Options) -> Result<(), Fault> {
    let _place = Place::of(options)?;
    Err("no server yet".into())
}
