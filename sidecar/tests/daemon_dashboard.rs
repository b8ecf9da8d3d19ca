//! What is shipped beside the daemon, and what the docs say of its numbers, against a scrape of the real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use http_rig::{get, start};
use serde_json::Value as Json;

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A family: its type, and the labels of its samples.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// The page of a daemon that was used, the names of all its samples, and its families.
fn scraped() -> (BTreeSet<String>, Families) {
    let (daemon, http) = start(&["--lease", "60s"]);
    daemon.connect().acquire("x");
    let page = get(http, "/metrics").body;
    let name = |sample: &str| sample.split(['{', ' ']).next().unwrap().to_owned();
    let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let mut families = Families::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        let parts = ["", "_bucket", "_sum", "_count"].map(|part| format!("{family}{part}"));
        let of_family = samples.iter().filter(|sample| parts.contains(&name(sample)));
        let labels = of_family.flat_map(|sample| {
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let names = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_owned());
            names.filter(|name| name != "le").collect::<Vec<_>>()
        });
        families.insert(family.to_owned(), (kind.to_owned(), labels.collect()));
    }
    (samples.into_iter().map(name).collect(), families)
}

/// The words in `text` that are names of our metrics.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("tenure_") || word.starts_with("process_"))
}

fn queries(page: &Json, found: &mut Vec<String>) {
    match page {
        Json::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "query" || name == "definition" => found.push(text.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        Json::Array(all) => all.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let (known, _) = scraped();
    let board: Json = serde_json::from_str(&file("packaging/grafana/tenure.json")).unwrap();
    let mut asked = Vec::new();
    queries(&board, &mut asked);
    let rules = file("packaging/prometheus/tenure.rules.yml");
    let exprs = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect::<Vec<_>>();
    for (what, texts) in [("dashboard", asked), ("alerts", exprs)] {
        let named: Vec<_> = texts.iter().flat_map(|text| metrics_in(text)).collect();
        assert!(named.len() >= 8, "too few in the {what}: {named:?}");
        for name in named {
            assert!(known.contains(name), "the {what} name {name}, which is not exported");
        }
    }
    let ids: Vec<_> = board["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "panels have ids of their own");
}

#[test]
fn the_docs_tell_of_every_metric_and_of_no_other() {
    let (_, families) = scraped();
    let docs = file("../docs/operations.md");
    let section = docs.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section on metrics");
    let told: Families = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`').trim()).collect();
            let [name, kind, labels, meaning, ..] = cells[..] else { panic!("{row}") };
            assert!(!meaning.is_empty(), "{row}");
            let labels = labels.split(',').map(|label| label.trim().trim_matches('`')).filter(|label| !label.is_empty());
            (name.to_owned(), (kind.to_owned(), labels.map(str::to_owned).collect()))
        })
        .collect();
    assert_eq!(told, families);
}
