//! Spans for a collector, by OTLP over HTTP; the variables `OTEL_*` say the rest.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    Layer,
    filter::{Filtered, Targets},
    registry::LookupSpan,
};

use super::StartError;

/// The service, where the environment names no other.
const SERVICE: &str = "tenured";
/// What an endpoint has for traces.
const PATH: &str = "/v1/traces";
/// Variables that name an endpoint.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What sends spans, until it is dropped; then it sends what is left.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// Turns the spans of requests into those that are sent.
pub(super) type Sent<S> = Filtered<OpenTelemetryLayer<S, SdkTracer>, Targets, S>;

/// Begins to send spans to `endpoint`, or to that of the environment; nowhere if there is none.
///
/// # Errors
/// When it cannot be used.
pub(super) fn begin<S>(endpoint: Option<&str>) -> Result<Option<(Traces, Sent<S>)>, StartError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_off || (endpoint.is_none() && ENDPOINTS.into_iter().find_map(set).is_none()) {
        return Ok(None);
    }
    let mut exporter = SpanExporter::builder().with_http();
    if let Some(endpoint) = endpoint {
        let base = endpoint.trim_end_matches('/');
        exporter = exporter.with_endpoint(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") });
    }
    let failed = |error| StartError::new(format!("cannot send traces: {error}; see --otlp-endpoint and the variables OTEL_*"));
    let exporter = exporter.build().map_err(failed)?;
    let named = set("OTEL_SERVICE_NAME").is_some()
        || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let resource = if named { Resource::builder() } else { Resource::builder().with_service_name(SERVICE) };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE)).with_location(false).with_threads(false);
    // Requests and what they ask of the store, whatever is logged: not what sends them.
    let spans = Targets::new().with_target("tenure", LevelFilter::DEBUG);
    Ok(Some((Traces(provider), layer.with_filter(spans))))
}
