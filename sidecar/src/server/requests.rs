//! What each line asks for: parsed, admitted, and handed to its method.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tracing::{Instrument, Span};

use super::{
    connection::Connection,
    elections, errors,
    held::{self, Held},
    inflight::{self, Finish, Slot},
    keys, kv,
    leases::Found,
    locks, members,
    operation::Operation,
    outbox::{Outbox, Room},
    sessions::millis,
    subscriptions::Subscription,
};
use crate::protocol::{
    CAPABILITIES, Cancel, Done, ElectionName, ErrorObject, Hello, HelloResult, Id, Kind, KvWatch, LeaseRef, LockCheck, LockGet,
    METHODS, MemberWatchParams, NoParams, SubscriptionCancel, VERSION, document, frame, frame::Request,
};

/// The shortest and the longest `heartbeat_ms`.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 100..=86_400_000;

/// Deals with one line: answers at once, or starts a task that will.
pub(super) fn line(connection: &Arc<Connection>, line: &[u8], room: Room) {
    let request = match Request::parse(line) {
        Ok(request) => request,
        Err(refusal) => {
            connection.daemon.metrics.unreadable(&refusal.error);
            return connection.outbox.answer(room, frame::failure(refusal.id.as_ref(), &refusal.error));
        }
    };
    let Some(id) = request.id.clone() else { return notification(connection, &request) };
    let mut operation = Some(Operation::begin(connection, &request));
    let now = if connection.inflight.contains(&id) {
        Err(inflight::taken_id(&id))
    } else if let Err(error) = connection.daemon.policies.judge(&connection.peer.who, &request) {
        Err(error)
    } else {
        match &*request.method {
            // Whatever is served is described.
            method if !METHODS.contains(&method) => Err(no_method(method)),
            "hello" => {
                request.params().and_then(|hello| say_hello(connection, hello)).and_then(|r| connection.outbox.encode(&id, r))
            }
            "ping" => request.params().and_then(|NoParams {}| connection.outbox.encode(&id, Done {})),
            "status" => request.params().and_then(|NoParams {}| connection.outbox.encode(&id, connection.status())),
            "rpc.discover" => request.params().and_then(|NoParams {}| connection.outbox.encode(&id, document())),
            "cancel" => {
                request.params().and_then(|cancel| stop(connection, &cancel)).and_then(|r| connection.outbox.encode(&id, r))
            }
            "lock.check" => {
                request.params().and_then(|lease| check(connection, &lease)).and_then(|r| connection.outbox.encode(&id, r))
            }
            "member.beat" => request
                .params()
                .and_then(|lease| members::beat(connection, &lease))
                .and_then(|r| connection.outbox.encode(&id, r)),
            "subscription.cancel" => request
                .params()
                .and_then(|SubscriptionCancel { subscription }| connection.subscriptions.cancel(&subscription))
                .and_then(|r| connection.outbox.encode(&id, r)),
            "lock.observe" => match request.params().and_then(|LockGet { name }| locks::observe(connection, &name)) {
                Ok(subscribed) => return subscribed.begin(connection, &id, room, operation),
                Err(error) => Err(error),
            },
            "election.observe" => {
                match request.params().and_then(|ElectionName { name }| elections::observe(connection, &name)) {
                    Ok(subscribed) => return subscribed.begin(connection, &id, room, operation),
                    Err(error) => Err(error),
                }
            }
            "member.watch" => match request.params().and_then(|MemberWatchParams { group }| members::watch(connection, &group)) {
                Ok(subscribed) => return subscribed.begin(connection, &id, room, operation),
                Err(error) => Err(error),
            },
            "kv.watch" => match request.params().and_then(|params| watch_keys(connection, &id, params, &mut operation)) {
                Ok(Some(subscribed)) => return subscribed.begin(connection, &id, room, operation),
                Ok(None) => return,
                Err(error) => Err(error),
            },
            _ => match start(connection, id.clone(), &request, &mut operation) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        }
    };
    if let Some(operation) = operation {
        operation.end(now.as_ref().map(drop));
    }
    connection.outbox.answer(room, now.unwrap_or_else(|error| frame::failure(Some(&id), &error)));
}

