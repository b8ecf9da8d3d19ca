//! Which incarnation of the bucket, and which session, something belongs to, told from the stream.

use std::collections::HashMap;

use tenure_check::history::{Micros, Op, Value, Write};

/// The daemons of a history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemons {
    daemons: Vec<Facts>,
    /// When which of them, by process, was stopped, and when it was about to go on.
    stops: Vec<(u32, Micros, Micros)>,
}

/// A process that was told to stop has stopped after that, at the latest.
const STOPPED: Micros = 100_000;

/// What the director knows of a daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Its number among clients.
    pub(crate) number: u64,
    /// Its process.
    pub(crate) pid: u32,
    /// The only incarnation of the bucket that it has seen, where that is known.
    pub(crate) epoch: Option<u64>,
}

impl Daemons {
    pub(crate) fn add(&mut self, facts: Facts) {
        self.daemons.push(facts);
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u64 {
        self.daemons.len() as u64
    }

    pub(crate) fn of_pid(&self, pid: u32) -> Option<Facts> {
        self.daemons.iter().rev().find(|daemon| daemon.pid == pid).copied()
    }

    /// The process `pid` was told to stop at `from`, and to go on at `until`.
    pub(crate) fn stopped(&mut self, pid: u32, from: Micros, until: Micros) {
        self.stops.push((pid, from, until));
    }

    /// Before this nobody can have heard the answer to what the process `pid` was asked at `at`.
    pub(crate) fn answers(&self, pid: u32, at: Micros) -> Micros {
        let within = |(one, from, until): &&(u32, Micros, Micros)| *one == pid && (from + STOPPED..*until).contains(&at);
        self.stops.iter().find(within).map_or(at, |(.., until)| *until)
    }

    /// The daemon that made the call `id`.
    pub(crate) fn of_call(&self, id: u64) -> Option<Facts> {
        self.daemons.iter().find(|daemon| crate::tape::client_of(id) == daemon.number).copied()
    }
}

/// The incarnations of the bucket, and what tells them apart.
pub(crate) struct Epochs {
    /// By their ids in `meta.epoch`, the first that had it.
    ids: HashMap<String, u64>,
    /// What was written at a revision.
    written: HashMap<u64, Vec<Written>>,
    nonces: HashMap<String, String>,
    /// When each incarnation began, from the second on.
    began: Vec<Micros>,
}

/// A write, as far as it tells whose it is.
struct Written {
    epoch: u64,
    key: String,
    session: Option<String>,
    nonce: Option<String>,
}

impl Epochs {
    /// `began`: when each incarnation began, from the second on.
    pub(crate) fn of(writes: &[Write], began: Vec<Micros>) -> Self {
        let (mut ids, mut nonces) = (HashMap::new(), HashMap::new());
        let mut written = HashMap::<u64, Vec<_>>::new();
        for write in writes {
            let Value { nonce, session, .. } = write.value.clone();
            if write.key == "meta.epoch" {
                if let Some(id) = nonce.clone() {
                    ids.entry(id).or_insert(write.epoch);
                }
            } else if let (Some(nonce), Some(session)) = (nonce.clone(), session.clone()) {
                nonces.insert(nonce, session);
            }
            let of_it = Written { epoch: write.epoch, key: write.key.clone(), session, nonce };
            written.entry(write.revision).or_default().push(of_it);
        }
        Self { ids, written, nonces, began }
    }

    pub(crate) fn named(&self, id: &str) -> Option<u64> {
        self.ids.get(id).copied()
    }

    /// The session that wrote `nonce`.
    pub(crate) fn session_of_nonce(&self, nonce: &str) -> Option<String> {
        self.nonces.get(nonce).cloned()
    }

    /// The session that the write of `op` at `revision` is of, which was known by `at`.
    pub(crate) fn session(&self, op: &Op, epoch: Option<u64>, revision: u64, at: Micros) -> Option<String> {
        self.find(op, epoch, revision, at)?.session.clone()
    }

    /// In which incarnation `op` wrote at `revision`, which was known by `at`; `None` leaves it to the session's.
    pub(crate) fn of_write(&self, op: &Op, revision: u64, at: Micros) -> Option<u64> {
        if self.began.is_empty() { None } else { self.find(op, None, revision, at).map(|written| written.epoch) }
    }

    /// The last that it can be.
    fn find(&self, op: &Op, epoch: Option<u64>, revision: u64, at: Micros) -> Option<&Written> {
        let Whose { key, session, nonce } = Whose::of(op)?;
        let may_be = |written: &&Written| {
            let begun = match written.epoch {
                0 | 1 => true,
                epoch => usize::try_from(epoch - 2).ok().and_then(|n| self.began.get(n)).is_none_or(|began| *began <= at),
            };
            begun
                && epoch.is_none_or(|epoch| epoch == written.epoch)
                && written.key.starts_with(&key)
                && session.zip(written.session.as_deref()).is_none_or(|(asked, found)| asked == found)
                && nonce.zip(written.nonce.as_deref()).is_none_or(|(asked, found)| asked == found)
        };
        self.written.get(&revision)?.iter().filter(may_be).max_by_key(|written| written.epoch)
    }
}

/// What an operation says of the write that it makes.
struct Whose<'a> {
    /// What the key begins with.
    key: String,
    /// `None` where nobody knows: over the socket, or where it is another's.
    session: Option<&'a str>,
    nonce: Option<&'a str>,
}

impl<'a> Whose<'a> {
    fn of(op: &'a Op) -> Option<Self> {
        let (key, session, nonce) = match op {
            Op::Acquire { session, lock, .. } => (format!("lock.{lock}."), Some(session), None),
            Op::Campaign { session, election } => (format!("election.{election}"), Some(session), None),
            Op::Proclaim { session, election, nonce, .. } => (format!("election.{election}"), Some(session), Some(nonce)),
            Op::Transfer { election, to, .. } => (format!("election.{election}"), to.as_ref(), None),
            Op::FencedPut { key, nonce, .. } | Op::Put { key, nonce, .. } => (format!("data.{key}"), None, Some(nonce)),
            Op::Get { key } | Op::Delete { key, .. } => (format!("data.{key}"), None, None),
            Op::Join { session, group, member, nonce } => (format!("member.{group}.{member}"), Some(session), Some(nonce)),
            // Updates at one time may go out as one, with the nonce of another.
            Op::Update { session, group, member, .. } => (format!("member.{group}.{member}"), Some(session), None),
            _ => return None,
        };
        let session = session.map(String::as_str).filter(|session| !session.is_empty());
        Some(Self { key, session, nonce: nonce.map(String::as_str) })
    }
}
