//! Server-sent events: what a subscription on the socket tells, for browsers and proxies. It is told no faster than it is
//! read, and a client that does not read is disconnected by the timeout of its connection.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{Response, StatusCode, body::Frame};

use super::{
    Site,
    answers::{Body, Refusal, page},
    places::{During, Place},
    views,
};
use crate::{
    protocol::Happening,
    server::{elections, errors, members, subscriptions::Source},
};

/// Proxies close what says nothing for long.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What is said first: when to come back after the end.
const GREETING: &[u8] = b"retry: 2000\n\n";
const COMMENT: &[u8] = b": still here\n\n";

/// `/v1/leader/NAME/events`.
pub(super) fn of_leader(site: &Arc<Site>, place: &Arc<Place>, name: &str, head: bool) -> Result<Response<Body>, Refusal> {
    errors::check_name("name", name).map_err(|error| Refusal::wrong(error.message))?;
    tell(site, place, head, || elections::follow(&site.daemon.observers, name))
}

/// `/v1/members/GROUP/events`.
pub(super) fn of_members(site: &Arc<Site>, place: &Arc<Place>, group: &str, head: bool) -> Result<Response<Body>, Refusal> {
    errors::check_name("group", group).map_err(|error| Refusal::wrong(error.message))?;
    tell(site, place, head, || members::follow(&site.daemon, group))
}

fn tell<S: Source>(
    site: &Arc<Site>,
    place: &Arc<Place>,
    head: bool,
    source: impl FnOnce() -> S,
) -> Result<Response<Body>, Refusal> {
    let event_stream = |body| page(StatusCode::OK, "text/event-stream", body);
    if head {
        return Ok(event_stream(Empty::new().boxed_unsync()));
    }
    let during = place.is_told().map_err(|full| {
        let whose = if full.of_peer { " to this address" } else { "" };
        let said = format!("{} streams of events are open{whose}; close one, or ask again later", full.most);
        Refusal::unavailable("limit", said)
    })?;
    let feed = Feed { site: site.clone(), source: source(), begun: false, over: false, _during: during };
    let frames = stream::unfold(feed, |mut feed| async move {
        let bytes = feed.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), feed))
    });
    Ok(event_stream(BodyExt::boxed_unsync(StreamBody::new(frames))))
}

/// What one client is told.
struct Feed<S> {
    site: Arc<Site>,
    source: S,
    begun: bool,
    over: bool,
    _during: During,
}

impl<S: Source> Feed<S> {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            return Some(Bytes::from_static(GREETING));
        }
        if self.over {
            return None;
        }
        let next = tokio::select! {
            biased;
            () = self.site.daemon.closing.cancelled() => Err("leaving".to_owned()),
            next = self.source.next() => next,
            () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(COMMENT)),
        };
        self.over = next.is_err();
        Some(line(&next.unwrap_or_else(|reason| Happening::End { reason })))
    }
}

fn line(what: &Happening) -> Bytes {
    let (kind, view) = views::event(what);
    // JSON is one line.
    Bytes::from(format!("event: {kind}\ndata: {view}\n\n"))
}
