//! Promise 8: watches, views and observers never skip a final state, never go back, and say so when there was a
//! gap. What was read is something that was written.

use std::collections::{BTreeMap, HashMap};

use super::Limits;
use crate::{
    case::{Case, Operation, Prize},
    history::{MemberKind, Micros, Op, Sight, ViewKind},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Views);
    let settled = Settled::new(case, limits);
    views(case, &settled, &mut verdict);
    watches(case, &settled, &mut verdict);
    observers(case, &settled, &mut verdict);
    for operation in &case.operations {
        read(case, operation, &mut verdict);
    }
    verdict
}

/// Up to when the last change must have been made, for everybody to have heard of it before the end.
struct Settled(Option<Micros>);

impl Settled {
    fn new(case: &Case<'_>, limits: &Limits) -> Self {
        let quiet = case.quiet.or_else(|| case.faults.all.is_empty().then_some(0));
        let by = case.end.checked_sub(case.longest_lease + limits.settle);
        Self(quiet.zip(by).filter(|(quiet, by)| quiet <= by).map(|(_, by)| by))
    }

    /// The last state of `key`, if it has been so for long enough.
    fn state<'a>(&self, case: &Case<'a>, key: &str) -> Option<Option<Entry<'a>>> {
        let by = self.0?;
        let last = case.stream.final_state(key);
        let gap = case.stream.gap(case.stream.last_epoch(), last.map_or(0, |last| last.revision()), u64::MAX);
        let old = last.is_none_or(|last| last.latest <= by || (last.latest == Micros::MAX && last.earliest <= by));
        (old && !gap).then_some(last)
    }

    /// What everybody must have heard of `key` by the end, or something later.
    fn heard<'a>(&self, case: &Case<'a>, key: &str) -> Option<Entry<'a>> {
        let by = self.0?;
        let mut last = case.stream.final_state(key);
        while let Some(entry) = last.filter(|entry| entry.latest > by) {
            last = case.stream.before(entry.epoch, key, entry.revision());
        }
        last
    }
}

/// What a view or a watch has shown of a key.
#[derive(Clone, Copy)]
struct Shown {
    line: usize,
    at: Micros,
    revision: u64,
    live: bool,
}

#[derive(Default)]
struct Follower<'a> {
    range: Option<&'a str>,
    keys: BTreeMap<String, Shown>,
    /// The highest live entry since it caught up, while no gap was told, and when it was shown.
    last: Option<(u64, Micros)>,
    in_order: bool,
    ended: bool,
    client: u64,
    /// The last line that was about it.
    line: usize,
}

impl Follower<'_> {
    fn show(&mut self, case: &Case<'_>, who: &str, key: String, shown: Shown, at: Micros, verdict: &mut Verdict) {
        verdict.checked();
        let before = self.keys.get(&key).copied();
        // That a key was found gone may come with the revision of its last write.
        let news = |before: &Shown| (shown.revision, !shown.live) > (before.revision, !before.live);
        let backwards = |before: &Shown| shown.revision > 0 && !news(before) && case.is_one_epoch(before.at, at);
        if let Some(before) = before.filter(backwards) {
            let what = format!("{who}: {key} went back from {} to {}", before.revision, shown.revision);
            verdict.violated(what, Some(at), [before.line, shown.line]);
        }
        if shown.live && self.in_order {
            let backwards =
                |(last, then): &(u64, Micros)| shown.revision > 0 && shown.revision < *last && case.is_one_epoch(*then, at);
            if let Some((last, _)) = self.last.filter(backwards) {
                let what = format!("{who}: went back from revision {last} to {} ({key}) with no gap told", shown.revision);
                verdict.violated(what, Some(at), [self.line, shown.line]);
            }
            self.last = self.last.filter(|(last, _)| *last > shown.revision).or(Some((shown.revision, at)));
        }
        self.keys.insert(key, shown);
    }

    fn gap(&mut self) {
        (self.in_order, self.last) = (false, None);
    }

    /// Everything in the range that has been so for long must have been shown.
    fn finish(&self, case: &Case<'_>, who: &str, settled: &Settled, verdict: &mut Verdict) {
        if self.ended || case.faults.crashed(self.client).is_some() {
            return;
        }
        let under = self.range.map(|range| case.stream.keys_under(case.stream.last_epoch(), range)).unwrap_or_default();
        let inside = |key: &&str| self.range.is_some_and(|range| *key == range || key[range.len()..].starts_with('.'));
        let all = under.iter().map(|(key, _)| *key).filter(inside).chain(self.keys.keys().map(String::as_str));
        for key in all.collect::<std::collections::BTreeSet<_>>() {
            let shown = self.keys.get(key);
            // Also of a key that changes until the end.
            if let Some((heard, shown)) = settled.heard(case, key).zip(shown.filter(|shown| shown.revision > 0)) {
                verdict.checked();
                // That it is gone may come with the revision of what was there.
                let gone = !shown.live && !heard.is_live();
                if shown.revision < heard.revision() && !gone && case.is_one_epoch(shown.at, case.end) {
                    let what = format!(
                        "{who}: what it showed last of {key} is {}; it was at {} long before the end",
                        shown.revision,
                        heard.revision()
                    );
                    verdict.violated(what, Some(case.end), [heard.line, shown.line]);
                    continue;
                }
            }
            let Some(last) = settled.state(case, key) else { continue };
            verdict.checked();
            let live = last.filter(Entry::is_live);
            let agrees = match (live, shown) {
                (Some(live), Some(shown)) => shown.live && (shown.revision == 0 || shown.revision == live.revision()),
                (Some(_), None) => false,
                (None, shown) => shown.is_none_or(|shown| !shown.live),
            };
            if !agrees {
                let (is, showed) = (last.map_or(0, |last| last.revision()), shown.map_or(0, |shown| shown.revision));
                let what = format!("{who}: the last state of {key} is that of {is}; what it showed last is {showed}");
                let lines = [last.map(|last| last.line), shown.map(|shown| shown.line), Some(self.line)];
                verdict.violated(what, Some(case.end), lines.into_iter().flatten());
            }
        }
    }
}

