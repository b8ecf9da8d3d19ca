//! The methods `kv.*`, in a bucket that is named or else in the range of the coordination bucket for applications.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tenure_kv::{Batch, Expect, Key, KeyRange, Op, Revision, State, Ttl};

use super::{connection::Connection, errors, held, leases::Lease, pages, policy::Ability};
use crate::protocol::{
    Entry, ErrorObject, Kind, KvDelete, KvEntries, KvEntry, KvGet, KvHistory, KvKeys, KvKeysListed, KvPut, KvUpdate, Written,
    value,
};

/// How long what was deleted can be seen to have been.
const TOMBSTONE: Duration = Duration::from_secs(3_600);

fn key_of(text: &str) -> Result<Key, ErrorObject> {
    Key::new(text).map_err(errors::of_store)
}

/// `kv.get`.
pub(super) async fn get(connection: Arc<Connection>, params: KvGet) -> Result<KvEntry, ErrorObject> {
    let (key, name) = (key_of(&params.key)?, params.bucket.as_deref());
    let buckets = &connection.daemon.buckets;
    let bucket = buckets.get(name).await?;
    let found = match params.revision {
        None => bucket.entry(&key).await,
        Some(revision) => bucket.entry_at(&key, Revision::new(revision)).await,
    };
    let found = match found {
        Ok(found) => found.filter(tenure_kv::Entry::is_live),
        Err(error) => return Err(buckets.failed(name, error).await),
    };
    Ok(KvEntry { entry: found.as_ref().map(shown) })
}

/// `kv.history`.
pub(super) async fn history(connection: Arc<Connection>, params: KvHistory) -> Result<KvEntries, ErrorObject> {
    let (key, name) = (key_of(&params.key)?, params.bucket.as_deref());
    let buckets = &connection.daemon.buckets;
    let bucket = buckets.get(name).await?;
    let most = connection.daemon.limits.line_bytes;
    let kept = match bucket.history(&key, most).await {
        Ok(kept) => kept,
        Err(error) => return Err(buckets.failed(name, error).await),
    };
    if kept.iter().filter_map(tenure_kv::Entry::value).map(bytes::Bytes::len).sum::<usize>() > most {
        let said = format!(
            "what the bucket keeps of {key} is longer than a line of {most} bytes; follow it with kv.watch from_revision 1 instead"
        );
        return Err(ErrorObject::limit("line_bytes", said));
    }
    Ok(KvEntries { entries: kept.iter().map(shown).collect() })
}

fn shown(found: &tenure_kv::Entry) -> Entry {
    let (value, value_b64) = found.value().map_or((None, None), |bytes| value::encode(bytes));
    let operation = match found.state {
        State::Live(_) => "put",
        State::Deleted(_) => "delete",
        State::Purged => "purge",
        State::Expired => "expire",
    };
    let created = humantime::format_rfc3339_millis(found.created).to_string();
    Entry {
        key: found.key.as_str().to_owned(),
        value,
        value_b64,
        revision: found.revision.get(),
        created,
        operation: operation.to_owned(),
    }
}

