//! Answers that are lost and writes that land late: never a second grant, never a ticket left behind,
//! never a success or a failure that is not so.

use std::time::Duration;

use futures::future::join_all;
use tenure::{Error, Loss, Session, data_key};
use tenure_kv::{Op, faults::Partition};

use super::{
    Bed,
    basics::{take, tickets, until_no_ticket_is_left, until_waiting},
    line::{Fate, Write},
    support::{LONG, MS, Must, loss_now, must_have_lost, now, since, until, within},
};

const LEASE: Duration = Duration::from_secs(10);
const NONE: Fate = Fate::Unanswered(Duration::ZERO);

/// A ticket whose answer is lost is found again; one that never arrived is written again; one that
/// arrives when it is over is turned away.
///
/// # Panics
/// When the promise is broken.
pub async fn a_ticket_without_answer_is_found_again(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let other = bed.session(LEASE).await;
    let store = bed.store().await;
    for (fate, times) in [(NONE, 1), (NONE, 2), (Fate::Vanishes, 1), (Fate::Vanishes, 2), (Fate::Late, 1), (Fate::Late, 2)] {
        line.fate(Write::Ticket, times, fate);
        let guard = take(&session, "answer").await;
        let only = [guard.token()];
        let one_ticket = || async {
            let standing: Vec<_> = tickets(&store).await.iter().map(|ticket| ticket.revision).collect();
            (standing == only).then_some(())
        };
        until(LONG, format!("{fate:?}: one ticket, which is the token"), one_ticket).await;
        line.land().await;
        until(LONG, format!("{fate:?}: no second ticket"), one_ticket).await;
        guard.release().await.must("the release");
        until_no_ticket_is_left(&store).await;
        take(&other, "answer").await.release().await.must("the release");
    }
}

/// A ticket that lands after its lock was given back is turned away, at once and later.
///
/// # Panics
/// When the promise is broken.
pub async fn a_ticket_that_lands_after_the_release_is_turned_away(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let other = bed.session(LEASE).await;
    // Tombstones of tickets are forgotten after a second; that must not let a late one in.
    for pause in [Duration::ZERO, 1_500 * MS] {
        line.fate(Write::Ticket, 1, Fate::Late);
        take(&session, "late").await.release().await.must("the release");
        tokio::time::sleep(pause).await;
        line.land().await;
        let mutex = other.mutex("late").must("a lock name");
        let next =
            within(Duration::from_secs(1), format!("{pause:?} late: the lock is free"), mutex.lock()).await.must("the lock");
        next.release().await.must("the release");
        until_no_ticket_is_left(other.store()).await;
    }
}

/// A ticket that lands after whoever wanted it has gone is turned away, or taken away.
///
/// # Panics
/// When the promise is broken.
pub async fn a_ticket_that_lands_after_its_waiter_left_is_turned_away(bed: &Bed) {
    for fate in [Fate::Late, NONE, Fate::Vanishes] {
        let (line, session) = bed.process(LEASE).await;
        let other = bed.session(LEASE).await;
        line.fate(Write::Ticket, 10, fate);
        let ended = line.count(Write::End);
        let mutex = session.mutex("gone").must("a lock name");
        match mutex.lock().await {
            Ok(guard) => drop(guard),
            Err(Error::Unknown { .. }) => {}
            Err(error) => panic!("{fate:?}: an unanswered ticket is unknown, not {error:?}"),
        }
        within(Duration::from_secs(5), format!("{fate:?}: the session ends the ticket"), ended.reached(1)).await;
        until_no_ticket_is_left(other.store()).await;
        line.land().await;
        let mutex = other.mutex("gone").must("a lock name");
        let next = within(Duration::from_secs(1), format!("{fate:?}: the lock is free"), mutex.lock()).await;
        next.must("the lock").release().await.must("the release");
        until_no_ticket_is_left(other.store()).await;
    }
}

/// A ticket that was refused was not written, and who wanted it is told.
///
/// # Panics
/// When the promise is broken.
pub async fn a_refused_ticket_is_told(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    line.fate(Write::Ticket, 1, Fate::Refused);
    let refused = session.mutex("refused").must("a lock name").lock().await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    until_no_ticket_is_left(session.store()).await;
    take(&session, "refused").await.release().await.must("the release");
}

