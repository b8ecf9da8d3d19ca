//! The daemon of a run, in a process of its own.

use super::{
    Fault,
    options::{Options, Place},
    record::News,
    worker::report,
};
use crate::stage;

/// Serves the store to the workers until SIGTERM, and then drains.
pub(super) async fn run(options: &Options) -> Result<(), Fault> {
    let place = Place::of(options)?;
    let store = options.store.clone().unwrap_or_else(|| place.store());
    stage::daemon::serve(place.socket(), store, options.lease, || report(News::Listening)).await
}
