//! What changes something, dropped at every point where it waits: it has happened or it has not, and nothing else has.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tenure::{
    Error, Guard, InstanceState, Leadership, Loss, Member, Session, SessionState, data_key, locks, membership,
    partitions::{self, PartitionEvent, Partitions},
};
use tenure_kv::{Batch, Event, Expect, Key, KeyRange, Op, Revision, Since, StoreExt};

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left},
    electing::{elected, election, until_nothing_is_left},
    groups::{join, until_nobody_is_left},
    support::{Cut, LONG, MS, Must, after_polls, at_every_wait, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);

/// Opening leaves at most a key that the store forgets; closing goes on, and takes with it what the session had.
///
/// # Panics
/// When the promise is broken.
pub async fn sessions_can_be_dropped_at_every_wait(bed: &Bed) {
    let line = bed.line().await;
    line.slow_down();
    let other = bed.session(LEASE).await;
    let free = async |when: &str| {
        take(&other, "open").await.release().await.must(when);
        until_no_ticket_is_left(other.store()).await;
    };
    let open = async |(): &()| Session::builder(line.store.clone()).lease(LEASE).open().await;
    at_every_wait("open()", async || (), open, async |(), when| free(when).await).await;
    let holding = async || {
        let session = Session::builder(line.store.clone()).lease(LEASE).open().await.must("a session");
        (take(&session, "open").await, session)
    };
    let close = async |(_, session): &(_, Session)| session.close().await;
    let closed = async |(guard, session): (Guard, Session), when: &str| {
        if !matches!(session.state(), SessionState::Lost(_)) {
            session.close().await.must(when);
        }
        assert_eq!(within(LONG, format!("{when}, it is closed"), session.lost()).await, Loss::Closed);
        assert!(!guard.is_held());
        free(when).await;
    };
    at_every_wait("close()", holding, close, closed).await;
}

/// A hold whose breaking was dropped is broken or not: the holder hears of it, or gives it back.
///
/// # Panics
/// When the promise is broken.
pub async fn breaking_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, holder) = bed.process(LEASE).await;
    let other = bed.session(LEASE).await;
    line.slow_down();
    let held = async || take(&holder, "broken").await;
    let broken = async |guard: &Guard| locks::break_hold(&*line.store, "broken", guard.token()).await;
    let either = async |guard: Guard, when: &str| {
        match guard.release().await {
            Ok(()) | Err(Error::Lost { .. }) => {}
            Err(error) => panic!("{when}: {error:?}"),
        }
        within(Duration::from_secs(2), format!("the lock is free {when}"), take(&other, "broken"))
            .await
            .release()
            .await
            .must(when);
        until_no_ticket_is_left(other.store()).await;
    };
    at_every_wait("break_hold()", held, broken, either).await;
}

/// What a member changes is written although nobody waits for it any more, and leaving goes on.
///
/// # Panics
/// When the promise is broken.
pub async fn members_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let store = bed.store().await;
    let member = join(&fickle, "drop", "one").await;
    let settled = async |when: &str| {
        let value = bytes::Bytes::from(when.to_owned());
        member.update(|instance| instance.value = value.clone()).await.must(when);
        let listed = || async { membership::members(&*store, "drop").await.ok()?.list.pop() };
        let same =
            || async { listed().await.filter(|record| record.instance == member.instance() && record.instance.value == value) };
        until(LONG, format!("{when}, what the member wants is there"), same).await;
    };
    let changes = async |(): &()| member.update(|instance| instance.weight += 1).await;
    at_every_wait("update()", async || (), changes, async |(), when| settled(when).await).await;
    // A change that changes nothing is not written, so each says something new.
    let turns = AtomicU64::new(0);
    let turn = || turns.fetch_add(1, Ordering::Relaxed);
    let value = async |(): &()| member.set_value(turn().to_string()).await;
    at_every_wait("set_value()", async || (), value, async |(), when| settled(when).await).await;
    let states = [InstanceState::Draining, InstanceState::Maintenance];
    let state = async |(): &()| member.set_state(states[usize::from(turn() % 2 == 0)]).await;
    at_every_wait("set_state()", async || (), state, async |(), when| settled(when).await).await;
    member.leave().await.must("the leave");

    let gone = async |member: Member, when: &str| {
        // Not begun, it is still there, and goes when it is dropped.
        drop(member);
        until_nobody_is_left(&store, "drop", when).await;
    };
    let joined = async || join(&fickle, "drop", "one").await;
    at_every_wait("leave()", joined, async |member: &Member| member.leave().await, gone).await;
}