/// `kv.keys`.
pub(super) async fn keys(connection: Arc<Connection>, params: KvKeys) -> Result<KvKeysListed, ErrorObject> {
    let name = params.bucket.as_deref();
    let sight = connection.sight(Ability::SEE_KEYS, name);
    let (prefix, after) = (params.prefix.unwrap_or_default(), params.after);
    let buckets = &connection.daemon.buckets;
    let keys = match buckets.get(name).await?.keys(&KeyRange::All).await {
        Ok(keys) => keys,
        Err(error) => return Err(buckets.failed(name, error).await),
    };
    // A key that was written meanwhile may be there twice.
    let keys: BTreeSet<&str> = keys
        .iter()
        .map(Key::as_str)
        .filter(|name| name.starts_with(&prefix) && sight.sees(name) && pages::is_after(name, after.as_deref()))
        .collect();
    let (keys, next) = pages::page(keys, |key| (*key).to_owned(), usize::MAX, pages::room(connection.daemon.limits.line_bytes));
    Ok(KvKeysListed { keys: keys.into_iter().map(str::to_owned).collect(), next })
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
    let mut op = Op::put(key_of(&params.key)?, value::decode(params.value, params.value_b64)?).expect(expect);
    match params.ttl_ms.map(Duration::from_millis) {
        None => {}
        Some(Duration::ZERO) => {
            let said = format!("{method}: ttl_ms: at least 1; leave it out for no expiry");
            return Err(ErrorObject::new(Kind::InvalidParams, said).with("param", "ttl_ms"));
        }
        Some(ttl) => op = op.ttl(Ttl::at_least(ttl)),
    }
    let by = By { lease: params.fence_lease, lock: params.lock, election: params.election, fence: params.fence };
    write(&connection, method, params.bucket.as_deref(), by, op).await
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
    let key = key_of(&params.key)?;
    let expect = params.revision.map_or(Expect::Any, |revision| Expect::At(Revision::new(revision)));
    let by = By { lease: params.fence_lease, lock: params.lock, election: params.election, fence: params.fence };
    let op = change(key).expect(expect).ttl(Ttl::at_least(TOMBSTONE));
    write(&connection, method, params.bucket.as_deref(), by, op).await
}

/// What a write is fenced by, as its parameters have it.
struct By {
    lease: Option<String>,
    lock: Option<String>,
    election: Option<String>,
    fence: Option<u64>,
}

impl By {
    /// The first parameter that says so.
    fn named(&self) -> Option<&'static str> {
        let named = [("fence_lease", self.lease.is_some()), ("fence", self.fence.is_some())];
        let more = [("lock", self.lock.is_some()), ("election", self.election.is_some())];
        named.into_iter().chain(more).find_map(|(name, there)| there.then_some(name))
    }
}

async fn write(connection: &Connection, method: &str, bucket: Option<&str>, by: By, op: Op) -> Result<Written, ErrorObject> {
    if let (Some(_), Some(param)) = (bucket, by.named()) {
        let said = format!("{method}: {param} works in the coordination bucket only; leave out {param} or bucket");
        return Err(errors::param(param, said));
    }
    let revision = match (by.lease, by.lock, by.election, by.fence) {
        (None, None, None, None) => plainly(connection, bucket, op).await?,
        (Some(handle), None, None, None) => fenced(&*connection.leases.find(&handle).held(&handle)?, own(op)?).await?,
        (None, Some(lock), None, Some(fence)) => elsewhere(connection, held::Kind::Lock, &lock, fence, own(op)?).await?,
        (None, None, Some(election), Some(fence)) => {
            elsewhere(connection, held::Kind::Leadership, &election, fence, own(op)?).await?
        }
        _ => {
            let said =
                format!("{method}: fence_lease alone, or fence with either lock or election, say what the write is fenced by");
            return Err(ErrorObject::new(Kind::InvalidParams, said));
        }
    };
    Ok(Written { revision: revision.get() })
}

async fn plainly(connection: &Connection, name: Option<&str>, op: Op) -> Result<Revision, ErrorObject> {
    if connection.daemon.draining.is_cancelled() {
        return Err(errors::leaving());
    }
    let buckets = &connection.daemon.buckets;
    let bucket = buckets.get(name).await?;
    match bucket.write(op).await {
        Ok(revision) => Ok(revision),
        Err(error) => Err(buckets.failed(name, error).await),
    }
}

/// The write in the store's own terms, for its fence.
fn own(op: Op) -> Result<Batch, ErrorObject> {
    let key = tenure::data_key(op.key.as_str()).map_err(|error| errors::of(&error))?;
    Ok(Op { key, ..op }.into())
}

/// A write fenced by a hold of whichever connection.
async fn elsewhere(
    connection: &Connection,
    kind: held::Kind,
    name: &str,
    fence: u64,
    batch: Batch,
) -> Result<Revision, ErrorObject> {
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

async fn fenced(lease: &Lease, batch: Batch) -> Result<Revision, ErrorObject> {
    lease.using(|held| async move { held.commit(batch).await }).await
}