/// A live entry shown was written at that revision, by then.
fn was_written(case: &Case<'_>, key: &str, revision: u64, nonce: Option<&str>, at: Micros) -> Result<(), &'static str> {
    let by = at.saturating_add(case.slack);
    let mut found = case.stream.epochs().filter_map(|epoch| case.stream.at(epoch, revision)).peekable();
    if found.peek().is_none() {
        let missed = case.stream.epochs().any(|epoch| case.stream.gap(epoch, revision.saturating_sub(1), revision + 1));
        // One that is past the recorded end may be the recorder's.
        return if missed { Ok(()) } else { Err("was never written") };
    }
    let same = |entry: &Entry<'_>| {
        let told = nonce.is_none() || entry.write.value.nonce.is_none() || entry.write.value.nonce.as_deref() == nonce;
        entry.write.key == key && entry.is_live() && told
    };
    match found.find(same) {
        None => Err("is not what was written there"),
        Some(entry) if entry.earliest > by => Err("was not written yet"),
        Some(_) => Ok(()),
    }
}

fn views(case: &Case<'_>, settled: &Settled, verdict: &mut Verdict) {
    let mut all: BTreeMap<u64, Follower<'_>> = BTreeMap::new();
    for (line, seen) in &case.seen {
        let Sight::View { view, key, revision, live, nonce, kind } = &seen.what else { continue };
        let who = format!("view {view}");
        let follower = all.entry(*view).or_default();
        follower.client = seen.client;
        match kind {
            ViewKind::Open => follower.range = Some(key),
            ViewKind::Entry => {
                let shown = Shown { line: *line, at: seen.at, revision: *revision, live: *live };
                follower.show(case, &who, key.clone(), shown, seen.at, verdict);
                if let Some(Err(why)) = live.then(|| was_written(case, key, *revision, nonce.as_deref(), seen.at)) {
                    verdict.violated(format!("{who}: {key} at {revision} {why}"), Some(seen.at), [*line]);
                }
            }
            ViewKind::Gap => follower.gap(),
            ViewKind::CaughtUp => follower.in_order = true,
            ViewKind::End => follower.ended = true,
        }
        follower.line = *line;
    }
    for (view, follower) in &all {
        follower.finish(case, &format!("view {view}"), settled, verdict);
    }
}

