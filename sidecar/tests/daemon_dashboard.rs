//! What is shipped beside the daemon, and what the docs say of its numbers, against a scrape of the real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;
mod promql;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use http_rig::{get, start};
use promql::{Exported, labels};
use serde_json::Value as Json;

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A family: its type, and the labels of its samples.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// The samples of a daemon that was used, and its families.
fn scraped() -> (Exported, Families) {
    let (daemon, http) = start(&["--lease", "60s"]);
    daemon.connect().acquire("x");
    let page = get(http, "/metrics").body;
    let mut samples = Exported::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        let of_name = samples.entry(name.to_owned()).or_default();
        for (label, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
            of_name.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    let mut families = Families::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        let of_family = ["", "_bucket", "_sum", "_count"].map(|part| samples.get(&format!("{family}{part}")));
        let labels = of_family.into_iter().flatten().flat_map(BTreeMap::keys).filter(|label| *label != "le");
        families.insert(family.to_owned(), (kind.to_owned(), labels.cloned().collect()));
    }
    (samples, families)
}

/// The names in `text` between `begin` and whatever is no part of a name.
fn names_after<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    let rests = text.split(begin).skip(1);
    rests.map(|rest| rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap())
}

/// What is asked for on the dashboard, with what is told of each answer.
fn asked(page: &Json, found: &mut Vec<(String, String)>) {
    if let Some(expr) = page["expr"].as_str() {
        found.push((expr.to_owned(), page["legendFormat"].as_str().unwrap_or_default().to_owned()));
    }
    page.as_object().into_iter().flat_map(|fields| fields.values()).for_each(|page| asked(page, found));
    page.as_array().into_iter().flatten().for_each(|page| asked(page, found));
}

#[test]
fn every_question_of_the_dashboard_has_an_answer() {
    let (exported, _) = scraped();
    let board: Json = serde_json::from_str(&file("packaging/grafana/tenure.json")).unwrap();
    let filled = |text: &str| text.replace("$__rate_interval", "5m").replace("$job", "tenured").replace("$instance", "a:9464");
    let mut panels = Vec::new();
    asked(&board["panels"], &mut panels);
    assert!(panels.len() > 20, "{panels:?}");
    for (expr, legend) in panels {
        let labels = labels(&filled(&expr), &exported).unwrap_or_else(|error| panic!("{expr}: {error}"));
        for name in names_after(&legend, "{{") {
            assert!(labels.contains(name), "{expr}: the legend tells {name}, and there are {labels:?}");
        }
    }
    let choices: Vec<_> =
        board["templating"]["list"].as_array().unwrap().iter().filter_map(|v| v["definition"].as_str()).collect();
    assert_eq!(choices.len(), 2, "{choices:?}");
    for choice in choices {
        let inside = choice.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (expr, label) = inside.rsplit_once(", ").unwrap();
        let labels = labels(&filled(expr), &exported).unwrap_or_else(|error| panic!("{choice}: {error}"));
        assert!(labels.contains(label), "{choice}");
    }
    let ids: Vec<_> = board["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "panels have ids of their own");
}

#[test]
fn every_alert_can_fire() {
    let (exported, _) = scraped();
    let rules = file("packaging/prometheus/tenure.rules.yml");
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in alerts {
        let expr = alert.lines().find_map(|line| line.trim().strip_prefix("expr: ")).unwrap_or_else(|| panic!("{alert}"));
        let labels = labels(expr, &exported).unwrap_or_else(|error| panic!("{expr}: {error}"));
        for name in names_after(alert, "$labels.") {
            assert!(labels.contains(name), "{alert} tells {name}, and there are {labels:?}");
        }
    }
}

#[test]
fn what_is_wrong_with_an_expression_is_found() {
    let (exported, _) = scraped();
    for (wrong, said) in [
        ("sum(tenure_leases", ""),
        ("rate(tenure_renewals_total)", "matrix"),
        ("tenure_lease", "not exported"),
        ("tenure_leases{reason=\"closed\"}", "no label reason"),
        ("rate(tenure_leases_lost_total{reason!~\"closed|tired\"}[5m])", "is never \"tired\""),
        ("sum by (method) (tenure_leases)", "only"),
        ("histogram_quantile(0.5, sum by (kind) (rate(tenure_wait_seconds_bucket[5m])))", "no le"),
        ("sum by (job) (tenure_connections) > tenure_connections_max", "never match"),
    ] {
        let error = labels(wrong, &exported).expect_err(wrong);
        assert!(error.contains(said), "{wrong}: {error}");
    }
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
