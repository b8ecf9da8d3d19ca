//! The fault wrapper: what it is told to do happens, to whom it is told, as often as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, poll, stream::BoxStream};
use tenure_kv::{
    Batch, Event, Key, KeyRange, Notice, Op, Result, Revision, Since, Store, StoreExt, Ttl,
    faults::{Fault, Faults, Faulty, Operation, Partition, Request, Rule},
};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(5);

async fn faulty() -> (Arc<dyn Store>, Arc<Faulty>, Faults) {
    let store = tenure_kv::open("memory:").await.unwrap();
    let (faulty, faults) = Faulty::new(store.clone());
    (store, faulty, faults)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("this must come soon")
}

async fn next_entry(stream: &mut BoxStream<'static, Result<Event>>) -> (Key, Revision) {
    loop {
        match soon(stream.next()).await.expect("a watch does not end").expect("a watch does not fail") {
            Event::Entry(entry) => return (entry.key, entry.revision),
            Event::CaughtUp | Event::Gap => {}
        }
    }
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_counted() {
    let (_, store, faults) = faulty().await;
    let a = key("a");
    let revision = store.create(&a, "x").await.unwrap();
    assert_eq!(store.entry(&a).await.unwrap().unwrap().revision, revision);
    assert_eq!(store.entries(&[a.clone(), key("b")]).await.unwrap().len(), 2);
    assert_eq!(store.scan(&KeyRange::All, Revision::ZERO, 10).await.unwrap().entries.len(), 1);
    let mut watch = store.watch(KeyRange::All, Since::Current).await.unwrap();
    assert_eq!(next_entry(&mut watch).await, (a.clone(), revision));
    let _notices = store.follow(&a).await.unwrap();
    for operation in Operation::ALL {
        assert_eq!(faults.count(operation), 1, "{operation:?}");
    }
    assert_eq!(faults.requests(), 6);
    assert_eq!(faults.streams(""), 2);
    drop(watch);
    assert_eq!(faults.streams(""), 1);
}

#[tokio::test]
async fn a_write_can_fail_before_or_after_or_be_lost() {
    let (inner, store, faults) = faulty().await;
    for (name, fault, applied, unknown) in
        [("before", Fault::FailBefore, false, false), ("lost", Fault::Lose, false, true), ("after", Fault::FailAfter, true, true)]
    {
        let key = key(name);
        let rule = faults.add(Rule::new(fault).on(Operation::Commit).under(name).once());
        let error = store.create(&key, "x").await.unwrap_err();
        assert_eq!(error.is_unknown(), unknown, "{name}: {error}");
        assert_eq!(error.is_unavailable(), !unknown, "{name}: {error}");
        assert_eq!(inner.get(&key).await.unwrap().is_some(), applied, "{name}");
        assert_eq!(rule.hits(), 1);
        store.put(&key, "y").await.expect("the rule was for one time");
    }
}

#[tokio::test]
async fn a_lost_answer_hides_a_refusal_too_but_not_an_invalid_call() {
    let (_, store, faults) = faulty().await;
    let a = key("a");
    store.create(&a, "x").await.unwrap();
    faults.add(Rule::new(Fault::FailAfter));
    assert!(store.create(&a, "y").await.unwrap_err().is_unknown());
    assert!(store.commit(Batch::new()).await.unwrap_err().is_invalid());
    assert!(store.get(&a).await.unwrap_err().is_unavailable(), "a read is never unknown");
    faults.clear();
    assert_eq!(store.get(&a).await.unwrap().unwrap().0, "x");
}

#[tokio::test]
async fn every_kind_of_read_can_fail() {
    let (_, store, faults) = faulty().await;
    let a = key("a");
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Lose] {
        let rule = faults.add(Rule::new(fault));
        assert!(store.entry(&a).await.unwrap_err().is_unavailable());
        assert!(store.entries(&[]).await.unwrap_err().is_unavailable());
        assert!(store.scan(&KeyRange::All, Revision::ZERO, 1).await.unwrap_err().is_unavailable());
        assert!(store.watch(KeyRange::All, Since::Now).await.err().unwrap().is_unavailable());
        assert!(store.follow(&a).await.err().unwrap().is_unavailable());
        assert_eq!(rule.hits(), 5);
        rule.clear();
    }
    store.entry(&a).await.expect("cleared rules do nothing");
    assert_eq!(faults.streams(""), 0, "a watch that failed is held by nobody");
}

