//! Who holds which lock, for people and operators; needs no session.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use tenure_kv::{Batch, Bytes, Entry, Op, Revision, Store, StoreExt, Ttl};

use crate::{
    Error, MAX_LEASE, Result, layout,
    layout::Name,
    living,
    record::{BROKEN, TicketRecord, decode},
};

/// One ticket: who holds a lock, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The fencing token it has or will have.
    pub token: Revision,
    /// The id of the session behind it.
    pub session: String,
    /// What the owner called itself.
    pub label: Option<String>,
    /// The owner's machine; empty when the record cannot be read.
    pub host: String,
    /// The owner's process; 0 when the record cannot be read.
    pub pid: u32,
    /// Since when it has been in the queue, by the store's wall clock. For people to read only.
    pub since: SystemTime,
}

impl Holder {
    /// What the ticket in `entry`, which is one of `session`'s, says of its owner.
    pub(crate) fn of(entry: &Entry, session: &str) -> Self {
        let record: TicketRecord = entry.value().and_then(decode).unwrap_or_default();
        Self {
            token: entry.revision,
            session: session.to_owned(),
            label: record.label,
            host: record.host,
            pid: record.pid,
            since: entry.created,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "{label}, ")?;
        }
        write!(f, "process {} on {}", self.pid, if self.host.is_empty() { "an unknown machine" } else { &self.host })
    }
}

/// The queue of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The lock's name.
    pub name: String,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who waits, next first.
    pub waiters: Vec<Holder>,
}

/// How a lock is, as [`Mutex::observe`](crate::Mutex::observe) tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockState {
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who is next, in the order of grants to come: the first [`SHOWN`](Self::SHOWN) of those who wait.
    pub waiters: Vec<Holder>,
    /// How many wait, those that are not shown included.
    pub waiting: usize,
}

impl LockState {
    /// So many of those who wait are shown. Each state is told whole, and a queue may have thousands of them.
    pub const SHOWN: usize = 32;
}

/// Who holds the lock `name` and who waits, as of one look. Tickets of sessions that are known to be
/// dead are left out.
///
/// # Errors
/// [`Error::Invalid`] for a wrong name; [`Error::Unavailable`] when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn inspect(store: &dyn Store, name: &str) -> Result<Queue> {
    let entries = store.list(&Name::new(name)?.tickets()?).await?;
    let mut queues = queues(store, entries).await?;
    Ok(queues.remove(name).unwrap_or_else(|| Queue { name: name.to_owned(), holder: None, waiters: Vec::new() }))
}

/// So many tickets are read at once to find the first one that lives.
const FRONT: usize = 8;

/// Who holds the lock `name`, as of one look at the front of its queue: what that costs does not grow with those who wait.
///
/// # Errors
/// As [`inspect`].
///
/// # Cancel safety
/// Safe to drop.
pub(crate) async fn holder(store: &dyn Store, name: &Name) -> Result<Option<Holder>> {
    let range = name.tickets()?;
    let mut from = Revision::ZERO;
    loop {
        let page = store.scan(&range, from, FRONT).await?;
        let (complete, through) = (page.complete, page.through);
        let found = queues(store, page.entries).await?.remove(name.as_str()).and_then(|queue| queue.holder);
        if found.is_some() || complete {
            return Ok(found);
        }
        from = through.next();
    }
}

/// Every lock that is held and whose name begins with `prefix` (any text, perhaps empty), by name.
///
/// # Errors
/// [`Error::Unavailable`] when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn list(store: &dyn Store, prefix: &str) -> Result<Vec<Queue>> {
    let mut entries = store.list(&layout::every_lock()?).await?;
    entries.retain(|entry| layout::parse_ticket(&entry.key).is_some_and(|(name, _)| name.starts_with(prefix)));
    Ok(queues(store, entries).await?.into_values().collect())
}

/// Takes the lock `name` from whoever holds it with this very `token`. Its fenced writes are refused
/// from then on and it is told; work that is not fenced may go on until it has heard.
///
/// # Errors
/// [`Error::Conflict`] when that hold is over already; otherwise as the store says.
///
/// # Cancel safety
/// Dropping leaves open whether the hold was broken.
pub async fn break_hold(store: &dyn Store, name: &str, token: Revision) -> Result<()> {
    let queue = inspect(store, name).await?;
    if queue.holder.as_ref().is_none_or(|holder| holder.token != token) {
        let message = match queue.holder {
            Some(holder) => format!("the lock {name} is held with token {}, not {token}; it was left alone", holder.token),
            None => format!("the lock {name} is not held; nothing to break"),
        };
        return Err(Error::Conflict { message, key: None, revision: None });
    }
    let tickets = store.list(&Name::new(name)?.tickets()?).await?;
    let ticket = tickets.into_iter().find(|entry| entry.revision == token);
    let Some((ticket, session)) = ticket.and_then(|entry| {
        let session = layout::parse_ticket(&entry.key)?.1.to_owned();
        Some((entry.key, session))
    }) else {
        return Err(Error::Conflict {
            message: format!("the hold of {name} with token {token} is over"),
            key: None,
            revision: None,
        });
    };
    // Both stay for as long as the holder may be cut off and still have its lease.
    let stays = Ttl::at_least(MAX_LEASE);
    let told = Op::put(layout::broken_key(&session)?, ticket.as_str().to_owned()).ttl(stays);
    let ended = Op::delete(ticket).note(Bytes::from_static(BROKEN)).if_at(token).ttl(stays);
    store.commit(Batch::new().and(ended).and(told)).await?;
    Ok(())
}

async fn queues(store: &dyn Store, entries: Vec<Entry>) -> Result<BTreeMap<String, Queue>> {
    let sessions = entries.iter().filter_map(|entry| Some(layout::parse_ticket(&entry.key)?.1));
    let dead = living::dead(store, sessions).await?;
    let mut queues = BTreeMap::<String, Queue>::new();
    for entry in &entries {
        let Some((name, session)) = layout::parse_ticket(&entry.key) else { continue };
        if dead.contains(session) {
            continue;
        }
        let ticket = Holder::of(entry, session);
        let queue =
            queues.entry(name.to_owned()).or_insert_with(|| Queue { name: name.to_owned(), holder: None, waiters: Vec::new() });
        match queue.holder {
            None => queue.holder = Some(ticket),
            Some(_) => queue.waiters.push(ticket),
        }
    }
    Ok(queues)
}