/// The subscription of `kv.watch`; `None` where a bucket has to be opened first, and the request goes on meanwhile.
fn watch_keys(
    connection: &Arc<Connection>,
    id: &Id,
    params: KvWatch,
    operation: &mut Option<Operation>,
) -> Result<Option<Subscription<keys::Keys>>, ErrorObject> {
    if params.bucket.is_none() {
        return keys::watch(connection, Some(connection.daemon.buckets.own()), params).map(Some);
    }
    let slot = connection.inflight.admit(id.clone(), false)?;
    let (connection, id, operation) = (connection.clone(), id.clone(), operation.take());
    connection.clone().spawn(async move {
        let opened = tokio::select! {
            biased;
            () = slot.cancel().cancelled() => {
                operation.into_iter().for_each(Operation::cancelled);
                return connection.outbox.finish(slot, Bytes::new(), None);
            }
            opened = connection.daemon.buckets.get(params.bucket.as_deref()) => opened,
        };
        let bucket = match opened {
            Ok(bucket) => Some(bucket),
            // As with the coordination bucket, this is no fault of the request.
            Err(error) if error.kind() == Some(Kind::Unavailable) => None,
            Err(error) => return finish(&connection.outbox, slot, operation, Err::<(Done, _), _>(error)),
        };
        let Some(room) = connection.outbox.room().await else { return };
        // From here on it cannot be cancelled any more: what begins now is known to the client.
        if let Finish::Cancelled(slot) = slot.finish(true) {
            operation.into_iter().for_each(Operation::cancelled);
            return connection.outbox.answer(room, slot.cancelled());
        }
        match keys::watch(&connection, bucket, params) {
            Ok(subscribed) => subscribed.begin(&connection, &id, room, operation),
            Err(error) => {
                operation.into_iter().for_each(|operation| operation.end(Err(&error)));
                connection.outbox.answer(room, frame::failure(Some(&id), &error));
            }
        }
    });
    Ok(None)
}

/// Of a line that wants no answer only what makes sense without one takes effect.
fn notification(connection: &Connection, request: &Request<'_>) {
    match &*request.method {
        "ping" => {}
        "cancel" => match request.params::<Cancel>() {
            Ok(cancel) => {
                connection.inflight.cancel(&cancel.id);
            }
            Err(error) => tracing::debug!(session = connection.session, %error, "ignored a notification"),
        },
        method => tracing::debug!(session = connection.session, method, "ignored a notification: it would need an answer"),
    }
}

/// Starts the methods that take time.
fn start(
    connection: &Arc<Connection>,
    id: Id,
    request: &Request<'_>,
    operation: &mut Option<Operation>,
) -> Result<(), ErrorObject> {
    match &*request.method {
        "lock.acquire" => {
            let params = request.params()?;
            let slot = connection.inflight.admit(id, false)?;
            let acquire = locks::Acquire::new(connection, params, slot.cancel().clone())?;
            grant(connection, slot, operation.take(), acquire.run(connection.clone()));
            Ok(())
        }
        "election.campaign" => {
            let params = request.params()?;
            let slot = connection.inflight.admit(id, false)?;
            let campaign = elections::Campaign::new(connection, params, slot.cancel().clone())?;
            grant(connection, slot, operation.take(), campaign.run(connection.clone()));
            Ok(())
        }
        "member.join" => {
            let params = request.params()?;
            let slot = connection.inflight.admit(id, false)?;
            let join = members::Join::new(connection, params, slot.cancel().clone())?;
            grant(connection, slot, operation.take(), join.run(connection.clone()));
            Ok(())
        }
        "lock.release" => release(connection, id, request, operation, held::Kind::Lock),
        "election.resign" => release(connection, id, request, operation, held::Kind::Leadership),
        "member.leave" => release(connection, id, request, operation, held::Kind::Member),
        "lock.get" => run(connection, id, request, operation, false, locks::get),
        "lock.list" => run(connection, id, request, operation, false, locks::list),
        "lock.break" => run(connection, id, request, operation, true, locks::break_hold),
        "election.proclaim" => run(connection, id, request, operation, true, elections::proclaim),
        "election.transfer" => run(connection, id, request, operation, true, elections::transfer),
        "election.leader" => run(connection, id, request, operation, false, elections::leader),
        "election.candidates" => run(connection, id, request, operation, false, elections::candidates),
        "election.list" => run(connection, id, request, operation, false, elections::list),
        "member.update" => run(connection, id, request, operation, true, members::update),
        "member.list" => run(connection, id, request, operation, false, members::list),
        "member.groups" => run(connection, id, request, operation, false, members::groups),
        "kv.get" => run(connection, id, request, operation, false, kv::get),
        "kv.put" => run(connection, id, request, operation, true, kv::put),
        "kv.create" => run(connection, id, request, operation, true, kv::create),
        "kv.update" => run(connection, id, request, operation, true, kv::update),
        "kv.delete" => run(connection, id, request, operation, true, kv::delete),
        "kv.purge" => run(connection, id, request, operation, true, kv::purge),
        "kv.keys" => run(connection, id, request, operation, false, kv::keys),
        "kv.history" => run(connection, id, request, operation, false, kv::history),
        method => Err(no_method(method)),
    }
}

fn no_method(method: &str) -> ErrorObject {
    let method: String = method.chars().take(64).collect();
    ErrorObject::new(Kind::MethodNotFound, format!("there is no method {method:?}; hello lists those there are"))
}

/// Runs what may become a lease: it knows itself how to stop in good order.
fn grant<R: Serialize + Send + 'static>(
    connection: &Arc<Connection>,
    slot: Slot,
    operation: Option<Operation>,
    work: impl Future<Output = Result<(R, Option<u64>), ErrorObject>> + Send + 'static,
) {
    let outbox = connection.outbox.clone();
    let work = work.instrument(span(&operation));
    connection.spawn(async move { finish(&outbox, slot, operation, work.await) });
}

/// What `work` for an operation runs in.
fn span(operation: &Option<Operation>) -> Span {
    operation.as_ref().map_or_else(Span::none, |operation| operation.span().clone())
}

