//! Errors on the wire: the kinds are the contract, the messages are for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// What went wrong, sorted by what the caller should do about it: `data.kind` of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The line is not JSON.
    ParseError,
    /// The line is JSON and no request.
    InvalidRequest,
    /// No such method.
    MethodNotFound,
    /// A parameter is missing, unknown or wrong.
    InvalidParams,
    /// A defect of the daemon.
    Internal,
    /// The request was cancelled by its sender and holds nothing.
    Cancelled,
    /// Not acquired within `wait_ms`.
    Timeout,
    /// A precondition failed; not applied. `data.revision` when known.
    Conflict,
    /// No such lease on this connection.
    NotHeld,
    /// The lease is lost; `data.reason` says why.
    Lost,
    /// No such key, bucket, name or request.
    NotFound,
    /// The store is out of reach or the daemon is leaving; not applied.
    Unavailable,
    /// This peer may not.
    Denied,
    /// A limit of this connection or of the daemon, named by `data.limit`.
    Limit,
    /// May have been applied: read back before assuming either.
    UnknownOutcome,
    /// This protocol version or capability is not there.
    Unsupported,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::Internal,
        Self::Cancelled,
        Self::Timeout,
        Self::Conflict,
        Self::NotHeld,
        Self::Lost,
        Self::NotFound,
        Self::Unavailable,
        Self::Denied,
        Self::Limit,
        Self::UnknownOutcome,
        Self::Unsupported,
    ];

    /// The `code` of an error of this kind.
    pub const fn code(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::Cancelled => -32800,
            Self::Timeout => 1,
            Self::Conflict => 2,
            Self::NotHeld => 3,
            Self::Lost => 4,
            Self::NotFound => 5,
            Self::Unavailable => 6,
            Self::Denied => 7,
            Self::Limit => 8,
            Self::UnknownOutcome => 9,
            Self::Unsupported => 10,
        }
    }

    /// Whether the same request may be sent again as it is, with nothing read back before.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable | Self::Limit)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::Internal => "internal",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::NotHeld => "not_held",
            Self::Lost => "lost",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `error` member of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// The number that belongs to the kind.
    pub code: i64,
    /// One sentence for people.
    pub message: String,
    /// `kind`, `retryable` and what else belongs to the kind.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Json>,
}

impl ErrorObject {
    /// An error of `kind`; `message` says what and how to mend it.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let mut data = Map::new();
        data.insert("kind".into(), kind.as_str().into());
        data.insert("retryable".into(), kind.retryable().into());
        Self { code: kind.code(), message: message.into(), data }
    }

    /// Adds a member to `data`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.data.insert(name.into(), value.into());
        self
    }

    /// The limit named `limit` is reached.
    pub fn limit(limit: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Limit, message).with("limit", limit)
    }

    /// The kind, or `None` for one this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        self.data.get("kind").and_then(|kind| Kind::deserialize(kind).ok())
    }

    /// Whether `data.retryable` says that the same request may be sent again.
    pub fn retryable(&self) -> bool {
        self.data.get("retryable").and_then(Json::as_bool).unwrap_or(false)
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorObject {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_serde_names() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(ErrorObject::new(kind, "x").kind(), Some(kind));
        }
    }

    #[test]
    fn an_error_of_a_later_version_is_still_read() {
        let error: ErrorObject = serde_json::from_str(r#"{"code":77,"message":"m","data":{"kind":"newer","x":1}}"#).unwrap();
        assert_eq!((error.kind(), error.retryable(), error.code), (None, false, 77));
        let bare: ErrorObject = serde_json::from_str(r#"{"code":-32603,"message":"m"}"#).unwrap();
        assert_eq!(bare.kind(), None);
    }
}