/// A campaign that may be called off, the work of a leader and its fenced writes.
///
/// # Panics
/// When the promise is broken.
pub async fn leading_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let other = bed.session(LEASE).await;
    let here = election(&fickle, "lead");
    let free = async |when: &str| {
        let next = within(Duration::from_secs(2), format!("the office is free {when}"), elected(&election(&other, "lead"))).await;
        next.resign().await.must(when);
        until_nothing_is_left(other.store(), "lead", when).await;
    };
    let until_told = async |(): &()| here.campaign_until("mine", std::future::pending()).await;
    at_every_wait("campaign_until()", async || (), until_told, async |(), when| free(when).await).await;
    let key = data_key("lead").must("a key");
    let work = async |(): &()| {
        let write = Batch::from(Op::put(key.clone(), "x"));
        here.run_while_leader("mine", |leader: Arc<Leadership>| {
            let write = write.clone();
            async move { leader.commit(write).await }
        })
        .await
    };
    at_every_wait("run_while_leader()", async || (), work, async |(), when| free(when).await).await;
    let leads = async || elected(&here).await;
    let still_leads = async |leader: Leadership, when: &str| {
        assert!(leader.is_leader(), "{when}, it leads as before");
        leader.resign().await.must(when);
        until_nothing_is_left(other.store(), "lead", when).await;
    };
    let write = async |leader: &Leadership| leader.commit(Op::put(key.clone(), "x").into()).await;
    at_every_wait("commit()", leads, write, still_leads).await;
    let run = async |leader: &Leadership| leader.run(fickle.store().get(&key)).await;
    at_every_wait("run()", leads, run, still_leads).await;
}

