//! How an answer is put together.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::{Value as Json, json};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why there is no better answer, with the remedy.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    kind: &'static str,
    message: String,
    age_ms: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), age_ms: None }
    }

    /// Not now.
    pub(super) fn unavailable(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, message)
    }

    /// The question is wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_params", message)
    }

    /// As of so long ago.
    pub(super) const fn aged(mut self, age_ms: u64) -> Self {
        self.age_ms = Some(age_ms);
        self
    }

    /// The status and the message, for [`crate::fuzzing`].
    #[cfg(feature = "fuzzing")]
    pub(super) fn told(self) -> (u16, String) {
        (self.status.as_u16(), self.message)
    }

    pub(super) fn answer(self) -> Response<Body> {
        let mut page = json!({ "error": { "kind": self.kind, "message": self.message } });
        if let (Some(age), Some(page)) = (self.age_ms, page.as_object_mut()) {
            page.insert("age_ms".to_owned(), age.into());
        }
        let mut answer = json_page(self.status, &page);
        let headers = answer.headers_mut();
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => None,
        };
        answer
    }
}

/// One JSON object.
pub(super) fn json_page(status: StatusCode, page: &Json) -> Response<Body> {
    text_page(status, "application/json", format!("{page}\n"))
}

/// Text of that type. It is of this moment, so nobody is to keep it.
pub(super) fn text_page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    page(status, content_type, Full::new(Bytes::from(text)).boxed_unsync())
}

/// A page of that type.
pub(super) fn page(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
