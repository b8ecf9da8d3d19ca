//! Looking on at a lock: every last state, at little cost, through outages and resets of the store.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use tenure::{Error, LockState, Loss, Mutex};
use tenure_kv::{Revision, faults::Partition};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left, until_waiting},
    support::{LONG, MS, Must, within},
};

/// What an onlooker is told.
struct Onlooker(BoxStream<'static, tenure::Result<LockState>>);

impl Onlooker {
    /// The states told until `wanted` is; tokens of holders never go back.
    async fn until(&mut self, what: &str, wanted: impl Fn(&LockState) -> bool) {
        let mut last = Revision::ZERO;
        within(LONG, what, async {
            loop {
                let state = self.0.next().await.must("the stream goes on").must("a state");
                if let Some(holder) = &state.holder {
                    assert!(holder.token >= last, "{what}: {holder:?} after {last}");
                    last = holder.token;
                }
                if wanted(&state) {
                    return;
                }
            }
        })
        .await;
    }

    async fn until_free(&mut self, what: &str) {
        self.until(what, |state| state.holder.is_none() && state.waiting == 0).await;
    }

    async fn until_held(&mut self, what: &str, token: Revision) {
        self.until(what, |state| state.holder.as_ref().is_some_and(|holder| holder.token == token)).await;
    }

    async fn until_lost(mut self) -> Loss {
        within(LONG, "the end", async {
            loop {
                match self.0.next().await.must("the stream has said why it ends") {
                    Err(Error::Lost { loss, .. }) => return loss,
                    Ok(_) | Err(Error::Unavailable { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
        .await
    }
}

fn observed(mutex: &Mutex) -> Onlooker {
    Onlooker(mutex.observe())
}

/// Onlookers are told every last state of a lock: who holds and who waits, and that nobody does after a release, after a
/// crash that nobody waits behind, and after a session's end.
///
/// # Panics
/// When the promise is broken.
pub async fn onlookers_are_told_who_holds_and_who_waits(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let (line, session) = bed.process(lease).await;
    let (other, watcher) = (bed.session(lease).await, bed.session(lease).await);
    let (mutex, theirs) = (watcher.mutex("seen").must("a lock name"), other.mutex("seen").must("a lock name"));
    let mut onlooker = observed(&mutex);
    onlooker.until_free("nobody").await;
    let first = take(&session, "seen").await;
    onlooker.until_held("the first", first.token()).await;
    let waiter = AbortOnDropHandle::new(tokio::spawn(async move { theirs.lock().await }));
    onlooker.until("the waiter", |state| state.waiting == 1 && state.waiters.len() == 1).await;
    first.release().await.must("the release");
    let second = within(LONG, "the second holds", waiter).await.must("the task").must("the lock");
    onlooker.until_held("the second", second.token()).await;
    second.release().await.must("the release");
    onlooker.until_free("nobody after the release").await;
    let crashing = take(&session, "seen").await;
    onlooker.until_held("the first again", crashing.token()).await;
    line.cut(Partition::HoldRequests);
    onlooker.until_free("nobody after the crash").await;
    assert!(!crashing.is_held(), "told that nobody holds while the holder relied on its lock");
    let last = take(&other, "seen").await;
    onlooker.until_held("the last", last.token()).await;
    other.close().await.must("the close");
    onlooker.until_free("nobody after the session's end").await;
    watcher.close().await.must("the close");
    assert_eq!(onlooker.until_lost().await, Loss::Closed);
}

/// An onlooker hears no heartbeats, and a crowd that passes a lock on costs it no requests: while nothing changes it is told
/// nothing.
///
/// # Panics
/// When the promise is broken.
pub async fn looking_on_at_a_lock_costs_little(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let (line, watcher) = bed.process(lease).await;
    let (holder, crowd) = (bed.session(lease).await, bed.session(lease).await);
    let guard = take(&holder, "quiet").await;
    let mut onlooker = observed(&watcher.mutex("quiet").must("a lock name"));
    onlooker.until_held("the holder", guard.token()).await;
    line.take_asked();
    let told = tokio::time::timeout(lease * 3, onlooker.0.next()).await;
    assert!(told.is_err(), "told {told:?} though nothing changed");
    let asked = line.take_asked();
    assert!(asked.besides_beats <= 16, "{asked:?} in three leases");
    let mutex = crowd.mutex("quiet").must("a lock name");
    let waiters = 64;
    let tasks: Vec<_> = (0..waiters)
        .map(|_| {
            let mutex = mutex.clone();
            AbortOnDropHandle::new(tokio::spawn(async move { mutex.lock().await?.release().await }))
        })
        .collect();
    until_waiting(&mutex, waiters).await;
    onlooker.until("all who wait", |state| state.waiting == waiters && state.waiters.len() == LockState::SHOWN).await;
    let begun = super::support::now();
    line.take_asked();
    guard.release().await.must("the release");
    onlooker.until_free("the end of the crowd").await;
    let asked = line.take_asked().besides_beats;
    let looks = super::support::since(begun).as_millis() / (lease / 2).as_millis() + 1;
    assert!(u128::from(asked) <= 8 * looks, "{asked} requests for {waiters} turns in {looks} times for a look");
    for task in tasks {
        within(LONG, "a turn", task).await.must("the task").must("the turn");
    }
    until_no_ticket_is_left(holder.store()).await;
}

/// Whoever looks on hears that the store is out of reach, and afterwards how it is; in a bucket made anew it hears that what it
/// saw is over.
///
/// # Panics
/// When the promise is broken.
pub async fn onlookers_are_told_of_outages_and_resets(bed: &Bed) {
    let lease = 600 * MS;
    let (line, watcher) = bed.process(lease).await;
    let holder = bed.session(Duration::from_secs(30)).await;
    let guard = take(&holder, "cut").await;
    let mut onlooker = observed(&watcher.mutex("cut").must("a lock name"));
    onlooker.until_held("the holder", guard.token()).await;
    for partition in [Partition::Refuse, Partition::HoldAnswers] {
        line.cut(partition);
        let said = within(LONG, "the outage", onlooker.0.next()).await.must("the stream goes on");
        assert!(matches!(said, Err(Error::Unavailable { .. })), "{said:?} in an outage");
        line.mend();
        onlooker.until_held("the holder after the outage", guard.token()).await;
    }
    line.cut(Partition::Refuse);
    guard.release().await.must("the release");
    let next = take(&holder, "cut").await;
    line.mend();
    onlooker.until_held("the next holder", next.token()).await;
    if let Some(store) = bed.make_anew().await {
        line.lead_to(store);
    }
    let loss = onlooker.until_lost().await;
    assert!(matches!(loss, Loss::StoreReset | Loss::Expired), "{loss:?}");
}
