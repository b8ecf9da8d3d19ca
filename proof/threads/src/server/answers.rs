//! An answer on its way, between who gives it, who cancels the request and who writes to the client.

use std::sync::Arc;

use shuttle::future::block_on;
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    held::Held,
    inflight::InFlight,
    leases::{Everywhere, Leases},
    outbox::{Next, Outbox},
    played::Behind,
    sessions::SessionUse,
};
use crate::{
    Bytes,
    sync::{
        atomic::{AtomicUsize, Ordering},
        others, thread,
    },
};

/// What the connection's writer does; gives back the lines.
fn write(outbox: &Arc<Outbox>, leases: &Leases) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(next) = block_on(outbox.next()) {
        match next {
            Next::Line(line) => lines.push(String::from_utf8(line.to_vec()).unwrap()),
            Next::Undo { slot, lease } => {
                if let Some(lease) = leases.take_back(lease) {
                    block_on(lease.abandon());
                }
                outbox.finish(slot, Bytes::new(), None);
            }
        }
    }
    lines
}

/// A request is answered once: with its result, or as cancelled when the client was told that it is. Who has read the
/// answer may use its place again.
pub fn a_request_is_answered_once() {
    let total = Arc::new(AtomicUsize::new(0));
    let requests = InFlight::new(1, total.clone(), Default::default());
    let outbox = Arc::new(Outbox::new(1_024));
    let slot = requests.admit(1.into(), true).unwrap();
    let worker = thread::spawn({
        let outbox = outbox.clone();
        move || outbox.finish(slot, Bytes::from_static(b"the result"), None)
    });
    let canceller = thread::spawn({
        let requests = requests.clone();
        move || requests.cancel(&1.into())
    });
    let Some(Next::Line(line)) = block_on(outbox.next()) else { panic!("no answer") };
    drop(requests.admit(2.into(), true).unwrap());
    worker.join().unwrap();
    assert_eq!(canceller.join().unwrap(), line != "the result", "the client is told that it is cancelled, and reads {line:?}");
    assert!(outbox.try_next().is_none(), "answered twice");
    assert_eq!((requests.len(), total.load(Ordering::SeqCst)), (0, 0));
}

/// A lease that was granted to a request that is cancelled is given back, and never spoken of; one that the client was
/// told of is spoken of after that only, and told lost once. Either is let go once and counted no longer.
pub fn a_cancelled_lease_is_not_spoken_of() {
    let (everywhere, total, behind) = (Everywhere::default(), Arc::new(AtomicUsize::new(0)), Behind::new(0));
    let connection = Connection::new(everywhere.clone());
    let requests = InFlight::new(1, total.clone(), Default::default());
    let slot = requests.admit(1.into(), true).unwrap();
    let writer = thread::spawn({
        let connection = connection.clone();
        move || write(&connection.outbox, &connection.leases)
    });
    let loser = thread::spawn({
        let behind = behind.clone();
        move || {
            others();
            behind.lost.send_replace(Some(tenure::Loss::Deposed));
        }
    });
    let canceller = thread::spawn({
        let requests = requests.clone();
        move || requests.cancel(&1.into())
    });
    let held = Held { fence: 7, behind: behind.clone() };
    let reserved = connection.leases.reserve().unwrap();
    let lease = connection.leases.add(reserved, held, SessionUse::default(), &CancellationToken::new()).unwrap();
    connection.spawn(connection.leases.clone().watch(lease.clone()));
    connection.outbox.finish(slot, Bytes::from_static(b"granted l_1"), Some(lease.number));
    drop(lease);
    let cancelled = canceller.join().unwrap();
    loser.join().unwrap();
    connection.join();
    while requests.len() > 0 {
        thread::yield_now();
    }
    connection.outbox.close();
    let lines = writer.join().unwrap();
    let about = lines.iter().filter(|line| line.contains("l_1")).count();
    if cancelled {
        assert_eq!((lines.len(), about), (1, 0), "cancelled, and this is said: {lines:?}");
    } else {
        assert_eq!((lines.len(), about, lines[0].as_str()), (2, 2, "granted l_1"), "{lines:?}");
    }
    assert_eq!((behind.let_go(), requests.len(), total.load(Ordering::SeqCst)), (1, 0, 0));
    assert_eq!(everywhere.total.load(Ordering::SeqCst), 0, "still counted");
}
