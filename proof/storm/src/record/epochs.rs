//! Which incarnation of the bucket, and which session, something belongs to, told from the stream.

use std::collections::HashMap;

use tenure_check::history::{Op, Write};

/// The daemons of a history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemons {
    daemons: Vec<Facts>,
}

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

    /// The daemon that made the call `id`.
    pub(crate) fn of_call(&self, id: u64) -> Option<Facts> {
        self.daemons.iter().find(|daemon| crate::tape::client_of(id) == daemon.number).copied()
    }
}

/// The incarnations of the bucket, and what tells them apart.
pub(crate) struct Epochs {
    /// By their ids in `meta.epoch`, the first that had it.
    ids: HashMap<String, u64>,
    /// Which key was written at a revision, in which incarnations.
    keys: HashMap<u64, Vec<(u64, String)>>,
    several: bool,
    /// At each revision: the incarnation, the key, and the session that the value names.
    sessions: HashMap<u64, Vec<(u64, String, String)>>,
    nonces: HashMap<String, String>,
}

impl Epochs {
    pub(crate) fn of(writes: &[Write]) -> Self {
        let (mut ids, mut keys) = (HashMap::new(), HashMap::<u64, Vec<_>>::new());
        let (mut sessions, mut nonces) = (HashMap::<u64, Vec<_>>::new(), HashMap::new());
        let several = writes.iter().any(|write| write.epoch != 1);
        for write in writes {
            if write.key == "meta.epoch"
                && let Some(id) = &write.value.nonce
            {
                ids.entry(id.clone()).or_insert(write.epoch);
            }
            if let Some(session) = &write.value.session {
                sessions.entry(write.revision).or_default().push((write.epoch, write.key.clone(), session.clone()));
                nonces.extend(write.value.nonce.clone().map(|nonce| (nonce, session.clone())));
            }
            if several {
                keys.entry(write.revision).or_default().push((write.epoch, write.key.clone()));
            }
        }
        Self { ids, keys, several, sessions, nonces }
    }

    pub(crate) fn named(&self, id: &str) -> Option<u64> {
        self.ids.get(id).copied()
    }

    /// The session that a write at `revision` is of, in the incarnation `epoch` or in the only one that has it.
    pub(crate) fn session(&self, op: &Op, epoch: Option<u64>, revision: u64) -> Option<String> {
        let key = key_of(op)?;
        let mut found = self
            .sessions
            .get(&revision)?
            .iter()
            .filter(|(of, written, _)| epoch.is_none_or(|epoch| epoch == *of) && written.starts_with(&key));
        let (_, _, session) = found.next()?;
        found.next().is_none().then(|| session.clone())
    }

    /// The session that wrote `nonce`.
    pub(crate) fn session_of_nonce(&self, nonce: &str) -> Option<String> {
        self.nonces.get(nonce).cloned()
    }

    /// In which incarnation `op` wrote at `revision`; `None` leaves it to the session's.
    pub(crate) fn of_write(&self, op: &Op, revision: u64) -> Option<u64> {
        if !self.several {
            return None;
        }
        let key = key_of(op)?;
        let mut found = self.keys.get(&revision)?.iter().filter(|(_, written)| written.starts_with(&key));
        let (epoch, _) = found.next()?;
        found.next().is_none().then_some(*epoch)
    }
}

/// What the key of an operation's write begins with.
fn key_of(op: &Op) -> Option<String> {
    Some(match op {
        // Over the socket nobody knows the session.
        Op::Acquire { session, lock, .. } if session.is_empty() => format!("lock.{lock}."),
        Op::Acquire { session, lock, .. } => format!("lock.{lock}.{session}-"),
        Op::Campaign { election, .. } | Op::Proclaim { election, .. } | Op::Transfer { election, .. } => {
            format!("election.{election}")
        }
        Op::FencedPut { key, .. } | Op::Put { key, .. } | Op::Get { key } | Op::Delete { key, .. } => format!("data.{key}"),
        Op::Join { group, member, .. } | Op::Update { group, member, .. } => format!("member.{group}.{member}"),
        _ => return None,
    })
}
