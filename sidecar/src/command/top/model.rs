//! What is shown, and what keys do to it. No I/O.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    feed::{News, Snapshot},
    streams::Thing,
    told::Told,
};
use crate::{
    command::{keep::Person, say::printable},
    protocol::{ElectionView, GroupView, LockView, MemberView},
};

/// Changes of leaders that are kept.
const MOST: usize = 500;

/// Locks, and elections, whose changes are told as they come: a connection has not many subscriptions.
const MOST_HEARD: usize = 64;

pub(super) const TABS: [&str; 4] = ["Locks", "Elections", "Groups", "Fail-overs"];

/// What the keyboard is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Normal,
    Filter,
    /// Whether to break this hold.
    Confirm {
        name: String,
        holder: String,
        fence: u64,
    },
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Quit,
    Interrupt,
    Break { name: String, fence: u64 },
}

/// A change of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: SystemTime,
    pub(super) election: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) term: u64,
    /// Between the last sight of the former and the first of the next: at most that long nobody led.
    pub(super) gap: Duration,
}

/// Who was seen to lead last.
#[derive(Clone, Debug)]
struct Seen {
    term: u64,
    who: String,
    at: SystemTime,
}

/// Somebody, in as few columns as it takes.
pub(super) fn person(label: Option<&str>, host: &str, pid: u32) -> String {
    let label = label.filter(|label| !label.is_empty()).map(|label| format!("{label} ")).unwrap_or_default();
    printable(&format!("{label}{host}:{pid}"))
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) tab: usize,
    selected: [usize; TABS.len()],
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// The latest lists, and over them what was told since.
    pub(super) snapshot: Option<Box<Snapshot>>,
    told: Told,
    /// How many rows of a list are on the screen.
    height: usize,
    /// Why the last look failed.
    pub(super) away: Option<String>,
    pub(super) note: Option<String>,
    pub(super) changes: VecDeque<Change>,
    seen: HashMap<String, Seen>,
    pub(super) colour: bool,
}

impl Model {
    pub(super) fn new(colour: bool) -> Self {
        Self {
            tab: 0,
            selected: [0; TABS.len()],
            filter: String::new(),
            mode: Mode::Normal,
            snapshot: None,
            told: Told::default(),
            height: 0,
            away: None,
            note: None,
            changes: VecDeque::new(),
            seen: HashMap::new(),
            colour,
        }
    }

    pub(super) fn note(&mut self, note: String) {
        self.note = Some(note);
    }

    /// Takes in what is new.
    pub(super) fn take(&mut self, news: News, now: SystemTime) {
        match news {
            News::All(snapshot) => {
                self.away = None;
                self.show(snapshot, None, now);
            }
            // Whether the store can be reached only the lists tell.
            News::Status(status) => {
                if let Some(snapshot) = &mut self.snapshot {
                    snapshot.status = *status;
                }
            }
            News::Away(why) => self.away = Some(why),
            News::Heard(thing, what) => {
                self.told.hear(&thing, *what);
                if let Some(snapshot) = self.snapshot.take() {
                    self.show(snapshot, Some(&thing), now);
                }
            }
            News::Silence(thing) => self.told.forget(&thing),
            News::Members(group, members) => self.told.list(group, members),
        }
        let rows = self.rows();
        let selected = &mut self.selected[self.tab];
        *selected = (*selected).min(rows.saturating_sub(1));
    }

    /// Shows these lists, and what was told. New are all elections, or those that `thing` is.
    fn show(&mut self, mut snapshot: Box<Snapshot>, thing: Option<&Thing>, now: SystemTime) {
        self.told.lay_over(&mut snapshot);
        for election in &snapshot.elections {
            if thing.is_none_or(|thing| matches!(thing, Thing::Election(name) if *name == election.name)) {
                self.compare(election, now);
            }
        }
        self.snapshot = Some(snapshot);
    }

