//! Who leads: one at a time, in terms that grow; crashes, pauses, hand-overs; what onlookers are told.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::join_all};
use tenure::{Candidate, Election, Error, Leader, Leadership, Loss, Session, data_key};
use tenure_kv::{Key, KeyRange, Op, Store, StoreExt, faults::Partition};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    clocks::Skewed,
    crashing::slack,
    exclusion::join,
    history::{Hold, must_be_sound},
    support::{Dice, LONG, MS, Must, lost, now, since, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);

pub(super) fn election(session: &Session, name: &str) -> Election {
    session.election(name).must("an election's name")
}

pub(super) async fn elected(election: &Election) -> Leadership {
    within(LONG, "the office", election.campaign("mine")).await.must("the office")
}

pub(super) type Campaign = AbortOnDropHandle<tenure::Result<Leadership>>;

/// A campaign in a task of its own, which is listed when this returns.
pub(super) async fn waiting(election: Election) -> (Campaign, Candidate) {
    let value = format!("waits in {:?}", now());
    let campaign = AbortOnDropHandle::new(tokio::spawn({
        let (election, value) = (election.clone(), value.clone());
        async move { election.campaign(value).await }
    }));
    let listed = until(LONG, "the candidate is listed", || async {
        election.candidates().await.ok()?.into_iter().find(|candidate| candidate.value == value)
    });
    (campaign, listed.await)
}

async fn next_leader(campaign: Campaign) -> Leadership {
    within(LONG, "the next leads", campaign).await.must("the task").must("the office")
}

/// Waits until nobody leads and nobody is listed.
pub(super) async fn until_nothing_is_left(store: &Arc<dyn Store>, name: &str, when: &str) {
    let key = Key::new(format!("election.{name}")).must("a key");
    let range = KeyRange::new(format!("candidate.{name}.*")).must("a range");
    until(Duration::from_secs(5), format!("nothing is left of {name} {when}"), || async {
        let listed = store.list(&range).await.ok()?;
        let named = store.entry(&key).await.ok()?;
        (listed.is_empty() && named.is_none_or(|entry| !entry.is_live())).then_some(())
    })
    .await;
}

/// A term is what the winning write's revision was, whatever is proclaimed, and grows from leader to leader.
///
/// # Panics
/// When the promise is broken.
pub async fn a_term_stays_the_same_and_terms_grow(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    let mut last = 0;
    for round in 0..10 {
        let here = election(&sessions[round % 2], "terms");
        let leader = if round % 3 == 0 { here.try_campaign("mine").await.must("the office") } else { elected(&here).await };
        assert!(leader.term().get() > last && leader.is_leader() && leader.remaining() <= LEASE);
        last = leader.term().get();
        let proclaimed = leader.proclaim(vec![0xff, round as u8]).await.must("the proclamation");
        let there = election(&sessions[(round + 1) % 2], "terms");
        let seen =
            until(LONG, "it is seen", || async { there.leader().await.ok()?.filter(|leader| leader.revision == proclaimed) })
                .await;
        assert_eq!((seen.term, seen.value.as_ref()), (leader.term(), &[0xff, round as u8][..]));
        let refused = there.try_campaign("yours").await;
        assert!(matches!(refused, Err(Error::NotAcquired { .. })), "elected beside {leader:?}: {refused:?}");
        leader.resign().await.must("the resignation");
    }
    until_nothing_is_left(sessions[0].store(), "terms", "after ten terms").await;
}

/// Resigning, and dropping the leadership, hands over at once.
///
/// # Panics
/// When the promise is broken.
pub async fn resigning_hands_over_at_once(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    for round in 0..10 {
        let first = elected(&election(&sessions[0], "over")).await;
        let (campaign, _) = waiting(election(&sessions[1], "over")).await;
        let (told, term, begun) = (first.lost(), first.term(), now());
        if round % 2 == 0 {
            first.resign().await.must("the resignation");
        } else {
            drop(first);
        }
        let second = next_leader(campaign).await;
        assert!(since(begun) < Duration::from_secs(2), "the next led after {:?}", since(begun));
        assert_eq!(told.now_or_never(), Some(Loss::Resigned));
        assert!(second.term() > term);
        second.resign().await.must("the resignation");
        until_nothing_is_left(sessions[0].store(), "over", "after a hand-over").await;
    }
}

