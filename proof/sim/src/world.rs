//! The world: its time, its agenda, the server with its bucket, the wires to it, and the record of what happened.
//!
//! One thread owns it at a time; the lock is never contended and never held while a process runs.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tenure_check::history::{Line, Micros, Seen, Sight as Seeing, Write, WriteState};
use tenure_kv::{Error, Event as Told, Key, Notice, Revision};
use tokio::sync::{mpsc, oneshot};

use crate::{
    agenda::{Agenda, Place},
    bucket::Bucket,
    clock::Bell,
    over, stream_record,
    streams::Streams,
    wire::{Ask, Said, Wire},
};

/// Something that is to happen.
pub(crate) enum Event {
    /// A timer of a process rings.
    Ring { slot: usize, bell: Arc<Bell> },
    /// A request reaches the server.
    Arrive(Request),
    /// The server hears of a follower.
    Follow { slot: usize, key: Key, to: mpsc::UnboundedSender<Notice> },
    /// An answer reaches a process.
    Answer { slot: usize, to: oneshot::Sender<Said>, said: Said },
    /// A watch of a process hears something.
    Told { slot: usize, to: mpsc::UnboundedSender<tenure_kv::Result<Told>>, told: tenure_kv::Result<Told> },
    /// A follower of a key hears something.
    Noticed { slot: usize, to: mpsc::UnboundedSender<Notice>, notice: Notice },
    /// A stream that was cut is established again.
    Resume { slot: usize },
    /// Number `n` of the plan begins or ends.
    Fault { n: usize, begins: bool },
    /// A process starts.
    Start { slot: usize },
    /// From here on nothing goes wrong.
    Quiet,
    /// The actors finish what they do.
    Finish,
    /// Is everything over?
    Look,
}

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) slot: usize,
    pub(crate) ask: Ask,
    pub(crate) answer: Arc<Mutex<Option<oneshot::Sender<Said>>>>,
    /// The bucket's incarnation when it was sent: a request does not outlive the servers that it was sent to, but it
    /// does a bucket that is made anew on them.
    pub(crate) epoch: u64,
}

pub(crate) struct World {
    inner: Mutex<Inner>,
    /// What `Inner::now` is, for who asks for nothing else.
    now: AtomicU64,
}

pub(crate) struct Inner {
    pub(crate) now: Micros,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) bucket: Bucket,
    /// Incarnations of the bucket, from 1.
    pub(crate) epoch: u64,
    /// Since which incarnation the servers run without a break.
    servers_since: u64,
    /// When the present incarnation began.
    pub(crate) began: Micros,
    pub(crate) wires: Vec<Wire>,
    /// How often each process has been out of touch with the server.
    pub(crate) outages: Vec<u64>,
    pub(crate) streams: Streams,
    /// Several servers: reads may lag, and a new listener misses the first notices.
    pub(crate) clustered: bool,
    pub(crate) lines: Vec<Line>,
    /// When something was written last that does not merely keep a session.
    pub(crate) changed: Micros,
    pub(crate) calls: u64,
    pub(crate) finishing: bool,
    /// Calls that have not ended.
    pub(crate) open: usize,
    clients: u64,
    /// The clients of the process on each machine, and whether each is there still.
    present: Vec<Vec<(u64, bool)>>,
    /// How far each machine's wall clock has been moved.
    wall: Vec<i64>,
}

