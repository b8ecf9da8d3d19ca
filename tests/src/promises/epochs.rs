//! A bucket that is deleted and made anew under its holders.

use std::{sync::Arc, time::Duration};

use tenure::{Guard, Loss, Session};
use tenure_kv::{Moment, StoreExt};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::take,
    bed,
    history::{Hold, must_be_sound},
    support::{LONG, MS, Must, loss_now, must_have_lost, now, within},
};

/// Every lease in the old bucket is lost, and grants in the new one wait until nobody can rely on one.
/// Tokens begin again, in another epoch.
///
/// # Panics
/// When the promise is broken.
pub async fn a_bucket_made_anew_loses_every_lease(bed: &Bed) {
    let lease = 600 * MS;
    let (line, session) = bed.process(lease).await;
    let (quiet_line, quiet) = bed.process(lease).await;
    let old: Vec<_> = [take(&session, "a").await, take(&session, "b").await].into_iter().map(Arc::new).collect();
    let quiet_guard = Arc::new(take(&quiet, "c").await);
    let held = now();
    assert!(old.iter().all(|guard| guard.is_held()));
    let replaced = now();
    let store = bed.make_anew().await;
    if let Some(store) = &store {
        line.lead_to(store.clone());
        quiet_line.lead_to(store.clone());
    }
    // A newcomer that has never seen the old bucket, where others may write to it.
    let fresh = match store {
        Some(_) => None,
        None => Some(successor_in_new_bucket(bed.session(lease).await, old[1].clone())),
    };
    for lost in [session.lost(), quiet.lost()] {
        let loss = within(lease * 2, "the loss is noticed", lost).await;
        assert!(matches!(loss, Loss::StoreReset | Loss::Expired), "{loss:?}");
    }
    for guard in old.iter().chain([&quiet_guard]) {
        assert!(!guard.is_held() && loss_now(guard).is_some());
    }
    let noticed = now();
    let again = bed::open(&line, lease).await;
    assert_ne!(again.epoch(), session.epoch(), "another bucket is another epoch");
    let next = take(&again, "a").await;
    let granted = now();
    must_have_lost(&old[0], "when the next was granted");
    assert!(granted >= replaced + lease, "granted {:?} after the bucket was made anew", granted.saturating_since(replaced));
    assert!(granted < noticed + lease * 3, "granted only {:?} after the loss was noticed", granted.saturating_since(noticed));
    must_be_sound(&[
        Hold { lock: "a".into(), epoch: session.epoch().into(), token: old[0].token().get(), granted: held, held },
        Hold { lock: "a".into(), epoch: again.epoch().into(), token: next.token().get(), granted, held: now() },
    ]);
    if let Some(fresh) = fresh {
        let (newcomer, granted) = within(LONG, "the newcomer is granted", fresh).await.must("the task");
        assert_eq!(newcomer.session().epoch(), again.epoch());
        assert!(granted >= replaced + lease, "the newcomer was granted {:?} early", (replaced + lease).saturating_since(granted));
        newcomer.release().await.must("the release");
    }
    assert!(next.is_held());
    next.release().await.must("the release");
}

/// Takes the lock that `old` had in the former bucket.
fn successor_in_new_bucket(session: Session, old: Arc<Guard>) -> AbortOnDropHandle<(Guard, Moment)> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let guard = take(&session, old.name()).await;
        must_have_lost(&old, "when a newcomer was granted");
        (guard, now())
    }))
}

/// A bucket that was set back to an earlier state is noticed by its revisions, at the next write.
///
/// # Panics
/// When the promise is broken.
pub async fn a_bucket_that_went_back_is_noticed_at_the_next_write(bed: &Bed) {
    // So long that no renewal comes first.
    let lease = Duration::from_secs(30);
    let (line, session) = bed.process(lease).await;
    let guard = take(&session, "a").await;
    for n in 0..20 {
        line.store.put(&tenure::data_key("filler").must("a key"), format!("{n}")).await.must("a write");
        take(&session, "b").await.release().await.must("the release");
    }
    if let Some(store) = bed.make_anew().await {
        line.lead_to(store);
    }
    let outcome = within(LONG, "the lock is refused", session.mutex("c").must("a lock name").lock()).await;
    assert_eq!(super::support::lost(outcome, "a lock in a bucket that went back"), Loss::StoreReset);
    assert!(!guard.is_held());
    assert_eq!(
        (loss_now(&guard), within(LONG, "the session knows", session.lost()).await),
        (Some(Loss::StoreReset), Loss::StoreReset)
    );
}

/// A bucket that something else than Tenure writes its epoch into is refused with a word how to mend it.
///
/// # Panics
/// When the promise is broken.
pub async fn a_foreign_bucket_is_refused(bed: &Bed) {
    let store = bed.store().await;
    store.put(&tenure_kv::Key::new("meta.epoch").must("a key"), "not ours").await.must("a write");
    let refused = Session::builder(store).lease(MS * 500).open().await;
    match refused {
        Err(tenure::Error::Invalid { message }) => assert!(message.contains("meta.epoch"), "{message}"),
        other => panic!("a foreign bucket must be refused, but: {other:?}"),
    }
}
