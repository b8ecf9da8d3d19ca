//! A lease of the daemon, for as long as this process keeps its connection.
//!
//! The daemon renews; this side only has to know until when the daemon itself is sure. So it asks, and
//! counts each answer from before the question was sent: a daemon that hangs, or answers late, only makes
//! the known end come sooner. No heartbeat is asked for: a `tenure` that is stopped keeps what it holds,
//! since its command may still run.

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tenure_kv::{BootClock, Clock, Moment};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Held, Unreleased};
use crate::{
    CallError, Client, Notices, Notification,
    command::{
        daemon::{Daemon, PATIENCE, unanswered},
        exit::Failure,
        run::{Hold, UNRENEWED, Validity},
    },
    protocol::{Event, Goaway, Happening, Kind, LeaseNotice, LeaseRef, LeaseState, LockCheck},
};

/// How a kind of lease is dealt with.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Ways {
    /// The method that gives it up.
    pub(in crate::command) release: &'static str,
    /// Whether somebody who asks for it is heard.
    pub(in crate::command) yields: bool,
}

/// What every answer that grants a lease says.
#[derive(Debug, Deserialize)]
pub(in crate::command) struct Granted {
    lease: String,
    /// Absent for memberships, which fence nothing.
    #[serde(default)]
    fence: u64,
    lease_ms: u64,
}

/// What the daemon has said of a lease.
#[derive(Clone, Debug)]
struct Known {
    /// The daemon is sure until then.
    until: Moment,
    /// The daemon leaves then.
    latest: Option<Moment>,
    /// Why the hold is over.
    over: Option<String>,
    /// Who asks for it: the id of the candidate, and the same for people.
    asked: Option<(String, String)>,
}

struct Shared {
    client: Arc<Client>,
    ways: Ways,
    lease: String,
    length: Duration,
    known: watch::Sender<Known>,
}

impl Shared {
    /// Asks once. No answer, or one that says nothing, changes nothing.
    async fn check(&self) {
        let asked = BootClock.now();
        match self.client.call_as::<LockCheck>("lock.check", LeaseRef { lease: self.lease.clone() }).await {
            Ok(check) if check.held => {
                let until = asked + Duration::from_millis(check.remaining_ms);
                self.known.send_modify(|known| known.until = known.until.max(until));
            }
            Err(CallError::Closed) => self.end("tenured closed the connection"),
            Err(CallError::Refused(error)) if matches!(error.kind(), Some(Kind::Lost | Kind::NotHeld)) => {
                self.end(why(error.data.get("reason").and_then(serde_json::Value::as_str)));
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn end(&self, why: &str) {
        self.known.send_modify(|known| {
            known.over.get_or_insert_with(|| why.to_owned());
        });
    }

    fn heard(&self, notice: &Notification) {
        match notice.method.as_str() {
            "goaway" => {
                if let Ok(goaway) = Goaway::deserialize(&notice.params) {
                    let end = BootClock.now() + Duration::from_millis(goaway.deadline_ms);
                    self.known.send_modify(|known| known.latest = Some(known.latest.map_or(end, |latest| latest.min(end))));
                }
            }
            "lease" => {
                if let Ok(notice) = LeaseNotice::deserialize(&notice.params)
                    && notice.lease == self.lease
                    && notice.state == LeaseState::Lost
                {
                    self.end(why(notice.reason.as_deref()));
                }
            }
            "event" if self.ways.yields => {
                if let Ok(Event { lease: Some(lease), what: Happening::AskedToStepDown { candidate }, .. }) =
                    Event::deserialize(&notice.params)
                    && lease == self.lease
                {
                    let who = super::challenger(candidate.label.as_deref(), &candidate.host, candidate.pid, candidate.priority);
                    self.known.send_modify(|known| known.asked = Some((candidate.id, who)));
                }
            }
            _ => {}
        }
    }

    /// When to ask again: often enough to hear of every renewal before the command would be stopped for
    /// the want of one, which is at half the lease or later.
    fn pause(&self) -> Duration {
        let remaining = self.known.borrow().until.saturating_since(BootClock.now());
        (remaining.saturating_sub(self.length / 2) / 2).clamp(self.length / 60, self.length / 6)
    }
}

/// The reasons of the protocol as sentences.
pub(in crate::command) fn why(word: Option<&str>) -> &str {
    match word {
        Some("renewal_timeout") => UNRENEWED,
        Some("deposed") => "the daemon was silent for longer than the lease, and others were let in",
        Some("expired") => "the store has forgotten the daemon's session",
        Some("store_reset") => "the store was made anew or set back to an earlier state",
        Some("broken") => "an administrator broke this hold",
        Some("closed") => "tenured is shutting down",
        Some(other) => other,
        None => "tenured knows nothing of this hold any more",
    }
}

/// Keeps what is known up to date until the hold is over.
async fn tend(hold: Arc<Shared>, mut notices: Notices) {
    loop {
        let ask = async {
            tokio::time::sleep(hold.pause()).await;
            hold.check().await;
        };
        tokio::pin!(ask);
        loop {
            tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => hold.heard(&notice),
                    None => return hold.end("the connection to tenured was cut"),
                },
                () = &mut ask => break,
            }
        }
        if hold.known.borrow().over.is_some() {
            return;
        }
    }
}

/// Something held by the daemon for this connection.
pub(in crate::command) struct LeasedHeld {
    path: PathBuf,
    fence: u64,
    hold: Arc<Shared>,
    heard: watch::Receiver<Known>,
    _tending: AbortOnDropHandle<()>,
}

impl LeasedHeld {
    /// What was granted by `client`, as known by its first check.
    pub(in crate::command) async fn new(
        daemon: &Daemon,
        ways: Ways,
        (granted, client, notices): (Granted, Arc<Client>, Notices),
    ) -> Result<Self, Failure> {
        // Nothing is known until the first answer below: that of the request may have been long in coming.
        let (known, heard) = watch::channel(Known { until: BootClock.now(), latest: None, over: None, asked: None });
        let length = Duration::from_millis(granted.lease_ms);
        let hold = Arc::new(Shared { client, ways, lease: granted.lease, length, known });
        if tokio::time::timeout(PATIENCE, hold.check()).await.is_err() {
            return Err(unanswered(daemon.path()));
        }
        let tending = AbortOnDropHandle::new(tokio::spawn(tend(hold.clone(), notices)));
        Ok(Self { path: daemon.path().to_owned(), fence: granted.fence, hold, heard, _tending: tending })
    }

