//! What goes wrong, to which requests, and how often.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::Snapshot;
use crate::{Batch, Key, KeyRange};

/// The kinds of requests a store gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::entry`](crate::Store::entry).
    Entry,
    /// [`Store::entries`](crate::Store::entries).
    Entries,
    /// [`Store::scan`](crate::Store::scan).
    Scan,
    /// [`Store::commit`](crate::Store::commit).
    Commit,
    /// [`Store::watch`](crate::Store::watch).
    Watch,
    /// [`Store::follow`](crate::Store::follow).
    Follow,
}

impl Operation {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 6] = [Self::Entry, Self::Entries, Self::Scan, Self::Commit, Self::Watch, Self::Follow];
}

/// A request as a rule sees it.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A read of one key.
    Entry(&'a Key),
    /// A read of several keys.
    Entries(&'a [Key]),
    /// A scan of a range.
    Scan(&'a KeyRange),
    /// A commit.
    Commit(&'a Batch),
    /// A watch of a range.
    Watch(&'a KeyRange),
    /// Notices of a key.
    Follow(&'a Key),
}

impl Request<'_> {
    /// Its kind.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Entry(_) => Operation::Entry,
            Self::Entries(_) => Operation::Entries,
            Self::Scan(_) => Operation::Scan,
            Self::Commit(_) => Operation::Commit,
            Self::Watch(_) => Operation::Watch,
            Self::Follow(_) => Operation::Follow,
        }
    }

    /// Whether it touches a key whose text starts with `prefix`: any of its keys, or, for a range, all
    /// keys of it. The keys of fences do not count.
    pub fn touches(&self, prefix: &str) -> bool {
        let lies = |key: &Key| key.as_str().starts_with(prefix);
        match self {
            Self::Entry(key) | Self::Follow(key) => lies(key),
            Self::Entries(keys) => prefix.is_empty() || keys.iter().any(lies),
            Self::Commit(batch) => prefix.is_empty() || batch.ops.iter().any(|op| lies(&op.key)),
            Self::Scan(range) | Self::Watch(range) => lies_under(range, prefix),
        }
    }
}

/// Whether every key of `range` starts with `prefix`.
pub(super) fn lies_under(range: &KeyRange, prefix: &str) -> bool {
    let literal = range.literal_prefix();
    match range {
        KeyRange::Under(_) if prefix.ends_with('.') => prefix.strip_suffix('.').is_some_and(|prefix| {
            // `a.b.>` lies under `a.b.` although its literal text does not end in a dot.
            literal == prefix || literal.starts_with(prefix) && literal[prefix.len()..].starts_with('.')
        }),
        _ => literal.starts_with(prefix),
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the rule only counts.
    Count,
    /// The request is not sent: [`Error::Unavailable`](crate::Error::Unavailable), nothing applied.
    FailBefore,
    /// The answer is lost: a commit is applied and ends in [`Error::Unknown`](crate::Error::Unknown), so
    /// does one that was refused; a read ends in [`Error::Unavailable`](crate::Error::Unavailable).
    FailAfter,
    /// The request is lost: a commit is not applied and ends in [`Error::Unknown`](crate::Error::Unknown);
    /// a read ends in [`Error::Unavailable`](crate::Error::Unavailable).
    Lose,
    /// The request arrives this much later. A commit lands even if its caller has given up meanwhile.
    DelayBefore(Duration),
    /// The answer arrives this much later.
    DelayAfter(Duration),
    /// The request arrives when the rule is cleared. A commit lands then even if its caller has given up.
    HoldBefore,
    /// The answer arrives when the rule is cleared.
    HoldAfter,
    /// Reads are answered from a former state of the store. No effect on commits, watches and notices.
    Stale(Snapshot),
}

type Condition = Arc<dyn Fn(&Request<'_>) -> bool + Send + Sync>;

/// A fault, and the requests it applies to: all of them until told otherwise.
#[derive(Clone)]
#[must_use]
pub struct Rule {
    fault: Fault,
    operations: Vec<Operation>,
    prefix: String,
    condition: Option<Condition>,
    skip: u64,
    times: u64,
    chance: f64,
}

impl Rule {
    /// `fault`, to every request.
    pub const fn new(fault: Fault) -> Self {
        Self { fault, operations: Vec::new(), prefix: String::new(), condition: None, skip: 0, times: u64::MAX, chance: 1.0 }
    }

    /// Only to requests of this kind, or of the kinds named so far.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Only to requests that [touch](Request::touches) keys with this prefix.
    pub fn under(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only to requests for which `condition` holds. It must not call the faulty store.
    pub fn when(mut self, condition: impl Fn(&Request<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Not to the first `count` requests it would apply to.
    pub const fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// At most `count` times.
    pub const fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// One time only.
    pub const fn once(self) -> Self {
        self.times(1)
    }

    /// With this probability, drawn from the seed of the wrapper.
    pub const fn chance(mut self, probability: f64) -> Self {
        self.chance = probability;
        self
    }

    fn fits(&self, request: &Request<'_>) -> bool {
        (self.operations.is_empty() || self.operations.contains(&request.operation()))
            && request.touches(&self.prefix)
            && self.condition.as_ref().is_none_or(|condition| condition(request))
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("fault", &self.fault)
            .field("operations", &self.operations)
            .field("prefix", &self.prefix)
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("chance", &self.chance)
            .finish_non_exhaustive()
    }
}

/// A rule in force. Dropping this changes nothing; [`clear`](Self::clear) ends the rule.
#[derive(Clone)]
pub struct Active {
    state: Arc<ActiveState>,
}

struct ActiveState {
    rule: Rule,
    seen: AtomicU64,
    cleared: AtomicBool,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    hits: u64,
    cleared: bool,
}

impl Active {
    pub(super) fn new(rule: Rule) -> Self {
        let state =
            ActiveState { rule, seen: AtomicU64::new(0), cleared: AtomicBool::new(false), progress: watch::Sender::default() };
        Self { state: Arc::new(state) }
    }

    /// How many requests the rule was applied to.
    pub fn hits(&self) -> u64 {
        self.state.progress.borrow().hits
    }

    /// Resolves when the rule has been applied to `count` requests in all.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn reached(&self, count: u64) {
        // The sender lives in this very handle.
        drop(self.state.progress.subscribe().wait_for(|progress| progress.hits >= count).await);
    }

    /// Takes the rule out of force; what it holds goes on.
    pub fn clear(&self) {
        self.state.cleared.store(true, Ordering::Relaxed);
        self.state.progress.send_modify(|progress| progress.cleared = true);
    }

    /// Adds to `plan` what this rule does to `request`. One request at a time.
    pub(super) fn apply(&self, request: Request<'_>, random: &mut fastrand::Rng, plan: &mut Plan) {
        let ActiveState { rule, seen, cleared, progress } = &*self.state;
        if cleared.load(Ordering::Relaxed) || self.hits() >= rule.times || !rule.fits(&request) {
            return;
        }
        if rule.chance < 1.0 && random.f64() >= rule.chance {
            return;
        }
        if seen.fetch_add(1, Ordering::Relaxed) < rule.skip {
            return;
        }
        let decided = !matches!(plan.verdict, Verdict::Pass) || plan.stale.is_some();
        match &rule.fault {
            Fault::Count => {}
            Fault::DelayBefore(delay) => plan.before.delay += *delay,
            Fault::DelayAfter(delay) => plan.after.delay += *delay,
            Fault::HoldBefore => plan.before.holds.push(progress.subscribe()),
            Fault::HoldAfter => plan.after.holds.push(progress.subscribe()),
            _ if decided => return,
            Fault::FailBefore => plan.verdict = Verdict::FailBefore,
            Fault::FailAfter => plan.verdict = Verdict::FailAfter,
            Fault::Lose => plan.verdict = Verdict::Lose,
            Fault::Stale(snapshot) => plan.stale = Some(snapshot.clone()),
        }
        progress.send_modify(|progress| progress.hits += 1);
    }
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Active").field("rule", &self.state.rule).field("hits", &self.hits()).finish_non_exhaustive()
    }
}

/// What the rules in force do to one request.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) before: Wait,
    pub(super) verdict: Verdict,
    pub(super) stale: Option<Snapshot>,
    pub(super) after: Wait,
}

/// How a request ends.
#[derive(Clone, Copy, Default)]
pub(super) enum Verdict {
    #[default]
    Pass,
    FailBefore,
    FailAfter,
    Lose,
}

/// A time, and rules to be cleared, before a request goes on.
#[derive(Default)]
pub(super) struct Wait {
    delay: Duration,
    holds: Vec<watch::Receiver<Progress>>,
}

impl Wait {
    pub(super) fn is_none(&self) -> bool {
        self.delay.is_zero() && self.holds.is_empty()
    }

    pub(super) async fn wait(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        for hold in &self.holds {
            // A rule that is gone holds nothing any more.
            drop(hold.clone().wait_for(|progress| progress.cleared).await);
        }
    }
}
