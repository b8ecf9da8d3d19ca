//! Many histories, a few at a time: counted, resumable, and those with a violation kept.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tenure_check::Promise;
use tokio::task::JoinSet;

use crate::{
    Failed, Verdict,
    crew::Program,
    options::{Faults, Options, Store},
    totals::Totals,
};

/// Of so many rounds of all stores one waits until everything must have converged.
const CALM: u64 = 8;
/// Of so many rounds one is without faults, and one with kills alone.
const PECULIAR: u64 = 16;
/// So many of those at a time: that is judged in them which servers on a busy machine may be too slow for by themselves.
const QUIET: usize = 2;
/// Of so many histories on a store each of these promises must have been checked in some.
const ENOUGH: u64 = 20;
const OWED: [Promise; 7] = [
    Promise::Validity,
    Promise::Exclusive,
    Promise::Fenced,
    Promise::Release,
    Promise::Members,
    Promise::Views,
    Promise::Converges,
];
/// The pace of what has no servers: it does as many times as much for the same processor time.
const EMBEDDED: f64 = 0.2;

/// How a night is to be.
#[derive(Clone, Debug)]
pub struct Night {
    /// So many histories, those of earlier runs in the same place counted.
    pub histories: u64,
    /// The stores, in turn.
    pub stores: Vec<Store>,
    /// The seed of the first; each has the next.
    pub seed: u64,
    /// What is done.
    pub faults: Faults,
    /// How long faults are done in each.
    pub span: Duration,
    /// Client processes at a time, in each.
    pub clients: usize,
    /// As in [`Options`], on servers; what has none is five times as fast.
    pub pace: f64,
    /// So many at a time.
    pub at_once: usize,
    /// Where the account is kept, and what is wrong.
    pub out: PathBuf,
}

/// The account of one history: a line of `night.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    number: u64,
    store: Store,
    seed: u64,
    /// What was done in it.
    #[serde(default)]
    faults: String,
    /// Of this history.
    totals: Totals,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    violations: Vec<String>,
    /// Why it could not be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// What a night came to, with what earlier runs of it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nightly {
    /// Of all its histories.
    pub totals: Totals,
    /// Of those on each store.
    pub stores: BTreeMap<Store, Totals>,
}

impl Nightly {
    fn add(&mut self, store: Store, totals: &Totals) {
        self.totals.add(totals);
        self.stores.entry(store).or_default().add(totals);
    }

    /// The promises that no history on a store said anything about.
    pub fn never_checked(&self) -> Vec<(Store, Promise)> {
        let judged = self.stores.iter().filter(|(_, totals)| totals.judged > 0);
        let each = judged.flat_map(|(store, totals)| Promise::ALL.map(|promise| (*store, promise, totals)));
        let never = |totals: &Totals, promise: Promise| totals.checked.get(promise.as_str()).is_none_or(|count| *count == 0);
        each.filter(|(_, promise, totals)| never(totals, *promise)).map(|(store, promise, _)| (store, promise)).collect()
    }

    /// Whether nothing was wrong, and what a night is for was looked at wherever there were histories enough for it.
    pub fn is_well(&self) -> bool {
        let enough = |store| self.stores.get(store).is_some_and(|totals| totals.judged >= ENOUGH);
        let unseen = self.never_checked().iter().any(|(store, promise)| OWED.contains(promise) && enough(store));
        self.totals.violations + self.totals.failed == 0 && !unseen
    }
}

/// Runs what is left of a night. `told` hears of the running totals after each history.
///
/// # Errors
/// When the account cannot be read or written.
pub async fn night(program: &Program, night: &Night, mut told: impl FnMut(&Totals, &str)) -> Result<Nightly, Failed> {
    fs::create_dir_all(&night.out)?;
    let place = night.out.join("night.jsonl");
    let (mut nightly, done) = resume(&place)?;
    let mut account = File::options().create(true).append(true).open(&place)?;
    let mut left = (0..night.histories).filter(|number| !done.contains(number)).peekable();
    let mut tasks = JoinSet::new();
    // Beside how many each of those may go on that do.
    let mut running = BTreeMap::new();
    loop {
        let has_room = |running: &BTreeMap<u64, usize>, number| {
            running.len() < running.values().copied().fold(at_once(night, number), usize::min)
        };
        while let Some(number) = left.next_if(|number| has_room(&running, *number)) {
            let (program, options) = (program.clone(), options(night, number));
            tasks.spawn(async move { account_of(&program, &options, number).await });
            running.insert(number, at_once(night, number));
        }
        let Some(line) = tasks.join_next().await else { return Ok(nightly) };
        let line = line?;
        running.remove(&line.number);
        nightly.add(line.store, &line.totals);
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        account.write_all(&text)?;
        let about = line.failed.clone().unwrap_or_else(|| line.violations.join("; "));
        told(&nightly.totals, &format!("{} {} {} {about}", line.store, line.seed, line.faults));
    }
}

/// What is peculiar to some histories.
struct Share {
    faults: Faults,
    lease: Option<Duration>,
    span: Duration,
    calm: Option<Duration>,
}