/// Gives a lease up.
fn release(
    connection: &Arc<Connection>,
    id: Id,
    request: &Request<'_>,
    operation: &mut Option<Operation>,
    kind: held::Kind,
) -> Result<(), ErrorObject> {
    let LeaseRef { lease } = request.params()?;
    let inflight = &connection.inflight;
    let first = matches!(connection.leases.find(&lease), Found::Held(_));
    let slot = if first { inflight.admit_release(id) } else { inflight.admit(id, true) }?;
    // Taken out in the order of lines: nothing sent after the release finds the lease.
    let asked = connection.leases.leave(&lease, kind)?;
    asked.begin(connection);
    spawn(connection, slot, operation.take(), asked.outcome(connection.leases.clone()));
    Ok(())
}

fn run<P, R, F>(
    connection: &Arc<Connection>,
    id: Id,
    request: &Request<'_>,
    operation: &mut Option<Operation>,
    changes: bool,
    method: impl FnOnce(Arc<Connection>, P) -> F,
) -> Result<(), ErrorObject>
where
    P: DeserializeOwned,
    R: Serialize + Send + 'static,
    F: Future<Output = Result<R, ErrorObject>> + Send + 'static,
{
    let params = request.params()?;
    let slot = connection.inflight.admit(id, changes)?;
    spawn(connection, slot, operation.take(), method(connection.clone(), params));
    Ok(())
}

/// Runs `work` to its answer, or until the client cancels it.
fn spawn<R, F>(connection: &Arc<Connection>, slot: Slot, operation: Option<Operation>, work: F)
where
    R: Serialize + Send + 'static,
    F: Future<Output = Result<R, ErrorObject>> + Send + 'static,
{
    let outbox = connection.outbox.clone();
    let work = work.instrument(span(&operation));
    connection.spawn(async move {
        let outcome = tokio::select! {
            biased;
            // The slot knows that it is cancelled and answers for itself.
            () = slot.cancel().cancelled() => {
                operation.into_iter().for_each(Operation::cancelled);
                return outbox.finish(slot, Bytes::new(), None);
            }
            outcome = work => outcome,
        };
        finish(&outbox, slot, operation, outcome.map(|result| (result, None)));
    });
}

/// Answers. The lease that comes with a result goes back if the answer is not given after all.
fn finish(
    outbox: &Outbox,
    slot: Slot,
    operation: Option<Operation>,
    outcome: Result<(impl Serialize, Option<u64>), ErrorObject>,
) {
    let encoded = outcome.and_then(|(result, lease)| Ok((outbox.encode(slot.id(), result)?, lease)));
    match operation {
        Some(operation) if slot.cancel().is_cancelled() => operation.cancelled(),
        Some(operation) => operation.end(encoded.as_ref().map(drop)),
        None => {}
    }
    let (line, lease) = encoded.unwrap_or_else(|error| (frame::failure(Some(slot.id()), &error), None));
    outbox.finish(slot, line, lease);
}

fn say_hello(connection: &Connection, hello: Hello) -> Result<HelloResult, ErrorObject> {
    if !hello.protocol.contains(&VERSION) {
        let said = format!("this daemon speaks version {VERSION} of the protocol only");
        return Err(ErrorObject::new(Kind::Unsupported, said).with("protocol", vec![VERSION]));
    }
    if let Some(heartbeat) = hello.heartbeat_ms
        && !HEARTBEATS.contains(&heartbeat)
    {
        let said = format!("heartbeat_ms: {heartbeat} is outside {} to {}", HEARTBEATS.start(), HEARTBEATS.end());
        return Err(errors::param("heartbeat_ms", said));
    }
    connection.set_heartbeat(hello.heartbeat_ms.map(Duration::from_millis));
    tracing::debug!(session = connection.session, client = hello.client, pid = connection.peer.pid, "hello");
    Ok(HelloResult {
        protocol: VERSION,
        server: super::SERVER.to_owned(),
        session: connection.session.clone(),
        store: connection.daemon.store_info(),
        capabilities: METHODS.iter().chain(CAPABILITIES).map(|name| (*name).to_owned()).collect(),
        limits: connection.daemon.limits.clone(),
    })
}

fn stop(connection: &Connection, cancel: &Cancel) -> Result<Done, ErrorObject> {
    if connection.inflight.cancel(&cancel.id) {
        return Ok(Done {});
    }
    let said = format!("no request {} is in flight on this connection; it may have been answered already", cancel.id);
    Err(ErrorObject::new(Kind::NotFound, said))
}

fn check(connection: &Connection, LeaseRef { lease: handle }: &LeaseRef) -> Result<LockCheck, ErrorObject> {
    let lease = connection.leases.find(handle).held(handle)?;
    // Taken by nobody but a release, which takes the handle first.
    let remaining = lease.held.try_read().ok().and_then(|held| held.as_ref().map(Held::remaining)).unwrap_or_default();
    Ok(LockCheck { held: !remaining.is_zero(), remaining_ms: millis(remaining), fence: lease.fence })
}