#[tokio::test]
async fn rules_pick_by_kind_prefix_condition_and_count() {
    let (_, store, faults) = faulty().await;
    let (a, b) = (key("a.x"), key("b.x"));
    let rule = faults.add(Rule::new(Fault::FailBefore).on(Operation::Commit).on(Operation::Scan).under("a.").skip(1).times(2));
    store.put(&b, "x").await.expect("another prefix");
    store.get(&a).await.expect("another kind");
    store.put(&a, "x").await.expect("the first is skipped");
    store.put(&a, "x").await.unwrap_err();
    let batch = Batch::new().and(Op::put(b.clone(), "y")).and(Op::put(a.clone(), "y"));
    store.commit(batch).await.unwrap_err();
    store.put(&a, "x").await.expect("twice only");
    assert_eq!(rule.hits(), 2);

    let scans = faults.add(Rule::new(Fault::Count).on(Operation::Scan).under("a."));
    for (range, hits) in [("a.>", 1), ("a.x", 2), ("a.*", 3), ("a.x.>", 4), (">", 4), ("b.>", 4), ("ab.>", 4), ("*.x", 4)] {
        store.scan(&KeyRange::new(range).unwrap(), Revision::ZERO, 10).await.unwrap();
        assert_eq!(scans.hits(), hits, "{range}");
    }

    let deletes = |request: &Request<'_>| match request {
        Request::Commit(batch) => batch.ops.iter().any(|op| matches!(op.change, tenure_kv::Change::Delete { .. })),
        _ => false,
    };
    faults.add(Rule::new(Fault::FailAfter).when(deletes));
    store.put(&a, "x").await.unwrap();
    assert!(store.commit(Op::delete(a.clone()).into()).await.unwrap_err().is_unknown());
    assert_eq!(store.get(&a).await.unwrap(), None);
}

#[tokio::test]
async fn chance_follows_the_seed() {
    let outcomes = async |seed| {
        let (store, faults) = Faulty::seeded(tenure_kv::open("memory:").await.unwrap(), seed);
        faults.add(Rule::new(Fault::FailBefore).chance(0.3));
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            outcomes.push(store.put(&key("a"), "x").await.is_err());
        }
        outcomes
    };
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await, "one seed, one course");
    assert_ne!(first, outcomes(8).await);
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((30..90).contains(&failed), "{failed} of 200 with a chance of 0.3");
}

#[tokio::test(start_paused = true)]
async fn delays_come_before_or_after_the_write() {
    let (inner, store, faults) = faulty().await;
    let (a, b) = (key("a"), key("b"));
    faults.add(Rule::new(Fault::DelayBefore(Duration::from_secs(3))).under("a"));
    faults.add(Rule::new(Fault::DelayAfter(Duration::from_secs(3))).under("b"));
    let start = Instant::now();
    let mut before = std::pin::pin!(store.put(&a, "x"));
    let mut after = std::pin::pin!(store.put(&b, "x"));
    assert!(poll!(&mut before).is_pending() && poll!(&mut after).is_pending());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(inner.get(&a).await.unwrap(), None, "not yet sent");
    assert!(inner.get(&b).await.unwrap().is_some(), "sent, but not answered");
    assert!(poll!(&mut before).is_pending() && poll!(&mut after).is_pending());
    before.await.unwrap();
    after.await.unwrap();
    assert!(inner.get(&a).await.unwrap().is_some());
    assert_eq!(start.elapsed().as_secs(), 3);
    store.get(&a).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 6, "reads are delayed too");
}

#[tokio::test]
async fn a_write_lands_after_its_caller_gave_up() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    let hold = faults.add(Rule::new(Fault::HoldBefore).on(Operation::Commit).once());
    assert!(store.create(&a, "late").now_or_never().is_none());
    hold.reached(1).await;
    let later = store.create(&a, "early").await.unwrap();
    store.delete(&a, tenure_kv::Expect::At(later)).await.unwrap();
    hold.clear();
    soon(faults.settle()).await;
    let (value, revision) = inner.get(&a).await.unwrap().expect("the late create passed over the tombstone");
    assert!(value == "late" && revision > later);
}

