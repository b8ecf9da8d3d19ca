//! Hears that an administrator broke one of the session's holds.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure_kv::{Entry, Key, Notice};

use super::{Inner, timing, why_ended};
use crate::{Loss, layout};

/// Between two tries to listen; no more than a lease either.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Listens on `broken.<id>` until the session ends. What the notice says does not matter: whenever
/// something may have been said, every held ticket is looked at.
pub(super) async fn listen(inner: Arc<Inner>) {
    let stop = inner.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        _ = inner.lost() => {}
        () = look_whenever_told(&inner) => {}
    }
}

async fn look_whenever_told(inner: &Inner) {
    let Ok(key) = layout::broken_key(&inner.id) else { return };
    let mut pause = timing::renewal_retry(inner.lease);
    loop {
        if let Ok(mut notices) = inner.patient.follow(&key).await {
            look(inner).await;
            let mut again = (!inner.held_tickets().is_empty()).then(|| inner.clock.now() + timing::renewal_interval(inner.lease));
            loop {
                let later = async {
                    match again {
                        Some(at) => inner.clock.sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    notice = notices.next() => match notice {
                        // A notice is proof by itself, whatever a lagging read shows of the ticket.
                        Some(Notice::Entry(entry)) => end_named(inner, &entry),
                        Some(Notice::Recheck) => {}
                        Some(Notice::Reconnected) => inner.hurry.notify_one(),
                        None => break,
                    },
                    () = later => {
                        again = None;
                        look(inner).await;
                        continue;
                    }
                }
                if !inner.held_tickets().is_empty() {
                    look(inner).await;
                    // What was told may have been merged with an earlier word, and this look may lag.
                    again = Some(inner.clock.now() + timing::renewal_interval(inner.lease));
                }
            }
        }
        inner.clock.sleep_until(inner.clock.now() + pause).await;
        pause = (pause * 2).min(inner.lease).min(LONGEST_PAUSE);
    }
}

/// Ends the hold that the notice names; its ticket was purged by the same batch.
fn end_named(inner: &Inner, entry: &Entry) {
    let ticket = entry.value().and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| Key::new(text).ok());
    if let Some(ticket) = ticket {
        inner.end_hold(&ticket, Loss::Broken);
    }
}

async fn look(inner: &Inner) {
    for tickets in inner.held_tickets().chunks(256) {
        // What cannot be read now is refused by the store when it is used, and looked at next time.
        let Ok(found) = inner.patient.entries(tickets).await else { return };
        for (ticket, entry) in tickets.iter().zip(found) {
            if let Some(entry) = entry.filter(|entry| !entry.is_live()) {
                inner.end_hold(ticket, why_ended(Some(&entry.state)));
            }
        }
    }
}
