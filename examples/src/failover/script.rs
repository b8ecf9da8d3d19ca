//! What the director makes of the reports, and whom it disturbs next: decisions without processes.

use std::collections::{BTreeMap, HashMap};

use super::{
    record::{Guard, Nanos, News, Report},
    summary::Ending,
};

/// The run as the reports tell it.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The holder that the shared file knows, with its process.
    holder: Option<(u64, u32)>,
    /// The highest token granted.
    highest: Option<u64>,
    /// How and when holds ended.
    endings: HashMap<u64, (Ending, Nanos)>,
    stopped: Option<Stopped>,
    disturbances: u32,
    with_stops: bool,
    /// How long hand-overs took.
    pub(super) hand_overs: BTreeMap<Ending, Vec<Nanos>>,
}

/// A holder that the director stopped.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    pid: u32,
    token: u64,
    at: Nanos,
    woken: bool,
}

/// What the director does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Kill(u32),
    Stop(u32),
    Wake(u32),
}

/// A hand-over to a new holder: how the hold before ended and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HandOver {
    pub(super) from: u64,
    pub(super) ending: Ending,
    pub(super) took: Option<Nanos>,
}

impl Script {
    /// A run with stops between the kills, or without.
    pub(super) fn new(with_stops: bool) -> Self {
        Self { with_stops, ..Self::default() }
    }

    /// Whether there is a holder to disturb, and the last disturbance is over.
    pub(super) const fn can_disturb(&self) -> bool {
        self.holder.is_some() && self.stopped.is_none()
    }

    /// Whether the last hold to end was released.
    pub(super) fn is_calm(&self) -> bool {
        let last = self.highest.and_then(|highest| self.endings.get(&highest));
        last.is_none_or(|(ending, _)| *ending == Ending::Release)
    }

    /// Whether no stopped process waits for its awakening.
    pub(super) const fn is_settled(&self) -> bool {
        self.stopped.is_none()
    }

    /// Picks the next disturbance of the holder, done at `at`: two kills to one stop.
    pub(super) fn disturb(&mut self, at: Nanos) -> Option<Act> {
        let (token, pid) = self.holder.take()?;
        self.disturbances += 1;
        if self.with_stops && self.disturbances % 3 == 2 {
            self.stopped = Some(Stopped { pid, token, at, woken: false });
            self.endings.insert(token, (Ending::Pause, at));
            return Some(Act::Stop(pid));
        }
        self.endings.insert(token, (Ending::Kill, at));
        Some(Act::Kill(pid))
    }

    /// The hand-over to `token`, granted at `at`; `None` for the first and for one reported late.
    pub(super) fn granted(&mut self, token: u64, at: Nanos) -> Option<HandOver> {
        let before = self.highest;
        self.highest = before.max(Some(token));
        let from = before.filter(|before| *before < token)?;
        let (ending, took) = match self.endings.get(&from) {
            Some((ending, ended)) => (*ending, Some(at.saturating_sub(*ended))),
            None => (Ending::Loss, None),
        };
        if let Some(took) = took {
            self.hand_overs.entry(ending).or_default().push(took);
        }
        Some(HandOver { from, ending, took })
    }

    /// Takes in every report but grants; says what is to be done about it.
    pub(super) fn note(&mut self, report: &Report) -> Option<Act> {
        match &report.news {
            News::Entered { token } => {
                self.holder = Some((*token, report.pid));
                let stopped = self.stopped.as_mut().filter(|stopped| !stopped.woken && stopped.token < *token)?;
                stopped.woken = true;
                return Some(Act::Wake(stopped.pid));
            }
            News::Releasing { token, .. } => {
                self.leave(*token);
                let ended = self.endings.entry(*token).or_insert((Ending::Release, report.at));
                if report.at <= ended.1 {
                    *ended = (Ending::Release, report.at);
                }
                // Stopped after its release: there is nothing stale to wait for.
                let missed = self.stopped.filter(|stopped| stopped.token == *token && report.at <= stopped.at)?;
                self.stopped = None;
                return Some(Act::Wake(missed.pid));
            }
            News::Lost { token, .. } => {
                self.leave(*token);
                self.endings.entry(*token).or_insert((Ending::Loss, report.at));
            }
            News::Refused { token, by: Guard::Store, .. } | News::Passed { token } | News::Released { token } => {
                let over = self.stopped.filter(|stopped| stopped.token == *token)?;
                self.stopped = None;
                // It got that far before the signal reached it.
                return (!over.woken).then_some(Act::Wake(over.pid));
            }
            _ => {}
        }
        None
    }

