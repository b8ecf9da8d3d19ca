//! Those who only look: an observer of each election, a watch of each group, and a view of all data. They need
//! the store and no session of their own, except observers, which share one that is opened for them.

use std::sync::Arc;

use futures::StreamExt as _;
use tenure::{Change, MemberEvent, Session, View, membership};
use tenure_check::history::{MemberKind, Sight, ViewKind};
use tenure_kv::{KeyRange, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{open, opened::Opened, roles::pause};
use crate::{clock::now, order::Order, tape::Tape};

/// Starts all of them. `over`: nobody looks any more; `stop`: the client is told to end.
pub(super) fn start(
    order: &Order,
    store: &Arc<dyn Store>,
    tape: &Arc<Tape>,
    over: &CancellationToken,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut rng = fastrand::Rng::with_seed(order.seed ^ 0x5eed);
    for n in 0..order.field.groups {
        let watching = follow(store.clone(), format!("g{n}"), tape.clone(), over.clone(), rng.fork());
        tasks.spawn(until(over.clone(), watching));
    }
    let viewing = view(store.clone(), tape.clone(), over.clone(), rng.fork());
    tasks.spawn(until(over.clone(), viewing));
    let observing = observe(order.clone(), store.clone(), tape.clone(), over.clone(), stop.clone(), rng.fork());
    tasks.spawn(observing);
    tasks
}

async fn until(over: CancellationToken, work: impl Future<Output = ()>) {
    let _ = over.run_until_cancelled(work).await;
}

/// Follows a group, one watch after another.
async fn follow(store: Arc<dyn Store>, group: String, tape: Arc<Tape>, over: CancellationToken, mut rng: fastrand::Rng) {
    loop {
        let begun = now();
        if let Ok(mut watch) = membership::watch(&store, &group).await {
            let number = tape.unique();
            let mut from = begun;
            loop {
                let next = watch.next().await;
                let (member, revision, kind) = match &next {
                    Ok(MemberEvent::Insert(record)) => (record.id.clone(), record.revision.get(), MemberKind::Insert),
                    Ok(MemberEvent::Update(record)) => (record.id.clone(), record.revision.get(), MemberKind::Update),
                    Ok(MemberEvent::Remove { id, revision }) => (id.clone(), revision.get(), MemberKind::Remove),
                    Ok(MemberEvent::CaughtUp { revision }) => (String::new(), revision.get(), MemberKind::CaughtUp),
                    Ok(_) => continue,
                    Err(_) => (String::new(), 0, MemberKind::End),
                };
                tape.seen(from, Sight::Member { watch: number, group: group.clone(), member, revision, kind });
                from = now();
                if next.is_err() {
                    break;
                }
            }
        }
        pause(&mut rng, 50..500, &over).await;
    }
}

/// Mirrors all data, one view after another.
async fn view(store: Arc<dyn Store>, tape: Arc<Tape>, over: CancellationToken, mut rng: fastrand::Rng) {
    let Ok(range) = KeyRange::new("data.>") else { return };
    loop {
        let begun = now();
        if let Ok(view) = View::open(&store, range.clone()).await {
            let number = tape.unique();
            let mut changes = view.changes();
            let mut from = begun;
            let open =
                Sight::View { view: number, key: "data".to_owned(), revision: 0, live: false, nonce: None, kind: ViewKind::Open };
            tape.seen(from, open);
            loop {
                let next = changes.next().await;
                let (entry, kind) = match &next {
                    Ok(Change::Put(entry) | Change::Gone(entry)) => (Some(entry), ViewKind::Entry),
                    Ok(Change::CaughtUp) => (None, ViewKind::CaughtUp),
                    Ok(Change::Gap) => (None, ViewKind::Gap),
                    Err(_) => (None, ViewKind::End),
                };
                let what = Sight::View {
                    view: number,
                    key: entry.map_or_else(String::new, |entry| entry.key.as_str().to_owned()),
                    revision: entry.map_or(0, |entry| entry.revision.get()),
                    live: entry.is_some_and(tenure_kv::Entry::is_live),
                    nonce: entry.and_then(|entry| String::from_utf8(entry.value()?.to_vec()).ok()),
                    kind,
                };
                tape.seen(from, what);
                from = now();
                if next.is_err() {
                    break;
                }
            }
        }
        pause(&mut rng, 50..500, &over).await;
    }
}

/// Observes all elections under a session of its own, one after another.
async fn observe(
    order: Order,
    store: Arc<dyn Store>,
    tape: Arc<Tape>,
    over: CancellationToken,
    stop: CancellationToken,
    mut rng: fastrand::Rng,
) {
    while !over.is_cancelled() {
        if let Some(session) = open(&order, &store, &tape, &over).await {
            let opened = Opened::new(session, tape.clone());
            let mut observers = JoinSet::new();
            for n in 0..order.field.elections {
                observers.spawn(observer(opened.session.clone(), format!("e{n}"), tape.clone()));
            }
            tokio::select! {
                () = over.cancelled() => observers.shutdown().await,
                () = async { while observers.join_next().await.is_some() {} } => {}
            }
            opened.close(order.patience(), &stop).await;
        }
        pause(&mut rng, 50..500, &over).await;
    }
}

async fn observer(session: Session, election: String, tape: Arc<Tape>) {
    let Ok(stood) = session.election(&election) else { return };
    let number = tape.unique();
    let mut from = now();
    let mut states = stood.observe();
    while let Some(state) = states.next().await {
        let unknown = state.is_err();
        let term = state.ok().flatten().map(|leader| leader.term.get());
        tape.seen(from, Sight::Leader { observer: number, election: election.clone(), term, unknown });
        from = now();
    }
    // It ended by itself, with its session.
    tape.seen(from, Sight::Leader { observer: number, election, term: None, unknown: true });
}
