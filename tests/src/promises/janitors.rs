//! What dead members leave behind goes in time, and what the living have stays.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures::future::join_all;
use tenure::{Instance, Member, MemberEvent, Session, membership};
use tenure_kv::{
    Moment, Op, Store,
    faults::{Fault, Operation, Partition, Rule},
};
use tokio::{runtime, sync::oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    groups::{group, join, next, records},
    line::Line,
    support::{LONG, MS, Must, now, since, until, within},
};

/// What is promised: the group is right so long after a crash.
fn promised(lease: Duration) -> Duration {
    lease + Duration::from_secs(1)
}

/// Waits until one of `lines` is the janitor's, and says which. Nobody else on these lines may follow a group.
async fn janitor(lines: &[&Line]) -> usize {
    until(LONG, "a janitor is in office", || async { lines.iter().position(|line| line.faults.streams("member") > 0) }).await
}

/// Notes when each member was seen to go.
fn departures(store: &Arc<dyn Store>, name: &str) -> AbortOnDropHandle<HashMap<String, Moment>> {
    let (store, name) = (store.clone(), name.to_owned());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut watch = membership::watch(&store, &name).await.must("a watch");
        let mut gone = HashMap::new();
        loop {
            match next(&mut watch).await {
                MemberEvent::Insert(record) if record.id == "end" => return gone,
                MemberEvent::Remove { id, .. } => {
                    gone.insert(id, now());
                }
                _ => {}
            }
        }
    }))
}

/// A member whose session is dead goes within a lease and a second of the crash, be it the janitor's own
/// session or another; and never before it must have known that its lease was over.
///
/// # Panics
/// When the promise is broken.
pub async fn a_dead_member_goes_in_time(bed: &Bed) {
    let leases: &[u64] = if bed.is_replicated() { &[1_500] } else { &[1_500, 300] };
    for lease in leases.iter().map(|ms| Duration::from_millis(*ms)) {
        let name = format!("crash-{}", lease.as_millis());
        let processes = [bed.process(lease).await, bed.process(lease).await, bed.process(lease).await];
        let mut members = Vec::new();
        for (n, (_, session)) in processes.iter().enumerate() {
            members.push(join(session, &name, &format!("m{n}")).await);
        }
        let store = bed.store().await;
        let going = departures(&store, &name);
        let first = janitor(&processes.each_ref().map(|(line, _)| line)).await;
        // One who is no janitor, then the janitor itself.
        let mut crashed = Vec::new();
        for n in [(first + 1) % 3, first] {
            processes[n].0.cut(Partition::Refuse);
            let at = now();
            crashed.push((n, at));
            until(promised(lease), format!("{lease:?}: m{n} is gone"), || async {
                let id = format!("m{n}");
                let gone =
                    !group(&processes[(first + 2) % 3].1, &name).members().await.ok()?.list.iter().any(|record| record.id == id);
                assert!(!gone || !processes[n].1.is_held(), "{id} was removed while its session may rely on its lease");
                gone.then_some(())
            })
            .await;
        }
        let last = group(&processes[(first + 2) % 3].1, &name);
        assert_eq!(last.members().await.must("the members").list.len(), 1, "the living stay");
        let _end = last.join("end", Instance::new()).await.must("the end");
        let gone = within(LONG, "the end is seen", going).await.must("the watcher");
        for (n, at) in crashed {
            let took = gone[&format!("m{n}")].saturating_since(at);
            assert!(took <= promised(lease), "m{n} went {took:?} after the crash");
        }
    }
}

/// A janitor that is killed in mid-sweep leaves nothing undone: the next one finishes it.
///
/// # Panics
/// When the promise is broken.
pub async fn a_janitor_killed_in_mid_sweep_is_succeeded(bed: &Bed) {
    const MANY: usize = 600;
    let lease = 900 * MS;
    let (first_line, first) = bed.process(lease).await;
    let alive = join(&first, "sweep", "first").await;
    assert_eq!(janitor(&[&first_line]).await, 0);
    let (_, second) = bed.process(lease).await;
    let other = join(&second, "sweep", "second").await;
    let (dead_line, dead) = bed.process(lease).await;
    let crowd = group(&dead, "sweep");
    let crowd: Vec<Member> = join_all((0..MANY).map(|n| {
        let crowd = crowd.clone();
        async move { crowd.join(&format!("m{n}"), Instance::new()).await.must("a join") }
    }))
    .await;
    // The first sweep gets through, the second not: the janitor is dead by then.
    let second_sweep = Rule::new(Fault::HoldBefore).on(Operation::Commit).skip(1);
    let second_sweep = first_line.faults.add(second_sweep.when(|request| request.touches("member.sweep")));
    dead_line.cut(Partition::Refuse);
    within(promised(lease) * 2, "the janitor sweeps", second_sweep.reached(1)).await;
    first_line.cut(Partition::Refuse);
    let crashed = now();
    let left = records(second.store(), "sweep").await.len();
    assert!((3..MANY + 2).contains(&left), "{left} are left: it was not in mid-sweep");
    until(promised(lease), "the next one finishes the sweep", || async {
        let left = records(second.store(), "sweep").await;
        left.iter().all(|entry| entry.key.as_str() == "member.sweep.second").then_some(())
    })
    .await;
    assert!(since(crashed) <= promised(lease));
    assert_eq!(other.loss(), None);
    // What it had sent lands now.
    second_sweep.clear();
    first_line.mend();
    first_line.faults.settle().await;
    assert_eq!(records(second.store(), "sweep").await.len(), 1);
    drop((alive, crowd));
}