#[tokio::test]
async fn a_held_answer_comes_when_the_rule_is_cleared() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    let hold = faults.add(Rule::new(Fault::HoldAfter));
    let mut put = std::pin::pin!(store.put(&a, "x"));
    assert!(poll!(&mut put).is_pending());
    assert!(inner.get(&a).await.unwrap().is_some());
    hold.clear();
    soon(put).await.unwrap();
}

#[tokio::test]
async fn late_writes_end_with_their_owners() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    let hold = faults.add(Rule::new(Fault::HoldBefore));
    let other = store.clone();
    let held = tokio::spawn(async move { other.put(&key("b"), "x").await });
    hold.reached(1).await;
    assert!(store.put(&a, "x").now_or_never().is_none());
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    drop((store, faults));
    hold.clear();
    // Whatever a detached task could still do, it would do it while this one waits.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(inner.list(&KeyRange::All).await.unwrap(), [], "nobody owned the late write any more");
}

#[tokio::test]
async fn a_refusing_partition_answers_at_once() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    faults.partition(Partition::Refuse);
    assert!(store.put(&a, "x").await.unwrap_err().is_unavailable());
    assert!(store.get(&a).await.unwrap_err().is_unavailable());
    assert!(store.watch(KeyRange::All, Since::Now).await.err().unwrap().is_unavailable());
    assert_eq!(inner.get(&a).await.unwrap(), None);
    faults.heal();
    store.put(&a, "x").await.unwrap();
}

#[tokio::test]
async fn a_write_on_its_way_into_a_refusing_partition_is_unknown() {
    let (inner, store, faults) = faulty().await;
    let (a, hold) = (key("a"), faults.add(Rule::new(Fault::HoldAfter)));
    let mut put = std::pin::pin!(store.put(&a, "x"));
    assert!(poll!(&mut put).is_pending());
    faults.partition(Partition::Refuse);
    hold.clear();
    assert!(soon(put).await.unwrap_err().is_unknown());
    assert!(inner.get(&a).await.unwrap().is_some());
}

#[tokio::test]
async fn a_silent_partition_holds_requests_or_answers() {
    let (inner, store, faults) = faulty().await;
    for (partition, applied) in [(Partition::HoldRequests, false), (Partition::HoldAnswers, true)] {
        let key = key(if applied { "answers" } else { "requests" });
        faults.partition(partition);
        let mut put = std::pin::pin!(store.put(&key, "x"));
        let mut get = std::pin::pin!(store.get(&key));
        assert!(poll!(&mut put).is_pending() && poll!(&mut get).is_pending());
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(poll!(&mut put).is_pending() && poll!(&mut get).is_pending());
        assert_eq!(inner.get(&key).await.unwrap().is_some(), applied, "{partition:?}");
        faults.heal();
        soon(put).await.unwrap();
        soon(get).await.unwrap();
        assert!(inner.get(&key).await.unwrap().is_some());
    }
    faults.partition(Partition::HoldRequests);
    assert!(store.put(&key("given-up"), "x").now_or_never().is_none());
    faults.heal();
    soon(faults.settle()).await;
    assert!(inner.get(&key("given-up")).await.unwrap().is_some(), "it lands though nobody waits");
}

#[tokio::test]
async fn stale_reads_answer_from_the_snapshot() {
    let (_, store, faults) = faulty().await;
    let [a, b, c] = ["a", "b", "c"].map(key);
    let first = store.put(&a, "old").await.unwrap();
    let kept = store.put(&c, "old").await.unwrap();
    let snapshot = faults.snapshot().await.unwrap();
    assert_eq!(snapshot.through(), kept);
    store.put(&a, "new").await.unwrap();
    store.put(&b, "new").await.unwrap();
    store.delete(&c, tenure_kv::Expect::Any).await.unwrap();
    let rule = faults.add(Rule::new(Fault::Stale(snapshot)).times(5));
    assert_eq!(store.get(&a).await.unwrap().unwrap(), ("old".into(), first));
    assert_eq!(store.get(&b).await.unwrap(), None);
    let entries = store.entries(&[b.clone(), c.clone()]).await.unwrap();
    assert!(entries[0].is_none() && entries[1].as_ref().unwrap().is_live());
    let page = store.scan(&KeyRange::All, Revision::ZERO, 1).await.unwrap();
    assert_eq!((page.entries.len(), page.through, page.complete), (1, first, false));
    let page = store.scan(&KeyRange::All, first.next(), 9).await.unwrap();
    assert_eq!((page.entries.len(), page.through, page.complete), (1, kept, true));
    assert_eq!(rule.hits(), 5);
    assert_eq!(store.get(&a).await.unwrap().unwrap().0, "new");
    faults.add(Rule::new(Fault::Stale(faults.snapshot().await.unwrap())));
    store.update(&a, "newer", store.get(&a).await.unwrap().unwrap().1).await.expect("commits are never stale");
    assert_eq!(store.get(&a).await.unwrap().unwrap().0, "new");
}

