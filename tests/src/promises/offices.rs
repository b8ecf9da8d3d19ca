//! Offices whose answers are lost, whose writes land late, and whose futures are dropped at every wait: never a leader
//! whom nobody runs, and no outcome told that is not known.

use std::{cell::RefCell, time::Duration};

use tenure::{Error, Leadership, data_key};
use tenure_kv::Op;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    electing::{elected, election, until_nothing_is_left, waiting},
    line::{Fate, Write},
    support::{Cut, LONG, Must, after_polls, at_every_wait, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);
const NONE: Fate = Fate::Unanswered(Duration::ZERO);
/// More polls than any of these futures needs.
const MOST: usize = 300;

/// A campaign whose writes go unanswered, vanish or land late wins all the same, once, and one that was given up
/// leaves nothing.
///
/// # Panics
/// When the promise is broken.
pub async fn a_campaign_without_answer_is_settled(bed: &Bed) {
    for (n, fate) in [NONE, Fate::Vanishes, Fate::Refused, Fate::Late].into_iter().enumerate() {
        for (times, stays) in [(1, true), (2, true), (1, false), (3, false)] {
            let (line, session) = bed.process(LEASE).await;
            let name = format!("win-{n}-{times}-{stays}");
            let here = election(&session, &name);
            line.fate(Write::Elect, times, fate);
            let when = format!("{fate:?} × {times}");
            if stays {
                let leader = elected(&here).await;
                line.land().await;
                let seen = here.leader().await.must("a look").must("a leader");
                assert_eq!((seen.term, seen.candidate.as_str()), (leader.term(), leader.candidate()), "{when}");
                leader.commit(Op::put(data_key("win").must("a key"), "x").into()).await.must("a write");
                leader.resign().await.must("the resignation");
            } else {
                let tried = line.count(Write::Elect);
                let stop = async { tried.reached(1).await };
                drop(here.campaign_until("mine", stop).await);
                line.land().await;
            }
            until_nothing_is_left(session.store(), &name, &format!("after {when}")).await;
        }
    }
}

/// A candidate whose listing goes unanswered or lands late is listed or not, and nobody is listed who has gone.
///
/// # Panics
/// When the promise is broken.
pub async fn a_candidature_without_answer_is_settled(bed: &Bed) {
    let first = bed.session(LEASE).await;
    for (n, fate) in [NONE, Fate::Vanishes, Fate::Refused, Fate::Late].into_iter().enumerate() {
        let name = format!("list-{n}");
        let leader = elected(&election(&first, &name)).await;
        let (line, session) = bed.process(LEASE).await;
        line.fate(Write::List, 1, fate);
        let (campaign, named) = waiting(election(&session, &name)).await;
        line.fate(Write::Unlist, 2, fate);
        if n % 2 == 0 {
            campaign.abort();
            drop(campaign.await);
            line.land().await;
            leader.resign().await.must("the resignation");
        } else {
            leader.transfer(&named.id).await.must("the transfer");
            let next = within(LONG, "the next leads", campaign).await.must("the task").must("the office");
            next.resign().await.must("the resignation");
            line.land().await;
        }
        until_nothing_is_left(first.store(), &name, &format!("after {fate:?}")).await;
    }
}

/// What is proclaimed, resigned or handed over without an answer is found out before it is told.
///
/// # Panics
/// When the promise is broken.
pub async fn an_office_without_answers_tells_what_is_so(bed: &Bed) {
    let other = bed.session(LEASE).await;
    for (n, fate) in [NONE, Fate::Vanishes, Fate::Refused, Fate::Late].into_iter().enumerate() {
        let (line, session) = bed.process(LEASE).await;
        let name = format!("office-{n}");
        let (here, there) = (election(&session, &name), election(&other, &name));
        let leader = elected(&here).await;
        for times in [1, 2] {
            line.fate(Write::Elect, times, fate);
            let value = format!("{n}-{times}");
            let revision = leader.proclaim(value.clone()).await.must("the proclamation");
            line.land().await;
            let seen = here.leader().await.must("a look").must("a leader");
            assert_eq!((seen.revision, seen.term, seen.value.as_ref()), (revision, leader.term(), value.as_bytes()), "{fate:?}");
            leader.commit(Op::put(data_key("office").must("a key"), value).into()).await.must("a write");
        }
        let (campaign, named) = waiting(there.clone()).await;
        line.fate(Write::Transfer, 2, fate);
        let term = leader.transfer(&named.id).await.must(format!("{fate:?}: the transfer"));
        assert!(!leader.is_leader());
        let next = within(LONG, "the next leads", campaign).await.must("the task").must("the office");
        assert_eq!(next.term(), term);
        drop(leader);
        line.land().await;
        assert!(next.is_leader());
        next.commit(Op::put(data_key("office").must("a key"), "next").into()).await.must("the next writes");
        next.resign().await.must("the resignation");
        let leader = elected(&here).await;
        line.fate(Write::Resign, 2, fate);
        leader.resign().await.must(format!("{fate:?}: the resignation"));
        let next = within(Duration::from_secs(2), "the office is free", there.campaign("mine")).await.must("the office");
        line.land().await;
        assert_eq!(there.leader().await.must("a look").must("a leader").term, next.term());
        next.resign().await.must("the resignation");
        until_nothing_is_left(other.store(), &name, &format!("after {fate:?}")).await;
    }
}

