//! What only looks or waits, dropped at every point where it waits: nothing has changed, and nothing is missed by who
//! looks again.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tenure::{
    Change, Guard, Instance, Leadership, Loss, Member, MemberEvent, View, data_key, discovery::Balancer, locks, membership,
    partitions,
};
use tenure_kv::{Entry, KeyRange, Revision, Since, Store, StoreExt};
use tokio::sync::Mutex;

use super::{
    Bed,
    basics::take,
    electing::{elected, election},
    groups::{group, join},
    support::{Cut, LONG, Must, after_polls, at_every_wait, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);
/// More polls than picking needs.
const MOST: usize = 200;

/// All that stands in the bucket, but for what beats by itself.
async fn standing(store: &dyn Store) -> Vec<Entry> {
    let mut all = store.list(&KeyRange::All).await.must("the entries");
    all.retain(|entry| !matches!(entry.key.tokens().next(), Some("session" | "meta" | "candidate" | "election")));
    all
}

/// Looks, dropped at every wait.
struct Looks<'a> {
    store: &'a dyn Store,
    before: Vec<Entry>,
}

impl Looks<'_> {
    async fn at<T, E: Debug>(&self, what: &str, look: impl AsyncFn() -> Result<T, E>) {
        let same = async |(), when: &str| assert_eq!(standing(self.store).await, self.before, "{when}");
        at_every_wait(what, async || (), async |()| look().await, same).await;
    }
}

/// Whoever looks at locks, elections, groups and keys changes nothing and may stop at any wait.
///
/// # Panics
/// When the promise is broken.
pub async fn looking_can_be_dropped_at_every_wait(bed: &Bed) {
    let (holder, store) = (bed.session(LEASE).await, bed.store().await);
    let guard = take(&holder, "look").await;
    let leader = elected(&election(&holder, "look")).await;
    let member = join(&holder, "look", "one").await;
    let (line, onlooker) = bed.process(LEASE).await;
    line.slow_down();
    let key = data_key("look").must("a key");
    store.put(&key, "x").await.must("a value");
    let range = KeyRange::new("data.>").must("a range");
    // A cluster's replica may have to catch up with what was just written.
    until(LONG, "everything is there", || async {
        let seen = standing(&*store).await;
        (seen.len() == 3 && seen.iter().any(|entry| entry.key == key)).then_some(())
    })
    .await;
    let looks = Looks { store: &*store, before: standing(&*store).await };
    let seen = &*line.store;

    let (mutex, race) = (onlooker.mutex("look").must("a lock name"), election(&onlooker, "look"));
    looks.at("queue()", async || mutex.queue().await).await;
    looks.at("Mutex::observe()", async || mutex.observe().next().await.must("a state")).await;
    looks.at("inspect()", async || locks::inspect(seen, "look").await).await;
    looks.at("list()", async || locks::list(seen, "").await).await;
    looks.at("leader()", async || race.leader().await).await;
    looks.at("candidates()", async || race.candidates().await).await;
    looks.at("Election::observe()", async || race.observe().next().await.must("a state")).await;
    let members = group(&onlooker, "look");
    looks.at("members()", async || members.members().await).await;
    looks.at("members() of a store", async || membership::members(seen, "look").await).await;
    looks.at("owners()", async || partitions::owners(seen, "look").await).await;
    looks.at("entry()", async || seen.entry(&key).await).await;
    looks.at("get()", async || seen.get(&key).await).await;
    looks.at("entries()", async || seen.entries(&[key.clone(), key.clone()]).await).await;
    looks.at("scan()", async || seen.scan(&range, Revision::ZERO, 10).await).await;
    looks.at("store.list()", async || seen.list(&range).await).await;
    looks.at("store.watch()", async || seen.watch(range.clone(), Since::Current).await).await;
    looks.at("store.follow()", async || seen.follow(&key).await).await;
    looks.at("View::open()", async || View::open(&line.store, range.clone()).await).await;
    looks.at("watch()", async || members.watch().await).await;
    looks.at("follow()", async || Balancer::follow(&line.store, "look").await).await;
    holds(&guard, &leader, &member).await;
    member.leave().await.must("the leave");
}

/// Waiting for an end that does not come may be dropped and begun again; the end is heard when it comes.
async fn holds(guard: &Guard, leader: &Leadership, member: &Member) {
    for polls in 0..4 {
        for cut in [Cut::Waiting, Cut::Woken] {
            // Nothing wakes these, so a cut at the next wake would never come.
            let cut = if polls == 0 { cut } else { Cut::Waiting };
            let polls = polls.min(1);
            assert!(after_polls(polls, cut, guard.lost()).await.is_none());
            assert!(after_polls(polls, cut, leader.lost()).await.is_none());
            assert!(after_polls(polls, cut, leader.asked_to_step_down()).await.is_none());
            assert!(after_polls(polls, cut, member.lost()).await.is_none());
            assert!(after_polls(polls, cut, guard.session().lost()).await.is_none());
            assert!(after_polls(polls, cut, guard.run(std::future::pending::<()>())).await.is_none());
            assert!(after_polls(polls, cut, leader.run(std::future::pending::<()>())).await.is_none());
        }
    }
    assert!(guard.is_held() && leader.is_leader());
    let (lost, over, gone, closed) = (guard.lost(), leader.lost(), member.lost(), guard.session().lost());
    assert!(guard.lost().now_or_never().is_none() && leader.lost().now_or_never().is_none());
    guard.session().close().await.must("the session closes");
    assert_eq!(within(LONG, "the lock's end is heard", lost).await, Loss::Closed);
    assert_eq!(within(LONG, "the office's end is heard", over).await, Loss::Closed);
    assert_eq!(within(LONG, "the member's end is heard", gone).await, Loss::Closed);
    assert_eq!(within(LONG, "the session's end is heard", closed).await, Loss::Closed);
}