#[tokio::test]
async fn a_cut_watch_heals_without_losing_a_last_state() {
    for since in [Since::Current, Since::Now, Since::History, Since::After(Revision::ZERO)] {
        for caught_up in [false, true] {
            let (inner, store, faults) = faulty().await;
            inner.put(&key("a.old"), "x").await.unwrap();
            let mut watch = store.watch(KeyRange::new("a.>").unwrap(), since).await.unwrap();
            let mut seen = Vec::new();
            let (mut caught, mut gaps) = (0, 0);
            while caught_up && caught == 0 {
                match watch.next().await.unwrap().unwrap() {
                    Event::CaughtUp => caught += 1,
                    Event::Gap => gaps += 1,
                    Event::Entry(entry) => seen.push(entry.revision),
                }
            }
            inner.put(&key("a.x"), "lost").await.unwrap();
            assert_eq!(faults.cut("a."), 1);
            assert_eq!(faults.cut("b."), 0);
            let last = inner.put(&key("a.x"), "last").await.unwrap();
            let gone = inner.delete(&key("a.old"), tenure_kv::Expect::Any).await.unwrap();
            while seen.last() != Some(&gone) {
                match soon(watch.next()).await.unwrap().unwrap() {
                    Event::CaughtUp => caught += 1,
                    Event::Gap => gaps += 1,
                    Event::Entry(entry) => seen.push(entry.revision),
                }
            }
            assert_eq!(gaps, 1, "{since:?}");
            assert!(seen.contains(&last), "{since:?}: {seen:?}");
            assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{since:?}: {seen:?}");
            if since == Since::Now {
                assert!(seen.iter().all(|revision| revision.get() > 1), "nothing from before the watch: {seen:?}");
            }
            let end = inner.put(&key("a.end"), "x").await.unwrap();
            while seen.last() != Some(&end) {
                match soon(watch.next()).await.unwrap().unwrap() {
                    Event::CaughtUp => caught += 1,
                    Event::Gap => panic!("there was one cut"),
                    Event::Entry(entry) => seen.push(entry.revision),
                }
            }
            assert_eq!(caught, 1, "{since:?}: CaughtUp comes once");
        }
    }
}

#[tokio::test]
async fn a_cut_follower_reconnects_and_says_so() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    let mut notices = store.follow(&a).await.unwrap();
    inner.put(&a, "x").await.unwrap();
    assert_eq!(faults.cut("a"), 1);
    let mut heard = Vec::new();
    while heard.last() != Some(&Notice::Reconnected) {
        heard.push(soon(notices.next()).await.unwrap());
    }
    let revision = inner.put(&a, "y").await.unwrap();
    loop {
        if let Notice::Entry(entry) = soon(notices.next()).await.unwrap()
            && entry.revision == revision
        {
            return;
        }
    }
}

#[tokio::test]
async fn streams_are_silent_in_a_partition_and_heal_after_it() {
    for partition in [Partition::Refuse, Partition::HoldRequests, Partition::HoldAnswers] {
        let (inner, store, faults) = faulty().await;
        let a = key("a");
        let mut watch = store.watch(KeyRange::All, Since::Now).await.unwrap();
        let mut notices = store.follow(&a).await.unwrap();
        assert_eq!(soon(watch.next()).await.unwrap().unwrap(), Event::CaughtUp);
        faults.partition(partition);
        let revision = inner.put(&a, "x").await.unwrap();
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert!(watch.next().now_or_never().is_none(), "{partition:?}");
            assert!(notices.next().now_or_never().is_none(), "{partition:?}");
        }
        faults.heal();
        assert_eq!(next_entry(&mut watch).await, (a, revision));
        assert_eq!(soon(notices.next()).await, Some(Notice::Reconnected));
    }
}

