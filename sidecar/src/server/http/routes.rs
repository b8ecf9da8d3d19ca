//! Which question is asked, and what answers it.

use std::{borrow::Cow, convert::Infallible, sync::Arc};

use hyper::{Method, Request, Response, StatusCode, body::Incoming, header::ACCEPT};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{
    Site,
    answers::{Body, Refusal, json_page, text_page},
    events, groups, leaders,
    places::Place,
};
use crate::server::{
    metrics::{Format, scrape},
    policy::Ability,
    sessions::millis,
};

/// How long the store may have been silent for the daemon to be ready.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// What is served.
const PATHS: &str = "/healthz, /readyz, /metrics, /v1/leader/NAME, /v1/leader/NAME/events, /v1/members/GROUP and \
                     /v1/members/GROUP/events; a / in a name is written %2F";

/// A question.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Ready,
    Metrics,
    Leader(Cow<'a, str>),
    LeaderEvents(Cow<'a, str>),
    Members(Cow<'a, str>),
    MemberEvents(Cow<'a, str>),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Result<Self, Refusal> {
        let segments: Vec<_> = path.split('/').skip(1).collect();
        let name = |text: &'a str| {
            percent_decode_str(text).decode_utf8().map_err(|_| Refusal::wrong(format!("the name in {path} is not UTF-8")))
        };
        Ok(match segments[..] {
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["v1", "leader", election] => Self::Leader(name(election)?),
            ["v1", "leader", election, "events"] => Self::LeaderEvents(name(election)?),
            ["v1", "members", group] => Self::Members(name(group)?),
            ["v1", "members", group, "events"] => Self::MemberEvents(name(group)?),
            _ => {
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    format!("there is no such path; there are {PATHS}"),
                ));
            }
        })
    }
}

/// The answers of the site.
#[derive(Debug)]
pub(super) struct Reply;

impl Reply {
    /// The answer to `request`.
    pub(super) async fn to(
        site: &Arc<Site>,
        place: &Arc<Place>,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let answer = reply(site, place, request).await.unwrap_or_else(Refusal::answer);
        let status = answer.status().as_u16();
        site.daemon.metrics.http.answered(status);
        tracing::debug!(target: "tenure::http", method = %request.method(), path = request.uri().path(), status, "answered");
        Ok(answer)
    }
}

async fn reply(site: &Arc<Site>, place: &Arc<Place>, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let said = "this listener is for reading: use GET or HEAD, and the socket to change something";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", said));
    }
    let head = request.method() == Method::HEAD;
    let route = Route::of(request.uri().path())?;
    permit(site, &route)?;
    match route {
        Route::Health => Ok(json_page(StatusCode::OK, &json!({ "alive": true }))),
        Route::Ready => ready(site),
        Route::Metrics => metrics(site, request).await,
        Route::Leader(name) => leaders::leader(site, &name, request.uri().query().unwrap_or_default()).await,
        Route::LeaderEvents(name) => events::of_leader(site, place, &name, head),
        Route::Members(group) => groups::members(site, &group).await,
        Route::MemberEvents(group) => events::of_members(site, place, &group, head),
    }
}

/// Refuses what the policy does not show. A stream that is open goes on by the rules it began with.
fn permit(site: &Site, route: &Route<'_>) -> Result<(), Refusal> {
    let (ability, name) = match route {
        Route::Health | Route::Ready | Route::Metrics => return Ok(()),
        Route::Leader(name) | Route::LeaderEvents(name) => (Ability::SEE_ELECTIONS, name),
        Route::Members(name) | Route::MemberEvents(name) => (Ability::SEE_GROUPS, name),
    };
    if site.daemon.policies.shows_over_http(ability, name) {
        return Ok(());
    }
    let said = format!(
        "the daemon's policy does not show this over HTTP ({ability}); see its rules with http = true, and those that deny"
    );
    Err(Refusal::new(StatusCode::FORBIDDEN, "denied", said))
}

fn ready(site: &Site) -> Result<Response<Body>, Refusal> {
    if site.daemon.draining.is_cancelled() {
        return Err(Refusal::unavailable("draining", "the daemon is leaving; use another, or the next one"));
    }
    let age = site.daemon.measured.silent_for();
    if age > READY_WITHIN {
        let said = format!("the store has not answered for {:.1} s; see whether it runs and can be reached", age.as_secs_f64());
        return Err(Refusal::unavailable("unavailable", said).aged(millis(age)));
    }
    Ok(json_page(StatusCode::OK, &json!({ "ready": true, "store_age_ms": millis(age) })))
}

async fn metrics(site: &Site, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let accepts = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepts.into_iter().any(|value| value.contains("application/openmetrics-text"));
    let format = if open { Format::OpenMetrics } else { Format::Prometheus };
    let daemon = site.daemon.clone();
    // It looks at files of the kernel.
    let page = tokio::task::spawn_blocking(move || scrape(&daemon, format)).await;
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the numbers could not be written down");
    let page = page.map_err(|_| failed())?.map_err(|_| failed())?;
    Ok(text_page(StatusCode::OK, format.content_type(), page))
}

/// What a request for `target` asks, or the status and the message of what is wrong with it, for
/// [`crate::fuzzing`]. `None` where it gets no further than the library that reads it.
#[cfg(feature = "fuzzing")]
pub(crate) fn question(target: &[u8]) -> Option<Result<crate::fuzzing::Question, (u16, String)>> {
    use crate::server::errors::check_name;

    let target = hyper::Uri::try_from(target).ok()?;
    let route = Route::of(target.path());
    let read = route.and_then(|route| {
        let (path, name) = match &route {
            Route::Health => return Ok(crate::fuzzing::Question::about("/healthz")),
            Route::Ready => return Ok(crate::fuzzing::Question::about("/readyz")),
            Route::Metrics => return Ok(crate::fuzzing::Question::about("/metrics")),
            Route::Leader(name) => ("/v1/leader/NAME", name),
            Route::LeaderEvents(name) => ("/v1/leader/NAME/events", name),
            Route::Members(name) => ("/v1/members/NAME", name),
            Route::MemberEvents(name) => ("/v1/members/NAME/events", name),
        };
        check_name("name", name).map_err(|error| Refusal::wrong(error.message))?;
        let mut question = crate::fuzzing::Question { name: name.to_string(), ..crate::fuzzing::Question::about(path) };
        if matches!(route, Route::Leader(_)) {
            (question.value, question.max_age) = leaders::wanted(target.query().unwrap_or_default())?;
        }
        Ok(question)
    });
    Some(read.map_err(Refusal::told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_and_decoded() {
        let leader = |name: &'static str| Route::Leader(name.into());
        assert_eq!(Route::of("/v1/leader/a").unwrap(), leader("a"));
        assert_eq!(Route::of("/v1/leader/a%2Fb%2fc").unwrap(), leader("a/b/c"));
        assert_eq!(Route::of("/v1/leader/a%2Fevents/events").unwrap(), Route::LeaderEvents("a/events".into()));
        assert_eq!(Route::of("/v1/members/w").unwrap(), Route::Members("w".into()));
        for (path, status) in [("/", 404), ("/v1/leader/a/b", 404), ("/metrics/", 404), ("/v1/leader/%FF", 400), ("*", 404)] {
            assert_eq!(Route::of(path).unwrap_err().status.as_u16(), status, "{path}");
        }
    }
}