/// Whatever goes wrong, a member is not removed while its session lives: janitors that hear nothing, reads
/// that lag, answers that are lost.
///
/// # Panics
/// When the promise is broken.
pub async fn a_living_member_is_never_removed(bed: &Bed) {
    let lease = if bed.is_replicated() { 1_500 * MS } else { 600 * MS };
    let mut processes = Vec::new();
    for n in 0..4 {
        let (line, session) = bed.process(lease).await;
        let member = join(&session, "storm", &format!("m{n}")).await;
        processes.push((line, session, member));
    }
    let store = bed.store().await;
    let owners = processes.iter().map(|(_, session, member)| (session.clone(), member.clone())).collect();
    let watcher = AbortOnDropHandle::new(tokio::spawn(watch_the_living(store.clone(), "storm", owners)));
    for round in 0..6 {
        let line = &processes[janitor(&processes.iter().map(|(line, ..)| line).collect::<Vec<_>>()).await].0;
        let old = line.faults.snapshot().await.must("a snapshot");
        let rules = match round % 3 {
            // All that it hears of others is silence, and what it reads of them is old.
            0 | 1 => {
                assert!(line.faults.pause("session") > 0, "the janitor listens");
                vec![Rule::new(Fault::Stale(old)).on(Operation::Entry).chance(if round % 3 == 0 { 1.0 } else { 0.0 })]
            }
            _ => vec![
                Rule::new(Fault::FailAfter).on(Operation::Commit).chance(0.3),
                Rule::new(Fault::DelayBefore(5 * MS)).chance(0.5),
            ],
        };
        let rules: Vec<_> = rules.into_iter().map(|rule| line.faults.add(rule)).collect();
        tokio::time::sleep(lease * 3 / 2).await;
        line.faults.resume("");
        rules.iter().for_each(|rule| rule.clear());
        tokio::time::sleep(lease / 3).await;
    }
    for (_, session, member) in &processes {
        assert!(session.is_held() && member.loss().is_none(), "{session:?}, {member:?}: nobody was ever cut off from renewing");
    }
    until(LONG, "all are there", || async {
        let listed = membership::members(&*store, "storm").await.ok()?.list;
        (listed.len() == processes.len()).then_some(())
    })
    .await;
    assert!(!watcher.is_finished(), "a living member was removed");
}

/// A janitor whose process stood still, longer than any lease, removes nobody when it goes on: what it knows is
/// old, and so is its office.
///
/// # Panics
/// When the promise is broken.
pub async fn a_janitor_that_stood_still_removes_nobody(bed: &Bed) {
    let lease = if bed.is_replicated() { 1_500 * MS } else { 600 * MS };
    let (own, (go_on, stood)) = (bed.clone(), mpsc::channel::<()>());
    let (in_office, office) = oneshot::channel();
    // A process of its own: all its tasks stand still together.
    let frozen = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().must("a runtime");
        runtime.block_on(async move {
            let (line, session) = own.process(lease).await;
            let member = join(&session, "frozen", "janitor").await;
            assert_eq!(janitor(&[&line]).await, 0);
            let until_others = || async { (records(session.store(), "frozen").await.len() == 4).then_some(()) };
            in_office.send(()).must("the test goes on");
            until(LONG, "the others have joined", until_others).await;
            tokio::time::sleep(lease / 2).await;
            // What happens meanwhile reaches it late.
            assert!(line.faults.pause("session") > 0, "the janitor listens");
            let _ = stood.recv();
            // Time to act on what it knows.
            tokio::time::sleep(lease).await;
            member.loss()
        })
    });
    within(LONG, "the janitor is in office", office).await.must("the janitor");
    let mut others = Vec::new();
    for n in 0..3 {
        let session = bed.session(lease).await;
        let member = join(&session, "frozen", &format!("m{n}")).await;
        others.push((session, member));
    }
    let store = bed.store().await;
    let watcher = AbortOnDropHandle::new(tokio::spawn(watch_the_living(store.clone(), "frozen", others.clone())));
    tokio::time::sleep(lease * 3).await;
    drop(go_on);
    let loss = tokio::task::spawn_blocking(move || frozen.join()).await.must("the task").ok().must("the frozen process");
    assert!(loss.is_some(), "who stood still for so long was deposed");
    for (session, member) in &others {
        assert!(session.is_held() && member.loss().is_none(), "{session:?}, {member:?}");
    }
    assert_eq!(records(&store, "frozen").await.len(), 3);
    assert!(!watcher.is_finished(), "a living member was removed");
}

