//! What the tests of the embedded stores share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use tenure_kv::{Clock, Error, Event, Key, Moment, State, Ttl};
use tokio::sync::watch;

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub struct Hands(Arc<watch::Sender<Moment>>);

impl Hands {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Moment::default())))
    }

    pub fn forward(&self, by: Duration) {
        self.0.send_modify(|now| *now = *now + by);
    }
}

impl Clock for Hands {
    fn now(&self) -> Moment {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        let mut hands = self.0.subscribe();
        Box::pin(async move {
            let _ = hands.wait_for(|now| *now >= at).await;
        })
    }
}

pub type Events = BoxStream<'static, Result<Event, Error>>;

pub fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

pub fn ttl(seconds: u32) -> Ttl {
    Ttl::from_secs(seconds).unwrap()
}

pub async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("nothing came").expect("the watch ended").unwrap()
}

pub async fn next_entry(events: &mut Events) -> (String, u64, State) {
    match next(events).await {
        Event::Entry(entry) => (entry.key.to_string(), entry.revision.get(), entry.state),
        Event::CaughtUp | Event::Gap => panic!("caught up too early"),
    }
}
