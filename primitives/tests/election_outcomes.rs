//! Elections whose answers are lost, while others are quick: what is told is so, and nobody is named whom nobody runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tenure::{Candidate, Election, Error, Leadership, Session};
use tenure_kv::{
    Change, Key, KeyRange, Memory, Op, Store, StoreExt,
    faults::{Fault, Faults, Faulty, Operation, Request, Rule},
};
use tokio::task::JoinHandle;

const LEASE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(10);

async fn process(store: &Arc<dyn Store>, lease: Duration) -> (Session, Faults) {
    let (faulty, faults) = Faulty::new(store.clone());
    let faulty: Arc<dyn Store> = faulty;
    (Session::builder(faulty).lease(lease).open().await.unwrap(), faults)
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

fn x(session: &Session) -> Election {
    session.election("x").unwrap()
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

type Campaign = JoinHandle<tenure::Result<Leadership>>;

/// A campaign in a task of its own, which is listed when this returns.
async fn waiting(election: Election, value: &'static str) -> (Campaign, Candidate) {
    let campaign = tokio::spawn({
        let election = election.clone();
        async move { election.campaign(value).await }
    });
    let listed = || async { election.candidates().await.unwrap().into_iter().find(|candidate| candidate.value == value) };
    let named = until("the candidate is listed", listed).await;
    (campaign, named)
}

async fn elected(campaign: Campaign) -> Leadership {
    within("the next leads", campaign).await.unwrap().unwrap()
}

async fn until_nothing_is_left(store: &Arc<dyn Store>) {
    until("the office is free and no candidate is listed", || async {
        let left = store.list(&KeyRange::new("candidate.>").unwrap()).await.unwrap();
        let led = store.entry(&Key::new("election.x").unwrap()).await.unwrap();
        (left.is_empty() && led.is_none_or(|entry| !entry.is_live())).then_some(())
    })
    .await;
}

/// Writes that end the key of the election.
fn resigns(request: &Request<'_>) -> bool {
    matches!(request, Request::Commit(batch) if batch.ops[0].key.as_str() == "election.x" && !matches!(batch.ops[0].change, Change::Put(..)))
}

/// Writes that hand the office over.
fn transfers(request: &Request<'_>) -> bool {
    matches!(request, Request::Commit(batch) if batch.ops.len() == 2)
}

#[tokio::test]
async fn a_resignation_whose_answer_is_lost_is_ok_when_somebody_was_elected_by_it() {
    let store = memory();
    let ((one, line), (two, _)) = (process(&store, LEASE).await, process(&store, LEASE).await);
    let first = x(&one).campaign("a").await.unwrap();
    let (campaign, _) = waiting(x(&two), "b").await;
    line.add(Rule::new(Fault::FailAfter).when(resigns).once());
    let (resigned, second) = tokio::join!(first.resign(), elected(campaign));
    assert!(resigned.is_ok(), "it was free, as the successor shows: {resigned:?}");
    second.resign().await.unwrap();
    until_nothing_is_left(&store).await;
}

#[tokio::test]
async fn a_transfer_whose_answer_is_lost_gives_the_term_and_not_a_later_revision() {
    let store = memory();
    let ((one, line), (two, _)) = (process(&store, LEASE).await, process(&store, LEASE).await);
    let first = x(&one).campaign("a").await.unwrap();
    let (campaign, named) = waiting(x(&two), "b").await;
    line.add(Rule::new(Fault::FailAfter).when(transfers).once());
    let (term, second) = tokio::join!(first.transfer(&named.id), async {
        let second = elected(campaign).await;
        second.proclaim("c").await.unwrap();
        second
    });
    assert_eq!(term.unwrap(), second.term());
    second.resign().await.unwrap();
    until_nothing_is_left(&store).await;
}

#[tokio::test]
async fn a_transfer_whose_answer_is_lost_is_ok_though_the_successor_has_a_successor() {
    let store = memory();
    let ((one, line), (two, _), (three, _)) =
        (process(&store, LEASE).await, process(&store, LEASE).await, process(&store, LEASE).await);
    let first = x(&one).campaign("a").await.unwrap();
    let (second, named) = waiting(x(&two), "b").await;
    let (third, _) = waiting(x(&three), "c").await;
    line.add(Rule::new(Fault::FailAfter).when(transfers).once());
    let (outcome, (term, third)) = tokio::join!(first.transfer(&named.id), async {
        let second = elected(second).await;
        let term = second.term();
        second.resign().await.unwrap();
        (term, elected(third).await)
    });
    assert_eq!(outcome.unwrap(), term, "it was handed over");
    assert!(third.is_leader() && !first.is_leader());
}

#[tokio::test]
async fn a_transfer_after_one_of_unknown_outcome_finds_out_about_that_first() {
    let store = memory();
    let lease = Duration::from_secs(1);
    let ((one, line), (two, _)) = (process(&store, lease).await, process(&store, LEASE).await);
    let first = x(&one).campaign("a").await.unwrap();
    let (campaign, named) = waiting(x(&two), "b").await;
    // The first try lands and no other is answered, as long as the lease lasts.
    line.add(Rule::new(Fault::FailAfter).when(transfers).once());
    line.add(Rule::new(Fault::Lose).when(transfers).skip(1));
    let renewing = line.add(Rule::new(Fault::FailBefore).on(Operation::Commit).under("session."));
    let unknown = async {
        let outcome = first.transfer(&named.id).await;
        renewing.clear();
        outcome
    };
    let (outcome, next) = within("the transfers end", async { tokio::join!(biased; unknown, first.transfer(&named.id)) }).await;
    assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
    assert!(matches!(next, Err(Error::Lost { .. })), "the leader does not stay: {next:?}");
    elected(campaign).await.resign().await.unwrap();
    until_nothing_is_left(&store).await;
}

#[tokio::test]
async fn who_hands_over_cannot_be_handed_the_office_any_more() {
    let store = memory();
    let ((one, line), (two, _), (zero, _)) =
        (process(&store, LEASE).await, process(&store, LEASE).await, process(&store, LEASE).await);
    let before = x(&zero).campaign("z").await.unwrap();
    let (first, once_listed) = waiting(x(&one), "a").await;
    // The winner stays listed for now.
    let listed = line.add(Rule::new(Fault::FailBefore).on(Operation::Commit).when(|request| {
        matches!(request, Request::Commit(batch) if batch.ops.len() == 1 && batch.ops[0].key.as_str().starts_with("candidate."))
    }));
    before.resign().await.unwrap();
    let first = elected(first).await;
    let (campaign, named) = waiting(x(&two), "b").await;
    let handing_over = tokio::spawn(async move { first.transfer(&named.id).await });
    let back = async {
        let second = elected(campaign).await;
        let outcome = second.transfer(&once_listed.id).await;
        drop(second);
        outcome
    };
    let back = tokio::time::timeout(Duration::from_secs(1), back).await;
    listed.clear();
    let _ = within("the transfer ends", handing_over).await.unwrap();
    drop(back);
    until_nothing_is_left(&store).await;
}

#[tokio::test]
async fn an_onlooker_whose_replicas_know_nothing_is_not_told_what_was_before() {
    let store = memory();
    let lease = Duration::from_millis(300);
    let ((one, _), (watcher, line)) = (process(&store, lease).await, process(&store, lease).await);
    let nothing = line.snapshot().await.unwrap();
    let leader = x(&one).campaign("a").await.unwrap();
    let past = line.snapshot().await.unwrap();
    let mut states = x(&watcher).observe();
    assert!(within("the leader", states.next()).await.unwrap().unwrap().is_some());
    leader.resign().await.unwrap();
    assert_eq!(within("nobody", states.next()).await.unwrap().unwrap(), None);
    // One replica has not even heard of the election, the next has not heard of its end.
    let reads = line.add(Rule::new(Fault::Stale(nothing)).under("election.").times(1));
    line.add(Rule::new(Fault::Stale(past)).under("election."));
    let told = tokio::time::timeout(lease * 3, states.next()).await;
    assert_eq!(reads.hits(), 1);
    assert!(told.is_err(), "told {told:?} from the past");
}

#[tokio::test]
async fn a_leader_that_stays_removes_the_candidates_that_die() {
    let store = memory();
    let lease = Duration::from_millis(150);
    let (one, _) = process(&store, lease).await;
    let leader = x(&one).campaign("a").await.unwrap();
    let (two, line) = process(&store, lease).await;
    let (campaign, _) = waiting(x(&two), "b").await;
    line.partition(tenure_kv::faults::Partition::HoldRequests);
    let range = KeyRange::new("candidate.>").unwrap();
    until("the dead candidate is listed no more", || async { store.list(&range).await.unwrap().is_empty().then_some(()) }).await;
    assert!(leader.is_leader());
    campaign.abort();
}

#[tokio::test]
async fn a_challenge_that_is_lost_is_made_again_though_the_leader_proclaims_all_the_time() {
    let store = memory();
    let lease = Duration::from_millis(300);
    let ((one, _), (two, line)) = (process(&store, lease).await, process(&store, lease).await);
    let leader = x(&one).campaign("0").await.unwrap();
    line.add(Rule::new(Fault::Lose).on(Operation::Commit).under("challenge.").once());
    let (campaign, named) = waiting(x(&two).priority(1), "b").await;
    let asked = leader.asked_to_step_down();
    tokio::pin!(asked);
    let proclaiming = async {
        for n in 1_u32.. {
            leader.proclaim(n.to_string()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = within("the challenge", async {
        tokio::select! {
            candidate = &mut asked => candidate,
            () = proclaiming => unreachable!("it goes on"),
        }
    })
    .await;
    assert_eq!(asked.id, named.id);
    campaign.abort();
}

#[tokio::test]
async fn a_foreign_record_that_names_no_session_stands_in_nobody_s_way() {
    let store = memory();
    let (one, _) = process(&store, LEASE).await;
    for session in ["", "a b", "*", "a..b"] {
        let foreign = format!(r#"{{"session":"{session}","candidate":"c","host":"h","pid":1}}"#);
        store.commit(Op::put(Key::new("election.x").unwrap(), foreign).into()).await.unwrap();
        assert_eq!(x(&one).leader().await.unwrap(), None);
        assert_eq!(within("a state", x(&one).observe().next()).await.unwrap().unwrap(), None);
        within("the office", x(&one).campaign("a")).await.unwrap().resign().await.unwrap();
    }
}

#[tokio::test]
async fn a_try_without_answers_ends_with_its_session() {
    let store = memory();
    let (one, line) = process(&store, LEASE).await;
    line.add(Rule::new(Fault::Lose).on(Operation::Commit).under("election."));
    let tried = tokio::spawn({
        let election = x(&one);
        async move { election.try_campaign("a").await }
    });
    line.add(Rule::new(Fault::Count).on(Operation::Commit).under("election.")).reached(2).await;
    one.close().await.unwrap();
    let tried = within("the try ends", tried).await.unwrap();
    assert!(matches!(tried, Err(Error::Lost { .. })), "{tried:?}");
}

#[tokio::test]
async fn a_fence_that_an_unanswered_proclamation_has_moved_is_no_conflict() {
    let store = memory();
    let (one, line) = process(&store, Duration::from_secs(2)).await;
    let leader = x(&one).campaign("a").await.unwrap();
    let (key, there) = (tenure::data_key("x").unwrap(), tenure::data_key("there").unwrap());
    store.put(&there, "1").await.unwrap();
    let write = |key: &Key| Op::put(key.clone(), "x").if_absent();
    let held = line.add(Rule::new(Fault::HoldBefore).on(Operation::Commit).under("data."));
    let proclaiming = async {
        held.reached(2).await;
        // It lands, and nothing more is heard of the office as long as the lease lasts.
        line.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("election.x").once());
        let lost = line.add(Rule::new(Fault::Lose).on(Operation::Commit).under("election.x").skip(1));
        let silent = line.add(Rule::new(Fault::FailBefore).on(Operation::Commit).under("session."));
        let outcome = leader.proclaim("b").await;
        held.clear();
        (outcome, lost, silent)
    };
    let both = async { tokio::join!(leader.commit(write(&key).into()), leader.commit(write(&there).into()), proclaiming) };
    let (moved, taken, (unknown, lost, silent)) = within("the writes", both).await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
    assert!(matches!(moved, Err(Error::Unavailable { .. })), "all that it expected was so: {moved:?}");
    assert!(matches!(&taken, Err(Error::Conflict { key: Some(named), .. }) if *named == there), "{taken:?}");
    assert_eq!(store.get(&key).await.unwrap(), None);
    lost.clear();
    silent.clear();
    until("the next renewal", || async { leader.is_leader().then_some(()) }).await;
    within("the write", leader.commit(write(&key).into())).await.unwrap();
}

/// A store that can become another one, as a bucket does that is deleted and made anew.
#[derive(Debug)]
struct Anew(Arc<dyn Store>, std::sync::Mutex<Arc<dyn Store>>);

impl Anew {
    fn now(&self) -> Arc<dyn Store> {
        self.1.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Store for Anew {
    fn info(&self) -> &tenure_kv::Info {
        self.0.info()
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.now().bucket(name).await
    }

    async fn entry(&self, key: &Key) -> tenure_kv::Result<Option<tenure_kv::Entry>> {
        self.now().entry(key).await
    }

    async fn commit(&self, batch: tenure_kv::Batch) -> tenure_kv::Result<tenure_kv::Revision> {
        self.now().commit(batch).await
    }

    async fn watch(
        &self,
        range: KeyRange,
        since: tenure_kv::Since,
    ) -> tenure_kv::Result<futures::stream::BoxStream<'static, tenure_kv::Result<tenure_kv::Event>>> {
        self.now().watch(range, since).await
    }
}

/// A former leader in a process that stood still, which has a lease of `LEASE` behind it, a bucket made anew since, and
/// the leader that was elected there, at the very revision at which the former was.
async fn after_a_bucket_was_made_anew() -> (Arc<dyn Store>, Session, Leadership, Session, Leadership) {
    let (before, store) = (memory(), memory());
    let anew = Arc::new(Anew(before.clone(), std::sync::Mutex::new(before)));
    let clock = tenure_kv::HandClock::default();
    let (shared, hand): (Arc<dyn Store>, Arc<dyn tenure_kv::Clock>) = (anew.clone(), Arc::new(clock.clone()));
    let one = Session::builder(shared).lease(LEASE).clock(hand).open().await.unwrap();
    let former = x(&one).campaign("a").await.unwrap();
    *anew.1.lock().unwrap() = store.clone();
    let (two, _) = process(&store, LEASE).await;
    let leader = x(&two).campaign("b").await.unwrap();
    assert_eq!(leader.term(), former.term());
    clock.set(tenure_kv::Moment::new(LEASE * 2));
    (store, one, former, two, leader)
}

#[tokio::test]
async fn who_stood_still_writes_nothing_to_a_bucket_made_anew() {
    let key = tenure::data_key("x").unwrap();
    let (store, _one, former, _two, leader) = after_a_bucket_was_made_anew().await;
    let stale = within("the write", former.commit(Op::put(key.clone(), "stale").into())).await;
    assert!(matches!(stale, Err(Error::Lost { .. })), "{stale:?}");
    assert_eq!(store.get(&key).await.unwrap(), None);
    leader.commit(Op::put(key.clone(), "x").into()).await.unwrap();

    for how in 0..2 {
        let (store, _one, former, _two, leader) = after_a_bucket_was_made_anew().await;
        let outcome = match how {
            0 => within("the proclamation", former.proclaim("stale")).await.map(drop),
            _ => within("the resignation", former.resign()).await,
        };
        assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
        let named = store.entry(&Key::new("election.x").unwrap()).await.unwrap().unwrap();
        assert_eq!(named.revision, leader.term(), "another wrote over the leader's record");
    }
}

#[tokio::test]
async fn a_record_that_was_removed_unheard_stands_in_nobodys_way() {
    let store = memory();
    let ((one, cut), (two, line)) = (process(&store, Duration::from_millis(300)).await, process(&store, LEASE).await);
    let _former = x(&one).campaign("a").await.unwrap();
    let (campaign, _) = waiting(x(&two), "b").await;
    until("the candidate listens", || async { (line.pause("election.") > 0).then_some(()) }).await;
    let key = Key::new("election.x").unwrap();
    store.commit(Op::purge(key.clone()).ttl(tenure_kv::Ttl::MIN).into()).await.unwrap();
    until("nothing tells of the record", || async { store.entry(&key).await.unwrap().is_none().then_some(()) }).await;
    cut.partition(tenure_kv::faults::Partition::HoldRequests);
    elected(campaign).await.resign().await.unwrap();
}
