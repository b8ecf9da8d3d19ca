//! What the daemon says of itself: everything that it serves, as it serves it and as `docs/protocol.md` has it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::collections::{BTreeMap, BTreeSet};

use daemon_support::Daemon;
use serde_json::{Value as Json, json};

const PAGE: &str = include_str!("../../docs/protocol.md");

fn discover() -> (Json, Json) {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let hello = wire.call("hello", json!({ "protocol": [1] })).unwrap();
    (wire.call("rpc.discover", json!({})).unwrap(), hello)
}

/// The cells of the rows of the table in `section` whose first cell begins like code or with a number.
fn rows(section: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once(&format!("\n## {section}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row[0].starts_with(['`', '1', '2', '3', '4', '5', '6', '7', '8', '9'])).collect()
}

/// What stands between backquotes.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The parameters of each method, as the document has them.
fn described(document: &Json) -> BTreeMap<&str, BTreeSet<&str>> {
    let methods = document["methods"].as_array().unwrap().iter();
    methods
        .map(|method| {
            let params = method["params"].as_array().unwrap().iter();
            (method["name"].as_str().unwrap(), params.map(|param| param["name"].as_str().unwrap()).collect())
        })
        .collect()
}

#[test]
fn every_method_is_described_and_on_the_page() {
    let (document, hello) = discover();
    assert_eq!(document["openrpc"], "1.3.2");
    let described = described(&document);
    let mut served: BTreeSet<&str> =
        hello["capabilities"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(served.remove("buckets") && PAGE.contains("`buckets`"));
    assert_eq!(described.keys().copied().collect::<BTreeSet<_>>(), served);
    let mut on_page = BTreeSet::new();
    for row in rows("Methods") {
        for method in code(row[0]) {
            assert!(on_page.insert(method), "{method} stands there twice");
            let told = row[1];
            // A row may refer to another.
            if told.contains("as ") || !described.contains_key(method) {
                continue;
            }
            let mut told: BTreeSet<&str> = code(told).map(|name| name.split([':', '?']).next().unwrap()).collect();
            // The page says of all methods at once what these are.
            if told.contains("value") {
                told.insert("value_b64");
            }
            if method.starts_with("kv.") {
                told.insert("bucket");
            }
            assert_eq!(described[method], told, "{method}");
        }
    }
    assert_eq!(on_page, served);
}

#[test]
fn every_error_is_described_and_on_the_page() {
    let (document, _) = discover();
    let errors = document["components"]["errors"].as_object().unwrap();
    let on_page: BTreeMap<i64, &str> =
        rows("Errors").iter().map(|row| (row[0].parse().unwrap(), code(row[1]).next().unwrap())).collect();
    let described: BTreeMap<i64, &str> = errors
        .values()
        .map(|error| (error["code"].as_i64().unwrap(), error["data"]["kind"].as_str().unwrap()))
        .filter(|(code, _)| *code > 0)
        .collect();
    assert_eq!(described, on_page);
    assert_eq!(on_page.len(), 10);
    let standard = PAGE.split_once("\n## Errors\n").unwrap().1.split('|').next().unwrap();
    for error in errors.values().filter(|error| error["code"].as_i64() < Some(0)) {
        assert!(standard.contains(&error["code"].to_string()), "{error}");
    }
    for method in document["methods"].as_array().unwrap() {
        assert_eq!(method["errors"].as_array().unwrap().len(), errors.len(), "{}", method["name"]);
    }
}

#[test]
fn every_event_is_described_and_on_the_page() {
    let (document, _) = discover();
    let events = document["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap();
    let described: BTreeSet<&str> = events.iter().map(|event| event["properties"]["kind"]["const"].as_str().unwrap()).collect();
    let on_page: BTreeSet<&str> =
        rows("Notifications").iter().flat_map(|row| code(row[0])).filter(|kind| *kind != "kind").collect();
    assert_eq!(described, on_page);
    let notifications = document["x-notifications"].as_array().unwrap().iter();
    assert_eq!(notifications.map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["lease", "goaway", "event"]);
}