impl World {
    pub(crate) fn new(seed: u64, slots: usize, clustered: bool) -> Arc<Self> {
        let mut bucket = Bucket::default();
        bucket.markers = tenure_kv::mutants::is_on(tenure_kv::mutants::Mutant::Markers);
        let inner = Inner {
            now: 0,
            agenda: Agenda::default(),
            rng: fastrand::Rng::with_seed(seed),
            bucket,
            epoch: 1,
            servers_since: 1,
            began: 0,
            wires: (0..slots).map(|_| Wire::default()).collect(),
            outages: vec![0; slots],
            streams: Streams::default(),
            clustered,
            lines: Vec::new(),
            changed: 0,
            calls: 0,
            finishing: false,
            open: 0,
            clients: 0,
            present: vec![Vec::new(); slots],
            wall: vec![0; slots],
        };
        Arc::new(Self { inner: Mutex::new(inner), now: AtomicU64::new(0) })
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Micros {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn wall_step(&self, slot: usize) -> i64 {
        self.inner().wall[slot]
    }

    pub(crate) fn move_wall(&self, slot: usize, by: i64) {
        self.inner().wall[slot] += by;
    }

    pub(crate) fn set_bell(&self, at: Micros, slot: usize, bell: Arc<Bell>) -> Place {
        self.inner().agenda.add(at, Event::Ring { slot, bell })
    }

    pub(crate) fn unset(&self, place: Place) {
        self.inner().agenda.remove(place);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.inner().finishing
    }

    /// A number that nobody else in this world has.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.inner();
        inner.calls += 1;
        inner.calls
    }

    /// In which incarnation of the bucket a session was opened.
    pub(crate) fn epoch_of(&self, session: &str) -> Option<u64> {
        let key = format!("session.{session}");
        self.inner().lines.iter().rev().find_map(|line| match line {
            Line::Write(write) if write.key == key => Some(write.epoch),
            _ => None,
        })
    }

    /// In which incarnation of the bucket `nonce` was written to `key` at this revision, or `key` was ended where there is
    /// no nonce. Revisions come again, so by the time of a late answer somebody else may have written there in the next one.
    pub(crate) fn epoch_of_write(&self, key: &str, revision: u64, nonce: Option<&str>) -> Option<u64> {
        let is_it = |write: &Write| {
            let ended = write.state != WriteState::Live;
            write.key == key && write.revision == revision && ended == nonce.is_none() && write.value.nonce.as_deref() == nonce
        };
        self.inner().lines.iter().rev().find_map(|line| match line {
            Line::Write(write) if is_it(write) => Some(write.epoch),
            _ => None,
        })
    }

    /// The number of the next client on this machine.
    pub(crate) fn enlist(&self, slot: usize) -> u64 {
        let mut inner = self.inner();
        inner.clients += 1;
        let client = inner.clients;
        inner.present[slot].push((client, true));
        client
    }

    /// A client whose session is over.
    pub(crate) fn retire(&self, slot: usize, client: u64) {
        let mut inner = self.inner();
        inner.present[slot].iter_mut().filter(|(one, _)| *one == client).for_each(|(_, there)| *there = false);
    }

    /// The clients of the process on this machine, those that are not there any more included if `all`.
    pub(crate) fn present(&self, slot: usize, all: bool) -> Vec<u64> {
        let inner = self.inner();
        inner.present[slot].iter().filter(|(_, there)| all || *there).map(|(client, _)| *client).collect()
    }

    /// The process on this machine is gone.
    pub(crate) fn strike(&self, slot: usize) {
        self.inner().present[slot].clear();
    }

    pub(crate) fn note(&self, line: Line) {
        self.inner().lines.push(line);
    }

    /// Notes what `client` sees at this moment.
    pub(crate) fn saw(&self, client: u64, what: Seeing) {
        let mut inner = self.inner();
        let now = inner.now;
        inner.lines.push(Line::Seen(Seen { from: now, at: now, client, what }));
    }

    /// Moves on to the next event; time stops at `end`.
    pub(crate) fn next(&self, end: Micros) -> Option<Event> {
        let mut inner = self.inner();
        let (at, event) = inner.agenda.next()?;
        inner.now = inner.now.max(at).min(end);
        self.now.store(inner.now, Ordering::Relaxed);
        (at <= end).then_some(event)
    }
}

impl Inner {
    /// The server takes a request and answers it.
    pub(crate) fn serve(&mut self, request: Request) {
        let Request { slot, ask, answer, epoch } = request;
        if epoch < self.servers_since
            || epoch != self.epoch && rests_on_its_bucket(&ask)
            || self.wires[slot].loses_requests(&mut self.rng)
        {
            return;
        }
        let said = match ask {
            Ask::Entries(keys) => {
                let sight = self.sight(slot);
                Said::Entries(keys.iter().map(|key| self.bucket.entry(sight, key)).collect())
            }
            Ask::Scan(range, from, limit) => {
                let sight = self.sight(slot);
                Said::Page(self.bucket.scan(sight, &range, from, limit))
            }
            Ask::Commit(batch) => {
                let refusal = self.lagging_refusal(slot, &batch);
                match refusal.map_or_else(|| self.bucket.commit(self.now, batch), Err) {
                    Ok(entries) => {
                        for entry in &entries {
                            let line = stream_record::write(entry, self.epoch, self.now);
                            self.lines.push(line);
                            if !over::keeps_a_session(&entry.key) {
                                self.changed = self.now;
                            }
                            self.publish(entry);
                        }
                        Said::Committed(entries.last().map(|entry| entry.revision).unwrap_or_default())
                    }
                    Err(error) => Said::Refused(error),
                }
            }
            Ask::Watch(range, since, to) => {
                self.open_watch(slot, range, since, to);
                Said::Established
            }
        };
        // An answer that is lost leaves its place: whoever waits must not be told by its end.
        if !self.wires[slot].loses_answers(&mut self.rng)
            && let Some(to) = answer.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let at = self.now + self.wires[slot].delay(&mut self.rng);
            self.agenda.add(at, Event::Answer { slot, to, said });
        }
    }