/// Many candidates that lead for a moment, resign, hand over, turn away or are cut off: never two leaders.
///
/// # Panics
/// When the promise is broken.
pub async fn of_many_at_most_one_leads(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let mut tasks = JoinSet::new();
    for seed in 0..6_u64 {
        let (line, session) = bed.process(lease).await;
        tasks.spawn(async move {
            let (mut dice, mut holds) = (Dice::new(seed), Vec::new());
            let election = election(&session, "many");
            for _ in 0..12 {
                let leader = match dice.below(4) {
                    0 => match election.campaign_until("mine", tokio::time::sleep(MS * 3)).await {
                        Err(Error::NotAcquired { .. }) => continue,
                        outcome => outcome,
                    },
                    _ => election.campaign("mine").await,
                };
                let leader = match leader {
                    Err(Error::Lost { .. }) => break,
                    outcome => outcome.must("the office"),
                };
                let granted = now();
                let mut hold = Hold {
                    lock: "many".to_owned(),
                    epoch: session.epoch().to_owned(),
                    token: leader.term().get(),
                    granted,
                    held: granted,
                };
                // One of the six is cut off while it leads.
                let cut = seed == 5 && holds.len() == 1;
                if cut {
                    line.cut(Partition::HoldRequests);
                }
                for _ in 0..if cut { 2_000 } else { dice.below(4) } {
                    let at = now();
                    if !leader.is_leader() {
                        break;
                    }
                    hold.held = at;
                    tokio::time::sleep(MS).await;
                }
                line.mend();
                holds.push(hold);
                match dice.below(3) {
                    0 => drop(leader.resign().await),
                    1 => drop(leader),
                    _ => {
                        if let Some(next) = election.candidates().await.ok().and_then(|listed| listed.into_iter().next()) {
                            drop(leader.transfer(&next.id).await);
                        }
                    }
                }
            }
            holds
        });
    }
    let history: Vec<Hold> = within(LONG * 2, "all have led", join(tasks)).await.into_iter().flatten().collect();
    assert!(history.len() > 30, "only {} terms", history.len());
    must_be_sound(&history);
    // Whoever is elected next removes what the dead have left.
    let session = bed.session(lease).await;
    let last = elected(&election(&session, "many")).await;
    until(LONG, "the dead are listed no more", || async {
        let listed = session.store().list(&KeyRange::new("candidate.many.*").must("a range")).await.ok()?;
        listed.is_empty().then_some(())
    })
    .await;
    last.resign().await.must("the resignation");
    until_nothing_is_left(session.store(), "many", "after all have gone").await;
}

/// A crashed leader is replaced within a lease and a little, and relies on nothing by then.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crashed_leader_is_replaced_in_time(bed: &Bed) {
    let leases: &[u64] = if bed.is_replicated() { &[1_000] } else { &[1_000, 300] };
    for lease in leases.iter().map(|ms| Duration::from_millis(*ms)) {
        let tries = join_all((0..4_u32).map(|n| async move {
            // One after the other: what holds up this whole program for a moment must not hold up all of them.
            tokio::time::sleep(n * lease).await;
            let (line, session) = bed.process(lease).await;
            let name = format!("crash-{n}");
            let first = elected(&election(&session, &name)).await;
            let (campaign, _) = waiting(election(&bed.session(lease).await, &name)).await;
            within(LONG, "a renewal", line.renewed()).await;
            line.cut(Partition::HoldRequests);
            let crashed = now();
            let second = next_leader(campaign).await;
            let delay = since(crashed);
            assert!(!first.is_leader(), "the crashed leader still relies on its office");
            assert!(second.term() > first.term());
            second.resign().await.must("the resignation");
            delay
        }));
        let delays = tries.await;
        let best = delays.iter().min().must("a delay");
        assert!(*best <= lease + slack(lease), "{lease:?}: the next led after {delays:?}");
    }
}

