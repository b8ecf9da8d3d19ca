//! The methods `kv.*`, in the range of the coordination bucket that is for applications.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tenure_kv::{Batch, Expect, Key, KeyRange, Op, Revision, State, Ttl};

use super::{connection::Connection, errors, held, leases::Lease, policy::Ability};
use crate::protocol::{
    Entry, ErrorObject, Kind, KvDelete, KvEntries, KvEntry, KvGet, KvHistory, KvKeys, KvKeysListed, KvPut, KvUpdate, Written,
    value,
};

/// Where the keys of applications are in the bucket.
pub(super) const DATA: &str = "data.";
/// How many keys are read at once.
const PAGE: usize = 512;
/// What an answer has besides the keys.
const AROUND: usize = 1_024;
/// How long what was deleted can be seen to have been.
const TOMBSTONE: Duration = Duration::from_secs(3_600);

pub(super) fn refuse_bucket(bucket: Option<&str>) -> Result<(), ErrorObject> {
    match bucket {
        None => Ok(()),
        Some(_) => {
            let said = "buckets other than the coordination bucket are not built yet; leave bucket out";
            Err(ErrorObject::new(Kind::Unsupported, said).with("param", "bucket"))
        }
    }
}

/// `kv.get`.
pub(super) async fn get(connection: Arc<Connection>, params: KvGet) -> Result<KvEntry, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let key = tenure::data_key(&params.key).map_err(|error| errors::of(&error))?;
    let found = connection.daemon.store.entry(&key).await.map_err(errors::of_store)?;
    // The bucket keeps the latest write only.
    let found = found.filter(|entry| entry.is_live() && params.revision.is_none_or(|revision| revision == entry.revision.get()));
    Ok(KvEntry { entry: found.map(|found| shown(params.key, &found)) })
}

/// `kv.history`.
pub(super) async fn history(connection: Arc<Connection>, params: KvHistory) -> Result<KvEntries, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let key = tenure::data_key(&params.key).map_err(|error| errors::of(&error))?;
    let found = connection.daemon.store.entry(&key).await.map_err(errors::of_store)?;
    Ok(KvEntries { entries: found.map(|found| shown(params.key, &found)).into_iter().collect() })
}

fn shown(key: String, found: &tenure_kv::Entry) -> Entry {
    let (value, value_b64) = found.value().map_or((None, None), |bytes| value::encode(bytes));
    let operation = match found.state {
        State::Live(_) => "put",
        State::Deleted(_) => "delete",
        State::Purged => "purge",
        State::Expired => "expire",
    };
    let created = humantime::format_rfc3339_millis(found.created).to_string();
    Entry { key, value, value_b64, revision: found.revision.get(), created, operation: operation.to_owned() }
}

/// `kv.keys`.
pub(super) async fn keys(connection: Arc<Connection>, params: KvKeys) -> Result<KvKeysListed, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let sight = connection.sight(Ability::SEE_KEYS, params.bucket.as_deref());
    let range = KeyRange::new(format!("{DATA}>")).map_err(errors::of_store)?;
    let (prefix, after) = (params.prefix.unwrap_or_default(), params.after);
    // A key that is written meanwhile may be shown twice; its values are not kept.
    let mut keys = BTreeSet::new();
    let mut from = Revision::ZERO;
    loop {
        let page = connection.daemon.store.scan(&range, from, PAGE).await.map_err(errors::of_store)?;
        let names = page.entries.iter().filter_map(|entry| entry.key.as_str().strip_prefix(DATA));
        let wanted = names
            .filter(|name| name.starts_with(&prefix) && sight.sees(name) && after.as_deref().is_none_or(|after| *name > after));
        keys.extend(wanted.map(str::to_owned));
        if page.complete {
            break;
        }
        from = page.through.next();
    }
    let mut listed = KvKeysListed::default();
    let mut room = connection.daemon.limits.line_bytes.saturating_sub(AROUND);
    for key in keys {
        let length = serde_json::to_string(&key).map_or(0, |text| text.len() + 1);
        if length > room
            && let Some(last) = listed.keys.last()
        {
            listed.next = Some(last.clone());
            break;
        }
        room = room.saturating_sub(length);
        listed.keys.push(key);
    }
    Ok(listed)
}

/// `kv.put`.
pub(super) async fn put(connection: Arc<Connection>, params: KvPut) -> Result<Written, ErrorObject> {
    store(connection, "kv.put", params, Expect::Any).await
}

/// `kv.create`.
pub(super) async fn create(connection: Arc<Connection>, params: KvPut) -> Result<Written, ErrorObject> {
    store(connection, "kv.create", params, Expect::Absent).await
}