#[tokio::test]
async fn a_paused_stream_tells_when_resumed() {
    let (inner, store, faults) = faulty().await;
    let a = key("a");
    let mut watch = store.watch(KeyRange::One(a.clone()), Since::Now).await.unwrap();
    let mut notices = store.follow(&a).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().unwrap(), Event::CaughtUp);
    assert_eq!(faults.pause("a"), 2);
    let revision = inner.put(&a, "x").await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert!(watch.next().now_or_never().is_none() && notices.next().now_or_never().is_none());
    }
    faults.resume("");
    assert_eq!(next_entry(&mut watch).await, (a, revision));
    assert!(matches!(soon(notices.next()).await, Some(Notice::Entry(entry)) if entry.revision == revision));
}

#[tokio::test]
async fn a_watch_can_be_ended_for_good() {
    let (_, store, faults) = faulty().await;
    let mut watch = store.watch(KeyRange::All, Since::Now).await.unwrap();
    let _notices = store.follow(&key("a")).await.unwrap();
    assert_eq!(faults.end_watches(""), 1);
    assert!(soon(watch.next()).await.unwrap().unwrap_err().is_unavailable());
    assert!(soon(watch.next()).await.is_none());
}

#[tokio::test]
async fn a_watch_that_cannot_be_reopened_yet_tries_again() {
    let inner = tenure_kv::open("memory:").await.unwrap();
    // The lower wrapper refuses the watches that the upper one opens to heal.
    let (lower, below) = Faulty::new(inner.clone());
    let (upper, above) = Faulty::new(lower);
    let mut watch = upper.watch(KeyRange::All, Since::Now).await.unwrap();
    let mut notices = upper.follow(&key("a")).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().unwrap(), Event::CaughtUp);
    let watches = below.add(Rule::new(Fault::FailBefore).on(Operation::Watch).times(3));
    let follows = below.add(Rule::new(Fault::FailBefore).on(Operation::Follow).times(3));
    assert_eq!(above.cut(""), 2);
    let revision = inner.put(&key("a"), "x").await.unwrap();
    assert_eq!(next_entry(&mut watch).await, (key("a"), revision));
    assert_eq!(soon(notices.next()).await, Some(Notice::Reconnected));
    assert_eq!((watches.hits(), follows.hits()), (3, 3));
}

#[tokio::test]
async fn a_cut_watch_tells_of_what_went_without_a_trace() {
    let (inner, store, faults) = faulty().await;
    for name in ["kept", "forgotten", "expired"] {
        inner.put(&key(name), "x").await.unwrap();
    }
    let mut watch = store.watch(KeyRange::All, Since::Current).await.unwrap();
    for _ in 0..3 {
        next_entry(&mut watch).await;
    }
    assert_eq!(soon(watch.next()).await.unwrap().unwrap(), Event::CaughtUp);
    faults.partition(Partition::Refuse);
    inner.commit(Op::delete(key("forgotten")).ttl(Ttl::MIN).into()).await.unwrap();
    inner.commit(Op::put(key("expired"), "y").ttl(Ttl::MIN).into()).await.unwrap();
    soon(async {
        while inner.entry(&key("forgotten")).await.unwrap().is_some() || inner.entry(&key("expired")).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    faults.heal();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        match soon(watch.next()).await.unwrap().unwrap() {
            Event::Entry(entry) if !entry.is_live() => gone.push(entry.key.to_string()),
            Event::Gap => {}
            other => panic!("{other:?}"),
        }
    }
    gone.sort();
    assert_eq!(gone, ["expired", "forgotten"]);
    let revision = inner.put(&key("forgotten"), "z").await.unwrap();
    // The expiry itself may have come after the cut.
    let mut next = next_entry(&mut watch).await;
    if next.0 == key("expired") {
        next = next_entry(&mut watch).await;
    }
    assert_eq!(next, (key("forgotten"), revision));
}