    /// The connection that keeps it.
    pub(in crate::command) fn client(&self) -> Arc<Client> {
        self.hold.client.clone()
    }
}

impl Hold for LeasedHeld {
    fn lease(&self) -> Duration {
        self.hold.length
    }

    fn validity(&self) -> Validity {
        let known = self.heard.borrow();
        let leaving = known.latest.filter(|latest| *latest < known.until);
        let why = match (&known.over, leaving) {
            (Some(why), _) => why.clone().into(),
            (None, Some(_)) => "tenured is shutting down".into(),
            (None, None) => UNRENEWED.into(),
        };
        let wanted = known.asked.as_ref().map(|(_, who)| who.clone());
        Validity { until: leaving.unwrap_or(known.until), over: known.over.is_some(), why, wanted }
    }

    async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            // The sender lives in `hold`.
            std::future::pending::<()>().await;
        }
    }

    async fn confirm(&mut self, limit: Duration) {
        // Without an answer the end known before stands.
        let _ = tokio::time::timeout(limit, self.hold.check()).await;
    }
}

impl Held for LeasedHeld {
    fn token(&self) -> u64 {
        self.fence
    }

    fn lease_id(&self) -> &str {
        &self.hold.lease
    }

    fn socket(&self) -> Option<&Path> {
        Some(&self.path)
    }

    async fn release(self) -> Result<(), Unreleased> {
        let known = self.heard.borrow().clone();
        if let Some(why) = known.over {
            return Err(Unreleased::Lost(why));
        }
        let lease = &self.hold.lease;
        let give_up = async {
            if let Some((candidate, _)) = &known.asked {
                let params = json!({ "lease": lease, "candidate": candidate });
                let handed_over = self.hold.client.call("election.transfer", params).await;
                if handed_over.is_ok() {
                    return handed_over;
                }
            }
            self.hold.client.call(self.hold.ways.release, json!({ "lease": lease })).await
        };
        // After the end of what is known it is free anyway, as it is when this connection closes.
        let left = self.validity().until.saturating_since(BootClock.now());
        match tokio::time::timeout(left.min(PATIENCE), give_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(CallError::Refused(error))) if matches!(error.kind(), Some(Kind::Lost | Kind::NotHeld)) => {
                Err(Unreleased::Lost(why(error.data.get("reason").and_then(serde_json::Value::as_str)).to_owned()))
            }
            Ok(Err(error)) => Err(Unreleased::Unsure(error.to_string())),
            Err(_) => Err(Unreleased::Unsure("tenured does not answer".to_owned())),
        }
    }
}
