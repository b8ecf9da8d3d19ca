//! Servers that are killed, restarted and paused under those who hold and wait.

use std::{sync::Arc, time::Duration};

use tenure::locks;
use tenure_kv::{Moment, Store};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Bed,
    basics::{take, until_waiting},
    exclusion::{join, persist},
    history::{Hold, must_be_sound},
    support::{LONG, Must, loss_now, now, until, within},
};
use crate::{NatsCluster, NatsServer};

/// Processes that go on wanting locks while servers fail.
struct Crowd {
    workers: JoinSet<Vec<Hold>>,
    over: watch::Sender<Option<Moment>>,
    lease: Duration,
}

impl Crowd {
    async fn gather(bed: &Bed, count: u64, lease: Duration) -> Self {
        let (over, watched) = watch::channel(None);
        let mut workers = JoinSet::new();
        for seed in 0..count {
            workers.spawn(persist(bed.line().await, lease, 2, seed, watched.clone()));
        }
        Self { workers, over, lease }
    }

    /// Waits until somebody waits for a lock that another of them holds.
    async fn until_it_fights(&self, store: &Arc<dyn Store>) {
        until(LONG, "they fight over the locks", || async {
            let queues = locks::list(&**store, "lock-").await.ok()?;
            queues.iter().any(|queue| queue.holder.is_some() && !queue.waiters.is_empty()).then_some(())
        })
        .await;
    }

    /// The faults are over: each must be granted a lock within a lease and 10 s, and nobody may have been
    /// granted one beside another.
    async fn must_go_on(self) -> Vec<Hold> {
        self.over.send_replace(Some(now()));
        let limit = self.lease + Duration::from_secs(10);
        let history = within(limit, "everybody is granted a lock after the faults", join(self.workers)).await;
        let history: Vec<Hold> = history.into_iter().flatten().collect();
        must_be_sound(&history);
        history
    }
}

/// A server that is killed and started again while locks are held, waited for and fought over: who holds
/// keeps its lock if its lease is long enough, and everybody goes on.
///
/// # Panics
/// When the promise is broken.
pub async fn a_server_is_killed_and_restarted() {
    let mut server = NatsServer::start().await;
    let bed = Bed::on_server(&server).await;
    let store = bed.store().await;
    let lease = Duration::from_secs(20);
    let (holder, other) = (bed.session(lease).await, bed.session(lease).await);
    let guard = take(&holder, "kept").await;
    let mutex = other.mutex("kept").must("a lock name");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    until_waiting(&mutex, 1).await;
    let crowd = Crowd::gather(&bed, 4, Duration::from_secs(1)).await;
    for _ in 0..2 {
        crowd.until_it_fights(&store).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(guard.is_held(), "an outage shorter than the lease is no loss");
        server.restart().await;
    }
    crowd.must_go_on().await;
    assert!(guard.is_held() && loss_now(&guard).is_none() && !waiting.is_finished());
    let token = guard.token();
    within(LONG, "the release", guard.release()).await.must("the release");
    let next = within(LONG, "the next is granted", waiting).await.must("the task").must("the lock");
    assert!(next.token() > token);
    next.release().await.must("the release");
}

/// The leader of a cluster of three is killed, and later another one stands still for some seconds, while
/// six processes fight over locks: never two holders, and all goes on within a lease and 10 s.
///
/// # Panics
/// When the promise is broken.
pub async fn a_cluster_loses_its_leaders() {
    let mut cluster = NatsCluster::start(3).await;
    let bed = Bed::on_cluster(&cluster).await;
    let store = bed.store().await;
    let bucket = bed.bucket().must("a bucket on NATS").to_owned();
    let lease = Duration::from_secs(2);

    let crowd = Crowd::gather(&bed, 6, lease).await;
    crowd.until_it_fights(&store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.leader(&bucket).await;
    cluster.kill(leader);
    let killed = crowd.must_go_on().await;
    cluster.restart(leader).await;

    let crowd = Crowd::gather(&bed, 6, lease).await;
    crowd.until_it_fights(&store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.leader(&bucket).await;
    cluster.pause(leader);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.resume(leader);
    let paused = crowd.must_go_on().await;

    let whole: Vec<Hold> = killed.into_iter().chain(paused).collect();
    must_be_sound(&whole);
}