/// What a round of all stores is for if not for faults of all sorts. The leases are such that a busy machine loses none by
/// itself, and the times such that much goes on after the first lease, in which nothing is granted in a new bucket.
fn share(round: u64) -> Option<Share> {
    let seconds = Duration::from_secs;
    match round % PECULIAR {
        // Only without faults nobody may lose a lease.
        4 => Some(Share { faults: Faults::None, lease: Some(seconds(10)), span: seconds(16), calm: Some(seconds(2)) }),
        // Only where nothing else is wrong it can be told how long a crash delays the next.
        12 => {
            let faults = Faults::Only(vec!["kill-alone".to_owned()]);
            Some(Share { faults, lease: Some(seconds(2)), span: seconds(13), calm: Some(seconds(4)) })
        }
        _ => None,
    }
}

/// Its share, if this history is of one.
fn share_of(night: &Night, number: u64) -> Option<Share> {
    let round = number / night.stores.len() as u64;
    if night.faults == Faults::Mixed { share(round) } else { None }
}

/// How many may go on at a time with this one.
fn at_once(night: &Night, number: u64) -> usize {
    let usual = night.at_once.max(1);
    if share_of(night, number).is_some() { usual.min(QUIET) } else { usual }
}

fn options(night: &Night, number: u64) -> Options {
    let of = |place: u64| usize::try_from(place).map_or(Store::R1, |place| night.stores[place]);
    let turns = night.stores.len() as u64;
    let store = of(number % turns);
    let seed = night.seed + number;
    let round = number / turns;
    // Convergence takes long to see, so not everybody waits for it; each store does.
    let calm = (!round.is_multiple_of(CALM)).then_some(Duration::from_secs(2));
    let usual = Share { faults: night.faults.clone(), lease: None, span: night.span, calm };
    let Share { faults, lease, span, calm } = share_of(night, number).unwrap_or(usual);
    let pace = match store {
        Store::R1 | Store::R3 => night.pace,
        Store::File | Store::Memory => night.pace * EMBEDDED,
    };
    Options {
        store,
        span,
        calm,
        seed,
        faults,
        clients: night.clients,
        lease,
        pace,
        out: night.out.join(format!("{store}-{seed}")),
        keep: false,
    }
}

async fn account_of(program: &Program, options: &Options, number: u64) -> Account {
    // A server that does not come up panics; that is one history less, and not the end of the night.
    let ended = AssertUnwindSafe(crate::run(program, options)).catch_unwind().await;
    let (mut totals, violations, failed) = match ended {
        Ok(Ok(Verdict { totals, violations, .. })) => (totals, violations, None),
        Ok(Err(error)) => (Totals::default(), Vec::new(), Some(error.to_string())),
        Err(panic) => (Totals::default(), Vec::new(), Some(said(&*panic))),
    };
    totals.violations = violations.len() as u64;
    totals.failed = u64::from(failed.is_some());
    let faults = options.faults.to_string();
    Account { number, store: options.store, seed: options.seed, faults, totals, violations, failed }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}

/// What earlier runs came to, and the numbers that they had done.
fn resume(place: &Path) -> Result<(Nightly, BTreeSet<u64>), Failed> {
    let mut nightly = Nightly::default();
    let mut done = BTreeSet::new();
    if place.exists() {
        for line in fs::read_to_string(place)?.lines() {
            let account: Account = serde_json::from_str(line)?;
            nightly.add(account.store, &account.totals);
            done.insert(account.number);
        }
    }
    Ok((nightly, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_goes_on_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("night.jsonl");
        assert_eq!(resume(&place).unwrap(), (Nightly::default(), BTreeSet::new()));
        let line = |number, grants| {
            let totals = Totals { histories: 1, grants, ..Totals::default() };
            let faults = "mixed".to_owned();
            let account = Account { number, store: Store::R3, seed: 9, faults, totals, violations: vec![], failed: None };
            serde_json::to_string(&account).unwrap() + "\n"
        };
        fs::write(&place, line(3, 5) + &line(1, 6)).unwrap();
        let (Nightly { totals, .. }, done) = resume(&place).unwrap();
        assert_eq!((totals.histories, totals.grants, done), (2, 11, BTreeSet::from([1, 3])));
        // Before it was counted how much is checked.
        let old = r#"{"number":7,"store":"r1","seed":2,"totals":{"histories":1,"grants":4}}"#;
        fs::write(&place, format!("{old}\n")).unwrap();
        let (nightly, _) = resume(&place).unwrap();
        assert_eq!((nightly.totals.grants, nightly.never_checked()), (4, vec![]));
    }

    #[test]
    fn a_night_tells_what_no_history_on_a_store_says_anything_about() {
        let judged = |promise: Promise| {
            let checked = OWED.into_iter().filter(|owed| *owed != promise).map(|owed| (owed.to_string(), 2)).collect();
            Totals { histories: ENOUGH, judged: ENOUGH, checked, ..Totals::default() }
        };
        let mut nightly = Nightly::default();
        nightly.add(Store::R1, &judged(Promise::Crash));
        assert!(nightly.is_well() && nightly.never_checked().contains(&(Store::R1, Promise::Crash)));
        nightly.add(Store::File, &Totals { judged: 3, ..judged(Promise::Views) });
        assert!(nightly.is_well(), "three histories are too few");
        nightly.add(Store::R3, &judged(Promise::Views));
        assert!(!nightly.is_well() && nightly.never_checked().contains(&(Store::R3, Promise::Views)));
    }

    #[test]
    fn some_rounds_are_without_faults_and_some_of_kills_alone() {
        let all = (0..PECULIAR).filter_map(share).map(|share| share.faults.to_string());
        assert!(all.eq(["none", "kill-alone"]));
    }
}