    fn compare(&mut self, election: &ElectionView, now: SystemTime) {
        let Some(leader) = &election.leader else { return };
        let who = person(leader.label.as_deref(), &leader.host, leader.pid);
        let next = Seen { term: leader.fence, who, at: now };
        let before = self.seen.insert(election.name.clone(), next.clone());
        if let Some(before) = before.filter(|before| before.term != next.term) {
            self.changes.push_front(Change {
                at: now,
                election: election.name.clone(),
                from: before.who,
                to: next.who,
                term: next.term,
                gap: now.duration_since(before.at).unwrap_or_default(),
            });
            self.changes.truncate(MOST);
        }
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Act {
        if key.kind == KeyEventKind::Release {
            return Act::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Act::Interrupt } else { Act::Nothing };
        }
        match std::mem::replace(&mut self.mode, Mode::Normal) {
            Mode::Normal => self.command(key.code),
            Mode::Filter => {
                match key.code {
                    KeyCode::Enter => return Act::Nothing,
                    KeyCode::Esc => {
                        self.filter.clear();
                        return Act::Nothing;
                    }
                    KeyCode::Backspace => drop(self.filter.pop()),
                    KeyCode::Char(letter) => self.filter.push(letter),
                    _ => {}
                }
                self.selected = [0; TABS.len()];
                self.mode = Mode::Filter;
                Act::Nothing
            }
            Mode::Confirm { name, fence, .. } if matches!(key.code, KeyCode::Char('y' | 'Y')) => Act::Break { name, fence },
            Mode::Confirm { name, .. } => {
                self.note(format!("{name} was left alone"));
                Act::Nothing
            }
        }
    }

