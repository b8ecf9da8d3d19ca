//! One lock, few hands: taking, giving back, tokens, names, and what onlookers see.

use std::{sync::Arc, time::Duration};

use tenure::{Error, Guard, Loss, Mutex, OnLoss, Queue, Session, SessionState, locks};
use tenure_kv::{KeyRange, Store, StoreExt};

use super::{
    Bed,
    line::Write,
    support::{LONG, MS, Must, until, within},
};

const LEASE: Duration = Duration::from_secs(10);

/// The tickets of every lock, as the store has them.
pub(super) async fn tickets(store: &Arc<dyn Store>) -> Vec<tenure_kv::Entry> {
    store.list(&KeyRange::new("lock.>").must("a range")).await.must("the tickets")
}

/// Waits until no ticket is left of any lock.
pub(super) async fn until_no_ticket_is_left(store: &Arc<dyn Store>) {
    until(Duration::from_secs(2), "no ticket is left behind", || async { tickets(store).await.is_empty().then_some(()) }).await;
}

/// Waits until so many tickets wait for the lock.
pub(super) async fn until_waiting(mutex: &Mutex, count: usize) -> Queue {
    until(LONG, format!("{count} wait for {}", mutex.name()), || async {
        let queue = mutex.queue().await.ok()?;
        (queue.waiters.len() == count).then_some(queue)
    })
    .await
}

/// Takes the lock, which nobody else wants.
pub(super) async fn take(session: &Session, name: &str) -> Guard {
    let mutex = session.mutex(name).must("a lock name");
    within(LONG, format!("{name} is granted"), mutex.lock()).await.must(format!("{name} is granted"))
}

/// A release that returned `Ok` is visible to every later acquire; tokens strictly increase.
///
/// # Panics
/// When the promise is broken.
pub async fn a_lock_is_taken_and_given_back(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    let mut last = 0;
    for round in 0..40 {
        let mutex = sessions[round % 2].mutex("round").must("a lock name");
        let guard = match round % 3 {
            0 => mutex.try_lock().await,
            1 => mutex.lock().await,
            _ => mutex.lock_timeout(LONG).await,
        };
        let guard = guard.must(format!("round {round}: the lock was given back before"));
        assert!(guard.is_held() && guard.remaining() <= LEASE);
        assert!(guard.token().get() > last, "{} follows {last}", guard.token());
        last = guard.token().get();
        guard.release().await.must("the release");
    }
    until_no_ticket_is_left(sessions[0].store()).await;
}

/// The fencing token is the revision of the ticket and does not move while renewals go on.
///
/// # Panics
/// When the promise is broken.
pub async fn a_token_stays_the_same_while_held(bed: &Bed) {
    let (line, session) = bed.process(900 * MS).await;
    let guard = take(&session, "still").await;
    let token = guard.token();
    within(LONG, "three renewals", line.after(3, Write::Beat)).await;
    assert_eq!(guard.token(), token);
    let tickets = tickets(session.store()).await;
    assert_eq!(tickets.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [token]);
    assert!(guard.is_held());
    guard.release().await.must("the release");
}

