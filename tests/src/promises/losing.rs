//! What a session goes through when it cannot renew, under both policies.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tenure::{Loss, OnLoss, Session, SessionState};
use tenure_kv::faults::Partition;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{take, until_waiting},
    crashing::successor,
    line::{Fate, Write},
    support::{LONG, MS, Must, loss_now, lost, until, within},
};

/// The states that a session goes through from now on.
struct Diary {
    seen: Arc<std::sync::Mutex<Vec<SessionState>>>,
    _writer: AbortOnDropHandle<()>,
}

impl Diary {
    fn of(session: &Session) -> Self {
        let mut states = session.states();
        let seen = Arc::new(std::sync::Mutex::new(vec![*states.borrow_and_update()]));
        let writer = tokio::spawn({
            let seen = seen.clone();
            async move {
                while states.changed().await.is_ok() {
                    let state = *states.borrow_and_update();
                    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(state);
                }
            }
        });
        Self { seen, _writer: AbortOnDropHandle::new(writer) }
    }

    fn read(&self) -> Vec<SessionState> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    async fn until(&self, wanted: &[SessionState]) {
        until(LONG, format!("the session goes through {wanted:?}"), || async { (self.read() == wanted).then_some(()) }).await;
    }
}

/// Past the deadline with nobody waiting: `AtDeadline` has lost for good, `WhenProven` goes on once a late
/// renewal proves that nobody was granted in between.
///
/// # Panics
/// When the promise is broken.
pub async fn policies_differ_when_nobody_waits(bed: &Bed) {
    let (line, session) = bed.process(Duration::from_secs(1)).await;
    let diary = Diary::of(&session);
    let strict = take(&session, "strict").await;
    // Nobody asks this one until all is well again.
    let unasked = take(&session, "unasked").await;
    let proven = session.mutex("proven").must("a lock name").on_loss(OnLoss::WhenProven).lock().await.must("the lock");
    line.cut(Partition::Refuse);
    until(LONG, "the deadline passes", || async { (!session.is_held()).then_some(()) }).await;
    for guard in [&strict, &proven] {
        assert!(!guard.is_held() && guard.remaining().is_zero(), "{guard:?} past the deadline");
    }
    assert_eq!((loss_now(&strict), loss_now(&proven)), (Some(Loss::Deadline), None));
    line.mend();
    diary.until(&[SessionState::Held, SessionState::Suspect, SessionState::Restored]).await;
    assert!(session.is_held() && proven.is_held(), "a late renewal restores what may be restored");
    assert!(!strict.is_held() && !unasked.is_held(), "what is lost stays lost");
    assert_eq!(loss_now(&unasked), Some(Loss::Deadline));
    assert_eq!((loss_now(&strict), loss_now(&proven)), (Some(Loss::Deadline), None));
    assert_eq!(lost(strict.release().await, "the release of what was lost"), Loss::Deadline);
    proven.release().await.must("the release");
    take(&session, "strict").await.release().await.must("the session goes on");
}

/// Past the deadline with somebody waiting: both have lost, because somebody else holds.
///
/// # Panics
/// When the promise is broken.
pub async fn policies_agree_when_somebody_waits(bed: &Bed) {
    let lease = 600 * MS;
    let (line, session) = bed.process(lease).await;
    let diary = Diary::of(&session);
    let strict = Arc::new(take(&session, "strict").await);
    let proven = session.mutex("proven").must("a lock name").on_loss(OnLoss::WhenProven).lock().await.must("the lock");
    let wanted = session.mutex("wanted").must("a lock name").on_loss(OnLoss::WhenProven).lock().await.must("the lock");
    let wants = bed.session(lease).await.mutex("wanted").must("a lock name");
    let wants = AbortOnDropHandle::new(tokio::spawn(async move { wants.lock().await }));
    until_waiting(&session.mutex("wanted").must("a lock name"), 1).await;
    let next = successor(bed.session(lease).await, strict.clone()).await;
    line.cut(Partition::HoldRequests);
    let (next, _) = within(LONG, "the next is granted", next).await.must("the task");
    assert_eq!((loss_now(&strict), loss_now(&proven)), (Some(Loss::Deadline), None));
    assert!(!proven.is_held());
    within(LONG, "another one is granted", wants).await.must("the task").must("the lock").release().await.must("the release");
    line.mend();
    assert_eq!(within(LONG, "the session hears of it", session.lost()).await, Loss::Deposed);
    assert_eq!((loss_now(&strict), loss_now(&proven)), (Some(Loss::Deadline), Some(Loss::Deposed)));
    diary.until(&[SessionState::Held, SessionState::Suspect, SessionState::Lost(Loss::Deposed)]).await;
    assert!(!session.is_held() && session.remaining().is_zero());
    // Its ticket was ended by who deposed its session; that is no reason of its own.
    assert_eq!(within(LONG, "the wanted hold is lost", wanted.lost()).await, Loss::Deposed);
    assert_eq!(lost(proven.release().await, "the release of what was lost"), Loss::Deposed);
    lost(session.mutex("more").must("a lock name").lock().await, "a lock of a lost session");
    assert!(next.is_held());
    next.release().await.must("the release");
}

