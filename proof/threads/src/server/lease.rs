//! A lease that is given up, lost, looked for and cleared away at once.

use std::sync::Arc;

use shuttle::future::block_on;
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    held::{Held, Kind},
    leases::{Everywhere, Lease},
    outbox::Next,
    played::Behind,
    sessions::SessionUse,
};
use crate::{
    protocol::{ErrorObject, Kind as ErrorKind},
    sync::{atomic::Ordering, others, thread},
};

const FENCE: u64 = 7;

fn granted(connection: &Arc<Connection>, behind: &Arc<Behind>) -> Arc<Lease> {
    let held = Held { fence: FENCE, behind: behind.clone() };
    let reserved = connection.leases.reserve().unwrap();
    let lease = connection.leases.add(reserved, held, SessionUse::default(), &CancellationToken::new()).unwrap();
    connection.outbox.forget("l_1");
    connection.spawn(connection.leases.clone().watch(lease.clone()));
    lease
}

/// What a request to resign does.
fn resign(connection: &Connection) -> Result<(), ErrorObject> {
    let asked = connection.leases.leave("l_1", Kind::Leadership)?;
    asked.begin(connection);
    block_on(asked.outcome(connection.leases.clone())).map(drop)
}

fn notices(connection: &Connection) -> usize {
    std::iter::from_fn(|| connection.outbox.try_next()).filter(|next| matches!(next, Next::Line(_))).count()
}

/// A lease ends once: by the release, and its client is not told that it is lost; or it is told so, and the release is
/// refused. It is let go once, and when the client is told of its release it is counted and found no longer.
pub fn a_lease_ends_once() {
    let (everywhere, behind) = (Everywhere::default(), Behind::new(0));
    let connection = Connection::new(everywhere.clone());
    drop(granted(&connection, &behind));
    let loser = thread::spawn({
        let behind = behind.clone();
        move || {
            others();
            behind.lost.send_replace(Some(tenure::Loss::Deposed));
        }
    });
    // A fenced write of another connection.
    let other = thread::spawn({
        let everywhere = everywhere.clone();
        move || {
            let Some(lease) = everywhere.holds.find(Kind::Leadership, "played", FENCE) else { return };
            let _ = block_on(lease.using(|held| async move {
                others();
                assert_eq!(held.behind.let_go(), 0, "let go under a write");
                Ok(())
            }));
        }
    });
    let released = resign(&connection);
    if released.is_ok() {
        assert_eq!(everywhere.total.load(Ordering::SeqCst), 0, "released, and still counted");
        assert!(everywhere.holds.find(Kind::Leadership, "played", FENCE).is_none(), "released, and still found");
    }
    loser.join().unwrap();
    other.join().unwrap();
    connection.join();
    let told = notices(&connection);
    assert_eq!(told, usize::from(released.is_err()), "released: {released:?}, and told so often that it is lost");
    assert_eq!((behind.let_go(), everywhere.total.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(everywhere.leaderships.load(Ordering::SeqCst), 0);
}

/// Two requests of a client ask for the release of one lease, and again while a try is not answered. Nobody waits for
/// ever, and the client is told that it came true; once it was, the lease is unknown.
pub fn whoever_asks_again_is_told() {
    // Its clock never moves: the pause before another try ends by being asked again.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let behind = Behind::new(1);
    let connection = Connection::new(Everywhere::default());
    drop(granted(&connection, &behind));
    let ask = |connection: Arc<Connection>| {
        move || {
            let open = |outcome: &Result<(), ErrorObject>| {
                outcome.as_ref().is_err_and(|error| error.kind() == Some(ErrorKind::Unavailable))
            };
            std::iter::repeat_with(|| resign(&connection)).find(|outcome| !open(outcome)).unwrap()
        }
    };
    let other = thread::spawn(ask(connection.clone()));
    let outcomes = [ask(connection.clone())(), other.join().unwrap()];
    connection.join();
    assert!(outcomes.iter().any(Result::is_ok), "it was given up, and this is told: {outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), Some(ErrorKind::NotHeld), "{error:?}");
    }
    assert_eq!((behind.let_go(), connection.leases.len()), (1, 0));
}

/// The connection ends while a lock is granted to it: it is among those that are let go, or refused.
pub fn nothing_is_left_behind() {
    let (everywhere, behind, ended) = (Everywhere::default(), Behind::new(0), CancellationToken::new());
    let connection = Connection::new(everywhere.clone());
    let reserved = connection.leases.reserve().unwrap();
    let grant = thread::spawn({
        let (connection, ended, held) = (connection.clone(), ended.clone(), Held { fence: FENCE, behind: behind.clone() });
        move || match connection.leases.add(reserved, held, SessionUse::default(), &ended) {
            Ok(lease) => connection.spawn(connection.leases.clone().watch(lease)),
            Err(held) => block_on(held.release()).unwrap(),
        }
    });
    others();
    ended.cancel();
    for lease in connection.leases.take_all() {
        block_on(lease.abandon());
    }
    grant.join().unwrap();
    assert_eq!((connection.leases.len(), behind.let_go()), (0, 1), "leases, and let go so often");
    connection.join();
    assert_eq!(everywhere.total.load(Ordering::SeqCst), 0, "still counted");
    assert!(everywhere.holds.find(Kind::Leadership, "played", FENCE).is_none(), "still found");
}
