//! Looking on at a lock: every last state, in order, at a cost that does not grow with the queue; and what is said while the
//! store cannot be heard.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tenure::{Error, LockState, Session, locks};
use tenure_kv::{
    Batch, Expect, Key, KeyRange, Memory, Op, Store, StoreExt,
    faults::{Faults, Faulty, Partition},
};

const LONG: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_millis(300);
/// Longer than any wait here.
const AGES: Duration = Duration::from_secs(60);
/// A session that nobody has.
const DEAD: &str = "00000000000000000000000000000000";

type States = BoxStream<'static, tenure::Result<LockState>>;

async fn process(store: &Arc<dyn Store>, lease: Duration) -> (Session, Faults) {
    let (faulty, faults) = Faulty::new(store.clone());
    let faulty: Arc<dyn Store> = faulty;
    (Session::builder(faulty).lease(lease).open().await.unwrap(), faults)
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

/// The token of the holder and those of the waiters who are shown.
fn tokens(state: &LockState) -> (Option<u64>, Vec<u64>) {
    (state.holder.as_ref().map(|holder| holder.token.get()), state.waiters.iter().map(|waiter| waiter.token.get()).collect())
}

/// States until `wanted`, which is returned.
async fn until(states: &mut States, what: &str, wanted: impl Fn(&LockState) -> bool) -> LockState {
    within(what, async {
        loop {
            let state = states.next().await.unwrap().unwrap();
            if wanted(&state) {
                return state;
            }
        }
    })
    .await
}

/// The same for an observer that may say meanwhile that it is behind.
async fn sooner_or_later(states: &mut States, what: &str, wanted: impl Fn(&LockState) -> bool) {
    within(what, async {
        loop {
            match states.next().await.unwrap() {
                Ok(state) if wanted(&state) => return,
                Ok(_) | Err(Error::Unavailable { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
}

fn ticket(session: &str, n: u64) -> Key {
    Key::new(format!("lock.x.{session}-{n}")).unwrap()
}

#[tokio::test]
async fn an_observer_is_told_every_last_state() {
    let store = memory();
    let ((one, line), (two, _), (watcher, _)) =
        (process(&store, LEASE).await, process(&store, LEASE).await, process(&store, LEASE).await);
    let mut states = watcher.mutex("x").unwrap().observe();
    assert_eq!(within("a state", states.next()).await.unwrap().unwrap(), LockState::default());
    let first = one.mutex("x").unwrap().with_label("first").with_owner("host", 7).lock().await.unwrap();
    let state = within("a state", states.next()).await.unwrap().unwrap();
    let holder = state.holder.as_ref().unwrap();
    assert_eq!((holder.token, holder.label.as_deref(), &*holder.host, holder.pid), (first.token(), Some("first"), "host", 7));
    assert_eq!((state.waiters.len(), state.waiting), (0, 0));

    let mutex = two.mutex("x").unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await.unwrap() });
    let state = within("a waiter", states.next()).await.unwrap().unwrap();
    assert_eq!((tokens(&state).0, state.waiting), (Some(first.token().get()), 1));
    let next = state.waiters[0].token;
    first.release().await.unwrap();
    let second = within("the lock", waiting).await.unwrap();
    assert_eq!(second.token(), next);
    until(&mut states, "the second holds", |state| tokens(state) == (Some(next.get()), vec![])).await;
    second.release().await.unwrap();
    until(&mut states, "nobody holds", |state| *state == LockState::default()).await;

    // Nobody waits, and the ticket of the crashed holder stays where it is.
    let crashed = one.mutex("x").unwrap().lock().await.unwrap();
    until(&mut states, "it is held", |state| state.holder.is_some()).await;
    line.partition(Partition::HoldRequests);
    until(&mut states, "the crash", |state| state.holder.is_none()).await;
    assert!(!crashed.is_held(), "told that nobody holds while the holder relied on it");

    let broken = within("the lock", two.mutex("x").unwrap().lock()).await.unwrap();
    let held = until(&mut states, "it is held again", |state| state.holder.is_some()).await;
    assert_eq!(held.holder.unwrap().token, broken.token());
    locks::break_hold(&*store, "x", broken.token()).await.unwrap();
    until(&mut states, "the break", |state| state.holder.is_none()).await;
    watcher.close().await.unwrap();
    assert!(matches!(within("the end", states.next()).await, Some(Err(Error::Lost { .. }))));
    assert!(within("the end", states.next()).await.is_none());
}

#[tokio::test]
async fn the_dead_are_neither_holder_nor_waiters_and_their_tickets_stay_for_who_comes() {
    let store = memory();
    let ((one, _), (watcher, _)) = (process(&store, AGES).await, process(&store, AGES).await);
    for n in 1..=100 {
        store.put(&ticket(DEAD, n), "{}").await.unwrap();
    }
    let mut states = watcher.mutex("x").unwrap().observe();
    assert_eq!(within("a state", states.next()).await.unwrap().unwrap(), LockState::default());
    // A living one in the midst of them, written as a client would that does not look who is before it.
    let token = store.put(&ticket(one.id(), 1), r#"{"host":"h","pid":1}"#).await.unwrap();
    let state = within("the living", states.next()).await.unwrap().unwrap();
    assert_eq!(tokens(&state), (Some(token.get()), vec![]));
    store.put(&ticket(&DEAD.replace('0', "1"), 1), "{}").await.unwrap();
    let next = store.put(&ticket(one.id(), 2), r#"{"host":"h","pid":1}"#).await.unwrap();
    until(&mut states, "the next", |state| tokens(state) == (Some(token.get()), vec![next.get()]) && state.waiting == 1).await;
    assert_eq!(store.list(&KeyRange::new("lock.x.>").unwrap()).await.unwrap().len(), 103);
}

#[tokio::test]
async fn a_thousand_waiters_and_ten_thousand_changes_cost_no_more_than_few() {
    let store = memory();
    let ((holder, _), (watcher, line)) = (process(&store, AGES).await, process(&store, AGES).await);
    let owner = r#"{"host":"h","pid":1}"#;
    let tickets: Batch = (1..=1_000).map(|n| Op::put(ticket(holder.id(), n), owner)).collect();
    store.commit(tickets).await.unwrap();
    let mut states = watcher.mutex("x").unwrap().observe();
    let state = within("a state", states.next()).await.unwrap().unwrap();
    assert_eq!((state.waiters.len(), state.waiting), (LockState::SHOWN, 999));
    let before = line.requests();
    let changes = async {
        for n in 1..=5_000 {
            store.delete(&ticket(holder.id(), n), Expect::Any).await.unwrap();
            store.put(&ticket(holder.id(), 1_000 + n), owner).await.unwrap();
            tokio::task::yield_now().await;
        }
        let last: Batch = (5_001..=6_000).map(|n| Op::delete(ticket(holder.id(), n))).collect();
        store.commit(last).await.unwrap();
    };
    let watching = until(&mut states, "the end", |state| {
        assert!(state.waiters.len() <= LockState::SHOWN && state.waiters.len() == state.waiting.min(LockState::SHOWN));
        state.holder.is_none()
    });
    let ((), state) = tokio::join!(changes, watching);
    assert_eq!(state, LockState::default());
    // One session is behind all of them: it is looked at at its time, and not for each change.
    let asked = line.requests() - before;
    assert!(asked <= 64, "{asked} requests for 10,000 changes");
}

#[tokio::test]
async fn an_observer_that_cannot_reach_the_store_says_so_and_then_tells_the_state_again() {
    let store = memory();
    let ((one, _), (watcher, line)) = (process(&store, AGES).await, process(&store, LEASE).await);
    let guard = one.mutex("x").unwrap().lock().await.unwrap();
    let mut states = watcher.mutex("x").unwrap().observe();
    let held = within("a state", states.next()).await.unwrap().unwrap();
    line.partition(Partition::Refuse);
    assert!(matches!(within("the outage", states.next()).await, Some(Err(Error::Unavailable { .. }))));
    // Said once, however long it lasts.
    assert!(tokio::time::timeout(LEASE * 3, states.next()).await.is_err());
    line.heal();
    assert_eq!(within("the same state", states.next()).await.unwrap().unwrap(), held);
    line.partition(Partition::HoldRequests);
    assert!(matches!(within("the outage", states.next()).await, Some(Err(Error::Unavailable { .. }))));
    guard.release().await.unwrap();
    let next = one.mutex("x").unwrap().lock().await.unwrap();
    line.heal();
    let state = until(&mut states, "the next holder", |state| tokens(state).0 != Some(guard_token(&held))).await;
    assert_eq!(tokens(&state).0, Some(next.token().get()));
}

fn guard_token(state: &LockState) -> u64 {
    state.holder.as_ref().unwrap().token.get()
}

#[tokio::test]
async fn an_outage_is_held_against_nobody_who_is_shown() {
    let store = memory();
    let ((one, _), (watcher, line)) = (process(&store, LEASE).await, process(&store, LEASE).await);
    let guard = one.mutex("x").unwrap().lock().await.unwrap();
    let mut states = watcher.mutex("x").unwrap().observe();
    let held = within("a state", states.next()).await.unwrap().unwrap();
    line.partition(Partition::Refuse);
    assert!(within("the outage", states.next()).await.unwrap().is_err());
    line.heal();
    assert_eq!(within("the same state", states.next()).await.unwrap().unwrap(), held);
    assert!(tokio::time::timeout(LEASE * 3, states.next()).await.is_err());
    assert!(guard.is_held(), "a living session was ended");
}

#[tokio::test]
async fn a_watch_that_hears_nothing_is_found_out() {
    let store = memory();
    let ((one, _), (watcher, line)) = (process(&store, AGES).await, process(&store, LEASE).await);
    let mutex = one.mutex("x").unwrap();
    let guard = mutex.lock().await.unwrap();
    let mut states = watcher.mutex("x").unwrap().observe();
    assert!(within("a state", states.next()).await.unwrap().unwrap().holder.is_some());
    assert_eq!(line.pause("lock."), 1);
    guard.release().await.unwrap();
    sooner_or_later(&mut states, "the end", |state| state.holder.is_none()).await;
    assert_eq!(line.pause("lock."), 1);
    let _guard = mutex.lock().await.unwrap();
    sooner_or_later(&mut states, "the new holder", |state| state.holder.is_some()).await;
}

#[tokio::test]
async fn a_watch_that_ends_is_begun_anew() {
    let store = memory();
    let ((one, _), (watcher, line)) = (process(&store, AGES).await, process(&store, LEASE).await);
    let mut states = watcher.mutex("x").unwrap().observe();
    for round in 0..3 {
        until(&mut states, "nobody", |state| state.holder.is_none()).await;
        line.end_watches("lock.");
        let guard = one.mutex("x").unwrap().lock().await.unwrap();
        let state = until(&mut states, "a holder", |state| state.holder.is_some()).await;
        assert_eq!(tokens(&state).0, Some(guard.token().get()), "round {round}");
        guard.release().await.unwrap();
    }
    drop(states);
    within("the end of the watch", async {
        while line.streams("lock.") > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
