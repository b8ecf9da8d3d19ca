//! Who holds a lock, in words; and the line that says so while it is waited for.

use std::{
    convert::Infallible,
    fmt,
    time::{Duration, SystemTime},
};

use crate::command::say::{columns, printable, raw, say, span};

/// Below this a wait is not worth a line.
const PATIENT: Duration = Duration::from_millis(300);

/// Somebody who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) token: u64,
    pub(super) label: Option<String>,
    pub(super) host: String,
    pub(super) pid: u32,
    /// By somebody's wall clock: for people only.
    pub(super) since: Option<SystemTime>,
}

/// A lock as seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) holder: Option<Person>,
    /// How many wait.
    pub(super) waiting: usize,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{}, pid {}", printable(&self.host), self.pid);
        match &self.label {
            Some(label) if !label.is_empty() => write!(f, "{} ({place})", printable(label))?,
            _ => f.write_str(&place)?,
        }
        match self.since.and_then(|since| since.elapsed().ok()) {
            Some(age) => write!(f, " for {}", span(age)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "held by {holder}"),
            None => f.write_str("not granted yet"),
        }
    }
}

/// A line on the terminal that is wiped when it goes out of scope.
struct Line {
    shown: bool,
}

impl Line {
    fn draw(&mut self, text: &str) {
        let Some(columns) = columns() else { return };
        let cut: String = text.chars().take(columns.saturating_sub(1)).collect();
        raw(&format!("\r\x1b[K{cut}"));
        self.shown = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            raw("\r\x1b[K");
        }
    }
}

/// Says something while the line may be shown.
pub(super) fn interject(message: &str) {
    if columns().is_some() {
        raw("\r\x1b[K");
    }
    say(message);
}

/// Shows until dropped who holds the lock, where standard error is a terminal.
pub(super) async fn show(name: &str, look: impl AsyncFn() -> Option<Seen>, wanted: bool) -> Infallible {
    if !wanted || columns().is_none() {
        return std::future::pending().await;
    }
    let begun = tokio::time::Instant::now();
    let mut line = Line { shown: false };
    let mut current: Option<(u64, Option<SystemTime>)> = None;
    let mut pause = PATIENT;
    loop {
        tokio::time::sleep(pause).await;
        pause = Duration::from_secs(1);
        let mut seen = look().await.unwrap_or_default();
        if let Some(holder) = &mut seen.holder {
            // What others tell is since when it has queued. Of one that came to hold meanwhile we know better.
            let known = current.get_or_insert((holder.token, holder.since));
            if known.0 != holder.token {
                *known = (holder.token, Some(SystemTime::now()));
            }
            holder.since = known.1;
        }
        let others = match seen.waiting {
            0 | 1 => String::new(),
            2 => "; 1 other waits".to_owned(),
            more => format!("; {} others wait", more - 1),
        };
        line.draw(&format!("tenure: waiting {} for {name}, {seen}{others}", span(begun.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_described_without_steering_the_terminal() {
        let since = SystemTime::now() - Duration::from_millis(65_500);
        let person = Person { token: 1, label: Some("a\x1b[2Jb".into()), host: "web1".into(), pid: 7, since: Some(since) };
        assert_eq!(person.to_string(), "a\u{fffd}[2Jb (web1, pid 7) for 1m 5s");
        let bare = Person { token: 1, label: None, host: "web1".into(), pid: 7, since: None };
        assert_eq!(Seen { holder: Some(bare), waiting: 0 }.to_string(), "held by web1, pid 7");
    }
}
