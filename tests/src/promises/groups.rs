//! Groups: who is there, who has an id, what is written once and what is left behind.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tenure::{Error, Group, Instance, Loss, Member, MemberEvent, MemberWatch, Session, membership};
use tenure_kv::{Key, KeyRange, Revision, Store, StoreExt, faults::Partition};

use super::{
    Bed,
    line::{Fate, Line, Write},
    support::{Cut, Dice, LONG, MS, Must, after_polls, until, within},
};

const LEASE: Duration = Duration::from_secs(10);
const NONE: Fate = Fate::Unanswered(Duration::ZERO);
/// More polls than joining needs.
const MOST: usize = 200;

pub(super) fn group(session: &Session, name: &str) -> Group {
    session.group(name).must("a group name")
}

/// Joins where nobody stands in the way.
pub(super) async fn join(session: &Session, name: &str, id: &str) -> Member {
    let group = group(session, name);
    within(LONG, format!("{id} joins {name}"), group.join(id, Instance::new())).await.must(format!("{id} joins {name}"))
}

/// What the store has of the group.
pub(super) async fn records(store: &Arc<dyn Store>, name: &str) -> Vec<tenure_kv::Entry> {
    let range = KeyRange::new(format!("member.{name}.*")).must("a range");
    store.list(&range).await.must("the records")
}

pub(super) async fn until_nobody_is_left(store: &Arc<dyn Store>, name: &str, when: &str) {
    until(Duration::from_secs(5), format!("{when}, nobody is left in {name}"), || async {
        records(store, name).await.is_empty().then_some(())
    })
    .await;
}

pub(super) async fn next(watch: &mut MemberWatch) -> MemberEvent {
    within(LONG, "the next event of a group", watch.next()).await.must("the next event of a group")
}

/// Follows a group until it looks like `wanted`: ids and values. Revisions must not go back.
struct Follower {
    watch: MemberWatch,
    seen: BTreeMap<String, String>,
    last: Revision,
}

impl Follower {
    async fn of(store: &Arc<dyn Store>, name: &str) -> Self {
        let watch = membership::watch(store, name).await.must("a watch");
        Self { watch, seen: BTreeMap::new(), last: Revision::ZERO }
    }

    async fn step(&mut self) {
        let revision = match next(&mut self.watch).await {
            MemberEvent::Insert(record) => {
                let value = String::from_utf8_lossy(&record.instance.value).into_owned();
                assert!(self.seen.insert(record.id.clone(), value).is_none(), "{} was there already", record.id);
                record.revision
            }
            MemberEvent::Update(record) => {
                let value = String::from_utf8_lossy(&record.instance.value).into_owned();
                assert!(self.seen.insert(record.id.clone(), value).is_some(), "{} was not there", record.id);
                record.revision
            }
            MemberEvent::Remove { id, revision } => {
                assert!(self.seen.remove(&id).is_some(), "{id} was not there");
                revision
            }
            MemberEvent::CaughtUp { revision } => revision,
            other => panic!("{other:?}"),
        };
        assert!(revision >= self.last, "{revision} after {}", self.last);
        self.last = revision;
    }

    async fn until(&mut self, what: &str, wanted: &BTreeMap<String, String>) {
        let reached = async {
            while self.seen != *wanted {
                self.step().await;
            }
        };
        within(LONG, what, reached).await;
    }
}

/// Members join, change and leave, and everybody who follows sees it, whoever joined where.
///
/// # Panics
/// When the promise is broken.
pub async fn members_come_change_and_go(bed: &Bed) {
    let sessions = bed.sessions(3, LEASE).await;
    let store = bed.store().await;
    let mut follower = Follower::of(&store, "web").await;
    let mut wanted = BTreeMap::new();
    let mut members = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        let id = format!("m{n}");
        let instance = Instance::at(format!("10.0.0.{n}:80")).weight(2).zone("z").with("k", "v").value(id.clone());
        let member = group(session, "web").join(&id, instance.clone()).await.must("a join");
        let listed = membership::members(&*store, "web").await.must("the members");
        if !bed.is_replicated() {
            let own = listed.list.iter().find(|record| record.id == id).must("the new member is listed");
            assert_eq!((own.revision, &own.instance, own.session.as_str()), (member.revision(), &instance, session.id()));
            assert!(listed.revision >= member.revision());
        }
        wanted.insert(id.clone(), id);
        members.push(member);
    }
    follower.until("all are seen", &wanted).await;
    for (n, member) in members.iter().enumerate() {
        let before = member.revision();
        let revision = member.set_value(format!("changed-{n}")).await.must("an update");
        assert!(revision > before && revision == member.revision());
        wanted.insert(format!("m{n}"), format!("changed-{n}"));
    }
    follower.until("all changes are seen", &wanted).await;
    members[0].leave().await.must("a leave");
    wanted.remove("m0");
    follower.until("the leaving is seen", &wanted).await;
    sessions[1].close().await.must("a session closes");
    wanted.remove("m1");
    follower.until("the end of a session is seen", &wanted).await;
    drop(members);
    follower.until("dropped members leave", &BTreeMap::new()).await;
    assert!(group(&sessions[2], "other").members().await.must("the members").list.is_empty());
}