/// A leader whose clock is 1% slow does not rely on its office any more when another is elected, though their clocks
/// began a day apart.
///
/// # Panics
/// When the promise is broken.
pub async fn a_slow_clock_does_not_outlast_its_office(bed: &Bed) {
    let leases: &[u64] = if bed.is_replicated() { &[1_000] } else { &[300, 1_000] };
    join_all(leases.iter().map(|ms| async move {
        let lease = Duration::from_millis(*ms);
        let name = format!("slow-{ms}");
        let line = bed.line().await;
        let slow = Skewed::new(Duration::from_secs(86_400), 0.99);
        let builder = Session::builder(line.store.clone()).lease(lease).clock(slow);
        let first = elected(&election(&builder.open().await.must("a session"), &name)).await;
        let builder = Session::builder(bed.store().await).lease(lease).clock(Skewed::new(Duration::ZERO, 1.0));
        let other = builder.open().await.must("a session");
        let (campaign, _) = waiting(election(&other, &name)).await;
        line.cut(Partition::HoldRequests);
        let second = next_leader(campaign).await;
        assert!(!first.is_leader(), "{lease:?}: two leaders");
        second.resign().await.must("the resignation");
    }))
    .await;
}

/// A leader that was cut off writes nothing any more once another leads: neither data nor a proclamation.
///
/// # Panics
/// When the promise is broken.
pub async fn a_former_leader_writes_nothing(bed: &Bed) {
    let lease = 400 * MS;
    let (line, session) = bed.process(lease).await;
    let other = bed.session(lease).await;
    let first = elected(&election(&session, "former")).await;
    let (campaign, _) = waiting(election(&other, "former")).await;
    let key = data_key("former").must("a key");
    line.cut(Partition::HoldRequests);
    // On its way before it is over, and arriving after.
    let (committing, proclaiming) = (first.commit(Op::put(key.clone(), "stale").into()), first.proclaim("stale"));
    let second = async {
        let second = next_leader(campaign).await;
        assert!(!first.is_leader());
        line.mend();
        second
    };
    let (committed, proclaimed, second) = tokio::join!(committing, proclaiming, second);
    for refused in [committed, proclaimed] {
        assert!(matches!(refused, Err(Error::Lost { .. } | Error::Unknown { .. } | Error::Conflict { .. })), "{refused:?}");
    }
    lost(first.commit(Op::put(key.clone(), "stale").into()).await, "the former leader's write");
    lost(first.proclaim("stale").await, "the former leader's proclamation");
    second.commit(Op::put(key.clone(), "fresh").into()).await.must("the leader's write");
    assert_eq!(other.store().get(&key).await.must("a read").must("a value").0, "fresh");
    assert!(second.is_leader());
    let seen = election(&other, "former").leader().await.must("a look").must("a leader");
    assert_eq!(seen.term, second.term());
}

/// Past the deadline with no other candidate an office is not relied on, its work is dropped, and it is kept when
/// the store is back.
///
/// # Panics
/// When the promise is broken.
pub async fn an_outage_alone_deposes_nobody(bed: &Bed) {
    let (line, session) = bed.process(Duration::from_secs(1)).await;
    let leader = elected(&election(&session, "outage")).await;
    line.cut(Partition::Refuse);
    lost(within(LONG, "the work is dropped", leader.run(std::future::pending::<()>())).await, "work past the deadline");
    assert!(!leader.is_leader() && leader.lost().now_or_never().is_none());
    line.mend();
    until(LONG, "the office is kept", || async { leader.is_leader().then_some(()) }).await;
    leader.commit(Op::put(data_key("outage").must("a key"), "x").into()).await.must("a write");
    leader.proclaim("on").await.must("a proclamation");
    leader.resign().await.must("the resignation");
}

