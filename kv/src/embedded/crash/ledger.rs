//! What a store may hold and answer after all it was told so far, crashes and failures included.

use super::model::{Content, Model};
use crate::{Batch, Error, Moment, Result as Outcome, Revision};

/// How many states a damaged disk may fall back to.
const REMEMBERED: usize = 64;

/// Ends the check with what is wrong unless it `holds`.
macro_rules! ensure {
    ($holds:expr, $($said:tt)+) => {
        if !$holds {
            return Err(format!($($said)+));
        }
    };
}
pub(super) use ensure;

/// What a commit was told.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Applied(u64),
    Refused,
    NotApplied(String),
    Unsure(String),
    /// Nobody waited for it.
    Unheard,
}

impl Answer {
    pub(super) fn of(outcome: Outcome<Revision>) -> Result<Self, String> {
        match outcome {
            Ok(revision) => Ok(Self::Applied(revision.get())),
            Err(Error::Conflict { .. }) => Ok(Self::Refused),
            Err(Error::Unavailable { message, .. }) => Ok(Self::NotApplied(message)),
            Err(Error::Unknown { message, .. }) => Ok(Self::Unsure(message)),
            Err(error) => Err(format!("a commit was answered {error:?}")),
        }
    }

    const fn is_failure(&self) -> bool {
        matches!(self, Self::NotApplied(_) | Self::Unsure(_))
    }

    /// Whether a commit may be told this that was decided as `decided`, and applied if so.
    fn is_true_of(&self, decided: Option<u64>) -> bool {
        match self {
            Self::Applied(revision) => decided == Some(*revision),
            Self::Refused | Self::NotApplied(_) => decided.is_none(),
            Self::Unsure(_) | Self::Unheard => true,
        }
    }
}

/// Some commits that were sent together, and what came of them.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) now: Moment,
    pub(super) batches: &'a [Batch],
    pub(super) answers: &'a [Answer],
    /// What readers find afterwards.
    pub(super) found: Content,
    /// The disk has failed since the store was opened, and is not known to work again.
    pub(super) troubled: bool,
    /// The power went, so nobody heard an answer.
    pub(super) cut: bool,
}

impl Group<'_> {
    fn decided(&self, model: &Model) -> (Model, Vec<Option<u64>>) {
        let mut model = model.clone();
        let decided = model.decide(self.now, self.batches);
        (model, decided)
    }

    fn is_true_of(&self, decided: &[Option<u64>]) -> bool {
        decided.iter().zip(self.answers).all(|(decided, answer)| answer.is_true_of(*decided))
    }

    fn shows(&self, model: &Model) -> bool {
        model.shown(self.now) == self.found
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// What readers are shown.
    pub(super) shown: Model,
    /// What may be on disk. With a sync before every answer, one of them is what is shown next.
    possible: Vec<Model>,
    /// What was on disk before.
    past: Vec<Model>,
    /// The highest revision that anybody knows of.
    told: u64,
    /// The revision that is found next is that of what is possible, and not some reserve.
    exact: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        let none = Model::default();
        Self { shown: none.clone(), possible: vec![none], past: Vec::new(), told: 0, exact: true }
    }
}

impl Ledger {
    /// A store was just opened and has `found`, and no revision above `revision` was given out.
    pub(super) fn take_stock(&mut self, found: &Content, revision: u64, now: Moment) -> Result<(), String> {
        ensure!(revision >= self.told, "no revision above {revision} was given out, it says; but {} was", self.told);
        let fits = |model: &&Model| model.is(found, now) && (!self.exact || model.revision == revision);
        let Some(fit) = self.possible.iter().rev().find(fits) else {
            return Err(format!("revision {revision} with\n{found:?}\nis none of\n{:#?}", self.possible));
        };
        self.shown = fit.reopened(found, revision, now);
        self.set(vec![self.shown.clone()]);
        self.tell(revision);
        self.exact = true;
        Ok(())
    }

    /// Somebody knows of `revision`, so nothing up to it is given out again.
    pub(super) fn tell(&mut self, revision: u64) {
        self.told = self.told.max(revision);
    }

    /// What was shown is on disk.
    pub(super) fn flushed(&mut self) {
        self.set(vec![self.shown.clone()]);
    }

    /// The file was left as it should be.
    pub(super) fn closed(&mut self) {
        self.flushed();
        self.exact = true;
    }