    /// What the replica that serves this process knows.
    fn sight(&mut self, slot: usize) -> crate::bucket::Sight {
        let lag = if self.clustered { self.wires[slot].lag(&mut self.rng) } else { 0 };
        let then = self.now.saturating_sub(lag).max(self.began);
        if lag == 0 { self.bucket.latest(self.now) } else { self.bucket.at(then, self.now) }
    }

    /// A server that has lost the lead without knowing it may refuse what it has not heard of; it never accepts.
    fn lagging_refusal(&mut self, slot: usize, batch: &tenure_kv::Batch) -> Option<Error> {
        if !self.clustered || !self.wires[slot].refuses_lagging(&mut self.rng) {
            return None;
        }
        let sight = self.sight(slot);
        batch.ops.iter().find_map(|op| {
            let tenure_kv::Expect::At(wanted) = op.expect else { return None };
            let found = self.bucket.entry(sight, &op.key).map(|entry| entry.revision);
            (found.unwrap_or_default() < wanted).then(|| Error::conflict(&op.key, found))
        })
    }

    /// The bucket goes back to what it was at `then`, or is made anew.
    pub(crate) fn reset(&mut self, then: Option<Micros>) {
        match then {
            Some(then) => self.bucket.roll_back(then.max(self.began), self.now),
            None => self.bucket.make_anew(),
        }
        self.epoch += 1;
        self.began = self.now;
        // A bucket can be made anew while its server serves on.
        if then.is_some() {
            self.servers_since = self.epoch;
            self.outages.iter_mut().for_each(|outages| *outages += 1);
            self.restart_streams();
        } else {
            self.end_watches();
        }
    }
}

/// What is not promised to be refused by a bucket made anew while it is on its way: a leader's fenced write, and a
/// renewal, by the revision of a key that is there again under the same name.
fn rests_on_its_bucket(ask: &Ask) -> bool {
    let Ask::Commit(batch) = ask else { return false };
    let of = |key: &Key, kind: &str| key.as_str().starts_with(kind);
    batch.ops.iter().any(|op| {
        let leads = op.fence.as_ref().is_some_and(|fence| of(&fence.key, "election."));
        let renews = of(&op.key, "session.") && matches!(op.expect, tenure_kv::Expect::At(at) if at > Revision::ZERO);
        leads || renews
    })
}

#[cfg(test)]
mod tests {
    use tenure_check::history::Value;

    use super::*;

    #[test]
    fn a_late_answer_is_of_the_incarnation_that_has_its_write() {
        let world = World::new(1, 1, false);
        let write = |epoch, nonce: Option<&str>| {
            let state = if nonce.is_some() { WriteState::Live } else { WriteState::Deleted };
            let value = Value { nonce: nonce.map(str::to_owned), ..Value::default() };
            world.note(Line::Write(Write { revision: 214, epoch, key: "data.k".into(), state, value, note: None, at: None }));
        };
        write(1, None);
        write(2, Some("n1"));
        write(3, Some("n2"));
        let epoch = |revision, nonce| world.epoch_of_write("data.k", revision, nonce);
        assert_eq!([epoch(214, None), epoch(214, Some("n1")), epoch(214, Some("n2"))], [Some(1), Some(2), Some(3)]);
        assert_eq!([epoch(214, Some("n3")), epoch(213, None)], [None, None]);
    }
}