/// The id of a member whose session lives is refused, naming who has it. When that session is dead the id can
/// be taken, and its former owner neither gets it back nor disturbs the new one.
///
/// # Panics
/// When the promise is broken.
pub async fn an_id_has_one_living_owner(bed: &Bed) {
    let lease = 600 * MS;
    let (line, first) = bed.process(lease).await;
    let (_, second) = bed.process(lease).await;
    let old = join(&first, "owner", "one").await;
    let theirs = group(&second, "owner");
    for _ in 0..3 {
        match theirs.join("one", Instance::new()).await {
            Err(Error::Conflict { message, .. }) => {
                assert!(message.contains("one") && message.contains(first.id()), "{message}");
            }
            other => panic!("the id has a living owner, but: {other:?}"),
        }
        tokio::time::sleep(lease / 2).await;
    }
    assert_eq!(old.loss(), None, "being asked for harms nobody");
    line.cut(Partition::Refuse);
    let new = until(lease + Duration::from_secs(1), "the id of a dead session is taken", || async {
        let joined = theirs.join("one", Instance::new().value("new")).await;
        assert!(matches!(joined, Ok(_) | Err(Error::Conflict { .. })), "{joined:?}");
        if joined.is_ok() {
            assert!(!first.is_held(), "the id was taken while its owner may have relied on it");
        }
        joined.ok()
    })
    .await;
    line.mend();
    within(LONG, "the former owner hears of it", old.lost()).await;
    let refused = old.set_value("old").await;
    assert!(refused.as_ref().is_err_and(|error| error.loss().is_some()), "{refused:?}");
    drop(old);
    tokio::time::sleep(lease).await;
    let records = records(second.store(), "owner").await;
    assert_eq!(records.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [new.revision()]);
    assert_eq!(new.loss(), None);
}

/// A join whose answer is lost is found again; one that never arrived is written again; one that arrives late
/// is turned away.
///
/// # Panics
/// When the promise is broken.
pub async fn a_join_without_answer_is_found_again(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let store = bed.store().await;
    for (fate, times) in [(NONE, 1), (NONE, 2), (Fate::Vanishes, 1), (Fate::Vanishes, 2), (Fate::Late, 1), (Fate::Late, 2)] {
        line.fate(Write::Join, times, fate);
        let member = join(&session, "answer", "one").await;
        let only = || async {
            let standing: Vec<_> = records(&store, "answer").await.iter().map(|entry| entry.revision).collect();
            (standing == [member.revision()]).then_some(())
        };
        until(LONG, format!("{fate:?}: one record, the member's"), only).await;
        line.land().await;
        until(LONG, format!("{fate:?}: it stays"), only).await;
        member.set_value("still ours").await.must("an update");
        member.leave().await.must("the leave");
        until_nobody_is_left(&store, "answer", &format!("{fate:?}")).await;
    }
}

/// A join that was given up, or that lands when its member has left, leaves nothing behind.
///
/// # Panics
/// When the promise is broken.
pub async fn a_join_that_lands_late_leaves_nothing(bed: &Bed) {
    let store = bed.store().await;
    for fate in [Fate::Late, NONE, Fate::Vanishes] {
        let (line, session) = bed.process(LEASE).await;
        line.fate(Write::Join, 20, fate);
        match group(&session, "late").join("one", Instance::new()).await {
            Ok(member) => drop(member),
            Err(Error::Unknown { .. }) => {}
            Err(error) => panic!("{fate:?}: an unanswered join is unknown, not {error:?}"),
        }
        until_nobody_is_left(&store, "late", &format!("{fate:?}")).await;
        line.land().await;
        until_nobody_is_left(&store, "late", &format!("{fate:?}, landed")).await;
        let other = bed.session(LEASE).await;
        join(&other, "late", "one").await.leave().await.must("the leave");
        assert!(records(&store, "late").await.is_empty(), "{fate:?}");
    }
}