fn watches(case: &Case<'_>, settled: &Settled, verdict: &mut Verdict) {
    let ranges: HashMap<&str, String> = case
        .seen
        .iter()
        .filter_map(|(_, seen)| match &seen.what {
            Sight::Member { group, .. } => Some((group.as_str(), format!("member.{group}"))),
            _ => None,
        })
        .collect();
    let mut all: BTreeMap<u64, Follower<'_>> = BTreeMap::new();
    for (line, seen) in &case.seen {
        let Sight::Member { watch, group, member, revision, kind } = &seen.what else { continue };
        let who = format!("watch {watch} of {group}");
        let follower = all.entry(*watch).or_default();
        (follower.client, follower.range) = (seen.client, ranges.get(group.as_str()).map(String::as_str));
        let key = format!("member.{group}.{member}");
        let live = match kind {
            MemberKind::Insert | MemberKind::Update => true,
            MemberKind::Remove => false,
            MemberKind::CaughtUp => {
                follower.in_order = true;
                continue;
            }
            MemberKind::Gap => {
                follower.gap();
                continue;
            }
            MemberKind::End => {
                follower.ended = true;
                continue;
            }
        };
        let before = follower.keys.get(&key).copied();
        if live && *revision > 0 {
            if let Err(why) = was_written(case, &key, *revision, None, seen.at) {
                verdict.violated(format!("{who}: {member} at {revision} {why}"), Some(seen.at), [*line]);
            }
        } else if !live && let Some(before) = before.filter(|before| before.revision > 0) {
            removed(case, &who, &key, before, seen.at, *line, verdict);
        }
        let shown = Shown { line: *line, at: seen.at, revision: *revision, live };
        follower.show(case, &who, key, shown, seen.at, verdict);
        follower.line = *line;
    }
    for (watch, follower) in &all {
        follower.finish(case, &format!("watch {watch}"), settled, verdict);
    }
}

/// A member shown as gone has gone: after what was shown of it, it was ended.
fn removed(case: &Case<'_>, who: &str, key: &str, before: Shown, at: Micros, line: usize, verdict: &mut Verdict) {
    let by = at.saturating_add(case.slack);
    let ended = case.stream.epochs().any(|epoch| {
        let mut from = before.revision;
        while let Some(entry) = case.stream.after(epoch, key, from) {
            let missed = case.stream.gap(epoch, from, entry.revision());
            if missed || !entry.is_live() {
                return missed || entry.earliest <= by;
            }
            from = entry.revision();
        }
        case.stream.gap(epoch, before.revision, u64::MAX)
    });
    // In a bucket made anew or set back it may be gone with no tombstone.
    if !ended && case.is_one_epoch(before.at, at) {
        verdict.violated(format!("{who}: {key} was shown as gone and was not"), Some(at), [before.line, line]);
    }
}

fn observers(case: &Case<'_>, settled: &Settled, verdict: &mut Verdict) {
    struct Word {
        line: usize,
        /// Since when it has said the same.
        since: Micros,
        /// When it said so last.
        at: Micros,
        term: Option<u64>,
        unknown: bool,
    }
    let mut all: BTreeMap<(u64, &str), (u64, Option<u64>, Word)> = BTreeMap::new();
    for (line, seen) in &case.seen {
        let Sight::Leader { observer, election, term, unknown } = &seen.what else { continue };
        verdict.checked();
        let before = all.get(&(*observer, election.as_str()));
        let since = before.map_or(0, |(_, _, word)| word.since);
        // While reads lag, so does the observer, by as much.
        let since = if case.faults.calm(since, seen.at, case.longest_lease, None) { since } else { 0 };
        let highest = before.and_then(|(_, highest, _)| *highest);
        let then = before.map_or(0, |(_, _, word)| word.at);
        let prize = Prize::Election(election);
        if let Some(term) = term {
            let mut found = case.stream.epochs().filter_map(|epoch| case.tenure(prize, epoch, *term)).peekable();
            let known = found.peek().is_some();
            let missed = case.stream.epochs().any(|epoch| case.stream.gap(epoch, term.saturating_sub(1), *term + 1));
            let in_office = |tenure: &crate::case::Tenure<'_>| {
                let over = tenure.end.surely_by(since.saturating_sub(case.slack + case.lag + 1));
                tenure.born.earliest <= seen.at.saturating_add(case.slack) && !over
            };
            // What it has said before was judged then.
            let again = before.is_some_and(|(_, _, word)| word.term == Some(*term) && !word.unknown);
            if !again && !found.any(in_office) && (known || !missed) {
                let what = format!("observer {observer} of {election} showed the leader of term {term}, who was not in office");
                let lines = before.map(|(_, _, word)| word.line).into_iter().chain([*line]);
                verdict.violated(what, Some(seen.at), lines);
            }
            if let Some(highest) = highest.filter(|highest| highest > term && case.is_one_epoch(then, seen.at)) {
                let what = format!("observer {observer} of {election} went back from term {highest} to {term}");
                verdict.violated(what, Some(seen.at), [*line]);
            }
        }
        let same = before.filter(|(_, _, word)| word.term == *term && word.unknown == *unknown);
        let since = same.map_or(seen.from, |(_, _, word)| word.since);
        let word = Word { line: *line, since, at: seen.at, term: *term, unknown: *unknown };
        // What was the highest of an epoch is nothing in the next.
        let highest = highest.filter(|_| case.is_one_epoch(then, seen.at));
        all.insert((*observer, election), (seen.client, highest.max(*term), word));
    }
    for ((observer, election), (client, _, word)) in &all {
        if word.unknown || case.faults.crashed(*client).is_some() {
            continue;
        }
        // Also where leaders change until the end.
        let heard = settled.heard(case, &format!("election.{election}"));
        let term_of = |entry: Entry<'_>| entry.write.value.term.unwrap_or(entry.revision());
        if let Some((heard, term)) = heard.filter(Entry::is_live).zip(word.term) {
            verdict.checked();
            if term < term_of(heard) && case.is_one_epoch(word.at, case.end) {
                let what =
                    format!("observer {observer} of {election} ended with {term}; {} led long before the end", term_of(heard));
                verdict.violated(what, Some(case.end), [word.line, heard.line]);
                continue;
            }
        }
        let last = settled.state(case, &format!("election.{election}"));
        let Some(last) = last else { continue };
        verdict.checked();
        let standing = last.filter(Entry::is_live);
        let term = standing.map(|entry| entry.write.value.term.unwrap_or(entry.revision()));
        let session = standing.and_then(|entry| entry.write.value.session.as_deref());
        let death = standing.zip(session).and_then(|(entry, session)| case.death(entry.epoch, session).entry());
        // Nobody leads any more whose session is dead. Of one that has only just died it may say either.
        let dead = death.is_some() || session.is_some_and(|session| case.is_gone_by(session, case.end));
        let long_dead = death.is_some_and(|death| settled.0.is_some_and(|by| death.latest <= by));
        let right = if word.term.is_none() { term.is_none() || dead } else { word.term == term && !long_dead };
        if !right {
            let what = format!("observer {observer} of {election} ended with {:?}; the stream ends with {term:?}", word.term);
            verdict.violated(what, Some(case.end), [Some(word.line), last.map(|last| last.line)].into_iter().flatten());
        }
    }
}