    fn command(&mut self, code: KeyCode) -> Act {
        self.note = None;
        match code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::Right => self.tab = (self.tab + 1) % TABS.len(),
            KeyCode::BackTab | KeyCode::Left => self.tab = (self.tab + TABS.len() - 1) % TABS.len(),
            KeyCode::Char(digit @ '1'..='4') => self.tab = digit as usize - '1' as usize,
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(10),
            KeyCode::PageUp => self.choose(-10),
            KeyCode::Char('b') => self.ask(),
            _ => {}
        }
        Act::Nothing
    }

    fn choose(&mut self, by: isize) {
        let last = self.rows().saturating_sub(1);
        let selected = &mut self.selected[self.tab];
        *selected = selected.saturating_add_signed(by).min(last);
    }

    /// Asks whether to break what is chosen.
    fn ask(&mut self) {
        let lock = (self.tab == 0).then(|| self.locks().get(self.selected()).map(|lock| (*lock).clone())).flatten();
        match lock.and_then(|lock| Some((lock.name, lock.holder?))) {
            Some((name, holder)) if self.away.is_none() => {
                let fence = holder.fence;
                self.mode = Mode::Confirm { name, holder: Person::from(holder).to_string(), fence };
            }
            _ => self.note("choose a lock that is held: only a hold can be broken".to_owned()),
        }
    }

    pub(super) fn selected(&self) -> usize {
        self.selected[self.tab]
    }

    fn rows(&self) -> usize {
        match self.tab {
            0 => self.locks().len(),
            1 => self.elections().len(),
            2 => self.groups().len(),
            _ => self.changes().len(),
        }
    }

    fn fits(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    pub(super) fn locks(&self) -> Vec<&LockView> {
        self.snapshot.iter().flat_map(|snapshot| &snapshot.locks).filter(|lock| self.fits(&lock.name)).collect()
    }

    pub(super) fn elections(&self) -> Vec<&ElectionView> {
        self.snapshot.iter().flat_map(|snapshot| &snapshot.elections).filter(|election| self.fits(&election.name)).collect()
    }

    pub(super) fn groups(&self) -> Vec<&GroupView> {
        self.snapshot.iter().flat_map(|snapshot| &snapshot.groups).filter(|group| self.fits(&group.name)).collect()
    }

    pub(super) fn changes(&self) -> Vec<&Change> {
        self.changes.iter().filter(|change| self.fits(&change.election)).collect()
    }

    /// The group whose members are looked at.
    pub(super) fn chosen_group(&self) -> Option<String> {
        (self.tab == 2).then(|| self.groups().get(self.selected()).map(|group| group.name.clone())).flatten()
    }

    /// Who is in that group, as far as that is known.
    pub(super) fn members(&self) -> impl Iterator<Item = &MemberView> {
        self.chosen_group().map(|group| self.told.members(&group)).into_iter().flatten()
    }

    /// The screen has so many rows for a list.
    pub(super) const fn resize(&mut self, height: usize) {
        self.height = height;
    }

    /// Whose changes are shown as they come: what is on the screen, and elections for the fail-overs.
    pub(super) fn shown(&self) -> Vec<Thing> {
        let height = self.height.clamp(1, MOST_HEARD);
        // The list is drawn from its beginning, or so that what is chosen is its last row.
        let first = |tab: usize| (self.selected[tab] + 1).saturating_sub(height);
        let group = self.chosen_group().map(Thing::Group);
        let locks = self.locks().into_iter().skip(first(0)).take(if self.tab == 0 { height } else { 0 });
        let (skip, take) = if self.tab == 1 { (first(1), height) } else { (0, MOST_HEARD) };
        let elections = self.elections().into_iter().skip(skip).take(take);
        let locks = locks.map(|lock| Thing::Lock(lock.name.clone()));
        group.into_iter().chain(locks).chain(elections.map(|election| Thing::Election(election.name.clone()))).collect()
    }

    /// What is left of the lease that a session rests on, and its length, where this daemon has it.
    pub(super) fn lease(&self, session: &str) -> Option<(Duration, Duration)> {
        let found = self.snapshot.as_ref()?.status.sessions.iter().find(|known| known.id == session)?;
        Some((Duration::from_millis(found.remaining_ms), Duration::from_millis(found.lease_ms)))
    }

    /// What is said at the bottom.
    pub(super) fn bottom(&self) -> String {
        match (&self.mode, &self.note) {
            (Mode::Filter, _) => format!("/{}_   Enter keeps it, Esc ends it", printable(&self.filter)),
            (_, Some(note)) => printable(note),
            _ if !self.filter.is_empty() => format!("only /{}   Esc shows all   q quits", printable(&self.filter)),
            _ => "1-4 Tab choose   ↑↓ move   / filter   b break   q quit".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::Happening;

    pub(in super::super) fn snapshot(term: u64) -> Box<Snapshot> {
        let owner = |fence: u64, label: &str| json!({"fence": fence, "label": label, "session": "s1", "host": "web1", "pid": 42, "since_ms": 0});
        let status = json!({
            "server": "tenured/0.1.0", "pid": 1, "uptime_ms": 60_000, "draining": false,
            "store": {"url": "memory:", "shared": false, "replicas": 1},
            "sessions": [{"id": "s1", "lease_ms": 10_000, "state": "held", "remaining_ms": 6_000, "users": 2}],
            "connections": 3, "leases": 2, "leaderships": 1, "members": 1, "subscriptions": 0, "requests": 0,
            "connection": {"session": "c", "uid": 0, "leases": 0, "subscriptions": 0, "requests": 0},
        });
        let leader = json!({"fence": term, "revision": term, "session": "s1", "candidate": format!("c-{term}"), "label": format!("leader{term}"),
            "host": "web1", "pid": 42, "priority": 0, "since_ms": 0});
        Box::new(Snapshot {
            status: serde_json::from_value(status).unwrap(),
            locks: serde_json::from_value(json!([
                {"name": "deploy", "holder": null, "waiters": [owner(9, "next")]},
                {"name": "nightly", "holder": owner(7, "backup\u{1b}[2J"), "waiters": [owner(8, "other")]},
            ]))
            .unwrap(),
            elections: serde_json::from_value(json!([{"name": "db", "leader": leader, "candidates": 2}])).unwrap(),
            groups: serde_json::from_value(json!([{"name": "web", "members": 1}])).unwrap(),
        })
    }

    pub(in super::super) fn model() -> Model {
        let mut model = Model::new(false);
        model.take(News::All(snapshot(3)), SystemTime::UNIX_EPOCH);
        model
    }

    pub(in super::super) fn typed(model: &mut Model, keys: &str) -> Act {
        let press = |key| KeyEvent::new(key, KeyModifiers::NONE);
        keys.chars().fold(Act::Nothing, |_, key| {
            model.key(press(match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                key => KeyCode::Char(key),
            }))
        })
    }

    #[test]
    fn a_hold_is_broken_only_after_a_yes_to_its_name_holder_and_token() {
        let mut model = model();
        assert_eq!(typed(&mut model, "b"), Act::Nothing);
        assert_eq!(model.mode, Mode::Normal, "nobody holds the first");
        assert_eq!(typed(&mut model, "jb"), Act::Nothing);
        assert!(matches!(&model.mode, Mode::Confirm { name, fence: 7, holder } if name == "nightly" && holder.contains("web1")));
        // What comes meanwhile does not change what was asked.
        model.take(News::All(snapshot(3)), SystemTime::UNIX_EPOCH);
        assert_eq!(typed(&mut model, "n"), Act::Nothing);
        assert!(model.bottom().contains("left alone"));
        assert_eq!(typed(&mut model, "by"), Act::Break { name: "nightly".to_owned(), fence: 7 });
        assert_eq!(typed(&mut model, "2b"), Act::Nothing);
        assert_eq!(model.mode, Mode::Normal);
        assert_eq!(typed(&mut model, "q"), Act::Quit);
    }

    #[test]
    fn a_filter_leaves_what_has_it_in_its_name() {
        let mut model = model();
        typed(&mut model, "j/qu");
        assert!(model.locks().is_empty() && model.bottom().starts_with("/qu_"));
        assert_eq!(typed(&mut model, "\x1b"), Act::Nothing);
        assert_eq!(typed(&mut model, "/night\n"), Act::Nothing);
        assert_eq!(model.locks().iter().map(|lock| &*lock.name).collect::<Vec<_>>(), ["nightly"]);
        assert!(matches!(typed(&mut model, "by"), Act::Break { .. }));
        typed(&mut model, "\x1b");
        assert_eq!(model.locks().len(), 2);
    }

    #[test]
    fn a_change_of_the_leader_is_kept_with_the_time_between() {
        let mut model = model();
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let mut vacant = snapshot(3);
        vacant.elections[0].leader = None;
        model.take(News::All(vacant), at(500));
        model.take(News::Away("tenured closed the connection".to_owned()), at(1_000));
        assert!(model.away.is_some() && model.snapshot.is_some(), "what was seen last stays");
        model.take(News::All(snapshot(5)), at(1_500));
        model.take(News::All(snapshot(5)), at(2_000));
        assert_eq!(model.changes.len(), 1);
        let change = &model.changes[0];
        assert!(change.from.starts_with("leader3") && change.to.starts_with("leader5"), "{change:?}");
        assert_eq!((change.gap, change.term, model.away.is_none()), (Duration::from_millis(1_500), 5, true));
    }

    #[test]
    fn what_is_told_shows_at_once_and_a_list_that_is_older_does_not_undo_it() {
        let mut model = model();
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let db = Thing::Election("db".to_owned());
        let leader = snapshot(5).elections[0].leader.clone();
        model.take(News::Heard(db.clone(), Box::new(Happening::Leader { leader: None })), at(90));
        model.take(News::Heard(db.clone(), Box::new(Happening::Leader { leader })), at(100));
        assert_eq!((model.changes.len(), model.changes[0].term, model.changes[0].gap), (1, 5, Duration::from_millis(100)));
        model.take(News::All(snapshot(3)), at(200));
        assert_eq!(model.elections()[0].leader.as_ref().map(|leader| leader.fence), Some(5));
        assert_eq!(model.changes.len(), 1);
        model.take(News::Silence(db), at(300));
        model.take(News::All(snapshot(6)), at(400));
        assert_eq!(model.changes.len(), 2);
    }

    #[test]
    fn what_is_on_the_screen_is_heard_of() {
        let mut model = model();
        let mut many = snapshot(3);
        let lock = many.locks[0].clone();
        many.locks = (0..200).map(|n| LockView { name: format!("l{n:03}"), ..lock.clone() }).collect();
        let election = many.elections[0].clone();
        many.elections = (0..200).map(|n| ElectionView { name: format!("e{n:03}"), ..election.clone() }).collect();
        model.take(News::All(many), SystemTime::UNIX_EPOCH);
        let heard = |model: &Model| {
            let shown = model.shown();
            let count = |is: fn(&&Thing) -> bool| shown.iter().filter(is).count();
            let (locks, elections) = (count(|it| matches!(it, Thing::Lock(_))), count(|it| matches!(it, Thing::Election(_))));
            (locks, elections, shown.first().cloned().unwrap())
        };
        model.resize(10);
        assert_eq!(heard(&model), (10, MOST_HEARD, Thing::Lock("l000".to_owned())));
        typed(&mut model, &"j".repeat(9));
        assert_eq!(heard(&model).2, Thing::Lock("l000".to_owned()));
        typed(&mut model, "jj");
        assert_eq!(heard(&model).2, Thing::Lock("l002".to_owned()));
        model.resize(1_000);
        assert_eq!(heard(&model), (MOST_HEARD, MOST_HEARD, Thing::Lock("l000".to_owned())));
        typed(&mut model, "2");
        model.resize(10);
        typed(&mut model, &"j".repeat(30));
        assert_eq!(heard(&model), (0, 10, Thing::Election("e021".to_owned())));
        typed(&mut model, "3");
        assert_eq!(heard(&model), (0, MOST_HEARD, Thing::Group("web".to_owned())));
    }

    #[test]
    fn what_is_chosen_stays_within_what_is_there() {
        let mut model = model();
        typed(&mut model, "jjjj");
        assert_eq!(model.selected(), 1);
        let mut fewer = snapshot(3);
        fewer.locks.truncate(1);
        model.take(News::All(fewer), SystemTime::UNIX_EPOCH);
        assert_eq!(model.selected(), 0);
        assert_eq!(model.chosen_group(), None);
        typed(&mut model, "\t\t");
        assert_eq!(model.chosen_group().as_deref(), Some("web"));
    }
}
