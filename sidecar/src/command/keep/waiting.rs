//! Who holds what is waited for, in words; and the line that says so meanwhile.

use std::{
    convert::Infallible,
    fmt,
    time::{Duration, SystemTime},
};

use super::Words;
use crate::command::say::{columns, printable, raw, say, span};

/// Below this a wait is not worth a line.
const PATIENT: Duration = Duration::from_millis(300);

/// Somebody who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::command) struct Person {
    pub(in crate::command) token: u64,
    pub(in crate::command) label: Option<String>,
    pub(in crate::command) host: String,
    pub(in crate::command) pid: u32,
    /// By somebody's wall clock: for people only.
    pub(in crate::command) since: Option<SystemTime>,
}

/// It as seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::command) struct Seen {
    pub(in crate::command) holder: Option<Person>,
    /// How many wait.
    pub(in crate::command) waiting: usize,
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

impl Seen {
    pub(super) fn in_words(&self, words: &Words) -> String {
        match &self.holder {
            Some(holder) => format!("{} by {holder}", words.held),
            None => words.nobody.to_owned(),
        }
    }
}

impl From<tenure::Holder> for Person {
    fn from(holder: tenure::Holder) -> Self {
        let token = holder.token.get();
        Self { token, label: holder.label, host: holder.host, pid: holder.pid, since: Some(holder.since) }
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
pub(in crate::command) fn interject(message: &str) {
    if columns().is_some() {
        raw("\r\x1b[K");
    }
    say(message);
}

/// Shows until dropped who holds it, where standard error is a terminal.
pub(super) async fn show(name: &str, words: &Words, look: impl AsyncFn() -> Option<Seen>, wanted: bool) -> Infallible {
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
        line.draw(&format!("tenure: waiting {} for {name}, {}{others}", span(begun.elapsed()), seen.in_words(words)));
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
        assert_eq!(bare.to_string(), "web1, pid 7");
    }
}
