//! One request from its line to its answer: its span, and what is counted of it.

use std::{borrow::Cow, sync::Arc, time::Instant};

use serde::Deserialize;
use tracing::{Span, field::Empty};

use super::{
    connection::Connection,
    metrics::{Metrics, Outcome},
};
use crate::protocol::{ErrorObject, Kind, frame::Request};

/// A longer name is not shown.
const SHOWN: usize = 256;

/// A request that is being served. One that is dropped was not answered.
#[derive(Debug)]
pub(super) struct Operation {
    metrics: Arc<Metrics>,
    method: usize,
    begun: Instant,
    span: Span,
    open: bool,
}

/// Of the parameters only what names something. Never a value.
#[derive(Default, Deserialize)]
struct Names<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    group: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    prefix: Option<Cow<'a, str>>,
    #[serde(borrow)]
    lease: Option<Cow<'a, str>>,
}

impl Operation {
    pub(super) fn begin(connection: &Connection, request: &Request<'_>) -> Self {
        let method = Metrics::method(&request.method);
        let named = Metrics::named(method);
        let peer = &connection.peer;
        let span = tracing::debug_span!(
            target: "tenure::request",
            "request",
            otel.name = Empty,
            method = named,
            subject = Empty,
            lease = Empty,
            session = connection.session,
            uid = peer.uid,
            pid = peer.pid,
            outcome = Empty,
        );
        if !span.is_disabled() {
            #[cfg(feature = "otlp")]
            span.record("otel.name", named);
            let names: Names<'_> = request.params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
            if let Some(name) = names.name.or(names.group).or(names.key).or(names.prefix) {
                span.record("subject", shown(&name));
            }
            if let Some(lease) = names.lease {
                span.record("lease", shown(&lease));
            }
        }
        Self { metrics: connection.daemon.metrics.clone(), method, begun: Instant::now(), span, open: true }
    }

    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    /// It is answered.
    pub(super) fn end(mut self, answer: Result<(), &ErrorObject>) {
        self.note(match answer {
            Ok(()) => Outcome::Ok,
            Err(error) => Outcome::Error(error.kind().unwrap_or(Kind::Internal)),
        });
    }

    /// It was cancelled by its client.
    pub(super) fn cancelled(mut self) {
        self.note(Outcome::Error(Kind::Cancelled));
    }

    fn note(&mut self, outcome: Outcome) {
        self.open = false;
        self.metrics.request(self.method, outcome);
        if !self.span.is_disabled() {
            let took = self.begun.elapsed().as_secs_f64() * 1_000.0;
            self.span.record("outcome", outcome.as_str());
            tracing::debug!(target: "tenure::request", parent: &self.span, duration_ms = took, "done");
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.open {
            self.note(Outcome::Dropped);
        }
    }
}

fn shown(name: &str) -> &str {
    // No name that is taken is longer.
    if name.len() <= SHOWN { name } else { "(too long)" }
}
