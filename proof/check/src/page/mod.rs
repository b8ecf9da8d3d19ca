//! A history as one self-contained page: the verdicts, and a timeline in which the violations are marked.

mod timeline;

use std::fmt::Write;

use self::timeline::Timeline;
use crate::{Counts, History, Verdict, Violation, report};

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Of each violation so many lines of the history are printed.
const SHOWN: usize = 40;
/// So many violations are written out; a history that is broken everywhere needs no more.
const VIOLATIONS: usize = 500;

/// The page, as text.
pub fn page(history: &History, counts: &Counts, verdicts: &[Verdict]) -> String {
    let violations: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.violations).take(VIOLATIONS).collect();
    let timeline = Timeline::new(history, &violations);
    // Nothing in the data may end the script element it stands in.
    let data = serde_json::to_string(&timeline).unwrap_or_default().replace('<', "\\u003c");
    let parts = [
        ("{{style}}", STYLE.to_owned()),
        ("{{headline}}", headline(verdicts)),
        ("{{about}}", about(history, counts)),
        ("{{verdicts}}", table(verdicts, &violations)),
        ("{{violations}}", list(history, &violations)),
        ("{{data}}", data),
        ("{{script}}", SCRIPT.to_owned()),
    ];
    // One pass, so that what a history says is never taken for a part.
    let (mut page, mut rest) = (String::new(), FRAME);
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        page.push_str(before);
        let part = parts.iter().find(|(name, _)| after.starts_with(name));
        let (name, text) = part.map_or(("{{", "{{"), |(name, text)| (*name, text.as_str()));
        page.push_str(text);
        rest = &after[name.len()..];
    }
    page.push_str(rest);
    page
}

fn headline(verdicts: &[Verdict]) -> String {
    let broken = verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).count();
    let found: usize = verdicts.iter().map(|verdict| verdict.violations.len()).sum();
    match (broken, found) {
        (0, _) => r#"<p class="headline kept">Every promise was kept.</p>"#.into(),
        (_, 1) => r##"<p class="headline broken"><a href="#v0">One violation</a></p>"##.into(),
        (1, found) => format!(r##"<p class="headline broken"><a href="#v0">{found} violations</a> of one promise</p>"##),
        (broken, found) => {
            format!(r##"<p class="headline broken"><a href="#v0">{found} violations</a> of {broken} promises</p>"##)
        }
    }
}

fn about(history: &History, counts: &Counts) -> String {
    let mut text = String::new();
    for note in &history.head.notes {
        let _ = write!(text, r#"<p class="note">{}</p>"#, escape(note));
    }
    let seed = history.head.seed.as_deref().map(|seed| format!(", seed {}", escape(seed))).unwrap_or_default();
    let facts = [
        ("Store", format!("{}{seed}", escape(&history.head.store))),
        ("Operations", format!("{} of {} clients", counts.operations, counts.clients)),
        ("Outcomes", format!("{} ok, {} failed, {} unknown", counts.ok, counts.failed, counts.unknown)),
        ("Holds", format!("{} grants, {} terms", counts.grants, counts.terms)),
        ("Stale writes refused", counts.refused.to_string()),
        ("Stream", stream(counts)),
        ("Faults", escape(&report::faults(counts))),
    ];
    text.push_str("<dl>");
    for (name, fact) in facts {
        let _ = write!(text, "<div><dt>{name}</dt><dd>{fact}</dd></div>");
    }
    text.push_str("</dl>");
    text
}

fn stream(counts: &Counts) -> String {
    let mut text = format!("{} writes", counts.writes);
    if counts.missing > 0 {
        let _ = write!(text, ", {} missing", counts.missing);
    }
    if counts.epochs > 1 {
        let _ = write!(text, ", {} epochs", counts.epochs);
    }
    text
}

fn table(verdicts: &[Verdict], violations: &[&Violation]) -> String {
    let mut rows = String::new();
    for verdict in verdicts {
        let promise = verdict.promise;
        let number = promise.number().map(|number| number.to_string()).unwrap_or_default();
        let (class, word) = match report::word(verdict) {
            "kept" => ("kept", "kept".to_owned()),
            "-" => ("silent", "nothing to check".to_owned()),
            _ => {
                let first = violations.iter().position(|violation| violation.promise == promise).unwrap_or_default();
                ("broken", format!(r##"<a href="#v{first}">violated, {}</a>"##, verdict.violations.len()))
            }
        };
        let skipped = if verdict.skipped > 0 { verdict.skipped.to_string() } else { String::new() };
        let _ = write!(
            rows,
            r#"<tr class="{class}"><td class="n">{number}</td><td>{}</td><td class="word">{word}</td><td class="n">{}</td><td class="n">{skipped}</td></tr>"#,
            promise.text(),
            verdict.checked
        );
    }
    rows
}

fn list(history: &History, violations: &[&Violation]) -> String {
    let mut text = if violations.is_empty() { String::new() } else { "<h2>Violations</h2>".to_owned() };
    for (place, violation) in violations.iter().enumerate() {
        let promise = violation.promise;
        let number = promise.number().map(|number| format!("{number} ")).unwrap_or_default();
        let at = violation.at.map(|at| format!(" at {}", millis(at))).unwrap_or_default();
        let _ = write!(
            text,
            r#"<article id="v{place}" data-violation="{place}"><h3><span class="tag">{number}{promise}</span>{at}<button type="button">Show in the timeline</button></h3><p>{}</p><ol class="lines">"#,
            escape(&violation.what)
        );
        for line in violation.lines.iter().take(SHOWN) {
            let said = history.lines.get(*line).and_then(|line| serde_json::to_string(line).ok()).unwrap_or_default();
            let _ = write!(text, r#"<li value="{}"><code>{}</code></li>"#, line + 2, escape(&said));
        }
        text.push_str("</ol></article>");
    }
    text
}

fn millis(at: u64) -> String {
    format!("{}.{:03} ms", at / 1000, at % 1000)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    fn page_of(notes: &str) -> String {
        let head = format!(r#"{{"line":"head","version":1,"store":"sim","notes":["{notes}"]}}"#);
        let call = r#"{"line":"call","at":1,"id":1,"client":1,"op":{"do":"get","key":"</script>{{style}}"}}"#;
        let history = History::read(format!("{head}\n{call}\n{}", call).as_bytes()).unwrap();
        page(&history, &Counts::of(&history), &check(&history))
    }

    #[test]
    fn what_a_history_says_is_text_and_nothing_else() {
        let page = page_of("<b>{{data}}");
        assert!(page.contains("&lt;b&gt;{{data}}") && !page.contains("<b>"));
        assert_eq!(page.matches("</script>").count(), 2, "one of the data, one of the script");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page_of("note");
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains(r##"href="#v0""##) && page.contains(r#"id="v0""#), "the violation is linked");
    }
}
