//! A store that writes down what it commits and which sessions are opened through it. It changes nothing.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use serde::Deserialize;
use tenure_check::history::{Done, Line, Op};
use tenure_kv::{Batch, Change, Entry, Event, Expect, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, State, Store};

use tokio_util::task::AbortOnDropHandle;

use crate::{
    Failed,
    client::outcome,
    tape::{Tape, Taped},
    values,
};

#[derive(Debug)]
pub(super) struct Recorded {
    store: Arc<dyn Store>,
    tape: Arc<Tape>,
    writes: Option<Arc<Mutex<File>>>,
    epoch: u64,
    /// The sessions that somebody tried to open here and did not close, each with what it was to be opened with where
    /// that is not known to have been done.
    sessions: Mutex<HashMap<String, Option<u64>>>,
    /// The id of the epoch, as last read or written.
    known: Mutex<Option<String>>,
    /// Hears of what was committed though its outcome was told to be unknown.
    _listening: Option<AbortOnDropHandle<()>>,
}

/// A try to open a session, and its call.
struct Opening {
    id: String,
    call: u64,
}

/// What a session's record says of interest.
#[derive(Deserialize)]
struct Session {
    lease_ms: u64,
}

/// What the record of the epoch says of interest.
#[derive(Deserialize)]
struct Epoch {
    id: String,
}

impl Recorded {
    /// Writes down first what is there already, which the daemon before may have committed and not told.
    pub(super) async fn over(
        store: Arc<dyn Store>,
        tape: Arc<Tape>,
        writes: Option<&Path>,
        epoch: u64,
    ) -> std::result::Result<Self, Failed> {
        let Some(path) = writes else {
            return Ok(Self {
                store,
                tape,
                writes: None,
                epoch,
                sessions: Mutex::default(),
                known: Mutex::default(),
                _listening: None,
            });
        };
        let file = Arc::new(Mutex::new(File::options().create(true).append(true).open(path)?));
        let mut events = store.watch(KeyRange::All, Since::History).await?;
        while let Some(event) = events.next().await {
            match event? {
                Event::Entry(entry) => put(&file, epoch, &[entry])?,
                Event::CaughtUp => break,
                Event::Gap => {}
            }
        }
        let told = file.clone();
        let listening = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                // An expiry has a revision of its own here.
                if let Event::Entry(entry) = event
                    && put(&told, epoch, &[entry]).is_err()
                {
                    return;
                }
            }
        });
        let listening = Some(AbortOnDropHandle::new(listening));
        Ok(Self {
            store,
            tape,
            writes: Some(file),
            epoch,
            sessions: Mutex::default(),
            known: Mutex::default(),
            _listening: listening,
        })
    }

    /// The daemon is about to leave, and ends its sessions.
    pub(super) fn leaves(&self) {
        let sessions = std::mem::take(&mut *self.sessions());
        for session in sessions.into_keys() {
            self.tape.dropped(self.tape.call(Op::Close { session }));
        }
        self.tape.abandon();
    }

    /// Before a commit: notes that a session is opened, where the batch does that. Each try is a call.
    fn opens(&self, batch: &Batch) -> Option<Opening> {
        let [op] = batch.ops.as_slice() else { return None };
        if let (Change::Put(value, _), Expect::Absent | Expect::At(Revision::ZERO)) = (&op.change, op.expect)
            && let Some(id) = op.key.under("session")
            && let Ok(Session { lease_ms }) = serde_json::from_slice(value)
        {
            self.sessions().insert(id.to_owned(), Some(lease_ms));
            return Some(Opening { id: id.to_owned(), call: self.tape.call(Op::Open { lease_ms }) });
        }
        None
    }

    /// That session is open.
    fn opened(&self, opening: Opening) {
        let Opening { id, call } = opening;
        if let Some(session) = self.sessions().get_mut(&id) {
            *session = None;
        }
        let epoch = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(epoch) = epoch {
            self.tape.put(&Taped::Epoch { session_of: id.clone(), epoch });
        }
        self.tape.done(call, Done { session: Some(id), ..Done::default() });
    }

    /// Somebody sees that a session is there: who did not know whether it had been opened does now.
    fn sees(&self, id: &str) {
        let tried = self.sessions().get(id).copied().flatten();
        if let Some(lease_ms) = tried {
            self.opened(Opening { id: id.to_owned(), call: self.tape.call(Op::Open { lease_ms }) });
        }
    }

    /// Learns the epoch from the record that says it.
    fn learn(&self, key: &Key, value: &[u8]) {
        if key.as_str() == "meta.epoch"
            && let Ok(Epoch { id }) = serde_json::from_slice(value)
        {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Option<u64>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of ours that this batch ends. Only this process can see that it is its own doing, not a deposition.
    fn closes(&self, batch: &Batch) -> Option<String> {
        let ended = batch.ops.iter().filter(|op| !matches!(op.change, Change::Put(..)));
        let mut ids = ended.filter_map(|op| op.key.under("session"));
        let mut sessions = self.sessions();
        ids.find(|id| sessions.remove(*id).is_some()).map(str::to_owned)
    }
}

fn put(file: &Mutex<File>, epoch: u64, entries: &[Entry]) -> io::Result<()> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, &Line::Write(values::write(entry, epoch)))?;
        text.push(b'\n');
    }
    file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
}