/// A release says `Ok` when the ticket is gone, however many of its answers were lost, and never frees
/// the hold that comes after.
///
/// # Panics
/// When the promise is broken.
pub async fn a_release_is_ok_when_it_is_done(bed: &Bed) {
    let fates = [(NONE, 1), (NONE, 3), (Fate::Vanishes, 2), (Fate::Refused, 2), (Fate::Late, 2)];
    let each = fates.into_iter().enumerate().map(|(n, (fate, times))| async move {
        let (line, session) = bed.process(LEASE).await;
        let other = bed.session(LEASE).await;
        let guard = take(&session, &format!("back-{n}")).await;
        let token = guard.token();
        line.fate(Write::End, times, fate);
        within(LONG, format!("{fate:?}: the release"), guard.release()).await.must(format!("{fate:?}: the release"));
        let mutex = other.mutex(&format!("back-{n}")).must("a lock name");
        let next = within(Duration::from_secs(1), format!("{fate:?}: the lock is free"), mutex.lock()).await.must("the lock");
        assert!(next.token() > token);
        line.land().await;
        next.commit(Op::put(data_key("back").must("a key"), "x").into()).await.must(format!("{fate:?}: the next still holds"));
        assert!(next.is_held() && loss_now(&next).is_none());
        next.release().await.must("the release");
    });
    join_all(each).await;
}

/// What was to stop a ticket that was not answered, and lands when that ticket has been found, held and given back,
/// does not turn the release into a loss.
///
/// # Panics
/// When the promise is broken.
pub async fn what_stops_a_ticket_too_late_spoils_no_release(bed: &Bed) {
    for tombstone in ["there", "forgotten"] {
        let (line, session) = bed.process(LEASE).await;
        line.fate(Write::Ticket, 1, NONE);
        line.fate(Write::End, 1, Fate::Late);
        let mut guard = take(&session, "stopped").await;
        let ticket = tickets(session.store()).await.pop().must("the ticket").key;
        line.fate(Write::End, 1, Fate::Unanswered(LONG));
        let only_once = async {
            tokio::select! {
                outcome = guard.give_up() => panic!("{tombstone}: a release without an answer gave {outcome:?}"),
                () = until_no_ticket_is_left(session.store()) => {}
            }
        };
        within(LONG, format!("{tombstone}: the release is applied"), only_once).await;
        if tombstone == "forgotten" {
            until(LONG, "the release's own tombstone is forgotten", || async {
                session.store().entry(&ticket).await.ok()?.is_none().then_some(())
            })
            .await;
        }
        line.land().await;
        within(LONG, format!("{tombstone}: the release"), guard.give_up()).await.must(format!("{tombstone}: it was released"));
    }
}

/// A release that the store does not answer is never `Ok`, and returns when the lease is over at the latest.
///
/// # Panics
/// When the promise is broken.
pub async fn a_release_without_answer_is_not_ok(bed: &Bed) {
    let lease = 400 * MS;
    let each = [("hold", Partition::HoldRequests), ("refuse", Partition::Refuse)].map(|(lock, cut)| async move {
        let (line, session) = bed.process(lease).await;
        let guard = take(&session, lock).await;
        line.cut(cut);
        let begun = now();
        match within(LONG, "the release ends", guard.release()).await {
            Err(Error::Unknown { .. } | Error::Unavailable { .. } | Error::Lost { .. }) => {}
            other => panic!("{cut:?}: a release that nobody heard gave {other:?}"),
        }
        assert!(since(begun) < lease * 2, "{cut:?}: the release ended after {:?}", since(begun));
    });
    join_all(each).await;
}

/// How long a lease may be relied on after its announcement or renewal was sent: less than it is long.
fn reliable(lease: Duration) -> Duration {
    lease - lease / 25
}

/// A renewal counts from when it was sent, however late its answer comes, and also if its answer is lost
/// and it is found to have been taken.
///
/// # Panics
/// When the promise is broken.
pub async fn a_renewal_counts_from_its_sending(bed: &Bed) {
    let lease = Duration::from_secs(1);
    // That much would be won by counting from the answer, or from when its loss was noticed.
    let late = lease / 5;
    let each = [("slow", Fate::Slow(late)), ("lost", Fate::Unanswered(late))].map(|(lock, fate)| async move {
        let (line, session) = bed.process(lease).await;
        let guard = take(&session, lock).await;
        line.fate(Write::Beat, 6, fate);
        let tried = line.count(Write::Beat);
        let begun = now();
        while tried.hits() < 7 {
            // In this order: a renewal between the two makes the time left look shorter, never longer.
            let (at, remaining) = (now(), guard.remaining());
            let sent = line.beats().pop().must("an announcement");
            assert!(!remaining.is_zero(), "{fate:?} is no loss");
            assert!(at + remaining <= sent + reliable(lease), "{fate:?}: {remaining:?} left, but sent {:?} ago", since(sent));
            assert!(since(begun) < LONG, "renewals go on");
            tokio::time::sleep(5 * MS).await;
        }
        assert_eq!(loss_now(&guard), None);
        guard.release().await.must("the release");
    });
    join_all(each).await;
}