/// `kv.update`.
pub(super) async fn update(connection: Arc<Connection>, params: KvUpdate) -> Result<Written, ErrorObject> {
    let KvUpdate { key, value, value_b64, revision, bucket, ttl_ms, fence_lease, lock, election, fence } = params;
    let put = KvPut { key, value, value_b64, bucket, ttl_ms, fence_lease, lock, election, fence };
    store(connection, "kv.update", put, Expect::At(Revision::new(revision))).await
}

async fn store(connection: Arc<Connection>, method: &str, params: KvPut, expect: Expect) -> Result<Written, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let key = tenure::data_key(&params.key).map_err(|error| errors::of(&error))?;
    let mut op = Op::put(key, value::decode(params.value, params.value_b64)?).expect(expect);
    match params.ttl_ms.map(Duration::from_millis) {
        None => {}
        Some(Duration::ZERO) => {
            let said = format!("{method}: ttl_ms: at least 1; leave it out for no expiry");
            return Err(ErrorObject::new(Kind::InvalidParams, said).with("param", "ttl_ms"));
        }
        Some(ttl) => op = op.ttl(Ttl::at_least(ttl)),
    }
    let by = By { lease: params.fence_lease, lock: params.lock, election: params.election, fence: params.fence };
    write(&connection, method, by, op).await
}

/// `kv.delete`.
pub(super) async fn delete(connection: Arc<Connection>, params: KvDelete) -> Result<Written, ErrorObject> {
    remove(connection, "kv.delete", params, Op::delete).await
}

/// `kv.purge`.
pub(super) async fn purge(connection: Arc<Connection>, params: KvDelete) -> Result<Written, ErrorObject> {
    remove(connection, "kv.purge", params, Op::purge).await
}

async fn remove(
    connection: Arc<Connection>,
    method: &str,
    params: KvDelete,
    change: impl FnOnce(Key) -> Op,
) -> Result<Written, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let key = tenure::data_key(&params.key).map_err(|error| errors::of(&error))?;
    let expect = params.revision.map_or(Expect::Any, |revision| Expect::At(Revision::new(revision)));
    let by = By { lease: params.fence_lease, lock: params.lock, election: params.election, fence: params.fence };
    write(&connection, method, by, change(key).expect(expect).ttl(Ttl::at_least(TOMBSTONE))).await
}

/// What a write is fenced by, as its parameters have it.
struct By {
    lease: Option<String>,
    lock: Option<String>,
    election: Option<String>,
    fence: Option<u64>,
}

async fn write(connection: &Connection, method: &str, by: By, op: Op) -> Result<Written, ErrorObject> {
    let revision = match (by.lease, by.lock, by.election, by.fence) {
        (None, None, None, None) if connection.daemon.draining.is_cancelled() => return Err(errors::leaving()),
        (None, None, None, None) => connection.daemon.store.commit(op.into()).await.map_err(errors::of_store)?,
        (Some(handle), None, None, None) => fenced(&*connection.leases.find(&handle).held(&handle)?, op.into()).await?,
        (None, Some(lock), None, Some(fence)) => elsewhere(connection, held::Kind::Lock, &lock, fence, op.into()).await?,
        (None, None, Some(election), Some(fence)) => {
            elsewhere(connection, held::Kind::Leadership, &election, fence, op.into()).await?
        }
        _ => {
            let said =
                format!("{method}: fence_lease alone, or fence with either lock or election, say what the write is fenced by");
            return Err(ErrorObject::new(Kind::InvalidParams, said));
        }
    };
    Ok(Written { revision: revision.get() })
}

/// A write fenced by a hold of whichever connection.
async fn elsewhere(
    connection: &Connection,
    kind: held::Kind,
    name: &str,
    fence: u64,
    batch: Batch,
) -> Result<tenure_kv::Revision, ErrorObject> {
    let Some(lease) = connection.daemon.leases.holds.find(kind, name, fence) else { return Err(passed_on(name, fence)) };
    fenced(&lease, batch).await.map_err(|error| match error.kind() {
        // Of somebody else's lease only this is promised to be told.
        Some(Kind::Lost | Kind::NotHeld) => passed_on(name, fence),
        _ => error,
    })
}

fn passed_on(name: &str, fence: u64) -> ErrorObject {
    let name: String = name.chars().take(64).collect();
    ErrorObject::new(Kind::Conflict, format!("nobody holds {name} with token {fence} through this daemon; nothing was written"))
}

async fn fenced(lease: &Lease, batch: Batch) -> Result<tenure_kv::Revision, ErrorObject> {
    lease.using(|held| async move { held.commit(batch).await }).await
}