/// Owning partitions, dropped before it begins, leaves nothing that is owned.
///
/// # Panics
/// When the promise is broken.
pub async fn partitions_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let member = join(&fickle, "parts", "one").await;
    let start = async |(): &()| Partitions::builder(&member, 2).start().await;
    let unowned = async |(), when: &str| {
        let nobody = || async { partitions::owners(&**fickle.store(), "parts").await.ok().filter(|owners| owners.is_empty()) };
        until(LONG, format!("{when}, nobody owns anything"), nobody).await;
        until_no_ticket_is_left(fickle.store()).await;
    };
    at_every_wait("start()", async || (), start, unowned).await;
    let mut owned = Partitions::builder(&member, 2).start().await.must("partitions");
    let mut kept = Vec::new();
    // Each event once, however often the wait for it is dropped.
    let both = async {
        for polls in (0..4).cycle() {
            if let Some(Some(event)) = after_polls(polls, Cut::Waiting, owned.next()).await {
                kept.push(event);
            }
            if kept.len() == 2 {
                break;
            }
            tokio::time::sleep(MS).await;
        }
    };
    within(LONG, "both partitions are gained", both).await;
    let ours: BTreeSet<u32> = kept
        .iter()
        .map(|event| match event {
            PartitionEvent::Gained { partition, guard } => {
                assert!(guard.is_held());
                *partition
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ours, [0, 1].into());
}

/// The verbs of the store itself: a commit that was dropped is whole or nothing, and the next one follows it.
///
/// # Panics
/// When the promise is broken.
pub async fn commits_can_be_dropped_at_every_wait(bed: &Bed) {
    let line = bed.line().await;
    line.slow_down();
    let [one, two, mark] = ["one", "two", "mark"].map(|name| data_key(name).must("a key"));
    for store in [line.store.clone(), bed.store().await] {
        let mut watch = store.watch(KeyRange::new("data.>").must("a range"), Since::Now).await.must("a watch");
        for (cut, polls) in [Cut::Waiting, Cut::Woken].into_iter().flat_map(|cut| (0..20).map(move |polls| (cut, polls))) {
            let value = format!("{polls}, {cut:?}");
            let batch = Batch::from_iter([one.clone(), two.clone()].map(|key| Op::put(key, value.clone())));
            let done = after_polls(polls, cut, store.commit(batch)).await.map(|outcome| outcome.must("the commit"));
            until(LONG, format!("{value}: all is there or nothing"), || async {
                let seen = store.entries(&[one.clone(), two.clone()]).await.ok()?;
                let [first, second] = [&seen[0], &seen[1]].map(|entry| entry.as_ref().and_then(|entry| entry.value()));
                // One that was dropped may still land after this one.
                let last = seen[1].as_ref().map_or(Revision::ZERO, |entry| entry.revision);
                (first == second && last >= done.unwrap_or(Revision::ZERO)).then_some(())
            })
            .await;
            let next = store.delete(&mark, Expect::Any).await.must("the next write follows");
            assert!(done.unwrap_or(Revision::ZERO) < next);
            let told = async {
                loop {
                    let event = watch.next().await.must("the watch goes on").must("an event");
                    if matches!(event, Event::Entry(entry) if entry.revision >= next) {
                        return;
                    }
                }
            };
            within(LONG, "who watches is told", told).await;
        }
    }
}

/// A register written by compare-and-set: a write that was dropped is there or not, and the next one follows what is.
///
/// # Panics
/// When the promise is broken.
pub async fn registers_can_be_dropped_at_every_wait(bed: &Bed) {
    let line = bed.line().await;
    line.slow_down();
    let (store, next) = (&line.store, AtomicU64::new(0));
    let fresh = async || data_key(&format!("register-{}", next.fetch_add(1, Ordering::Relaxed))).must("a key");
    let created = async || {
        let key = fresh().await;
        let at = store.create(&key, "first").await.must("the first value");
        (key, at)
    };
    let whole = async |key: &Key, allowed: &[&str], when: &str| {
        // What was dropped may still land before this one or be refused by it.
        let found = until(LONG, when, || async {
            let found = store.get(key).await.ok()?;
            let (value, at) = found.map_or((None, Revision::ZERO), |(value, at)| (Some(value), at));
            let op = Op::put(key.clone(), "last").expect(if value.is_some() { Expect::At(at) } else { Expect::Absent });
            store.commit(op.into()).await.ok().map(|_| value)
        })
        .await;
        let found = found.as_deref().map_or("", |value| std::str::from_utf8(value).must("text"));
        assert!(allowed.contains(&found), "{found:?} {when}");
    };
    at_every_wait(
        "create()",
        fresh,
        async |key| store.create(key, "first").await,
        async |key, when| whole(&key, &["", "first"], when).await,
    )
    .await;
    at_every_wait(
        "update()",
        created,
        async |(key, at)| store.update(key, "second", *at).await,
        async |(key, _), when| whole(&key, &["first", "second"], when).await,
    )
    .await;
}

/// Opening a store, dropped at every wait, is in nobody's way who opens it then.
///
/// # Panics
/// When the promise is broken.
pub async fn opening_can_be_dropped_at_every_wait(bed: &Bed) {
    let url = bed.other_url();
    let key = data_key("opened").must("a key");
    for (cut, polls) in [Cut::Waiting, Cut::Woken].into_iter().flat_map(|cut| (0..30).map(move |polls| (cut, polls))) {
        let done = after_polls(polls, cut, tenure_kv::open(&url)).await.map(|outcome| outcome.must("the store"));
        drop(done);
        // A file that was being opened is let go by another thread.
        let store = until(LONG, "the store can be opened", || async { tenure_kv::open(&url).await.ok() }).await;
        store.put(&key, "x").await.must("a write");
    }
}
