//! Elections over replicas that lag: reads that show the past elect nobody, tell nothing that is over, and leave no
//! leader whom nobody runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure::{Candidate, Election, Error, Session};
use tenure_kv::{
    Key, Memory, Store,
    faults::{Fault, Faults, Faulty, Operation, Rule, Snapshot},
};

const LONG: Duration = Duration::from_secs(10);

async fn process(store: &Arc<dyn Store>, lease: Duration) -> (Session, Faults) {
    let (faulty, faults) = Faulty::new(store.clone());
    let faulty: Arc<dyn Store> = faulty;
    (Session::builder(faulty).lease(lease).open().await.unwrap(), faults)
}

fn lag(faults: &Faults, past: &Snapshot) -> Vec<tenure_kv::faults::Active> {
    ["election.", "candidate."].map(|keys| faults.add(Rule::new(Fault::Stale(past.clone())).under(keys))).into()
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

async fn listed(election: &Election) -> Candidate {
    until("the candidate is listed", || async { election.candidates().await.unwrap().pop() }).await
}

async fn until_free(store: &Arc<dyn Store>) {
    let key = Key::new("election.x").unwrap();
    until("the office is free", || async { store.entry(&key).await.unwrap().is_none_or(|e| !e.is_live()).then_some(()) }).await;
}

/// A store, a leader, and one who waits for its office behind a line that can be meddled with.
struct Stage {
    store: Arc<dyn Store>,
    leader: tenure::Leadership,
    line: Faults,
    named: Candidate,
    campaign: tokio::task::JoinHandle<tenure::Result<tenure::Leadership>>,
    _sessions: [Session; 2],
}

async fn stage() -> Stage {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let lease = Duration::from_secs(30);
    let ((one, _), (two, line)) = (process(&store, lease).await, process(&store, lease).await);
    let leader = one.election("x").unwrap().campaign("a").await.unwrap();
    let campaign = tokio::spawn({
        let election = two.election("x").unwrap();
        async move { election.campaign("b").await }
    });
    let named = listed(&one.election("x").unwrap()).await;
    Stage { store, leader, line, named, campaign, _sessions: [one, two] }
}

#[tokio::test]
async fn who_withdraws_from_an_office_that_it_cannot_see_yet_gives_it_up() {
    let stage = stage().await;
    // Neither reads nor notices show the candidate that it has been handed the office.
    let past = stage.line.snapshot().await.unwrap();
    let lagging = lag(&stage.line, &past);
    stage.line.pause("election.");
    stage.leader.transfer(&stage.named.id).await.unwrap();
    let reads = stage.line.add(Rule::new(Fault::Count).on(Operation::Entry).under("candidate."));
    stage.campaign.abort();
    assert!(stage.campaign.await.is_err());
    within("the withdrawal looks at what became of the candidature", reads.reached(2)).await;
    let named = stage.store.entry(&Key::new("election.x").unwrap()).await.unwrap().unwrap();
    assert!(named.is_live(), "a withdrawal was believed to be done by a read that lags");
    lagging.iter().for_each(tenure_kv::faults::Active::clear);
    until_free(&stage.store).await;
}

#[tokio::test]
async fn who_withdrew_before_the_transfer_is_never_elected() {
    let stage = stage().await;
    stage.campaign.abort();
    assert!(stage.campaign.await.is_err());
    let gone = Key::new(format!("candidate.x.{}", stage.named.id)).unwrap();
    until("the candidate is gone", || async {
        stage.store.entry(&gone).await.unwrap().is_none_or(|entry| !entry.is_live()).then_some(())
    })
    .await;
    assert!(matches!(stage.leader.transfer(&stage.named.id).await, Err(Error::Conflict { .. })));
    assert!(stage.leader.is_leader());
}

#[tokio::test]
async fn a_transfer_that_sees_a_candidate_which_has_gone_is_refused_by_the_store() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let lease = Duration::from_secs(30);
    let ((one, line), (two, _)) = (process(&store, lease).await, process(&store, lease).await);
    let here = one.election("x").unwrap();
    let leader = here.campaign("a").await.unwrap();
    let campaign = tokio::spawn({
        let election = two.election("x").unwrap();
        async move { election.campaign("b").await }
    });
    let named = listed(&here).await;
    let lagging = lag(&line, &line.snapshot().await.unwrap());
    campaign.abort();
    assert!(campaign.await.is_err());
    let there = two.election("x").unwrap();
    until("the candidate is gone", || async { there.candidates().await.unwrap().is_empty().then_some(()) }).await;
    let outcome = within("the transfer", leader.transfer(&named.id)).await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
    assert!(leader.is_leader(), "the leader stays");
    lagging.iter().for_each(tenure_kv::faults::Active::clear);
    assert_eq!(there.leader().await.unwrap().unwrap().term, leader.term());
}

