//! Hears that an administrator broke one of the session's holds.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure_kv::Notice;

use super::{Inner, timing};
use crate::{Loss, layout};

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
        if let Ok(mut notices) = inner.store.follow(&key).await {
            look(inner).await;
            while let Some(notice) = notices.next().await {
                // A recheck follows every start; what it could bring is covered by the first look.
                if !matches!(notice, Notice::Recheck) || !inner.held_tickets().is_empty() {
                    look(inner).await;
                }
            }
        }
        inner.clock.sleep_until(inner.clock.now() + pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn look(inner: &Inner) {
    for tickets in inner.held_tickets().chunks(256) {
        // What cannot be read now is refused by the store when it is used, and looked at next time.
        let Ok(found) = inner.store.entries(tickets).await else { return };
        for (ticket, entry) in tickets.iter().zip(found) {
            if entry.is_some_and(|entry| !entry.is_live()) {
                inner.end_hold(ticket, Loss::Broken);
            }
        }
    }
}
