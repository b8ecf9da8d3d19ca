//! Tickets of a living session that nobody waits or holds by: an outage of the server has brought them back.

use tenure_kv::{Key, KeyRange, Revision};

use crate::{
    Result,
    layout::parse_ticket,
    session::{Inner, Leaving},
};

/// Writes that one page may hold.
const PAGE: usize = 1_024;

/// Ends all of this session in the queue of the lock called `name`.
pub(crate) async fn end_strays(inner: &Inner, name: &Key) -> Result<()> {
    let range = KeyRange::children(&Key::new(format!("lock.{name}"))?)?;
    let mut from = Revision::ZERO;
    loop {
        let page = inner.patient.scan(&range, from, PAGE).await?;
        for entry in page.entries {
            // Written before this read, so whoever waits or holds by it has said so by now.
            let own = parse_ticket(&entry.key).is_some_and(|(_, session)| session == inner.id);
            if own && inner.has_let_go(&entry.key) {
                tracing::warn!(ticket = %entry.key, "the server brought back a ticket that had been given up; it is ended");
                inner.end_ticket(&mut Leaving::new(entry.key, Some(entry.revision))).await?;
            }
        }
        if page.complete {
            return Ok(());
        }
        from = page.through.next();
    }
}