#[tokio::test]
async fn an_observer_that_reads_the_past_does_not_tell_it() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let lease = Duration::from_millis(300);
    let ((one, _), (watcher, line)) = (process(&store, lease).await, process(&store, lease).await);
    let election = one.election("x").unwrap();
    let leader = election.campaign("a").await.unwrap();
    let mut states = watcher.election("x").unwrap().observe();
    let first = within("the leader", states.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.value, "a");
    let past = line.snapshot().await.unwrap();
    leader.resign().await.unwrap();
    assert_eq!(within("nobody", states.next()).await.unwrap().unwrap(), None);
    lag(&line, &past);
    let told = tokio::time::timeout(lease * 3, states.next()).await;
    assert!(told.is_err(), "told {told:?} from the past");
    let again = election.campaign("b").await.unwrap();
    let seen = within("the next leader", states.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((seen.value.as_ref(), seen.term), (&b"b"[..], again.term()));
}

#[tokio::test]
async fn who_goes_on_from_the_look_of_a_lost_session_is_told_nothing_older() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let (leader, _) = process(&store, Duration::from_secs(30)).await;
    let (faulty, line) = Faulty::new(store.clone());
    let faulty: Arc<dyn Store> = faulty;
    let open = async || Session::builder(faulty.clone()).lease(Duration::from_millis(300)).open().await.unwrap();
    let election = leader.election("x").unwrap();
    let first = election.campaign("a").await.unwrap();
    let past = line.snapshot().await.unwrap();
    first.resign().await.unwrap();
    let second = election.campaign("b").await.unwrap();
    let before = open().await;
    let mut looks = before.election("x").unwrap().looks();
    let last = within("a look", looks.next()).await.unwrap().unwrap();
    assert_eq!(last.leader.as_ref().map(|leader| leader.term), Some(second.term()));
    before.close().await.unwrap();
    lag(&line, &past);
    let after = open().await;
    let mut looks = after.election("x").unwrap().looks_since(&last);
    for _ in 0..3 {
        let look = within("the next look", looks.next()).await.unwrap().unwrap();
        assert_eq!(look.leader.map(|leader| leader.term), Some(second.term()), "told from the past");
    }
}

#[tokio::test]
async fn who_campaigns_by_reads_from_the_past_is_elected_in_its_turn() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let lease = Duration::from_secs(30);
    let ((one, _), (two, line)) = (process(&store, lease).await, process(&store, lease).await);
    let nobody = line.snapshot().await.unwrap();
    let leader = one.election("x").unwrap().campaign("a").await.unwrap();
    // All that the other reads says that nobody leads.
    let lagging = lag(&line, &nobody);
    let refused = line.add(Rule::new(Fault::Count).on(Operation::Commit).under("election."));
    let campaign = tokio::spawn({
        let election = two.election("x").unwrap();
        async move { election.campaign("b").await }
    });
    within("it tries", refused.reached(2)).await;
    assert!(leader.is_leader() && !campaign.is_finished());
    lagging.iter().for_each(tenure_kv::faults::Active::clear);
    listed(&one.election("x").unwrap()).await;
    let term = leader.term();
    leader.resign().await.unwrap();
    assert!(within("its turn", campaign).await.unwrap().unwrap().term() > term);
}
