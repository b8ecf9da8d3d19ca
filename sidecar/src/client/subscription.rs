//! The events of one subscription.

use std::{fmt, sync::Arc};

use futures::{Stream, stream};
use tenure::{Error, MemberEvent, MemberRecord};
use tenure_kv::Revision;
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::protocol::{Event, Happening, MemberView};

/// A subscription's events. Dropping it cancels the subscription.
pub struct Subscription {
    pub(super) handle: String,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) resume: Option<u64>,
    pub(super) shared: Arc<Shared>,
}

impl Subscription {
    /// Its handle on this connection.
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// The next event. After [`Happening::End`] there is `None`; without one, when the connection is closed or this
    /// receiver fell so far behind that events are gone: subscribe again.
    ///
    /// # Cancel safety
    /// Safe to drop; no event is lost.
    pub async fn recv(&mut self) -> Option<Happening> {
        let event = self.events.recv().await?;
        self.resume = event.resume_revision.or(self.resume);
        Some(event.what)
    }

    /// Where a `kv.watch` goes on that ended: the `from_revision` of the next, as the last [`Happening::Gap`] gave it.
    pub const fn resume_revision(&self) -> Option<u64> {
        self.resume
    }

    /// The events of a `member.watch` as Rust's own API tells them, such as a balancer follows. The stream ends after
    /// an error, when the subscription is over: subscribe again.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tenure::discovery::Balancer;
    /// use tenure_sidecar::{Client, protocol::{MemberWatchParams, default_socket}};
    ///
    /// let client = Client::connect(default_socket()).await?;
    /// let watch = client.subscribe("member.watch", MemberWatchParams { group: "web".into() }).await?;
    /// let web = Balancer::builder().follow_events("web", watch.into_members()).await?;
    /// println!("asking {}", web.pick()?.address());
    /// # Ok(()) }
    /// ```
    pub fn into_members(self) -> impl Stream<Item = tenure::Result<MemberEvent>> + Send + 'static {
        stream::unfold(Some(self), |subscription| async {
            let mut subscription = subscription?;
            loop {
                match subscription.recv().await.map_or_else(|| Some(Err(over("is closed"))), member_event) {
                    Some(Ok(event)) => return Some((Ok(event), Some(subscription))),
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => {}
                }
            }
        })
    }
}

/// What `happening` says about a group; `None` for what changes nothing there.
fn member_event(happening: Happening) -> Option<tenure::Result<MemberEvent>> {
    let read = |member: MemberView| {
        MemberRecord::try_from(member)
            .map_err(|error| Error::Invalid { message: format!("a member's record: {}", error.message) })
    };
    Some(match happening {
        Happening::Join { member } => read(member).map(MemberEvent::Insert),
        Happening::Update { member } => read(member).map(MemberEvent::Update),
        Happening::Leave { id, revision } => Ok(MemberEvent::Remove { id, revision: Revision::new(revision) }),
        Happening::Sync { revision } => Ok(MemberEvent::CaughtUp { revision: Revision::new(revision.unwrap_or_default()) }),
        Happening::End { reason } => Err(over(&format!("has ended: {reason}"))),
        Happening::Lock(_)
        | Happening::Leader { .. }
        | Happening::AskedToStepDown { .. }
        | Happening::Put { .. }
        | Happening::Delete { .. }
        | Happening::Purge { .. }
        | Happening::Expire { .. }
        | Happening::Gap {} => return None,
    })
}

fn over(how: &str) -> Error {
    Error::Unavailable { message: format!("the daemon's watch of the group {how}"), source: None }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.unsubscribe(&self.handle);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("handle", &self.handle).finish_non_exhaustive()
    }
}
