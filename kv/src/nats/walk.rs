//! Reads by a consumer: what direct gets cannot tell, or a stream that answers none.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    consumer::{Consumer, Delivery, SILENCE, Start},
    link::{Failure, Link},
    names::Names,
};
use crate::{Entry, Error, Result};

/// How often a reading that broke off is begun again.
const TRIES: usize = 3;

/// When enough has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) entries: usize,
    /// Read up to the first entry with which the values have more than so many bytes.
    pub(super) bytes: usize,
}

impl Most {
    pub(super) const ONE: Self = Self { entries: 1, bytes: usize::MAX };
    pub(super) const ALL: Self = Self { entries: usize::MAX, bytes: usize::MAX };
}

/// What there is on `filter`, in the order of revisions. `timeout` is for the beginning; after it silence counts.
pub(super) async fn walk(
    link: &Link,
    names: &Names,
    filter: &str,
    start: Start,
    most: Most,
    timeout: Duration,
) -> Result<Vec<Entry>> {
    for _ in 0..TRIES {
        let consumer = Consumer::create(link, names, filter, start, timeout).await?;
        if let Some(found) = read(consumer, link, names, filter, most).await? {
            return Ok(found);
        }
    }
    Err(Error::unavailable(format!("reading {filter}: NATS broke off {TRIES} times")))
}

/// `None` when it broke off.
async fn read(mut consumer: Consumer, link: &Link, names: &Names, filter: &str, most: Most) -> Result<Option<Vec<Entry>>> {
    let mut health = link.health();
    let losses = health.borrow_and_update().losses;
    let (mut found, mut bytes) = (Vec::new(), 0_usize);
    let mut left = consumer.pending;
    // What was written again meanwhile comes after what was there at the beginning.
    let mut passed = false;
    let mut silent = Instant::now() + SILENCE;
    while left > 0 && found.len() < most.entries && bytes <= most.bytes {
        let delivery = tokio::select! {
            biased;
            delivery = consumer.next(names) => delivery,
            changed = health.changed() => {
                if changed.is_ok() && health.borrow_and_update().losses == losses {
                    continue;
                }
                return Err(Failure::Lost.of_read(&format!("reading {filter}")));
            }
            () = sleep_until(silent) => Delivery::Broken,
        };
        match delivery {
            Delivery::Stored { entry, pending, .. } => {
                if let Some(entry) = entry {
                    bytes = bytes.saturating_add(entry.value().map_or(0, bytes::Bytes::len));
                    found.push(entry);
                }
                left = if pending == 0 { 0 } else { left - 1 };
                if left == 0 && pending > 0 && !passed {
                    passed = true;
                    left = pending;
                }
            }
            // Everything has been delivered.
            Delivery::Idle { .. } => break,
            Delivery::Nothing => {}
            Delivery::Broken => return Ok(None),
            Delivery::Closed => return Err(Error::unavailable("the NATS connection was closed")),
        }
        silent = Instant::now() + SILENCE;
    }
    Ok(Some(found))
}