/// A renewal that fails is no loss, and while the lease lasts not even a pause.
///
/// # Panics
/// When the promise is broken.
pub async fn a_failed_renewal_is_no_loss(bed: &Bed) {
    let fates = [("refused", Fate::Refused), ("lost", Fate::Vanishes), ("unanswered", Fate::Unanswered(MS))];
    let each = fates.map(|(lock, fate)| async move {
        let (line, session) = bed.process(Duration::from_secs(1)).await;
        let diary = Diary::of(&session);
        let guard = take(&session, lock).await;
        line.fate(Write::Beat, 2, fate);
        let tried = line.count(Write::Beat);
        until(LONG, "four renewals are tried", || async {
            assert!(guard.is_held(), "{fate:?}: lost by two failed renewals");
            (tried.hits() >= 4).then_some(())
        })
        .await;
        let seen = diary.read();
        assert_eq!(seen.last(), Some(&SessionState::Restored), "{fate:?}: {seen:?}");
        // An answer that was only lost is found again before an onlooker may notice.
        assert!(seen.contains(&SessionState::Suspect) || matches!(fate, Fate::Unanswered(_)), "{fate:?}: {seen:?}");
        guard.release().await.must("the release");
    });
    join_all(each).await;
}

/// `run` gives the work's output while the lock is held, and drops the work when it is lost.
///
/// # Panics
/// When the promise is broken.
pub async fn work_is_dropped_when_the_lock_is_lost(bed: &Bed) {
    struct Dropped(Option<tokio::sync::oneshot::Sender<tenure_kv::Moment>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            // The test may be over already.
            let _ = self.0.take().map(|tell| tell.send(super::support::now()));
        }
    }
    let lease = 600 * MS;
    let tries = join_all((0..3).map(|n| async move {
        let (line, session) = bed.process(lease).await;
        let guard = Arc::new(take(&session, &format!("work-{n}")).await);
        assert_eq!(guard.run(async { 7 }).await.must("work under the lock"), 7);
        let (tell, dropped) = tokio::sync::oneshot::channel();
        let work = Dropped(Some(tell));
        let working = tokio::spawn({
            let guard = guard.clone();
            async move {
                guard
                    .run(async move {
                        let _work = work;
                        std::future::pending::<()>().await;
                    })
                    .await
            }
        });
        let next = successor(bed.session(lease).await, guard.clone()).await;
        line.cut(Partition::HoldRequests);
        let (_next, granted) = within(LONG, "the next is granted", next).await.must("the task");
        assert_eq!(lost(within(LONG, "the work ends", working).await.must("the task"), "the work"), Loss::Deadline);
        assert_eq!(lost(guard.run(async { 7 }).await, "work without the lock"), Loss::Deadline);
        dropped.await.must("the work is dropped").saturating_since(granted)
    }));
    // Zero is in time; a task that the machine runs late is not what this is about.
    let late = tries.await;
    assert!(late.iter().any(Duration::is_zero), "the work was dropped {late:?} after the next was granted");
}
