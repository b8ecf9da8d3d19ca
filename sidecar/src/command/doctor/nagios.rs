//! Findings as one line of a monitoring plugin.

use tenure_kv::{Finding, Level};

use super::CRITICAL;
use crate::command::{End, exit::Failure, output::Cell, say::data};

const WARNING: u8 = 1;
const UNKNOWN: u8 = 3;

/// Prints them, and what they come to.
pub(super) fn print(findings: Result<Vec<Finding>, Failure>) -> End {
    let (line, code) = match findings {
        Ok(findings) => line(&findings),
        Err(failure) => (format!("TENURE UNKNOWN - {}", plain(&failure.message)), UNKNOWN),
    };
    data((line + "\n").as_bytes());
    code.into()
}

fn line(findings: &[Finding]) -> (String, u8) {
    let worst = findings.iter().map(|finding| finding.level).filter(|level| *level != Level::Unseen).max();
    let (word, code) = match worst {
        Some(Level::Ok) => ("OK", 0),
        Some(Level::Warning) => ("WARNING", WARNING),
        Some(Level::Critical) => ("CRITICAL", CRITICAL),
        Some(Level::Unseen) | None => ("UNKNOWN", UNKNOWN),
    };
    let told: Vec<String> =
        findings.iter().filter(|finding| Some(finding.level) == worst && code > 0).map(|finding| plain(&finding.says)).collect();
    let says = if told.is_empty() { format!("{} checks", findings.len()) } else { told.join("; ") };
    let mut measured: Vec<String> =
        findings.iter().flat_map(|finding| &finding.measured_ms).map(|(name, ms)| format!("{name}={ms}ms")).collect();
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    measured.push(format!("warnings={}", count(Level::Warning)));
    measured.push(format!("critical={}", count(Level::Critical)));
    (format!("TENURE {word} - {says} | {}", measured.join(" ")), code)
}

/// One line without what separates the performance data.
fn plain(text: &str) -> String {
    Cell::plain(text.replace('|', "/")).painted(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_the_state_and_what_was_measured_follows() {
        let ok = Finding::new("read", Level::Ok, "fast").measured([("read_max".to_owned(), 1.5)].into());
        let unseen = Finding::new("sync", Level::Unseen, "not told");
        let warning = Finding::new("replicas", Level::Warning, "one | only");
        let critical = Finding::new("storage", Level::Critical, "in memory");
        assert_eq!(
            line(&[ok.clone(), unseen.clone()]),
            ("TENURE OK - 2 checks | read_max=1.5ms warnings=0 critical=0".to_owned(), 0)
        );
        let (said, code) = line(&[ok.clone(), unseen, warning.clone()]);
        assert_eq!((&*said, code), ("TENURE WARNING - one / only | read_max=1.5ms warnings=1 critical=0", 1));
        let (said, code) = line(&[ok, warning, critical]);
        assert!(said.starts_with("TENURE CRITICAL - in memory | ") && code == 2, "{said}");
        assert_eq!(line(&[]).1, 3);
    }
}