/// A renewal that lands late, before or after the next one, harms nobody.
///
/// # Panics
/// When the promise is broken.
pub async fn a_late_renewal_harms_nobody(bed: &Bed) {
    let (line, session) = bed.process(900 * MS).await;
    let guard = take(&session, "beat").await;
    for land_first in [true, false] {
        line.fate(Write::Beat, 1, Fate::Late);
        within(LONG, "renewals", line.after(if land_first { 1 } else { 3 }, Write::Beat)).await;
        line.land().await;
        within(LONG, "the session goes on", line.after(3, Write::Beat)).await;
        assert!(guard.is_held() && loss_now(&guard).is_none(), "a late renewal, landed before the next: {land_first}");
    }
    guard.release().await.must("the release");
}

/// A session whose first write was not answered is opened all the same, and never comes back to life.
///
/// # Panics
/// When the promise is broken.
pub async fn a_session_is_opened_once_and_never_revived(bed: &Bed) {
    let lease = 400 * MS;
    let late = lease / 5;
    for fate in [NONE, Fate::Unanswered(late), Fate::Slow(late), Fate::Vanishes, Fate::Late] {
        let line = bed.line().await;
        line.fate(Write::Beat, 1, fate);
        let session = Session::builder(line.store.clone()).lease(lease).open().await.must("a session");
        let (at, remaining) = (now(), session.remaining());
        let beats = line.beats();
        // Whichever of two announcements it was that arrived, the first may have.
        let sent = if matches!(fate, Fate::Unanswered(_) | Fate::Slow(_)) { beats.first() } else { beats.last() };
        assert!(at + remaining <= *sent.must("an announcement") + reliable(lease), "{fate:?}: {remaining:?} left");
        take(&session, "open").await.release().await.must("the release");
        session.close().await.must("the close");
        line.land().await;
        let key = tenure_kv::Key::new(format!("session.{}", session.id())).must("a key");
        let entry = bed.store().await.entry(&key).await.must("a read");
        assert!(entry.is_none_or(|entry| !entry.is_live()), "{fate:?}: the session lives on");
    }
    let line = bed.line().await;
    line.fate(Write::Beat, 100, Fate::Vanishes);
    let unopened = within(LONG, "the attempt ends", Session::builder(line.store.clone()).lease(lease).open()).await;
    assert!(matches!(unopened, Err(Error::Unknown { .. })), "{unopened:?}");
}

/// Deposing whose answer is lost, or that is lost itself, still leads to a grant, never an early one.
///
/// # Panics
/// When the promise is broken.
pub async fn deposing_without_answer_is_safe(bed: &Bed) {
    let lease = 400 * MS;
    let each = [("unanswered", NONE), ("lost", Fate::Vanishes), ("refused", Fate::Refused)].map(|(lock, fate)| async move {
        let (line, holder) = bed.process(lease).await;
        let (other_line, other) = bed.process(lease).await;
        let guard = take(&holder, lock).await;
        other_line.fate(Write::Death, 1, fate);
        line.cut(Partition::HoldRequests);
        let mutex = other.mutex(lock).must("a lock name");
        let next = within(lease * 3, format!("{fate:?}: the next is granted"), mutex.lock()).await.must("the lock");
        must_have_lost(&guard, format!("{fate:?}: when the next was granted"));
        next.release().await.must("the release");
    });
    join_all(each).await;
}

/// Deposing that lands late does nothing to a holder that has renewed meanwhile.
///
/// # Panics
/// When the promise is broken.
pub async fn deposing_that_lands_late_is_harmless(bed: &Bed) {
    let lease = 400 * MS;
    let (line, holder) = bed.process(lease).await;
    let (other_line, other) = bed.process(lease).await;
    let guard = holder.mutex("late").must("a lock name").on_loss(tenure::OnLoss::WhenProven).lock().await.must("the lock");
    let mutex = other.mutex("late").must("a lock name");
    other_line.fate(Write::Death, 1, Fate::Late);
    line.cut(Partition::Refuse);
    let deposing = other_line.count(Write::Death);
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    within(LONG, "the other tries to depose", deposing.reached(1)).await;
    line.mend();
    until(LONG, "the holder is restored", || async { guard.is_held().then_some(()) }).await;
    other_line.land().await;
    within(LONG, "the holder goes on", line.after(3, Write::Beat)).await;
    assert!(guard.is_held() && holder.state() != tenure::SessionState::Lost(Loss::Deposed));
    until_waiting(&mutex, 1).await;
    guard.release().await.must("the release");
    within(LONG, "the next is granted", waiting).await.must("the task").must("the lock").release().await.must("the release");
}
