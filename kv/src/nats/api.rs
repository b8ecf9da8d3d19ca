//! JetStream's request API: JSON in, JSON or a numbered error out.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::link::{Failure, Link};
use crate::{Error, Result};

/// An error that JetStream reports by number.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    pub(super) err_code: u64,
    pub(super) description: String,
}

pub(super) const STREAM_NOT_FOUND: u64 = 10059;
pub(super) const STREAM_NAME_IN_USE: u64 = 10058;
pub(super) const TOO_MANY_CONSUMERS: u64 = 10026;

/// What came of a request that arrived.
pub(super) type Outcome = std::result::Result<Value, ApiError>;

/// Sends `body` to `$JS.API.<call>`.
pub(super) async fn request(link: &Link, call: &str, body: Option<&Value>, limit: Duration, what: &str) -> Result<Outcome> {
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let reply = link.ask(&format!("$JS.API.{call}"), None, body, limit).await.map_err(|failure| match failure {
        Failure::NoResponders => Error::invalid(format!(
            "{what}: JetStream is not enabled on this NATS server or account; start it with `nats-server -js` or enable it in the account"
        )),
        other => other.of_read(what),
    })?;
    let mut value: Value = serde_json::from_slice(&reply.payload)
        .map_err(|e| Error::unavailable(format!("{what}: an answer from NATS that makes no sense")).caused_by(e))?;
    match value.get_mut("error").map(Value::take) {
        None | Some(Value::Null) => Ok(Ok(value)),
        Some(error) => Ok(Err(ApiError::deserialize(error).unwrap_or_default())),
    }
}

impl ApiError {
    /// The error for a call that changes nothing we rely on.
    pub(super) fn into_error(self, what: &str) -> Error {
        let Self { err_code, description } = self;
        let said = format!("{what}: {description} (NATS error {err_code})");
        match err_code {
            10039 | 10076 | 10035 => {
                Error::invalid(format!("{said}; enable JetStream for this account or start the server with `nats-server -js`"))
            }
            10074 | 10005 => Error::invalid(format!("{said}; ask for fewer replicas or add servers to the cluster")),
            10027 | 10113 | 10120 | 10122 | 10052 | 10065 | 10128 => Error::invalid(said),
            _ => Error::unavailable(said),
        }
    }
}
