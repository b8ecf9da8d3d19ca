//! Who holds a lock, given its tickets; pure.
//!
//! The live ticket with the lowest revision holds. Tickets never come back, so what a page shows as gone
//! is gone whichever replica it came from; what a page lacks may only be missing because the replica
//! lags. A page that reaches the reader's own ticket cannot lag behind any earlier one.

use std::collections::BTreeMap;

use tenure_kv::{
    Entry, Key, Page, Revision,
    mutants::{self, Mutant},
};

use crate::{layout::parse_ticket, session::Floor};

/// Writes that a page from the front may hold before the queue counts as crowded.
pub(crate) const FRONT: usize = 64;
/// Revisions looked back over at first in a crowded queue; it grows by [`WIDER`] each time.
const NEAR: u64 = 63;
const WIDER: u64 = 16;
/// Writes that later pages may hold.
const DEEP: usize = 2_048;
/// So many tickets in a row are looked at in one go: of those before one's own so many are told of.
pub(crate) const ROW: usize = 64;

/// A search for the live ticket right before one's own.
#[derive(Debug)]
pub(crate) struct Search {
    ticket: Key,
    own: Revision,
    floor: Revision,
    /// Where the part that is being read begins, and how far it has been read.
    from: Revision,
    read: Revision,
    /// The last tickets before one's own.
    before: BTreeMap<Revision, Key>,
    own_seen: bool,
    front: bool,
}

/// What to do after a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read from here, up to so many writes.
    Read(Revision, usize),
    /// The page came from a replica that lags: read the same again.
    Again(Revision, usize),
    /// These tickets are right before one's own, the last first; at least one.
    Behind(Vec<(Key, Revision)>),
    /// Nothing is before one's own.
    First,
    /// One's own ticket is gone.
    Gone,
}

impl Search {
    /// A search for what is before `ticket`, which was written at `own`.
    pub(crate) fn new(ticket: Key, own: Revision, floor: Floor) -> (Self, Step) {
        let start = floor.gone.next();
        let mut search = Self {
            ticket,
            own,
            floor: start,
            from: start,
            read: Revision::ZERO,
            before: BTreeMap::new(),
            own_seen: false,
            front: true,
        };
        if floor.crowded {
            search.look_back(NEAR);
        }
        // Of a queue that nothing is known of, the first ticket mostly is one's own.
        let limit = if floor.gone == Revision::ZERO && !floor.crowded { 1 } else { FRONT };
        let step = Step::Read(search.from, limit);
        (search, step)
    }

    /// Whether the queue turned out not to fit one page from its front.
    pub(crate) const fn crowded(&self) -> bool {
        !self.front
    }

    fn look_back(&mut self, revisions: u64) {
        self.front = false;
        self.from = Revision::new(self.own.get().saturating_sub(revisions)).max(self.floor);
        self.read = Revision::ZERO;
        self.before.clear();
    }

    pub(crate) fn page(&mut self, page: &Page) -> Step {
        for entry in &page.entries {
            self.entry(entry);
        }
        self.read = self.read.max(page.through);
        if mutants::is_on(Mutant::ReorderedQueue) {
            return self.by_name(page);
        }
        if self.read < self.own && !mutants::is_on(Mutant::MissingReread) {
            let next = self.from.max(self.read.next());
            if page.complete {
                return Step::Again(next, FRONT);
            }
            if self.front {
                self.look_back(NEAR);
                return Step::Read(self.from, FRONT);
            }
            return Step::Read(next, DEEP);
        }
        if !self.own_seen && !mutants::is_on(Mutant::MissingReread) {
            return Step::Gone;
        }
        if !self.before.is_empty() {
            let before = std::mem::take(&mut self.before).into_iter().rev();
            return Step::Behind(before.map(|(revision, key)| (key, revision)).collect());
        }
        if self.from <= self.floor {
            return Step::First;
        }
        let looked = self.own.get() - self.from.get();
        self.look_back(looked.saturating_mul(WIDER).max(NEAR));
        Step::Read(self.from, DEEP)
    }

    /// The defect [`Mutant::ReorderedQueue`].
    fn by_name(&self, page: &Page) -> Step {
        let own = page.entries.iter().find(|entry| entry.revision == self.own);
        let first = page.entries.iter().min_by(|a, b| a.key.cmp(&b.key));
        match (own, first) {
            (Some(own), Some(first)) if own.key == first.key => Step::First,
            (Some(_), Some(first)) => Step::Behind(vec![(first.key.clone(), first.revision)]),
            _ if page.through < self.own || !page.complete => Step::Again(Revision::ZERO, DEEP),
            _ => Step::Gone,
        }
    }

