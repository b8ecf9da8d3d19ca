//! What is asked of the HTTP listener. The requests themselves are read by a library; paths and queries by Tenure.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use bolero::check;
use tenure_fuzz::Corpus;
use tenure_kv::Key;
use tenure_sidecar::fuzzing::{self, Question};

const PATHS: [&str; 7] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/leader/NAME",
    "/v1/leader/NAME/events",
    "/v1/members/NAME",
    "/v1/members/NAME/events",
];

/// Every byte as `%XX`.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02x}").unwrap();
        text
    })
}

/// Another way to ask the same.
fn written(question: &Question) -> String {
    let mut target = question.path.replace("NAME", &encoded(question.name.as_bytes()));
    let value = question.value.as_ref().map(|value| format!("id={}", encoded(value)));
    let age = question.max_age.map(|age| format!("max_age_ms={}", age.as_millis()));
    let query: Vec<_> = [age, value].into_iter().flatten().collect();
    if !query.is_empty() {
        target.extend(["?", &query.join("&&")]);
    }
    target
}

/// Whether a path is one of those that are served, whatever stands for the name.
fn is_served(path: &str) -> bool {
    let segments: Vec<_> = path.split('/').collect();
    PATHS.iter().any(|served| {
        let served: Vec<_> = served.split('/').collect();
        served.len() == segments.len() && served.iter().zip(&segments).all(|(a, b)| *a == "NAME" || a == b)
    })
}

#[test]
fn http_target() {
    let corpus = Corpus::of("http_target");
    check!(name = "http_target").for_each(|input: &[u8]| {
        corpus.each(input, |input| match fuzzing::question(input) {
            None => {}
            Some(Ok(question)) => {
                let again = fuzzing::question(written(&question).as_bytes());
                assert_eq!(again, Some(Ok(question.clone())), "{}", written(&question));
                assert_eq!(question.path.contains("NAME"), Key::new(&question.name).is_ok(), "{question:?}");
                assert!(question.name.len() <= tenure::MAX_NAME, "{question:?}");
                assert!(question.path == PATHS[3] || question.value.is_none() && question.max_age.is_none(), "{question:?}");
            }
            Some(Err((status, said))) => {
                assert!(!said.is_empty() && said.len() < input.len() + 300 && !said.contains(char::is_control), "{said:?}");
                let text = std::str::from_utf8(input).unwrap_or_default();
                // What begins otherwise names a host, too, which nobody looks at.
                if text.starts_with('/') {
                    let served = is_served(text.split(['?', '#']).next().unwrap_or_default());
                    assert_eq!(status, if served { 400 } else { 404 }, "{text}: {said}");
                } else {
                    assert!([400, 404].contains(&status), "{status}");
                }
            }
        });
    });
}