/// Panics when a member goes whose session lives.
async fn watch_the_living(store: Arc<dyn Store>, name: &'static str, owners: Vec<(Session, Member)>) {
    let mut watch = membership::watch(&store, name).await.must("a watch");
    loop {
        if let Ok(MemberEvent::Remove { id, .. }) = watch.next().await
            && let Some((session, member)) = owners.iter().find(|(_, member)| member.id() == id)
        {
            panic!("{id} was removed; {session:?}, {:?}", member.loss());
        }
    }
}

/// When the store was out of reach for everybody, nobody's silence counts, although the janitor is back a little
/// earlier and its own lease never was in danger; and all are there afterwards.
///
/// # Panics
/// When the promise is broken.
pub async fn an_outage_for_all_removes_nobody(bed: &Bed) {
    let lease = 900 * MS;
    let (janitors_line, keeper) = bed.process(Duration::from_secs(20)).await;
    let _janitor = join(&keeper, "outage", "janitor").await;
    assert_eq!(janitor(&[&janitors_line]).await, 0);
    let mut processes = Vec::new();
    for n in 0..4 {
        // Their renewals come at different times.
        tokio::time::sleep(lease / 12).await;
        let (line, session) = bed.process(lease).await;
        let member = join(&session, "outage", &format!("m{n}")).await;
        processes.push((line, session, member));
    }
    for length in [lease * 2, lease * 5 / 2] {
        tokio::time::sleep(lease / 2).await;
        janitors_line.cut(Partition::Refuse);
        processes.iter().for_each(|(line, ..)| line.cut(Partition::Refuse));
        tokio::time::sleep(length).await;
        janitors_line.mend();
        tokio::time::sleep(lease / 2).await;
        processes.iter().for_each(|(line, ..)| line.mend());
        for (_, session, member) in &processes {
            until(LONG, "all are restored", || async {
                assert_eq!(member.loss(), None, "an outage for all was held against {member:?}");
                session.is_held().then_some(())
            })
            .await;
        }
    }
    tokio::time::sleep(lease * 2).await;
    for (_, session, member) in &processes {
        assert!(session.is_held() && member.loss().is_none(), "{member:?}");
        member.set_value("still here").await.must("an update");
    }
    let store = bed.store().await;
    assert_eq!(records(&store, "outage").await.len(), 5);
}

/// Records of sessions that the store has forgotten go as well; one that another session has taken over stays.
///
/// # Panics
/// When the promise is broken.
pub async fn records_without_a_session_go(bed: &Bed) {
    let lease = 900 * MS;
    let session = bed.session(lease).await;
    let store = bed.store().await;
    let record =
        |owner: &str| format!(r#"{{"session":"{owner}","nonce":"x","write":1,"host":"h","pid":1,"weight":1,"state":"passing"}}"#);
    let key = |id: &str| tenure_kv::Key::new(format!("member.ghosts.{id}")).must("a key");
    for n in 0..5 {
        let ghost = Op::put(key(&format!("g{n}")), record(&format!("{n:032x}")));
        store.commit(ghost.into()).await.must("a write");
    }
    store.commit(Op::put(key("odd"), record("not a session")).into()).await.must("a write");
    store.commit(Op::put(key("mine"), record(session.id())).into()).await.must("a write");
    let member = join(&session, "ghosts", "one").await;
    until(promised(lease), "records without a session go", || async {
        let left: Vec<_> = records(&store, "ghosts").await.iter().map(|entry| entry.key.to_string()).collect();
        (left == ["member.ghosts.mine", "member.ghosts.one"]).then_some(())
    })
    .await;
    assert_eq!(member.loss(), None);
}

/// A session that had members and was the janitor ends as any other: closed, or with its last handle. Nothing
/// is left behind, in the store or of its tasks.
///
/// # Panics
/// When the promise is broken.
pub async fn sessions_of_members_end(bed: &Bed) {
    let store = bed.store().await;
    for closed in [true, false] {
        let (line, session) = bed.process(Duration::from_secs(10)).await;
        let member = join(&session, "ending", "one").await;
        assert_eq!(janitor(&[&line]).await, 0);
        if closed {
            session.close().await.must("the session closes");
            assert!(member.loss().is_some());
            assert!(bed.is_replicated() || records(&store, "ending").await.is_empty(), "closed means gone");
        }
        drop((member, session));
        until(LONG, "no task is left", || async { (line.users() == 0).then_some(()) }).await;
        until(LONG, "no record is left", || async { records(&store, "ending").await.is_empty().then_some(()) }).await;
    }
}