    fn entry(&mut self, entry: &Entry) {
        if entry.revision == self.own {
            // In a bucket made anew another's may stand there.
            self.own_seen = entry.key == self.ticket;
        } else if entry.revision < self.own {
            if parse_ticket(&entry.key).is_some() {
                self.before.insert(entry.revision, entry.key.clone());
                if self.before.len() > ROW {
                    self.before.pop_first();
                }
            } else {
                tracing::warn!(key = %entry.key, "this key is in a lock's range but is no ticket; it is passed over");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tenure_kv::State;

    use super::*;

    const SESSION: &str = "0123456789abcdef0123456789abcdef";

    fn ticket(n: u64) -> Entry {
        Entry {
            key: Key::new(format!("lock.x.{SESSION}-{n}")).unwrap(),
            revision: Revision::new(n),
            state: State::Live(Default::default()),
            created: SystemTime::UNIX_EPOCH,
        }
    }

    /// A range whose live tickets are `live`; `crowd` says whether every other revision up to the last is
    /// a tombstone in the range or a write elsewhere.
    fn solve(live: &[u64], own: u64, floor: Floor, crowd: bool) -> (Step, usize) {
        let last = live.iter().copied().max().unwrap_or(0).max(own);
        let (mut search, mut step) = Search::new(ticket(own).key, Revision::new(own), floor);
        let mut reads = 0;
        loop {
            let (from, limit) = match step {
                Step::Read(from, limit) | Step::Again(from, limit) => (from.get().max(1), limit),
                done => return (done, reads),
            };
            reads += 1;
            assert!(reads < 100, "the search does not end");
            let seen: Vec<u64> = (from..=last).filter(|n| crowd || live.contains(n)).take(limit).collect();
            let through = seen.last().copied().unwrap_or(last);
            let entries = seen.iter().filter(|n| live.contains(n)).map(|n| ticket(*n)).collect();
            step = search.page(&Page { entries, through: Revision::new(through), complete: through == last });
        }
    }

    fn floor(gone: u64, crowded: bool) -> Floor {
        Floor { gone: Revision::new(gone), crowded, ..Floor::default() }
    }

    #[test]
    fn the_lowest_live_ticket_holds_and_others_stand_behind_the_one_before() {
        assert_eq!(solve(&[7], 7, floor(0, false), false), (Step::First, 1));
        assert!(matches!(solve(&[3, 5, 7], 7, floor(0, false), false).0, Step::Behind(before) if before[0].1.get() == 5));
        assert_eq!(solve(&[3, 7], 3, floor(0, false), false), (Step::First, 1));
        assert_eq!(solve(&[3], 7, floor(0, false), true).0, Step::Gone);
    }

    #[test]
    fn every_queue_is_searched_right_however_it_is_read() {
        for own in [1_u64, 64, 65, 1_000, 40_000] {
            for before in [None, Some(1), Some(own / 2), Some(own.saturating_sub(65)), Some(own - 1)] {
                for crowded in [false, true] {
                    let before = before.filter(|n| (1..own).contains(n));
                    let live: Vec<u64> = before.into_iter().chain([own, own + 1]).collect();
                    let (step, reads) = solve(&live, own, floor(0, crowded), true);
                    match before {
                        Some(n) => {
                            assert!(matches!(&step, Step::Behind(all) if all[0].1.get() == n), "{own} {before:?} {step:?}")
                        }
                        None => assert_eq!(step, Step::First, "{own}"),
                    }
                    assert!(own > 1_000 || reads <= 8, "{reads} reads for {own} {before:?}");
                }
            }
        }
    }

    #[test]
    fn the_row_before_ones_own_is_told_from_its_end() {
        let told = |live: &[u64], own| match solve(live, own, floor(0, false), false).0 {
            Step::Behind(before) => before.iter().map(|(_, at)| at.get()).collect::<Vec<_>>(),
            step => panic!("{step:?}"),
        };
        assert_eq!(told(&[3, 5, 7, 9], 7), [5, 3]);
        let near = told(&(1..=200).collect::<Vec<_>>(), 200);
        assert_eq!((near.len(), near[0], near[62]), (63, 199, 137), "no further than was read");
        let far = told(&(1..=100).chain([2_000]).collect::<Vec<_>>(), 2_000);
        assert_eq!((far.len(), far[0], far[ROW - 1]), (ROW, 100, 37));
    }

    #[test]
    fn a_deep_queue_costs_one_read_for_who_knows_that_it_is_deep() {
        let live: Vec<u64> = (1..=2_000).collect();
        assert_eq!(solve(&live, 2_000, floor(0, true), true).1, 1);
        assert_eq!(solve(&[2_000], 2_000, floor(1_990, false), true), (Step::First, 1));
    }

    #[test]
    fn anothers_ticket_at_ones_own_revision_is_not_ones_own() {
        let (mut search, _) = Search::new(ticket(7).key, Revision::new(9), Floor::default());
        let anew = Page { entries: vec![ticket(9)], through: Revision::new(9), complete: true };
        assert_eq!(search.page(&anew), Step::Gone);
    }

    #[test]
    fn a_lagging_page_is_read_again() {
        let (mut search, _) = Search::new(ticket(9).key, Revision::new(9), Floor::default());
        let lagging = Page { entries: vec![], through: Revision::new(5), complete: true };
        assert!(matches!(search.page(&lagging), Step::Again(..)));
        let nothing = Page { entries: vec![], through: Revision::ZERO, complete: true };
        assert!(matches!(search.page(&nothing), Step::Again(..)));
        let whole = Page { entries: vec![ticket(9)], through: Revision::new(9), complete: true };
        assert_eq!(search.page(&whole), Step::First);
    }
}
