//! Elections on the store in memory: who leads, who is told, and what is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure::{Election, Error, Loss, Session, data_key};
use tenure_kv::{
    Key, KeyRange, Memory, Op, Store, StoreExt,
    faults::{Fault, Faults, Faulty, Operation, Partition, Rule},
};

const LEASE: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

async fn session(store: &Arc<dyn Store>) -> Session {
    Session::builder(store.clone()).lease(LEASE).open().await.unwrap()
}

/// A session behind a store of its own that can be meddled with.
async fn process(store: &Arc<dyn Store>) -> (Session, Faults) {
    let (faulty, faults) = Faulty::new(store.clone());
    let faulty: Arc<dyn Store> = faulty;
    (session(&faulty).await, faults)
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn until_listed(election: &Election, count: usize) {
    until("candidates are listed", || async { election.candidates().await.unwrap().len() == count }).await;
}

/// Nobody leads, nobody is listed, and nothing that is on its way will change that.
async fn nothing_is_left(store: &Arc<dyn Store>) {
    until("the office is free and no candidate is listed", || async {
        let left = store.list(&KeyRange::new("candidate.>").unwrap()).await.unwrap();
        let led = store.entry(&Key::new("election.x").unwrap()).await.unwrap();
        left.is_empty() && led.is_none_or(|entry| !entry.is_live())
    })
    .await;
}

#[tokio::test]
async fn a_term_stays_while_values_change_and_grows_with_leaders() {
    let store = memory();
    let (one, two) = (session(&store).await, session(&store).await);
    let first = one.election("x").unwrap().label("one").campaign("a").await.unwrap();
    assert!(first.is_leader() && first.remaining() <= LEASE);
    let seen = two.election("x").unwrap().leader().await.unwrap().unwrap();
    assert_eq!((seen.value.as_ref(), seen.term, seen.label.as_deref()), (&b"a"[..], first.term(), Some("one")));
    let moved = first.proclaim(vec![0xff_u8]).await.unwrap();
    assert!(moved > first.term());
    let seen = two.election("x").unwrap().leader().await.unwrap().unwrap();
    assert_eq!((seen.value.as_ref(), seen.term, seen.revision), (&b"\xff"[..], first.term(), moved));
    let tried = two.election("x").unwrap().try_campaign("b").await;
    assert!(matches!(&tried, Err(Error::NotAcquired { holder: Some(holder), .. }) if holder.token == first.term()), "{tried:?}");
    let term = first.term();
    first.resign().await.unwrap();
    assert_eq!(two.election("x").unwrap().leader().await.unwrap(), None);
    let second = two.election("x").unwrap().try_campaign("b").await.unwrap();
    assert!(second.term() > term);
    drop(second);
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn resigning_hands_over_at_once() {
    let store = memory();
    let slow = |store: &Arc<dyn Store>| Session::builder(store.clone()).lease(Duration::from_secs(60)).open();
    let (one, two) = (slow(&store).await.unwrap(), slow(&store).await.unwrap());
    for round in 0..20 {
        let first = one.election("x").unwrap().campaign("a").await.unwrap();
        let waiting = tokio::spawn({
            let election = two.election("x").unwrap();
            async move { election.campaign("b").await }
        });
        until_listed(&one.election("x").unwrap(), 1).await;
        let (lost, term) = (first.lost(), first.term());
        if round % 2 == 0 {
            first.resign().await.unwrap()
        } else {
            drop(first)
        }
        assert_eq!(lost.await, Loss::Resigned);
        let second = within("the next leads", waiting).await.unwrap().unwrap();
        assert!(second.term() > term);
        second.resign().await.unwrap();
        nothing_is_left(&store).await;
    }
}

#[tokio::test]
async fn a_crashed_leader_is_replaced_and_its_writes_are_refused() {
    let store = memory();
    let ((one, line), two) = (process(&store).await, session(&store).await);
    let first = one.election("x").unwrap().campaign("a").await.unwrap();
    let waiting = tokio::spawn({
        let election = two.election("x").unwrap();
        async move { election.campaign("b").await }
    });
    until_listed(&two.election("x").unwrap(), 1).await;
    line.partition(Partition::HoldRequests);
    let second = within("the next leads", waiting).await.unwrap().unwrap();
    assert!(!first.is_leader(), "the first relies on the office when the second has it");
    line.heal();
    let late = first.commit(Op::put(data_key("late").unwrap(), "x").into()).await;
    assert!(matches!(late, Err(Error::Lost { .. })), "{late:?}");
    assert!(matches!(first.proclaim("late").await, Err(Error::Lost { .. })));
    assert!(store.get(&data_key("late").unwrap()).await.unwrap().is_none());
    second.commit(Op::put(data_key("late").unwrap(), "y").into()).await.unwrap();
    assert!(second.is_leader());
}

#[tokio::test]
async fn proclaiming_does_not_stand_in_the_way_of_commits() {
    let store = memory();
    let (session, line) = process(&store).await;
    let leader = session.election("x").unwrap().campaign("0").await.unwrap();
    let key = data_key("count").unwrap();
    store.put(&key, "0").await.unwrap();
    // Long enough on its way for the fence to be moved meanwhile.
    line.add(Rule::new(Fault::DelayBefore(Duration::from_millis(3))).on(Operation::Commit).under("data."));
    let proclaiming = async {
        let mut all = Vec::new();
        for n in 1..=50 {
            all.push(leader.proclaim(n.to_string()).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        all
    };
    let committing = async {
        for n in 1..=50 {
            let (value, at) = store.get(&key).await.unwrap().unwrap();
            assert_eq!(value, (n - 1).to_string());
            leader.commit(Op::put(key.clone(), n.to_string()).if_at(at).into()).await.unwrap();
        }
    };
    let (proclaimed, ()) = tokio::join!(proclaiming, committing);
    assert!(proclaimed.iter().all(Result::is_ok));
    let conflict = leader.commit(Op::put(key, "x").if_absent().into()).await;
    assert!(matches!(conflict, Err(Error::Conflict { .. })), "{conflict:?}");
    assert!(leader.is_leader());
}

#[tokio::test]
async fn an_observer_is_told_every_last_state() {
    let store = memory();
    let ((one, line), two, watcher) = (process(&store).await, session(&store).await, session(&store).await);
    let mut states = watcher.election("x").unwrap().observe();
    let mut next = async || within("a state", states.next()).await.unwrap().unwrap().map(|leader| leader.value);
    assert_eq!(next().await, None);
    let first = one.election("x").unwrap().campaign("a").await.unwrap();
    assert_eq!(next().await.as_deref(), Some(&b"a"[..]));
    first.proclaim("b").await.unwrap();
    assert_eq!(next().await.as_deref(), Some(&b"b"[..]));
    first.resign().await.unwrap();
    assert_eq!(next().await, None);
    let _first = one.election("x").unwrap().campaign("c").await.unwrap();
    assert_eq!(next().await.as_deref(), Some(&b"c"[..]));
    // Nobody campaigns, and the key still names the crashed leader.
    line.partition(Partition::HoldRequests);
    assert_eq!(next().await, None);
    let second = two.election("x").unwrap().campaign("d").await.unwrap();
    assert_eq!(next().await.as_deref(), Some(&b"d"[..]));
    two.close().await.unwrap();
    assert_eq!(next().await, None);
    assert!(!second.is_leader());
}

#[tokio::test]
async fn the_office_is_handed_to_a_named_candidate() {
    let store = memory();
    let (one, two, three) = (session(&store).await, session(&store).await, session(&store).await);
    let election = one.election("x").unwrap();
    let first = election.campaign("a").await.unwrap();
    let campaign = |session: &Session, value: &'static str| {
        let election = session.election("x").unwrap();
        tokio::spawn(async move { election.campaign(value).await })
    };
    let second = campaign(&two, "b");
    until_listed(&election, 1).await;
    let third = campaign(&three, "c");
    until_listed(&election, 2).await;
    let named = election.candidates().await.unwrap().into_iter().find(|candidate| candidate.value == "c").unwrap();
    assert!(matches!(first.transfer("nobody-1").await, Err(Error::Conflict { .. })));
    assert!(matches!(first.transfer(first.candidate()).await, Err(Error::Invalid { .. })));
    assert!(first.is_leader());
    let term = first.transfer(&named.id).await.unwrap();
    assert!(!first.is_leader());
    let third = within("the named one leads", third).await.unwrap().unwrap();
    assert_eq!((third.term(), third.candidate()), (term, named.id.as_str()));
    assert!(!second.is_finished());
    drop(first);
    third.commit(Op::put(data_key("x").unwrap(), "y").into()).await.unwrap();
    third.resign().await.unwrap();
    within("the other leads", second).await.unwrap().unwrap().resign().await.unwrap();
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn a_transfer_to_one_who_withdraws_leaves_one_leader_or_none() {
    let store = memory();
    let (one, two) = (session(&store).await, session(&store).await);
    for delay in 0..40 {
        let election = one.election("x").unwrap();
        let first = election.campaign("a").await.unwrap();
        let waiting = tokio::spawn({
            let election = two.election("x").unwrap();
            async move { election.campaign("b").await }
        });
        until_listed(&election, 1).await;
        let named = election.candidates().await.unwrap().remove(0);
        let (transferred, ()) = tokio::join!(first.transfer(&named.id), async {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            waiting.abort();
        });
        match transferred {
            Ok(_) => drop(first),
            Err(Error::Conflict { .. }) => {
                assert!(first.is_leader());
                first.resign().await.unwrap();
            }
            Err(other) => panic!("{other:?}"),
        }
        drop(waiting.await);
        nothing_is_left(&store).await;
    }
}

#[tokio::test]
async fn a_higher_priority_asks_and_the_leader_chooses_when() {
    let store = memory();
    let (one, two) = (session(&store).await, session(&store).await);
    let tenure = Duration::from_millis(400);
    let begun = std::time::Instant::now();
    let first = one.election("x").unwrap().min_tenure(tenure).campaign("a").await.unwrap();
    let campaign = |priority| {
        let election = two.election("x").unwrap().priority(priority);
        tokio::spawn(async move { election.campaign("b").await })
    };
    let (equal, higher) = (campaign(0), campaign(7));
    let challenger = within("the challenge", first.asked_to_step_down()).await;
    assert!(begun.elapsed() >= tenure, "asked before the minimum tenure was over");
    assert_eq!(challenger.priority, 7);
    assert!(first.is_leader());
    // The challenger turns away, and is heard of no more.
    higher.abort();
    until("the challenge is over", || async { futures::FutureExt::now_or_never(first.asked_to_step_down()).is_none() }).await;
    let higher = campaign(9);
    let challenger = within("the challenge", first.asked_to_step_down()).await;
    first.transfer(&challenger.id).await.unwrap();
    let higher = within("the challenger leads", higher).await.unwrap().unwrap();
    assert!(!equal.is_finished());
    equal.abort();
    drop(higher);
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn dead_challengers_do_not_hide_a_living_one() {
    let store = memory();
    // So long that no sweep comes to its help.
    let one = Session::builder(store.clone()).lease(Duration::from_secs(2)).open().await.unwrap();
    let (two, (dying, faults)) = (session(&store).await, process(&store).await);
    let first = one.election("x").unwrap().min_tenure(Duration::from_secs(1)).campaign("a").await.unwrap();
    let campaign = |session: &Session, priority| {
        let election = session.election("x").unwrap().priority(priority);
        tokio::spawn(async move { election.campaign("b").await })
    };
    let dead: Vec<_> = (0..12).map(|_| campaign(&dying, 9)).collect();
    until_listed(&one.election("x").unwrap(), 12).await;
    faults.partition(Partition::Refuse);
    let key = Key::new(format!("session.{}", dying.id())).unwrap();
    store.delete(&key, tenure_kv::Expect::Any).await.unwrap();
    let living = campaign(&two, 5);
    let challenger = within("the challenge", first.asked_to_step_down()).await;
    assert_eq!((challenger.priority, challenger.session.as_str()), (5, two.id()));
    living.abort();
    dead.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn who_is_unhealthy_does_not_lead() {
    let store = memory();
    let (one, two) = (session(&store).await, session(&store).await);
    let (health, healthy) = tokio::sync::watch::channel(true);
    let election = one.election("x").unwrap().health(healthy);
    let first = election.campaign("a").await.unwrap();
    let waiting = tokio::spawn({
        let election = two.election("x").unwrap();
        async move { election.campaign("b").await }
    });
    until_listed(&election, 1).await;
    health.send_replace(false);
    assert!(!first.is_leader());
    assert_eq!(first.lost().await, Loss::Unhealthy);
    let second = within("the other leads", waiting).await.unwrap().unwrap();
    assert!(one.is_held(), "the session goes on");
    assert!(matches!(election.try_campaign("a").await, Err(Error::NotAcquired { .. })));
    let again = tokio::spawn({
        let election = election.clone();
        async move { election.campaign("a").await }
    });
    second.resign().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!again.is_finished() && election.leader().await.unwrap().is_none());
    health.send_replace(true);
    within("the first leads again", again).await.unwrap().unwrap().resign().await.unwrap();
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn work_runs_while_elected_and_again_after_a_loss() {
    let store = memory();
    let ((one, line), two) = (process(&store).await, session(&store).await);
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let working = tokio::spawn({
        let (election, runs) = (two.election("x").unwrap().yields(true), runs.clone());
        async move {
            election
                .run_while_leader("b", |leadership| {
                    let run = runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    async move {
                        match run {
                            0 => Err("the first run fails".to_owned()),
                            1 => {
                                leadership.lost().await;
                                std::future::pending().await
                            }
                            _ => Ok(leadership.term()),
                        }
                    }
                })
                .await
        }
    });
    until("the work runs a second time", || async { runs.load(std::sync::atomic::Ordering::SeqCst) == 2 }).await;
    // A challenger is given way to, leads, and crashes.
    let chief = within("the challenger leads", one.election("x").unwrap().priority(1).campaign("a")).await.unwrap();
    line.partition(Partition::HoldRequests);
    let term = within("the work succeeds", working).await.unwrap().unwrap();
    assert!(term > chief.term() && !chief.is_leader());
    assert_eq!(two.election("x").unwrap().leader().await.unwrap(), None);
}

#[tokio::test]
async fn a_campaign_without_answer_is_found_or_forestalled() {
    for (fault, times) in [(Fault::FailAfter, 1), (Fault::FailAfter, 5), (Fault::Lose, 1), (Fault::Lose, 3)] {
        for give_up in [false, true] {
            let store = memory();
            let (one, line) = process(&store).await;
            let failing = line.add(Rule::new(fault.clone()).on(Operation::Commit).under("election.").times(times));
            let election = one.election("x").unwrap();
            if give_up {
                drop(within("the campaign is given up", election.campaign_until("a", failing.reached(1))).await);
            } else {
                let leader = within("the office", election.campaign("a")).await.unwrap();
                assert_eq!(election.leader().await.unwrap().unwrap().term, leader.term());
                leader.commit(Op::put(data_key("x").unwrap(), "y").into()).await.unwrap();
                leader.resign().await.unwrap();
            }
            nothing_is_left(&store).await;
        }
    }
}

#[tokio::test]
async fn a_campaign_write_that_lands_late_is_refused_or_resigned() {
    let store = memory();
    let (one, line) = process(&store).await;
    let held = line.add(Rule::new(Fault::HoldBefore).on(Operation::Commit).under("election.").once());
    let election = one.election("x").unwrap();
    let campaign = tokio::spawn(async move { election.campaign("a").await });
    within("the write is on its way", held.reached(1)).await;
    campaign.abort();
    assert!(campaign.await.is_err());
    // The withdrawal's own write passes, and forestalls the one that is held.
    until("it is forestalled", || async { store.entry(&Key::new("election.x").unwrap()).await.unwrap().is_some() }).await;
    held.clear();
    line.settle().await;
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn proclaiming_without_answer_is_resolved() {
    for fault in [Fault::FailAfter, Fault::Lose, Fault::FailBefore] {
        let store = memory();
        let (one, line) = process(&store).await;
        let election = one.election("x").unwrap();
        let leader = election.campaign("a").await.unwrap();
        line.add(Rule::new(fault.clone()).on(Operation::Commit).under("election.").times(2));
        let revision = leader.proclaim("b").await.unwrap();
        let seen = election.leader().await.unwrap().unwrap();
        assert_eq!((seen.value.as_ref(), seen.revision, seen.term), (&b"b"[..], revision, leader.term()), "{fault:?}");
        leader.commit(Op::put(data_key("x").unwrap(), "y").into()).await.unwrap();
        line.add(Rule::new(fault.clone()).on(Operation::Commit).under("election.").times(2));
        leader.resign().await.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        nothing_is_left(&store).await;
    }
}
