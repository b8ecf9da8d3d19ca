//! Who is in a group: followed once, for all who ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{Response, StatusCode};
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Site,
    answers::{Body, Refusal, json_page},
    views,
};
use crate::{
    protocol::Happening,
    server::{Daemon, errors, members, sessions::millis, subscriptions::Source},
};

/// How long whoever asks first waits for all members to be read.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// The pause after a group could not be followed any further.
const PAUSE: Duration = Duration::from_secs(1);
/// A list is not shown when the store has not answered for so long.
const FRESH: Duration = Duration::from_secs(5);

/// A group that is followed until the last handle is dropped.
#[derive(Debug)]
pub(super) struct Group {
    roster: Arc<Roster>,
    _stop: DropGuard,
}

/// Who is there.
#[derive(Debug, Default)]
struct Roster {
    members: Mutex<Members>,
    /// All that were there have been read.
    known: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Members {
    by_id: BTreeMap<String, Json>,
    revision: u64,
}

impl Roster {
    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, daemon: &Daemon, name: &str) {
        loop {
            let mut source = members::follow(daemon, name);
            let end = loop {
                match source.next().await {
                    Ok(what) => self.take(&what),
                    Err(end) => break end,
                }
            };
            tracing::debug!(group = name, end, "the group is followed anew");
            self.known.send_replace(false);
            tokio::time::sleep(PAUSE).await;
            *self.members() = Members::default();
        }
    }

    fn take(&self, what: &Happening) {
        let mut members = self.members();
        match what {
            Happening::Join { member } | Happening::Update { member } => {
                members.revision = members.revision.max(member.revision);
                members.by_id.insert(member.id.clone(), views::member(member));
            }
            Happening::Leave { id, revision } => {
                members.revision = members.revision.max(*revision);
                members.by_id.remove(id);
            }
            Happening::Sync { revision } => {
                members.revision = members.revision.max(revision.unwrap_or_default());
                drop(members);
                self.known.send_replace(true);
            }
            _ => {}
        }
    }
}

impl Group {
    fn begin(site: &Site, name: &str) -> Arc<Self> {
        let roster = Arc::new(Roster::default());
        let stop = CancellationToken::new();
        let (follower, daemon, name, over) = (roster.clone(), site.daemon.clone(), name.to_owned(), stop.clone());
        site.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = daemon.closing.cancelled() => {}
                () = follower.follow(&daemon, &name) => {}
            }
        });
        Arc::new(Self { roster, _stop: stop.drop_guard() })
    }
}

/// `/v1/members/GROUP`.
pub(super) async fn members(site: &Site, name: &str) -> Result<Response<Body>, Refusal> {
    errors::check_name("group", name).map_err(|error| Refusal::wrong(error.message))?;
    let group = site.groups.of(name, || Group::begin(site, name));
    let mut known = group.roster.known.subscribe();
    let known = matches!(tokio::time::timeout(FIRST_LOOK, known.wait_for(|known| *known)).await, Ok(Ok(_)));
    let age = site.daemon.measured.silent_for();
    if !known || age > FRESH {
        let said = "the store is out of reach, so who is there is not known; ask again";
        return Err(Refusal::unavailable("unavailable", said).aged(millis(age)));
    }
    let page = {
        let members = group.roster.members();
        let listed: Vec<_> = members.by_id.values().collect();
        json!({ "group": name, "members": listed, "revision": members.revision, "store_age_ms": millis(age) })
    };
    Ok(json_page(StatusCode::OK, &page))
}