/// What was read had been written; it may be old.
fn read(case: &Case<'_>, operation: &Operation<'_>, verdict: &mut Verdict) {
    let Some(done) = operation.ok() else { return };
    let mut look = |key: &str, revision: u64, nonce: Option<&str>| {
        verdict.checked();
        if let Err(why) = was_written(case, key, revision, nonce, operation.ended()) {
            verdict.violated(format!("{key} was read at {revision}, which {why}"), Some(operation.ended()), operation.lines());
        }
    };
    match operation.op() {
        Op::Get { key } => {
            // A read may show a tombstone, which has a revision and no nonce.
            if let Some((revision, nonce)) = done.revision.zip(done.nonce.as_deref()) {
                look(&format!("data.{key}"), revision, Some(nonce));
            }
        }
        Op::Members { group } => {
            for found in &done.found {
                look(&format!("member.{group}.{}", found.key), found.revision, found.nonce.as_deref());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{FaultKind, WriteState},
        tape::Tape,
    };

    const PROMISE: Promise = Promise::Views;

    fn view(key: &str, revision: u64, live: bool, kind: ViewKind) -> Sight {
        Sight::View { view: 1, key: key.into(), revision, live, nonce: None, kind }
    }

    fn leader(term: Option<u64>, unknown: bool) -> Sight {
        Sight::Leader { observer: 1, election: "e".into(), term, unknown }
    }

    #[test]
    fn writes_may_merge_and_the_last_is_shown() {
        let mut tape = Tape::new();
        tape.seen(1, 2, view("data", 0, false, ViewKind::Open));
        tape.data(10, "n1");
        let last = tape.data(11, "n2");
        tape.end(12_000);
        tape.breaks(PROMISE, "the last state of data.k");
        tape.seen(20, 2, view("data.k", last, true, ViewKind::Entry));
        tape.keeps(PROMISE);
    }

    #[test]
    fn a_key_found_gone_may_have_the_revision_of_its_last_write() {
        let mut tape = Tape::new();
        let revision = tape.data(10, "n1");
        tape.seen(11, 2, view("data.k", revision, true, ViewKind::Entry));
        tape.seen(12, 2, view("", 0, false, ViewKind::Gap));
        tape.seen(13, 2, view("data.k", revision, false, ViewKind::Entry));
        tape.keeps(PROMISE);
        tape.seen(14, 2, view("data.k", revision, true, ViewKind::Entry));
        tape.breaks(PROMISE, "went back");
    }

    #[test]
    fn what_is_shown_was_written_by_then() {
        let mut tape = Tape::new();
        let revision = tape.data(10, "n1");
        let mut early = tape.clone();
        early.seen(9, 2, view("data.k", revision, true, ViewKind::Entry));
        early.breaks(PROMISE, "was not written yet");
        tape.seen(10, 2, view("data.k", revision - 1, true, ViewKind::Entry));
        tape.breaks(PROMISE, "is not what was written there");
    }

    #[test]
    fn an_observer_shows_who_was_in_office_since_its_last_word() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.seen(15, 2, leader(None, false));
        tape.write(20, "election.e", WriteState::Deleted, "", "");
        let mut late = tape.clone();
        // It is told late, of an office that lasted beyond its last word.
        late.seen(30, 2, leader(Some(term), false));
        late.seen(31, 2, leader(None, false));
        late.keeps(PROMISE);
        tape.seen(25, 2, leader(None, true));
        tape.seen(30, 2, leader(Some(term), false));
        tape.breaks(PROMISE, "who was not in office");
    }

    #[test]
    fn an_observer_may_read_what_was_so_a_moment_ago_where_reads_lag() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.write(20, "election.e", WriteState::Deleted, "", "");
        tape.seen(25, 2, leader(None, true));
        tape.seen(30, 2, leader(Some(term), false));
        tape.seen(31, 2, leader(None, false));
        tape.breaks(PROMISE, "who was not in office");
        tape.lags(4);
        tape.breaks(PROMISE, "who was not in office");
        tape.lags(5);
        tape.keeps(PROMISE);
    }

    #[test]
    fn an_observer_may_say_the_same_again_and_lag_with_its_reads() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.write(20, "election.e", WriteState::Deleted, "", "");
        tape.seen(30, 2, leader(Some(term), false));
        tape.seen(31, 2, leader(Some(term), false));
        tape.keeps(PROMISE);
        tape.seen(32, 2, leader(None, false));
        tape.seen(33, 2, leader(Some(term), false));
        tape.breaks(PROMISE, "who was not in office");
        tape.fault(5, Some(40), FaultKind::StaleReads, 2);
        tape.keeps(PROMISE);
    }

    #[test]
    fn of_a_leader_whose_session_was_ended_an_observer_says_that_nobody_leads() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.seen(15, 2, leader(Some(term), false));
        tape.end(12_000);
        tape.keeps(PROMISE);
        let mut none = tape.clone();
        none.seen(30, 2, leader(None, false));
        none.breaks(PROMISE, "ended with None");
        tape.die(600, "a");
        tape.breaks(PROMISE, "ended with Some");
        none.die(600, "a");
        none.keeps(PROMISE);
    }

    #[test]
    fn one_that_cannot_tell_is_not_wrong() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.seen(15, 2, leader(Some(term), false));
        tape.write(20, "election.e", WriteState::Deleted, "", "");
        tape.end(12_000);
        tape.breaks(PROMISE, "ended with Some");
        tape.seen(30, 2, leader(None, true));
        tape.keeps(PROMISE);
    }

    #[test]
    fn what_changes_until_the_end_is_heard_of_all_the_same() {
        let shown = |of: usize| {
            let mut tape = Tape::new();
            tape.seen(1, 2, view("data", 0, false, ViewKind::Open));
            let writes = [tape.data(10, "n1"), tape.data(1_499, "n2"), tape.data(11_990, "n3")];
            tape.seen(11_991, 2, view("data.k", writes[of], true, ViewKind::Entry));
            tape.end(12_000);
            tape
        };
        shown(0).breaks(PROMISE, "long before the end");
        shown(1).keeps(PROMISE);
        shown(2).keeps(PROMISE);
    }

    #[test]
    fn leaders_who_change_until_the_end_are_heard_of_all_the_same() {
        let shown = |of: usize| {
            let mut tape = Tape::new();
            let terms = [10, 1_499, 11_990].map(|at| tape.leader(at, "a", None, ""));
            tape.seen(11_991, 2, leader(Some(terms[of]), false));
            tape.end(12_000);
            tape
        };
        shown(0).breaks(PROMISE, "long before the end");
        shown(2).keeps(PROMISE);
    }

    #[test]
    fn only_a_new_epoch_lets_a_view_go_back() {
        let mut tape = Tape::new();
        let (first, last) = (tape.data(10, "n1"), tape.data(20, "n2"));
        tape.seen(25, 2, view("data.k", last, true, ViewKind::Entry));
        let mut anew = tape.clone();
        tape.seen(30, 2, view("data.k", first, true, ViewKind::Entry));
        tape.fault(2_000, Some(2_001), FaultKind::Recreate, 1);
        tape.breaks(PROMISE, "went back");
        anew.fault(26, Some(27), FaultKind::Recreate, 1);
        anew.seen(30, 2, view("data.k", first, true, ViewKind::Entry));
        anew.keeps(PROMISE);
    }
}