/// Everybody sees who holds and who waits, in order, with what they say of themselves.
///
/// # Panics
/// When the promise is broken.
pub async fn a_queue_shows_who_holds_and_who_waits(bed: &Bed) {
    let store = bed.store().await;
    let builder = Session::builder(store.clone()).lease(LEASE).label("first").host("here").pid(7);
    let first = builder.open().await.must("a session");
    let second = bed.session(LEASE).await;
    let guard = take(&first, "orders.eu").await;
    let waiting = second.mutex("orders.eu").must("a lock name").with_label("next").with_owner("there", 8);
    let mut lock = std::pin::pin!(waiting.lock());
    let queue = tokio::select! {
        queue = until_waiting(&waiting, 1) => queue,
        _ = &mut lock => panic!("granted beside {guard:?}"),
    };
    let holder = queue.holder.must("a holder");
    assert_eq!((holder.token, holder.session.as_str()), (guard.token(), first.id()));
    assert_eq!((holder.label.as_deref(), holder.host.as_str(), holder.pid), (Some("first"), "here", 7));
    let [waiter] = queue.waiters.as_slice() else { panic!("one waits: {:?}", queue.waiters) };
    assert_eq!((waiter.session.as_str(), waiter.label.as_deref()), (second.id(), Some("next")));
    assert_eq!((waiter.host.as_str(), waiter.pid), ("there", 8));
    let other = take(&first, "orders").await;
    let all = until(LONG, "both locks are listed", || async {
        let all = locks::list(&*store, "orders").await.ok()?;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(all.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["orders", "orders.eu"]);
    assert_eq!(locks::list(&*store, "orders.").await.must("the list").len(), 1);
    other.release().await.must("the release");
    guard.release().await.must("the release");
    let next = lock.await.must("the next is granted");
    assert_eq!(next.token(), waiter.token, "the ticket that waited is the token");
    next.release().await.must("the release");
    until_no_ticket_is_left(&store).await;
    assert_eq!(locks::inspect(&*store, "orders.eu").await.must("a look").holder, None);
}

/// Names that break the rules are refused with the reason; names that share a beginning are not one lock.
///
/// # Panics
/// When the promise is broken.
pub async fn names_are_checked_and_kept_apart(bed: &Bed) {
    let session = bed.session(LEASE).await;
    let long = "x".repeat(tenure::MAX_NAME + 1);
    for bad in ["", "a b", ".a", "a.", "a..b", "a.*", ">", "ä", "a\0", &long] {
        match session.mutex(bad) {
            Err(Error::Invalid { message }) => assert!(message.contains("lock name"), "{bad:?}: {message}"),
            other => panic!("{bad:?} must be refused, but: {other:?}"),
        }
        assert!(matches!(locks::inspect(&**session.store(), bad).await, Err(Error::Invalid { .. })), "{bad:?}");
    }
    let mut held = Vec::new();
    for name in ["a", "a.b", "a.b.c", "a/b", "a-b", "A", "=", &long[1..]] {
        let guard = session.mutex(name).must(name).try_lock().await.must(format!("{name:?} is another lock"));
        assert_eq!(guard.name(), name);
        held.push(guard);
    }
}

/// Who only tries or has no more time is told who holds, and leaves nothing behind.
///
/// # Panics
/// When the promise is broken.
pub async fn a_try_names_the_holder_and_leaves_nothing(bed: &Bed) {
    let store = bed.store().await;
    let holder = Session::builder(store.clone()).lease(LEASE).label("backup").open().await.must("a session");
    let other = bed.session(LEASE).await;
    let guard = take(&holder, "try").await;
    let mutex = other.mutex("try").must("a lock name");
    // A replica that lags may not show the holder yet; from then on it does.
    until(LONG, "the other process sees the holder", || async { mutex.queue().await.ok()?.holder }).await;
    for limit in [None, Some(Duration::ZERO), Some(50 * MS)] {
        let outcome = match limit {
            None => mutex.try_lock().await,
            Some(limit) => mutex.lock_timeout(limit).await,
        };
        match outcome {
            Err(Error::NotAcquired { message, waited, holder: Some(named) }) => {
                assert_eq!(named.token, guard.token(), "{message}");
                assert!(message.contains("try") && message.contains("backup"), "{message}");
                assert!(waited >= limit.unwrap_or_default(), "waited {waited:?} of {limit:?}");
            }
            other => panic!("{limit:?}: must not be acquired and name the holder, but: {other:?}"),
        }
    }
    let only = [guard.token()];
    until(Duration::from_secs(2), "only the holder's ticket is left", || async {
        (tickets(&store).await.iter().map(|entry| entry.revision).collect::<Vec<_>>() == only).then_some(())
    })
    .await;
    guard.release().await.must("the release");
    mutex.try_lock().await.must("it is free").release().await.must("the release");
    until_no_ticket_is_left(&store).await;
}

/// Tasks of one session shut each other out as strangers do.
///
/// # Panics
/// When the promise is broken.
pub async fn tasks_of_one_session_exclude_each_other(bed: &Bed) {
    let session = bed.session(LEASE).await;
    let guard = take(&session, "mine").await;
    let mutex = session.mutex("mine").must("a lock name");
    assert!(matches!(mutex.try_lock().await, Err(Error::NotAcquired { .. })), "try_lock beside the own guard");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    until_waiting(&mutex, 1).await;
    let token = guard.token();
    guard.release().await.must("the release");
    let next = within(LONG, "the other task", waiting).await.must("the task").must("the lock");
    assert!(next.token() > token);
}

/// Sessions, locks and guards can be sent to and shared by any task.
///
/// # Panics
/// When the promise is broken.
pub async fn everything_travels_between_tasks(bed: &Bed) {
    fn travels<T: Send + Sync + 'static>(_: &T) {}
    fn is_sent<T: Send + 'static>(future: T) -> T {
        future
    }
    let session = bed.session(LEASE).await;
    travels(&session);
    travels(&session.state());
    travels(&SessionState::Held);
    travels(&OnLoss::default());
    travels(&Loss::Closed);
    travels(&Session::builder(session.store().clone()));
    travels(&tenure::locks::inspect(&**session.store(), "x").await);
    let mutex = session.mutex("travel").must("a lock name");
    travels(&mutex);
    let taking = {
        let mutex = mutex.clone();
        is_sent(async move { mutex.lock().await })
    };
    let guard = tokio::spawn(taking).await.must("the task").must("the lock");
    travels(&guard);
    let (lost, closed) = (is_sent(guard.lost()), is_sent(session.lost()));
    let given_back = tokio::spawn(async move { guard.release().await });
    given_back.await.must("the task").must("the release");
    session.close().await.must("the close");
    assert_eq!((lost.await, closed.await), (Loss::Closed, Loss::Closed));
}
