//! When a run is over: what may go on for ever, and what is still held.

use tenure_check::history::Micros;
use tenure_kv::{Entry, Key};

use crate::{stream_record, world::Inner};

/// What sessions write as long as they live, whatever is done with them. A janitor keeps its office.
const OF_SESSIONS: [&str; 4] = ["session.", "candidate.tenure/", "election.tenure/", "meta."];

/// Whether it is written for as long as a session lives.
pub(crate) fn keeps_a_session(key: &Key) -> bool {
    OF_SESSIONS.iter().any(|of| key.as_str().starts_with(of))
}

impl Inner {
    /// Nobody waits for anything, nobody who lives holds anything, and nothing has changed for so long.
    pub(crate) fn is_over(&self, rest: Micros) -> bool {
        self.idle() >= rest && self.open == 0 && self.held().is_empty()
    }

    /// How long ago something has changed.
    pub(crate) fn idle(&self) -> Micros {
        self.now.saturating_sub(self.changed)
    }

    /// What is held by sessions that live.
    pub(crate) fn held(&self) -> Vec<String> {
        let sight = self.bucket.latest(self.now);
        let held = |key: &Key| {
            !keeps_a_session(key) && ["lock.", "member.", "candidate.", "election."].iter().any(|of| key.as_str().starts_with(of))
        };
        let owner = |entry: &Entry| {
            let session = Key::new(format!("session.{}", stream_record::owner(entry)?)).ok()?;
            self.bucket.entry(sight, &session).filter(Entry::is_live).map(|_| entry.key.to_string())
        };
        self.bucket.live(sight, held).iter().filter_map(owner).collect()
    }
}
