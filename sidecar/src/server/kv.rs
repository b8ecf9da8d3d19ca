//! The methods `kv.*`, in the range of the coordination bucket that is for applications.

use std::{sync::Arc, time::Duration};

use tenure_kv::{Batch, Op, Ttl};

use super::{connection::Connection, errors, held, leases::Lease};
use crate::protocol::{Entry, ErrorObject, Kind, KvEntry, KvGet, KvPut, Written, value};

fn refuse_bucket(bucket: Option<&str>) -> Result<(), ErrorObject> {
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
    let found = found.filter(|entry| params.revision.is_none_or(|revision| revision == entry.revision.get()));
    let entry = found.as_ref().and_then(|entry| entry.value().map(|bytes| (entry, bytes))).map(|(entry, bytes)| {
        let (value, value_b64) = value::encode(bytes);
        Entry {
            key: params.key,
            value,
            value_b64,
            revision: entry.revision.get(),
            created: humantime::format_rfc3339_millis(entry.created).to_string(),
            operation: "put".to_owned(),
        }
    });
    Ok(KvEntry { entry })
}

/// `kv.put`.
pub(super) async fn put(connection: Arc<Connection>, params: KvPut) -> Result<Written, ErrorObject> {
    refuse_bucket(params.bucket.as_deref())?;
    let key = tenure::data_key(&params.key).map_err(|error| errors::of(&error))?;
    let mut op = Op::put(key, value::decode(params.value, params.value_b64)?);
    match params.ttl_ms.map(Duration::from_millis) {
        None => {}
        Some(Duration::ZERO) => {
            let said = "kv.put: ttl_ms: at least 1; leave it out for no expiry";
            return Err(ErrorObject::new(Kind::InvalidParams, said).with("param", "ttl_ms"));
        }
        Some(ttl) => op = op.ttl(Ttl::at_least(ttl)),
    }
    let revision = match (params.fence_lease, params.lock, params.election, params.fence) {
        (None, None, None, None) if connection.daemon.draining.is_cancelled() => return Err(errors::leaving()),
        (None, None, None, None) => connection.daemon.store.commit(op.into()).await.map_err(errors::of_store)?,
        (Some(handle), None, None, None) => fenced(&*connection.leases.find(&handle).held(&handle)?, op.into()).await?,
        (None, Some(lock), None, Some(fence)) => elsewhere(&connection, held::Kind::Lock, &lock, fence, op.into()).await?,
        (None, None, Some(election), Some(fence)) => {
            elsewhere(&connection, held::Kind::Leadership, &election, fence, op.into()).await?
        }
        _ => {
            let said = "kv.put: fence_lease alone, or fence with either lock or election, say what the write is fenced by";
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
