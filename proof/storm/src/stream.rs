//! The bucket's own stream on NATS, watched from outside: every write as it is republished by any server, and what
//! was missed read back as far as the bucket still has it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use async_nats::{ConnectOptions, HeaderMap, Message};
use futures::StreamExt as _;
use tenure_check::history::{Value, Write, WriteState};
use tenure_kv::{Entry, Event, Key, KeyRange, Revision, Since, State, Store as _};
use tokio::{task::JoinSet, time::sleep};

use crate::values;

/// The pause before what has ended is begun again.
const AGAIN: Duration = Duration::from_millis(50);

/// What is known of the stream.
#[derive(Debug, Default)]
struct Log {
    epoch: u64,
    /// By incarnation and revision. `None` where something was written that is no key's.
    writes: BTreeMap<(u64, u64), Option<Write>>,
    /// Two different writes at one revision.
    clashes: Vec<String>,
}

/// The observer. Dropping it ends its tasks.
#[derive(Debug)]
pub(crate) struct Stream {
    log: Arc<Mutex<Log>>,
    tasks: JoinSet<()>,
}

/// Everything that an observer has seen.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// In the order of incarnations and revisions. The key is empty where something was written that is no key's.
    pub(crate) writes: Vec<Write>,
    /// What is known to be missing; empty when the stream is complete.
    pub(crate) notes: Vec<String>,
    /// Two different writes at one revision of one incarnation.
    pub(crate) clashes: Vec<String>,
}

impl Stream {
    /// Observes `bucket` on the servers at `urls`, whose store has the URL `store`, from now on.
    pub(crate) fn of(urls: &[String], store: &str, bucket: &str) -> Self {
        let log = Arc::new(Mutex::new(Log { epoch: 1, ..Log::default() }));
        let mut tasks = JoinSet::new();
        for url in urls {
            tasks.spawn(listen(url.clone(), bucket.to_owned(), log.clone()));
        }
        tasks.spawn(reread(store.to_owned(), log.clone()));
        Self { log, tasks }
    }

    /// From here on the bucket is another one, in which revisions may repeat.
    pub(crate) fn next_epoch(&self) -> u64 {
        let mut log = locked(&self.log);
        log.epoch += 1;
        log.epoch
    }

    /// Stops and tells everything.
    pub(crate) async fn finish(mut self) -> Observed {
        self.tasks.shutdown().await;
        let mut log = std::mem::take(&mut *locked(&self.log));
        log.forget_the_common();
        let mut missing = Vec::new();
        let (mut at, mut lacks) = ((0, 0), 0);
        for (epoch, revision) in log.writes.keys() {
            if at.0 == *epoch && *revision > at.1 + 1 {
                lacks += revision - at.1 - 1;
                missing.push(format!("{epoch}/{}-{}", at.1 + 1, revision - 1));
            }
            at = (*epoch, *revision);
        }
        let mut notes = Vec::new();
        if lacks > 0 {
            let (all, some) = (missing.len(), missing.into_iter().take(20).collect::<Vec<_>>().join(" "));
            notes.push(format!("stream: incomplete: {lacks} revisions in {all} gaps (epoch/from-to): {some}"));
        } else {
            notes.push("stream: complete".to_owned());
        }
        let writes = log.writes.into_iter().map(|((epoch, revision), write)| write.unwrap_or_else(|| of_no_key(epoch, revision)));
        Observed { writes: writes.collect(), notes, clashes: log.clashes }
    }
}

/// A message that carries a condition and is no key's. Its revision is not missing, so the checker has to hear of it.
fn of_no_key(epoch: u64, revision: u64) -> Write {
    let (key, state, value) = (String::new(), WriteState::Deleted, Value::default());
    Write { revision, epoch, key, state, value, note: None, at: None }
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn take(&mut self, revision: u64, entry: Option<&Entry>) {
        let epoch = self.epoch;
        let write = entry.map(|entry| values::write(entry, epoch));
        match self.writes.get(&(epoch, revision)) {
            None => drop(self.writes.insert((epoch, revision), write)),
            Some(known) if *known != write && self.clashes.len() < 20 => {
                let word = |write: &Option<Write>| write.as_ref().map_or("-".to_owned(), |write| write.key.clone());
                self.clashes.push(format!("stream: {epoch}/{revision} was {} and {}", word(known), word(&write)));
            }
            Some(_) => {}
        }
    }

    /// What a bucket that was set back has in common with the one before it is not told twice.
    fn forget_the_common(&mut self) {
        let said = |write: &Option<Write>| write.as_ref().map(|write| (write.key.clone(), write.state, write.value.clone()));
        let twice = self.writes.iter().filter(|((epoch, revision), write)| {
            (1..*epoch).any(|before| self.writes.get(&(before, *revision)).is_some_and(|known| said(known) == said(write)))
        });
        let twice: Vec<_> = twice.map(|(place, _)| *place).collect();
        twice.iter().for_each(|place| drop(self.writes.remove(place)));
    }
}

/// Hears what one server republishes.
async fn listen(url: String, bucket: String, log: Arc<Mutex<Log>>) {
    let options = ConnectOptions::new()
        .ignore_discovered_servers()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|_| AGAIN)
        .ping_interval(Duration::from_secs(1));
    let Ok(client) = options.connect(&url).await else { return };
    let prefix = format!("$KV.{bucket}.");
    let Ok(mut messages) = client.subscribe(format!("$TENURE.{bucket}.>")).await else { return };
    while let Some(message) = messages.next().await {
        if let Some((revision, entry)) = republished(&message, &prefix) {
            locked(&log).take(revision, entry.as_ref());
        }
    }
}

/// Where a republished write stands, and the entry if it is a key's.
fn republished(message: &Message, prefix: &str) -> Option<(u64, Option<Entry>)> {
    let headers = message.headers.as_ref()?;
    let header = |name: &str| headers.get(name).map(|value| value.as_str());
    let revision = header("Nats-Sequence")?.parse().ok()?;
    let key = header("Nats-Subject")?.strip_prefix(prefix).and_then(|key| Key::new(key).ok());
    let entry = key.map(|key| {
        let state = state(headers, &message.payload);
        Entry { key, revision: Revision::new(revision), state, created: UNIX_EPOCH }
    });
    Some((revision, entry))
}

fn state(headers: &HeaderMap, payload: &[u8]) -> State {
    match headers.get("KV-Operation").map(|value| value.as_str()) {
        Some("DEL") => State::Deleted(payload.to_vec().into()),
        Some("PURGE") => State::Purged,
        _ => State::Live(payload.to_vec().into()),
    }
}

/// Reads what the bucket has, from the beginning after each interruption.
async fn reread(url: String, log: Arc<Mutex<Log>>) {
    loop {
        if let Ok(store) = tenure_kv::nats::Nats::open(&url).await
            && let Ok(mut events) = store.watch(KeyRange::All, Since::History).await
        {
            while let Some(Ok(event)) = events.next().await {
                if let Event::Entry(entry) = event {
                    // An expiry is no write; its revision is that of what has expired.
                    if entry.state != State::Expired {
                        locked(&log).take(entry.revision.get(), Some(&entry));
                    }
                }
            }
        }
        sleep(AGAIN).await;
    }
}