    /// A sync comes before every answer and before anybody is shown anything.
    pub(super) fn judge(&mut self, group: &Group<'_>) -> Result<(), String> {
        let decided: Vec<_> = self.possible.iter().map(|model| group.decided(model)).collect();
        if group.cut {
            let also = decided.into_iter().map(|(after, _)| after);
            self.set(self.possible.iter().cloned().chain(also).collect());
            return Ok(());
        }
        self.told = group.answers.iter().fold(self.told, |told, answer| match answer {
            Answer::Applied(revision) => told.max(*revision),
            _ => told,
        });
        if !group.answers.iter().any(Answer::is_failure) {
            let fits = decided.iter().filter(|(after, decided)| group.is_true_of(decided) && group.shows(after));
            let fits: Vec<_> = fits.map(|(after, _)| after.clone()).collect();
            let decided = !group.troubled || group.answers.iter().any(|answer| *answer != Answer::Unheard);
            if let Some(fit) = fits.last().filter(|_| decided || !group.shows(&self.shown)) {
                self.shown = fit.clone();
                self.set(fits);
                return Ok(());
            }
        }
        let decided = decided.iter().map(|(_, decided)| decided).collect::<Vec<_>>();
        ensure!(group.troubled, "it has {:?}, and decides {decided:?} after\n{:#?}", group.found, self.possible);
        // An earlier doubt may have been resolved, and nothing else may be shown.
        if !group.shows(&self.shown) {
            let resolved: Vec<_> = self.possible.iter().filter(|model| group.shows(model)).cloned().collect();
            ensure!(!resolved.is_empty(), "{:?} is shown before it is on disk, after\n{:#?}", group.found, self.possible);
            self.shown = resolved[0].clone();
            self.possible = resolved;
        }
        let mut possible = Vec::new();
        for before in &self.possible {
            if !group.answers.iter().any(|answer| matches!(answer, Answer::Applied(_))) {
                possible.push(before.clone());
            }
            let (after, decided) = group.decided(before);
            if group.is_true_of(&decided) {
                possible.push(after);
            }
        }
        ensure!(!possible.is_empty(), "no outcome fits the answers, after\n{:#?}", self.possible);
        self.set(possible);
        Ok(())
    }

    /// Everything is answered and shown at once, and written later, in order.
    pub(super) fn judge_late(&mut self, group: &Group<'_>) -> Result<(), String> {
        // What is on disk says only how far revisions may have been given out.
        self.exact = false;
        let (after, decided) = group.decided(&self.shown);
        if group.cut {
            self.possible.push(after);
            return Ok(());
        }
        if !group.answers.iter().any(Answer::is_failure) && group.is_true_of(&decided) && group.shows(&after) {
            self.tell(after.revision);
            self.shown = after.clone();
            self.possible.push(after);
            return Ok(());
        }
        ensure!(group.troubled, "it has {:?}, and decides {decided:?} after\n{:#?}", group.found, self.shown);
        ensure!(group.shows(&self.shown), "{:?} is shown though it was refused, after\n{:#?}", group.found, self.shown);
        let is_refused = |answer: &Answer| matches!(answer, Answer::NotApplied(_) | Answer::Unheard);
        ensure!(group.answers.iter().all(is_refused), "no outcome fits the answers, after\n{:#?}", self.shown);
        Ok(())
    }

    /// After a failure, what ran out may or may not be collected.
    pub(super) fn collect(&mut self, now: Moment) {
        let collected = self.possible.clone().into_iter().map(|mut model| {
            model.decide(now, &[]);
            model
        });
        self.possible.extend(collected);
    }

    /// Whether an intact file may hold `found`.
    pub(super) fn may_hold(&self, found: &Content, now: Moment) -> bool {
        self.possible.iter().any(|model| model.is(found, now))
    }

    /// Whether the file held `found` a short while ago.
    pub(super) fn held(&self, found: &Content, now: Moment) -> bool {
        self.past.iter().any(|model| model.is(found, now))
    }

    fn set(&mut self, mut possible: Vec<Model>) {
        possible.dedup();
        self.past.extend(std::mem::replace(&mut self.possible, possible));
        let surplus = self.past.len().saturating_sub(REMEMBERED);
        self.past.drain(..surplus);
    }
}
