//! A group as the `tower` crate discovers services: a stream of Insert and Remove.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use tenure_kv::Store;
use tower::discover::Change;

use crate::{Error, MemberEvent, MemberRecord, Result, membership, roster::Roster};

/// The services of a group for `tower`: implements `tower::discover::Discover`, keyed by the member's id.
///
/// Those who pass are inserted or, while there are none, those who warn; whoever no longer is one of them is
/// removed. A member that comes back as another process or at another address is inserted anew, which replaces its
/// service. Made by [`discover`].
pub struct Discovered<S> {
    events: BoxStream<'static, Result<MemberEvent>>,
    make: Box<dyn FnMut(&MemberRecord) -> S + Send>,
    offer: Offer,
}

/// Follows `group` as a stream of changes for `tower`; `make` makes the service of a member.
///
/// # Errors
/// [`Error::Invalid`] for a wrong name and outside a Tokio runtime; [`Error::Unavailable`] when the store is out of
/// reach. The stream itself ends after an error, when the store has ended the watch for good.
///
/// # Cancel safety
/// Safe to drop.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use futures::StreamExt;
/// use tenure::{Instance, Session};
/// use tower::discover::Change;
///
/// let store = tenure_kv::open("memory:").await?;
/// let mut services = tenure::discovery::discover(&store, "web", |member| member.instance.address.clone()).await?;
/// let session = Session::open(store).await?;
/// let member = session.group("web")?.join("w1", Instance::at("10.0.0.7:8080")).await?;
/// let Some(Ok(Change::Insert(id, address))) = services.next().await else { panic!() };
/// assert_eq!((id.as_str(), address.as_deref()), ("w1", Some("10.0.0.7:8080")));
/// # member.leave().await?; session.close().await?;
/// # Ok(()) }
/// ```
pub async fn discover<S>(
    store: &Arc<dyn Store>,
    group: &str,
    make: impl FnMut(&MemberRecord) -> S + Send + 'static,
) -> Result<Discovered<S>> {
    let events = membership::watch(store, group).await?.into_stream().boxed();
    Ok(Discovered { events, make: Box::new(make), offer: Offer::default() })
}

impl<S> Stream for Discovered<S> {
    type Item = Result<Change<String, S>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.offer.due.pop_front() {
                Some(Offered::Insert(member)) => {
                    return Poll::Ready(Some(Ok(Change::Insert(member.id.clone(), (this.make)(&member)))));
                }
                Some(Offered::Remove(id)) => return Poll::Ready(Some(Ok(Change::Remove(id)))),
                None => match ready!(this.events.poll_next_unpin(cx)) {
                    Some(Ok(event)) => this.offer.take(event),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                },
            }
        }
    }
}

impl<S> fmt::Debug for Discovered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovered").field("offered", &self.offer.offered.len()).finish_non_exhaustive()
    }
}

/// What has been offered, and what is to be said about it.
#[derive(Debug, Default)]
struct Offer {
    roster: Roster,
    offered: BTreeMap<String, Arc<MemberRecord>>,
    due: VecDeque<Offered>,
}

#[derive(Debug, PartialEq)]
enum Offered {
    Insert(Arc<MemberRecord>),
    Remove(String),
}

impl Offer {
    fn take(&mut self, event: MemberEvent) {
        self.roster.apply(event);
        if !self.roster.is_caught_up() {
            // Somebody who warns may be followed by somebody who passes.
            return;
        }
        let serving: BTreeMap<_, _> = self.roster.serving().map(|member| (member.id.clone(), member.clone())).collect();
        // First who is new, so that a balancer is not without anybody in between.
        for (id, member) in &serving {
            let same = |old: &Arc<MemberRecord>| old.session == member.session && old.instance.address == member.instance.address;
            if !self.offered.get(id).is_some_and(same) {
                self.due.push_back(Offered::Insert(member.clone()));
            }
        }
        let gone = self.offered.keys().filter(|id| !serving.contains_key(*id));
        self.due.extend(gone.map(|id| Offered::Remove(id.clone())));
        self.offered = serving;
    }
}

#[cfg(test)]
mod tests {
    use tenure_kv::Revision;

    use super::*;
    use crate::{Instance, InstanceState, roster::tests::member};

    fn said(offer: &mut Offer, event: MemberEvent) -> Vec<String> {
        offer.take(event);
        let say = |offered| match offered {
            Offered::Insert(member) => format!("+{}@{}", member.id, member.instance.address.as_deref().unwrap_or("?")),
            Offered::Remove(id) => format!("-{id}"),
        };
        offer.due.drain(..).map(say).collect()
    }

    fn put(id: &str, state: InstanceState) -> MemberEvent {
        MemberEvent::Update(member(id, 1, Instance::at(format!("{id}:1")).state(state)))
    }

    #[test]
    fn who_serves_is_offered_and_who_no_longer_does_is_taken_back() {
        use InstanceState::{Draining, Passing, Warning};
        let mut offer = Offer::default();
        assert!(said(&mut offer, put("w", Warning)).is_empty(), "there may be better");
        assert!(said(&mut offer, put("a", Passing)).is_empty());
        assert_eq!(said(&mut offer, MemberEvent::CaughtUp { revision: Revision::new(1) }), ["+a@a:1"]);
        assert_eq!(said(&mut offer, put("b", Passing)), ["+b@b:1"]);
        assert_eq!(said(&mut offer, put("a", Draining)), ["-a"]);
        assert_eq!(said(&mut offer, put("b", Draining)), ["+w@w:1", "-b"], "those who warn, while nobody passes");
        assert_eq!(said(&mut offer, put("a", Passing)), ["+a@a:1", "-w"]);
        assert_eq!(said(&mut offer, MemberEvent::Remove { id: "a".into(), revision: Revision::new(9) }), ["+w@w:1", "-a"]);
    }

    #[test]
    fn only_another_process_or_address_is_offered_anew() {
        let mut offer = Offer::default();
        said(&mut offer, MemberEvent::CaughtUp { revision: Revision::ZERO });
        assert_eq!(said(&mut offer, put("a", InstanceState::Passing)), ["+a@a:1"]);
        let heavier = member("a", 2, Instance::at("a:1").weight(7));
        assert!(said(&mut offer, MemberEvent::Update(heavier.clone())).is_empty());
        let moved = MemberRecord { instance: Instance::at("a:2"), ..heavier };
        assert_eq!(said(&mut offer, MemberEvent::Update(moved.clone())), ["+a@a:2"]);
        let restarted = MemberRecord { session: "another".into(), ..moved };
        assert_eq!(said(&mut offer, MemberEvent::Update(restarted)), ["+a@a:2"]);
    }
}