/// A join, dropped at every wait, leaves nothing behind, and soon the id is free.
///
/// # Panics
/// When the promise is broken.
pub async fn joining_can_be_dropped_at_every_wait(bed: &Bed) {
    let (line, fickle) = bed.process(LEASE).await;
    line.slow_down();
    let other = bed.session(LEASE).await;
    let (fickle, others) = (group(&fickle, "cut"), group(&other, "cut"));
    for cut in [Cut::Waiting, Cut::Woken] {
        for polls in 0..MOST {
            let joined = after_polls(polls, cut, fickle.join("one", Instance::new())).await;
            let done = joined.map(|member| drop(member.must("the join")));
            let when = format!("after join() was dropped, {polls} polls, {cut:?}");
            let next = until(Duration::from_secs(2), format!("{when}, the id is free"), || async {
                match others.join("one", Instance::new()).await {
                    Ok(member) => Some(member),
                    Err(Error::Conflict { .. }) => None,
                    Err(error) => panic!("{when}: {error:?}"),
                }
            })
            .await;
            assert_eq!(next.loss(), None, "{when}");
            next.leave().await.must("the leave");
            until_nobody_is_left(other.store(), "cut", &when).await;
            if done.is_some() {
                break;
            }
            assert!(polls + 1 < MOST, "join() does not end");
        }
    }
}

/// An update is written once, whatever becomes of its answers, and what lands late changes nothing.
///
/// # Panics
/// When the promise is broken.
pub async fn an_update_without_answer_is_settled(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let store = bed.store().await;
    let member = join(&session, "update", "one").await;
    for (n, fate) in [NONE, Fate::Vanishes, Fate::Late, Fate::Refused, NONE].into_iter().enumerate() {
        for times in [1, 3] {
            line.fate(Write::Join, times, fate);
            let value = format!("{n}-{times}");
            let revision =
                within(LONG, format!("{fate:?}: the update"), member.set_value(value.clone())).await.must("the update");
            let shown = || async {
                let listed = membership::members(&*store, "update").await.ok()?;
                let record = listed.list.into_iter().next()?;
                (record.instance.value == value && record.revision >= revision).then_some(record.revision)
            };
            until(LONG, format!("{fate:?}: the update is there"), shown).await;
            line.land().await;
            until(LONG, format!("{fate:?}: and stays there"), shown).await;
        }
    }
    assert_eq!(member.loss(), None);
    // A change whose caller has gone is written all the same.
    line.slow_down();
    drop(after_polls(1, Cut::Waiting, member.set_value("dropped")).await);
    until(LONG, "a dropped update is written", || async {
        let listed = membership::members(&*store, "update").await.ok()?;
        (listed.list[0].instance.value == "dropped").then_some(())
    })
    .await;
}

/// A leave says `Ok` when the record is gone, however many of its answers were lost, and never removes the
/// next owner's.
///
/// # Panics
/// When the promise is broken.
pub async fn a_leave_is_ok_when_it_is_done(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let other = bed.session(LEASE).await;
    for (fate, times) in [(NONE, 1), (NONE, 3), (Fate::Vanishes, 1), (Fate::Refused, 2), (Fate::Late, 1)] {
        let member = join(&session, "leave", "one").await;
        line.fate(Write::Leave, times, fate);
        within(LONG, format!("{fate:?}: the leave"), member.leave()).await.must("the leave");
        assert!(bed.is_replicated() || records(other.store(), "leave").await.is_empty(), "{fate:?}: Ok means gone");
        let next = until(LONG, format!("{fate:?}: the id is free"), || async {
            group(&other, "leave").join("one", Instance::new()).await.ok()
        })
        .await;
        line.land().await;
        let standing = records(other.store(), "leave").await;
        assert_eq!(standing.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [next.revision()], "{fate:?}");
        next.leave().await.must("the leave");
    }
}

/// Who follows a group sees its last state, whatever happens to the watch, and revisions never go back.
///
/// # Panics
/// When the promise is broken.
pub async fn watching_never_skips_the_last_state(bed: &Bed) {
    let line = bed.line().await;
    let mut follower = Follower::of(&line.store, "seen").await;
    let sessions = bed.sessions(2, LEASE).await;
    let mut dice = Dice::new(7);
    let (mut members, mut wanted) = (BTreeMap::<String, Member>::new(), BTreeMap::new());
    for round in 0..12 {
        interrupt(&line, dice.below(4)).await;
        for _ in 0..8 {
            let id = format!("m{}", dice.below(6));
            match (members.remove(&id), dice.below(3)) {
                (Some(member), 0) => {
                    member.leave().await.must("a leave");
                    wanted.remove(&id);
                }
                (Some(member), _) => {
                    let value = format!("{round}-{}", dice.below(1_000_000));
                    member.set_value(value.clone()).await.must("an update");
                    wanted.insert(id.clone(), value);
                    members.insert(id, member);
                }
                (None, choice) => {
                    let session = &sessions[usize::from(choice == 0)];
                    let member =
                        until(LONG, "the id is free", || async { group(session, "seen").join(&id, Instance::new()).await.ok() });
                    members.insert(id.clone(), member.await);
                    wanted.insert(id, String::new());
                }
            }
        }
        line.faults.resume("");
        line.mend();
        follower.until(&format!("round {round}: the last state is seen"), &wanted).await;
    }
}

