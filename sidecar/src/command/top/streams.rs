//! What the daemon tells of what is shown as it happens; at the next daemon if this one goes.

use std::{collections::HashMap, convert::Infallible, future::poll_fn, pin::pin, task::Poll, time::Duration};

use serde_json::{Value as Json, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::feed::News;
use crate::{
    CallError, Client, Subscription,
    command::daemon::{Daemon, PATIENCE},
    protocol::{ElectionName, Happening, Kind, LockGet, MemberWatchParams},
};

/// The pause before what was refused, or has ended, is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something whose changes are shown as they come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    Lock(String),
    Election(String),
    Group(String),
}

impl Thing {
    fn subscription(&self) -> (&'static str, Json) {
        match self.clone() {
            Self::Lock(name) => ("lock.observe", json!(LockGet { name })),
            Self::Election(name) => ("election.observe", json!(ElectionName { name })),
            Self::Group(group) => ("member.watch", json!(MemberWatchParams { group })),
        }
    }
}

/// Tells what becomes of all that is `shown`, for ever.
pub(super) async fn run(daemon: &Daemon, mut shown: watch::Receiver<Vec<Thing>>, news: mpsc::Sender<News>) -> Infallible {
    let mut clients = daemon.clients();
    let mut heard = Heard { streams: HashMap::new(), news };
    loop {
        let client = clients.borrow_and_update().clone();
        let things = shown.borrow_and_update().clone();
        heard.keep_only(&things).await;
        let mut complete = heard.begin(daemon, &client, &things).await;
        let mut again = Instant::now() + AGAIN;
        loop {
            let (thing, what) = tokio::select! {
                event = next(&mut heard.streams) => event,
                Ok(()) = shown.changed() => break,
                Ok(()) = clients.changed() => {
                    heard.keep_only(&[]).await;
                    break;
                }
                () = tokio::time::sleep_until(again), if !complete => break,
            };
            if heard.tell(thing, what).await && complete {
                (complete, again) = (false, Instant::now() + AGAIN);
            }
        }
    }
}

/// The subscriptions there are.
struct Heard {
    streams: HashMap<Thing, Subscription>,
    news: mpsc::Sender<News>,
}

impl Heard {
    async fn send(&self, news: News) {
        // Nobody listens any more once the command ends.
        let _ = self.news.send(news).await;
    }

    async fn keep_only(&mut self, things: &[Thing]) {
        let gone: Vec<Thing> = self.streams.keys().filter(|thing| !things.contains(thing)).cloned().collect();
        for thing in gone {
            self.streams.remove(&thing);
            self.send(News::Silence(thing)).await;
        }
    }

    /// Subscribes to what is missing; false when not all is to be had. Then lists tell of it.
    async fn begin(&mut self, daemon: &Daemon, client: &Client, things: &[Thing]) -> bool {
        let mut complete = true;
        for thing in things {
            if self.streams.contains_key(thing) {
                continue;
            }
            let (method, params) = thing.subscription();
            let Ok(answer) = tokio::time::timeout(PATIENCE, client.subscribe(method, params)).await else { return false };
            match answer {
                Ok(events) => drop(self.streams.insert(thing.clone(), events)),
                Err(CallError::Closed) => return false,
                Err(error) => {
                    complete = false;
                    self.look(daemon, thing).await;
                    if error.kind() == Some(Kind::Limit) {
                        return false;
                    }
                }
            }
        }
        complete
    }

    /// Who is in a group is on no list that is asked for anyway.
    async fn look(&self, daemon: &Daemon, thing: &Thing) {
        let Thing::Group(group) = thing else { return };
        if let Ok(members) = daemon.all("member.list", json!({ "group": group }), "members").await {
            self.send(News::Members(group.clone(), members)).await;
        }
    }

    /// Tells what happens; true when that was the last of `thing`.
    async fn tell(&mut self, thing: Thing, what: Option<Happening>) -> bool {
        let over = matches!(what, None | Some(Happening::End { .. }));
        if over {
            self.streams.remove(&thing);
        }
        let news = match what {
            // A watch of a group makes up for it by itself.
            Some(Happening::Gap {}) if !matches!(thing, Thing::Group(_)) => News::Silence(thing),
            Some(what) if !over => News::Heard(thing, Box::new(what)),
            _ => News::Silence(thing),
        };
        self.send(news).await;
        over
    }
}

/// The next event of any of them; never where there is none.
///
/// # Cancel safety
/// Safe to drop; no event is lost.
async fn next(streams: &mut HashMap<Thing, Subscription>) -> (Thing, Option<Happening>) {
    poll_fn(|context| {
        for (thing, events) in &mut *streams {
            if let Poll::Ready(what) = pin!(events.recv()).poll(context) {
                return Poll::Ready((thing.clone(), what));
            }
        }
        Poll::Pending
    })
    .await
}
