//! A server that led a bucket, was cut off and comes back: for a moment there are two that answer, and a refusal by
//! the one that is behind proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures::StreamExt;
use tenure_kv::{Batch, Entry, Error, Event, Key, KeyRange, Op, Revision, Since, State, Store, StoreExt, nats::Nats};
use tenure_tests::{NatsCluster, NatsSetup};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 12;
const PAUSE: Duration = Duration::from_millis(1_100);
const BUCKET: &str = "rejoin";

/// Who alone writes a key: whatever stands in the way of a write is one of its own.
struct Writer {
    store: Nats,
    name: String,
    fence: (Key, Revision),
    at: Revision,
    written: u64,
    /// Refusals that proved nothing.
    doubted: u64,
}

/// A write that was refused.
#[derive(Debug)]
struct Refused {
    key: Key,
    value: String,
    at: Revision,
    error: Error,
}

impl Writer {
    async fn new(cluster: &NatsCluster, n: usize) -> Self {
        // Each begins with another server: some have the one that is cut off.
        let urls = cluster.client_urls();
        let host = urls[n % urls.len()].trim_start_matches("nats://").to_owned();
        let store = Nats::open(&format!("nats://{host}/{BUCKET}?timeout=2s")).await.unwrap();
        let guard = Key::new(format!("guard.{n}")).unwrap();
        let fence = (guard.clone(), store.put(&guard, "held").await.unwrap());
        let name = format!("written.{n}");
        let at = store.create(&Key::new(&name).unwrap(), "0").await.unwrap();
        Self { store, name, fence, at, written: 0, doubted: 0 }
    }

    fn key(&self) -> Key {
        Key::new(&self.name).unwrap()
    }

    /// Writes until it is stopped, or refused.
    async fn run(mut self, stop: CancellationToken) -> (Self, Option<Refused>) {
        while !stop.is_cancelled() {
            // Whatever the new leader replicates ends the old one: most of the time there is nothing.
            tokio::time::sleep(PAUSE).await;
            self.written += 1;
            let (key, value) = (self.key(), self.written.to_string());
            let op = Op::put(key.clone(), value.clone()).if_at(self.at);
            let fenced = |op: Op| op.fenced(self.fence.0.clone(), self.fence.1);
            // Alone, in a batch with what carries the fence, and with nothing but a fence, which stands.
            let alone = self.written % 3 == 2;
            let batch: Batch = match self.written % 3 {
                0 => op.into(),
                1 => fenced(op).into(),
                _ => fenced(Op::put(Key::new(format!("free.{}", self.name)).unwrap(), value.clone())).into(),
            };
            match self.store.commit(batch).await {
                Ok(_) if alone => {}
                Err(error @ Error::Conflict { .. }) if alone => panic!("refused by a fence that stands: {error:?}"),
                Ok(revision) => self.at = revision,
                Err(error @ Error::Conflict { .. }) => {
                    let at = self.at;
                    return (self, Some(Refused { key, value, at, error }));
                }
                Err(Error::Invalid { message }) => panic!("{message}"),
                Err(error) => {
                    self.doubted += u64::from(error.to_string().contains("that is behind"));
                    self.read().await;
                }
            }
        }
        (self, None)
    }

    /// Goes on from what is there. What is still under way may be refused, or refuse the next write.
    async fn read(&mut self) {
        if let Ok(Some(entry)) = self.store.entry(&self.key()).await {
            self.at = entry.revision;
        }
    }
}

/// Notes what a watch of what is written with a fence alone tells, until it is stopped: each of it is there once.
async fn once(store: Nats, stop: CancellationToken) -> usize {
    let mut told = store.watch(KeyRange::new("free.>").unwrap(), Since::Current).await.unwrap();
    let mut seen: HashMap<(Key, Vec<u8>), Revision> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = told.next() => event.expect("the watch ended").unwrap(),
            () = stop.cancelled() => return seen.len(),
        };
        // After a gap it may be told again.
        if let Event::Entry(Entry { key, revision, state: State::Live(value), .. }) = event {
            let before = *seen.entry((key.clone(), value.to_vec())).or_insert(revision);
            assert_eq!(before, revision, "{key} was written twice as {value:?}");
        }
    }
}