async fn interrupt(line: &Line, how: u64) {
    match how {
        0 => assert!(line.faults.cut("member") > 0, "the follower listens"),
        1 => drop(line.faults.pause("member")),
        2 => line.cut(Partition::Refuse),
        _ => {}
    }
}

/// Heartbeats reach nobody who follows a group: while nothing changes, nothing is told and no record is written.
///
/// # Panics
/// When the promise is broken.
pub async fn heartbeats_cost_watchers_nothing(bed: &Bed) {
    let lease = 300 * MS;
    let (line, session) = bed.process(lease).await;
    let member = join(&session, "calm", "one").await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = membership::watch(session.store(), "calm").await.must("a watch");
        assert!(matches!(next(&mut watch).await, MemberEvent::Insert(record) if record.revision == member.revision()));
        assert!(matches!(next(&mut watch).await, MemberEvent::CaughtUp { .. }));
        watches.push(watch);
    }
    // The janitor has one more, of everything.
    assert!(line.faults.streams("member.calm") == 1, "all share one watch");
    let (beats, writes) = (line.count(Write::Beat), line.count(Write::Join));
    within(LONG, "renewals go on", beats.reached(6)).await;
    for watch in &mut watches {
        let told = tokio::time::timeout(MS, watch.next()).await;
        assert!(told.is_err(), "nothing has changed, but: {told:?}");
    }
    assert_eq!(writes.hits(), 0, "no record is written while nothing changes");
    assert_eq!(records(session.store(), "calm").await[0].revision, member.revision());
}

/// Records that something else wrote are passed over and counted, whoever reads, and stop nobody.
///
/// # Panics
/// When the promise is broken.
pub async fn unreadable_members_are_passed_over(bed: &Bed) {
    let session = bed.session(LEASE).await;
    let store = session.store().clone();
    let junk = ["", "{}", "null", "[1,2", "{\"session\":7}", "{\"session\":\"x\"}"];
    let key = |n: usize| Key::new(format!("member.odd.junk{n}")).must("a key");
    for (n, value) in junk.iter().enumerate() {
        // The last one's session is dead, so the janitor may remove it.
        if n + 1 < junk.len() {
            store.put(&key(n), *value).await.must("a write");
        }
    }
    let mut watch = membership::watch(&store, "odd").await.must("a watch");
    let member = join(&session, "odd", "one").await;
    loop {
        match next(&mut watch).await {
            MemberEvent::Insert(record) => {
                assert_eq!(record.id, "one");
                break;
            }
            MemberEvent::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(watch.unreadable(), junk.len() - 1);
    store.put(&key(0), "more junk").await.must("a write");
    member.set_value("x").await.must("an update");
    assert!(matches!(next(&mut watch).await, MemberEvent::Update(record) if record.id == "one"));
    until(LONG, "the unreadable are counted", || async {
        let listed = group(&session, "odd").members().await.ok()?;
        (listed.unreadable == junk.len() - 1 && listed.list.len() == 1).then_some(())
    })
    .await;
    // One that becomes unreadable is gone for who follows; the janitor leaves it alone, and the others.
    store.put(&Key::new("member.odd.one").must("a key"), "scrawl").await.must("a write");
    assert!(matches!(next(&mut watch).await, MemberEvent::Remove { id, .. } if id == "one"));
    let lost = member.set_value("y").await;
    assert_eq!(lost.must_err().loss(), Some(Loss::Deposed));
    assert_eq!(records(&store, "odd").await.len(), junk.len());
}

trait MustErr {
    fn must_err(self) -> Error;
}

impl<T: std::fmt::Debug> MustErr for tenure::Result<T> {
    #[track_caller]
    fn must_err(self) -> Error {
        match self {
            Err(error) => error,
            Ok(value) => panic!("it must fail, but: {value:?}"),
        }
    }
}