/// What an onlooker has been told so far is told again only if it changed.
struct Onlooker(futures::stream::BoxStream<'static, tenure::Result<Option<Leader>>>);

impl Onlooker {
    /// The states told until `wanted` is; none of them may be of a term below an earlier one.
    async fn until(&mut self, what: &str, wanted: impl Fn(Option<&Leader>) -> bool) {
        let mut term = None;
        within(LONG, what, async {
            loop {
                let state = self.0.next().await.must("the stream goes on").must("a state");
                if let Some(leader) = &state {
                    assert!(Some(leader.revision) > term, "{what}: {leader:?} after {term:?}");
                    term = Some(leader.revision);
                }
                if wanted(state.as_ref()) {
                    return;
                }
            }
        })
        .await;
    }
}

/// Onlookers are told every last state: leaders, values, and that nobody leads after a resignation, after a crash
/// that nobody is there to follow, and after a session's end.
///
/// # Panics
/// When the promise is broken.
pub async fn onlookers_are_told_every_last_state(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let (line, session) = bed.process(lease).await;
    let (other, watcher) = (bed.session(lease).await, bed.session(lease).await);
    let mut onlooker = Onlooker(election(&watcher, "seen").observe());
    onlooker.until("nobody", |leader| leader.is_none()).await;
    let first = elected(&election(&session, "seen")).await;
    onlooker.until("the first", |leader| leader.is_some_and(|leader| leader.term == first.term())).await;
    let revision = first.proclaim("b").await.must("the proclamation");
    onlooker.until("its value", |leader| leader.is_some_and(|leader| leader.revision == revision)).await;
    first.resign().await.must("the resignation");
    onlooker.until("nobody after the resignation", |leader| leader.is_none()).await;
    let crashing = elected(&election(&session, "seen")).await;
    onlooker.until("the first again", |leader| leader.is_some_and(|leader| leader.term == crashing.term())).await;
    line.cut(Partition::HoldRequests);
    onlooker.until("nobody after the crash", |leader| leader.is_none()).await;
    assert!(!crashing.is_leader(), "told that nobody leads while the leader relied on its office");
    let second = elected(&election(&other, "seen")).await;
    onlooker.until("the second", |leader| leader.is_some_and(|leader| leader.term == second.term())).await;
    other.close().await.must("the close");
    onlooker.until("nobody after the session's end", |leader| leader.is_none()).await;
}

/// An onlooker hears no heartbeats: while nothing changes it is told nothing, and asks twice in a lease at most.
///
/// # Panics
/// When the promise is broken.
pub async fn looking_on_costs_little(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let leader = elected(&election(&bed.session(lease).await, "quiet")).await;
    let (line, watcher) = bed.process(lease).await;
    let mut onlooker = election(&watcher, "quiet").observe();
    within(LONG, "the first state", onlooker.next()).await.must("a state").must("a state").must("a leader");
    line.take_asked();
    let told = tokio::time::timeout(lease * 3, onlooker.next()).await;
    assert!(told.is_err(), "told {told:?} though nothing changed");
    let asked = line.take_asked();
    assert!(asked.besides_beats <= 8, "{asked:?} in three leases");
    assert!(leader.is_leader());
}

/// A higher priority asks, not before the minimum tenure is over; the leader answers in its own time, and hands
/// over to whom it names.
///
/// # Panics
/// When the promise is broken.
pub async fn a_higher_priority_asks_in_due_time(bed: &Bed) {
    let sessions = bed.sessions(3, Duration::from_secs(3)).await;
    let tenure = 500 * MS;
    let begun = now();
    let first = elected(&election(&sessions[0], "rank").min_tenure(tenure)).await;
    let (equal, _) = waiting(election(&sessions[1], "rank")).await;
    let (passing, _) = waiting(election(&sessions[2], "rank").priority(3)).await;
    let asked = within(LONG, "the challenge", first.asked_to_step_down()).await;
    assert!(since(begun) >= tenure, "asked {:?} after the election began", since(begun));
    assert_eq!((asked.priority, first.is_leader()), (3, true));
    passing.abort();
    until(LONG, "a challenge ends with its candidate", || async {
        first.asked_to_step_down().now_or_never().is_none().then_some(())
    })
    .await;
    let (higher, named) = waiting(election(&sessions[2], "rank").priority(4)).await;
    let asked = within(LONG, "the next challenge", first.asked_to_step_down()).await;
    assert_eq!(asked.id, named.id);
    let term = first.transfer(&asked.id).await.must("the transfer");
    assert!(!first.is_leader());
    let second = next_leader(higher).await;
    assert_eq!((second.term(), second.candidate()), (term, named.id.as_str()));
    drop(first);
    second.commit(Op::put(data_key("rank").must("a key"), "x").into()).await.must("the successor writes");
    assert!(!equal.is_finished());
    second.resign().await.must("the resignation");
    next_leader(equal).await.resign().await.must("the resignation");
    until_nothing_is_left(sessions[0].store(), "rank", "in the end").await;
}

/// A transfer to a candidate that turns away at the same moment leaves the leader, or nobody.
///
/// # Panics
/// When the promise is broken.
pub async fn a_transfer_never_elects_who_has_gone(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    let (mut handed, mut kept) = (0, 0);
    for round in 0..30_u32 {
        let first = elected(&election(&sessions[0], "gone")).await;
        let (campaign, named) = waiting(election(&sessions[1], "gone")).await;
        let (outcome, ()) = tokio::join!(first.transfer(&named.id), async {
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 60)).await;
            campaign.abort();
        });
        match outcome {
            Ok(_) => {
                handed += 1;
                assert!(!first.is_leader());
                drop(first);
            }
            Err(Error::Conflict { .. }) => {
                kept += 1;
                assert!(first.is_leader());
                first.resign().await.must("the resignation");
            }
            Err(other) => panic!("the transfer: {other:?}"),
        }
        // One that was elected just before it was dropped gives up its office as any other.
        drop(campaign.await);
        until_nothing_is_left(sessions[0].store(), "gone", &format!("in round {round}")).await;
    }
    assert_eq!(handed + kept, 30);
}