/// What the servers agree on at last.
async fn settled(store: &Nats, key: &Key) -> String {
    let begun = Instant::now();
    loop {
        // A read may come from a server that is behind, a write not.
        if let Ok(Some(entry)) = store.entry(key).await
            && let State::Live(value) = &entry.state
            && store.update(key, value.clone(), entry.revision).await.is_ok()
        {
            return String::from_utf8(value.to_vec()).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the cluster does not settle");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the server that `nats` is connected to knows a leader of the bucket other than `old`.
async fn led_anew(nats: &jetstream::Context, old: Option<&str>) -> String {
    let begun = Instant::now();
    loop {
        match led_by(nats).await {
            Some((leader, _)) if Some(leader.as_str()) != old => return leader,
            now => assert!(begun.elapsed() < Duration::from_secs(30), "nobody leads after {old:?}: {now:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until every server has what the leader has. One that took in what it could not commit gives that up an entry at a
/// time, each in seconds; without the leader it is half of what is left, which elects nobody as long.
async fn whole(nats: &jetstream::Context) {
    let begun = Instant::now();
    loop {
        match led_by(nats).await {
            Some((_, 2)) => return,
            now => assert!(begun.elapsed() < Duration::from_secs(120), "the cluster does not get whole: {now:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who leads the bucket, and how many others have what it has. While there is no leader nobody answers.
async fn led_by(nats: &jetstream::Context) -> Option<(String, usize)> {
    let stream = timeout(Duration::from_millis(300), nats.get_stream(format!("KV_{BUCKET}"))).await.ok()?.ok()?;
    let cluster = stream.cached_info().cluster.as_ref()?;
    let current = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline && peer.lag.unwrap_or(0) == 0);
    Some((cluster.leader.clone()?, current.count()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_a_former_leader_is_no_proof() {
    let rounds: usize = std::env::var("TENURE_REJOINS").map_or(2, |rounds| rounds.parse().expect("TENURE_REJOINS"));
    let cluster = Arc::new(NatsCluster::start_as(3, NatsSetup { wired: true, ..NatsSetup::default() }).await);
    let witness = Nats::open(&cluster.url(BUCKET)).await.unwrap();
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        writers.push(Writer::new(&cluster, n).await);
    }
    let (watching, mut watches) = (CancellationToken::new(), JoinSet::new());
    for url in cluster.client_urls() {
        let store = Nats::open(&format!("{url}/{BUCKET}")).await.unwrap();
        watches.spawn(once(store, watching.clone()));
    }
    let mut refused = 0;
    let any = jetstream::new(async_nats::connect(&cluster.client_urls()[0]).await.unwrap());
    // Rounds in which both thought that they lead when they met again.
    let mut met = 0;
    for round in 0..rounds {
        whole(&any).await;
        for writer in &mut writers {
            writer.read().await;
        }
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for writer in std::mem::take(&mut writers) {
            tasks.spawn(writer.run(stop.clone()));
        }
        let leader = cluster.leader(BUCKET).await;
        let other = &cluster.client_urls()[(leader + 1) % cluster.size()];
        let nats = jetstream::new(async_nats::connect(other).await.unwrap());
        let cut_off = jetstream::new(async_nats::connect(&cluster.client_urls()[leader]).await.unwrap());
        let old = led_anew(&nats, None).await;
        let isolated = Instant::now();
        cluster.isolate(leader);
        led_anew(&nats, Some(&old)).await;
        // Too short for the old one to notice.
        let apart = Duration::from_millis(4_500 + 500 * (round as u64 % 5));
        tokio::time::sleep(apart.saturating_sub(isolated.elapsed())).await;
        for _ in 0..5 {
            if led_by(&cut_off).await.is_some_and(|(leader, _)| leader == old) {
                met += 1;
                break;
            }
        }
        cluster.rejoin(leader);
        // Long enough for both to answer.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            let (writer, what) = ended.unwrap();
            if let Some(Refused { key, value, at, error }) = what {
                refused += 1;
                assert_ne!(settled(&witness, &key).await, value, "round {round}, at {at}: {error:?}, and yet it was applied");
            }
            settled(&witness, &writer.key()).await;
            writers.push(writer);
        }
    }
    watching.cancel();
    let told = watches.join_all().await;
    let sum = |count: fn(&Writer) -> u64| writers.iter().map(count).sum::<u64>();
    let (written, doubted) = (sum(|writer| writer.written), sum(|writer| writer.doubted));
    println!(
        "{rounds} rejoins, {met} between two leaders, {written} writes, {refused} refused and not applied, {doubted} in doubt, {told:?} told once"
    );
    // Where an election takes its time the old one notices, now and then.
    assert!(met > 0 || rounds < 3, "nobody was cut off without noticing");
    assert!(written > 0 && told.iter().all(|told| *told > 0), "{told:?}");
}