/// What `batch` left, having been committed up to `last`.
fn entries(batch: &Batch, last: Revision) -> Vec<Entry> {
    let first = last.get() + 1 - batch.ops.len() as u64;
    let entry = |(op, revision): (&tenure_kv::Op, u64)| {
        let state = match &op.change {
            Change::Put(value, _) => State::Live(value.clone()),
            Change::Delete { note, .. } => State::Deleted(note.clone()),
            Change::Purge { .. } => State::Purged,
        };
        Entry { key: op.key.clone(), revision: Revision::new(revision), state, created: UNIX_EPOCH }
    };
    batch.ops.iter().zip(first..).map(entry).collect()
}

#[async_trait]
impl Store for Recorded {
    fn info(&self) -> &Info {
        self.store.info()
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        let entry = self.store.entry(key).await?;
        if let Some(value) = entry.as_ref().and_then(Entry::value) {
            self.learn(key, value);
            if let Some(id) = key.under("session") {
                self.sees(id);
            }
        }
        Ok(entry)
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.store.entries(keys).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.store.scan(range, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        if let Some(session) = self.closes(&batch) {
            self.tape.dropped(self.tape.call(Op::Close { session }));
        }
        let opening = self.opens(&batch);
        let committed = self.store.commit(batch.clone()).await;
        match (&committed, opening) {
            (Ok(_), Some(opening)) => self.opened(opening),
            (Err(error), Some(opening)) => self.tape.returned(opening.call, outcome::of_store(error)),
            (_, None) => {}
        }
        if let Ok(last) = &committed {
            // A history that says less than happened is no evidence.
            if let Some(file) = &self.writes
                && let Err(error) = put(file, self.epoch, &entries(&batch, *last))
            {
                return Err(tenure_kv::Error::unknown("the commit could not be recorded").caused_by(error));
            }
            for op in &batch.ops {
                if let Change::Put(value, _) = &op.change {
                    self.learn(&op.key, value);
                }
            }
        }
        committed
    }

    async fn bucket(&self, name: &str) -> Result<tenure_kv::Beside> {
        self.store.bucket(name).await
    }

    fn outages(&self) -> u64 {
        self.store.outages()
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.store.watch(range, since).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.store.follow(key).await
    }
}

#[cfg(test)]
mod tests {
    use tenure_kv::{Memory, Op};

    use super::*;
    use tenure_check::history;

    use crate::tape;

    #[tokio::test]
    async fn everything_committed_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let (taped, written) = (dir.path().join("tape"), dir.path().join("writes"));
        let tape = Arc::new(Tape::create(&taped, 1).unwrap());
        let store = Recorded::over(Arc::new(Memory::new()), tape, Some(&written), 3).await.unwrap();
        let store = Arc::new(store);
        let session = tenure::Session::open(store.clone()).await.unwrap();
        let key = |text| Key::new(text).unwrap();
        store.commit(Batch::new().and(Op::put(key("data.a"), "n1")).and(Op::delete(key("data.b")).note("held"))).await.unwrap();
        session.close().await.unwrap();
        let writes = std::fs::read_to_string(&written).unwrap();
        let writes: std::collections::BTreeMap<_, _> = writes
            .lines()
            .map(|line| match serde_json::from_str(line).unwrap() {
                Line::Write(write) => (write.revision, write.key),
                other => panic!("{other:?}"),
            })
            .collect();
        let own = format!("session.{}", session.id());
        assert!(writes.values().cloned().eq(["meta.epoch", &own, "data.a", "data.b", &own].map(str::to_owned)), "{writes:?}");
        let [
            Taped::Line(Line::Call(open)),
            Taped::Epoch { .. },
            Taped::Line(Line::Return(opened)),
            Taped::Line(Line::Call(close)),
            _,
        ] = &tape::read(&taped).unwrap()[..]
        else {
            panic!("{:?}", tape::read(&taped))
        };
        assert_eq!((&open.op, open.id), (&history::Op::Open { lease_ms: 5_000 }, opened.id));
        assert_eq!(close.op, history::Op::Close { session: session.id().to_owned() });
    }
}