/// Who says that it is unhealthy neither leads nor campaigns, and its session goes on.
///
/// # Panics
/// When the promise is broken.
pub async fn the_unhealthy_do_not_lead(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    let (health, healthy) = watch::channel(true);
    let gated = election(&sessions[0], "health").health(healthy);
    let first = elected(&gated).await;
    let (campaign, _) = waiting(election(&sessions[1], "health")).await;
    let begun = now();
    health.send_replace(false);
    assert!(!first.is_leader());
    let second = next_leader(campaign).await;
    assert!(since(begun) < Duration::from_secs(2) && sessions[0].is_held());
    assert_eq!(first.lost().now_or_never(), Some(Loss::Unhealthy));
    let unfit = gated.campaign_until("mine", tokio::time::sleep(20 * MS)).await;
    assert!(matches!(unfit, Err(Error::NotAcquired { .. })), "{unfit:?}");
    health.send_replace(true);
    let (again, _) = waiting(gated.clone()).await;
    // One that turns unhealthy while it waits is not elected.
    health.send_replace(false);
    until(LONG, "it is listed no more", || async { gated.candidates().await.ok()?.is_empty().then_some(()) }).await;
    second.resign().await.must("the resignation");
    assert!(election(&sessions[1], "health").try_campaign("mine").await.is_ok(), "the unhealthy one stands in the way");
    health.send_replace(true);
    next_leader(again).await.resign().await.must("the resignation");
}