    fn leave(&mut self, token: u64) {
        self.holder = self.holder.filter(|(holder, _)| *holder != token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn report(pid: u32, at: Nanos, news: News) -> Report {
        Report { pid, at, news }
    }

    fn enter(script: &mut Script, pid: u32, token: u64, at: Nanos) -> (Option<HandOver>, Option<Act>) {
        (script.granted(token, at), script.note(&report(pid, at, News::Entered { token })))
    }

    #[test]
    fn a_hand_over_is_measured_from_what_ended_the_hold() {
        let mut script = Script::default();
        assert_eq!(enter(&mut script, 1, 3, MS), (None, None));
        script.note(&report(1, 5 * MS, News::Releasing { token: 3, held: true }));
        assert!(!script.can_disturb());
        let release = HandOver { from: 3, ending: Ending::Release, took: Some(MS) };
        assert_eq!(enter(&mut script, 2, 5, 6 * MS).0, Some(release));
        assert_eq!(script.disturb(8 * MS), Some(Act::Kill(2)));
        let kill = HandOver { from: 5, ending: Ending::Kill, took: Some(2 * MS) };
        assert_eq!(enter(&mut script, 3, 6, 10 * MS).0, Some(kill));
        assert_eq!(script.hand_overs[&Ending::Kill], [2 * MS]);
    }

    #[test]
    fn a_stopped_holder_is_woken_once_the_next_is_in_and_settled_once_refused() {
        let mut script = Script { disturbances: 1, ..Script::new(true) };
        enter(&mut script, 1, 3, MS);
        assert_eq!(script.disturb(2 * MS), Some(Act::Stop(1)));
        assert!(!script.is_settled());
        assert_eq!(enter(&mut script, 2, 4, 9 * MS).1, Some(Act::Wake(1)));
        assert_eq!(enter(&mut script, 3, 5, 10 * MS).1, None);
        let refused = |by| News::Refused { token: 3, by, reason: String::new() };
        script.note(&report(1, 10 * MS, refused(Guard::File)));
        assert!(!script.is_settled());
        script.note(&report(1, 11 * MS, refused(Guard::Store)));
        assert!(script.can_disturb());
    }

    #[test]
    fn a_stop_that_came_too_late_is_taken_back() {
        for last in [News::Released { token: 3 }, News::Refused { token: 3, by: Guard::Store, reason: String::new() }] {
            let mut script = Script { disturbances: 1, ..Script::new(true) };
            enter(&mut script, 1, 3, MS);
            script.disturb(5 * MS);
            assert_eq!(script.note(&report(1, 6 * MS, last)), Some(Act::Wake(1)));
            assert!(script.is_settled());
        }
    }

    #[test]
    fn a_stop_that_came_after_the_release_is_taken_back() {
        let mut script = Script { disturbances: 1, ..Script::new(true) };
        enter(&mut script, 1, 3, MS);
        script.disturb(5 * MS);
        let releasing = report(1, 4 * MS, News::Releasing { token: 3, held: true });
        assert_eq!(script.note(&releasing), Some(Act::Wake(1)));
        assert!(script.is_settled());
        assert_eq!(script.granted(4, 6 * MS).unwrap().ending, Ending::Release);
    }
}