/// Campaigns dropped at every wait, while the office is free and while somebody else has it, leave nothing.
///
/// # Panics
/// When the promise is broken.
pub async fn campaigning_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let other = bed.session(LEASE).await;
    let (here, there) = (election(&fickle, "cut"), election(&other, "cut"));
    let nothing_is_left = async |when: &str| {
        let next = within(Duration::from_secs(2), format!("the office is free {when}"), there.campaign("next")).await.must(when);
        next.resign().await.must("the resignation");
        until_nothing_is_left(other.store(), "cut", when).await;
    };
    at_every_wait(
        "campaign()",
        async || (),
        async |()| here.campaign("mine").await,
        async |(), when| nothing_is_left(when).await,
    )
    .await;
    let tried = async |(): &()| here.try_campaign("mine").await;
    at_every_wait("try_campaign()", async || (), tried, async |(), when| nothing_is_left(when).await).await;
    let looks = line.looks();
    for polls in 0..MOST {
        let leader = elected(&there).await;
        let before = looks.hits();
        let campaign = AbortOnDropHandle::new(tokio::spawn({
            let here = here.clone();
            async move { after_polls(polls, Cut::Waiting, here.campaign("mine")).await }
        }));
        // The resignation comes when the candidate is settled, so that it is woken by it at later polls.
        until(LONG, "the candidate is settled or gone", || async {
            let settled = looks.hits() > before && line.is_answered();
            (settled || campaign.is_finished()).then_some(())
        })
        .await;
        leader.resign().await.must("the resignation");
        let outcome = within(LONG, "the candidate is elected or gone", campaign).await.must("the task");
        let done = outcome.map(|outcome| drop(outcome.must("campaign()"))).is_some();
        nothing_is_left(&format!("after a wait was dropped, {polls} polls")).await;
        if done {
            return;
        }
    }
    panic!("the wait does not end");
}

/// Proclaiming, writing, handing over and resigning, dropped at every wait: the office is kept or given up whole.
///
/// # Panics
/// When the promise is broken.
pub async fn an_office_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let other = bed.session(LEASE).await;
    let (here, there) = (election(&fickle, "hold"), election(&other, "hold"));
    let leads = async || elected(&here).await;
    let still_leads = async |leader: Leadership, when: &str| {
        assert!(leader.is_leader(), "{when}, it leads as before");
        leader.commit(Op::put(data_key("hold").must("a key"), "x").into()).await.must(when);
        leader.resign().await.must(when);
    };
    at_every_wait("proclaim()", leads, async |leader: &Leadership| leader.proclaim("other").await, still_leads).await;
    let resign = async |leader: &RefCell<Option<Leadership>>| leader.take().must("the leader").resign().await;
    at_every_wait(
        "resign()",
        async || RefCell::new(Some(leads().await)),
        resign,
        async |leader, when| {
            drop(leader);
            until_nothing_is_left(other.store(), "hold", when).await;
        },
    )
    .await;
    let with_candidate = async || {
        let leader = leads().await;
        let (campaign, named) = waiting(there.clone()).await;
        (leader, campaign, named)
    };
    at_every_wait(
        "transfer()",
        with_candidate,
        async |(leader, _, named)| leader.transfer(&named.id).await,
        async |(leader, campaign, _), when| {
            drop(leader);
            let next = within(Duration::from_secs(5), format!("the candidate leads {when}"), campaign).await;
            next.must("the task").must("the office").resign().await.must("the resignation");
            until_nothing_is_left(other.store(), "hold", when).await;
        },
    )
    .await;
}

/// A resignation that the store does not answer is never `Ok`.
///
/// # Panics
/// When the promise is broken.
pub async fn a_resignation_without_answer_is_not_ok(bed: &Bed) {
    let lease = Duration::from_millis(600);
    let (line, session) = bed.process(lease).await;
    let leader = elected(&election(&session, "mute")).await;
    line.cut(tenure_kv::faults::Partition::HoldRequests);
    match within(LONG, "the resignation ends", leader.resign()).await {
        Err(Error::Unknown { .. } | Error::Unavailable { .. } | Error::Lost { .. }) => {}
        other => panic!("a resignation that nobody heard gave {other:?}"),
    }
    line.mend();
    until_nothing_is_left(session.store(), "mute", "once the store is back").await;
}
