//! Who leads, and how long ago that was known.

use std::time::Duration;

use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tenure_kv::{BootClock, Clock};

use super::{
    Site,
    answers::{Body, Refusal, json_page},
    views,
};
use crate::{
    protocol::LeaderView,
    server::{
        errors,
        observers::{Known, Seen},
        sessions::millis,
    },
};

/// How long whoever asks first waits for the first look at the store.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What is asked of the leader.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// It must proclaim this.
    value: Option<Vec<u8>>,
    /// Older news are no news.
    max_age: Option<Duration>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, Refusal> {
        let mut wanted = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "value" | "id" => wanted.value = Some(percent_decode_str(text).collect()),
                "max_age_ms" => {
                    let age = text.parse().map_err(|_| Refusal::wrong("max_age_ms: use a whole number of milliseconds"))?;
                    wanted.max_age = Some(Duration::from_millis(age));
                }
                other => {
                    let other: String = other.chars().take(64).collect();
                    let said = format!("there is no parameter {other:?}; there are value (or id) and max_age_ms");
                    return Err(Refusal::wrong(said));
                }
            }
        }
        Ok(wanted)
    }
}

/// What a query wants, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(super) fn wanted(query: &str) -> Result<(Option<Vec<u8>>, Option<Duration>), Refusal> {
    Wanted::read(query).map(|wanted| (wanted.value, wanted.max_age))
}

/// `/v1/leader/NAME`.
pub(super) async fn leader(site: &Site, name: &str, query: &str) -> Result<Response<Body>, Refusal> {
    errors::check_name("name", name).map_err(|error| Refusal::wrong(error.message))?;
    let wanted = Wanted::read(query)?;
    let observed = site.leaders.of(name, || site.daemon.observers.of(name));
    let mut states = observed.states.clone();
    let _ = tokio::time::timeout(FIRST_LOOK, states.wait_for(|known| known.seen != Seen::Nothing)).await;
    let Known { seen, asked } = states.borrow().clone();
    let Seen::State(leader) = seen else {
        let said = "the store is out of reach, so who leads is not known; ask again";
        return Err(Refusal::unavailable("unavailable", said));
    };
    let age = BootClock.now().saturating_since(asked);
    let limit = wanted.max_age.unwrap_or_else(|| site.daemon.sessions.default_lease());
    if age > limit {
        let said = format!("the store said who leads {} ms ago, and the limit is {} ms; ask again", millis(age), millis(limit));
        return Err(Refusal::unavailable("stale", said).aged(millis(age)));
    }
    let Some(leader) = leader else {
        return Err(Refusal::unavailable("no_leader", "nobody leads; ask again").aged(millis(age)));
    };
    if wanted.value.is_some_and(|value| leader.value != value) {
        return Err(Refusal::unavailable("not_leader", "somebody else leads").aged(millis(age)));
    }
    let view = views::leader(&LeaderView::from(&leader));
    Ok(json_page(StatusCode::OK, &json!({ "name": name, "leader": view, "age_ms": millis(age) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_a_value_and_an_age() {
        let wanted = Wanted::read("value=a%2Fb+c&max_age_ms=1500").unwrap();
        assert_eq!((wanted.value.unwrap(), wanted.max_age.unwrap()), (b"a/b+c".to_vec(), Duration::from_millis(1_500)));
        assert_eq!(Wanted::read("id=x").unwrap(), Wanted::read("value=x").unwrap());
        assert_eq!(Wanted::read("").unwrap(), Wanted::default());
        for wrong in ["max_age_ms=", "max_age_ms=-1", "valeu=x", "value=x&y"] {
            assert!(Wanted::read(wrong).is_err(), "{wrong}");
        }
    }
}