/// Waiting for changes, dropped at every wait: no last state is missed.
///
/// # Panics
/// When the promise is broken.
pub async fn following_can_be_dropped_at_every_wait(bed: &Bed) {
    let store = bed.store().await;
    let (line, session) = bed.process(LEASE).await;
    line.slow_down();
    let key = data_key("follow").must("a key");
    let view = View::open(&line.store, KeyRange::One(key.clone())).await.must("a view");
    let changes = Mutex::new(view.changes());
    let until_told = async |least: Revision| {
        let mut changes = changes.lock().await;
        loop {
            if matches!(changes.next().await?, Change::Put(entry) if entry.revision >= least) {
                return Ok::<_, tenure::Error>(());
            }
        }
    };
    let until_seen =
        async |least: Revision| view.wait_until(|now| now.get(&key).filter(|entry| entry.revision >= least).map(drop)).await;
    // The write comes while it waits, and is dropped with it; it may still land.
    let write = async || line.store.put(&key, "x").await;
    let later = async || Revision::new(store.put(&key, "x").await.must("a write").get() + 1);
    let told = async |_: Revision, when: &str| {
        let last = store.put(&key, "x").await.must("a write");
        within(LONG, format!("{when}, the last is seen"), until_seen(last)).await.must(when);
        within(LONG, format!("{when}, the last is told"), until_told(last)).await.must(when);
    };
    let next = async |least: &Revision| tokio::join!(write(), until_told(*least)).1;
    at_every_wait("Changes::next()", later, next, told).await;
    let seen = async |least: &Revision| tokio::join!(write(), until_seen(*least)).1;
    at_every_wait("wait_until()", later, seen, told).await;

    let turns = AtomicU64::new(0);
    let turn = || turns.fetch_add(1, Ordering::Relaxed).to_string();
    let member = join(&session, "follow", "one").await;
    let watch = Mutex::new(membership::watch(&line.store, "follow").await.must("a watch"));
    let until_heard = async |value: &str| {
        let mut watch = watch.lock().await;
        loop {
            match watch.next().await? {
                MemberEvent::Insert(record) | MemberEvent::Update(record) if record.instance.value == value => {
                    return Ok::<_, tenure::Error>(());
                }
                _ => {}
            }
        }
    };
    let heard = async |_: String, when: &str| {
        let value = turn();
        member.set_value(value.clone()).await.must(when);
        within(LONG, format!("{when}, the last is told"), until_heard(&value)).await.must(when);
    };
    let next = async |value: &String| tokio::join!(member.set_value(value.clone()), until_heard(value)).1;
    at_every_wait("MemberWatch::next()", async || turn(), next, heard).await;
    member.leave().await.must("the leave");

    let states = Mutex::new(session.mutex("follow").must("a lock name").observe());
    let until_told = async |held: Option<Revision>| {
        let mut states = states.lock().await;
        loop {
            if states.next().await.must("the stream goes on")?.holder.map(|holder| holder.token) == held {
                return Ok::<_, tenure::Error>(());
            }
        }
    };
    let held = async || {
        let guard = take(&session, "follow").await;
        within(LONG, "the holder is told", until_told(Some(guard.token()))).await.must("the holder");
        guard
    };
    let free = async |guard: Guard, when: &str| {
        // Broken or not, it is over; and so is the next.
        let _ = guard.release().await;
        held().await.release().await.must(when);
        within(LONG, format!("{when}, the last is told"), until_told(None)).await.must(when);
    };
    let next = async |guard: &Guard| {
        let broken = locks::break_hold(&*line.store, "follow", guard.token());
        tokio::join!(broken, until_told(None)).1
    };
    at_every_wait("the states of a lock", held, next, free).await;

    // Nobody is there to pick until somebody joins.
    let nobody = async || Balancer::follow(&line.store, "follow").await.must("a balancer");
    let here = group(&session, "follow");
    for polls in 0..MOST {
        let balancer = nobody().await;
        let picked = after_polls(polls, Cut::Waiting, async {
            let joining = here.join("two", Instance::at("10.0.0.2:1"));
            let (picked, member) = tokio::join!(balancer.wait_pick(LONG), joining);
            (picked, member.must("a join"))
        });
        let done = picked.await.map(|(picked, _member)| picked.must("a pick").address().to_owned());
        until(LONG, "nobody is left", || async {
            membership::members(&*store, "follow").await.ok()?.list.is_empty().then_some(())
        })
        .await;
        if done.is_some() {
            return;
        }
    }
    panic!("wait_pick() does not end");
}
