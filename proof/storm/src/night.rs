//! Many histories, a few at a time: counted, resumable, and those with a violation kept.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    Failed, Verdict,
    crew::Program,
    options::{Faults, Options, Store},
    totals::Totals,
};

/// Of so many rounds of all stores one waits until everything must have converged.
const CALM: u64 = 8;
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
    /// Of this history.
    totals: Totals,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    violations: Vec<String>,
    /// Why it could not be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Runs what is left of a night. `told` hears of the running totals after each history.
///
/// # Errors
/// When the account cannot be read or written.
pub async fn night(program: &Program, night: &Night, mut told: impl FnMut(&Totals, &str)) -> Result<Totals, Failed> {
    fs::create_dir_all(&night.out)?;
    let place = night.out.join("night.jsonl");
    let (mut totals, done) = resume(&place)?;
    let mut account = File::options().create(true).append(true).open(&place)?;
    let mut left = (0..night.histories).filter(|number| !done.contains(number));
    let mut running = JoinSet::new();
    loop {
        for number in left.by_ref().take(night.at_once.max(1) - running.len()) {
            let (program, options) = (program.clone(), options(night, number));
            running.spawn(async move { account_of(&program, &options, number).await });
        }
        let Some(line) = running.join_next().await else { return Ok(totals) };
        let line = line?;
        totals.add(&line.totals);
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        account.write_all(&text)?;
        let about = line.failed.clone().unwrap_or_else(|| line.violations.join("; "));
        told(&totals, &format!("{} {} {about}", line.store, line.seed));
    }
}

fn options(night: &Night, number: u64) -> Options {
    let of = |place: u64| usize::try_from(place).map_or(Store::R1, |place| night.stores[place]);
    let turns = night.stores.len() as u64;
    let store = of(number % turns);
    let seed = night.seed + number;
    // Convergence takes long to see, so not everybody waits for it; each store does.
    let calm = Duration::from_secs(if (number / turns).is_multiple_of(CALM) { 17 } else { 2 });
    let pace = match store {
        Store::R1 | Store::R3 => night.pace,
        Store::File | Store::Memory => night.pace * EMBEDDED,
    };
    Options {
        store,
        span: night.span,
        calm,
        seed,
        faults: night.faults.clone(),
        clients: night.clients,
        lease: None,
        pace,
        out: night.out.join(format!("{store}-{seed}")),
        keep: false,
    }
}

async fn account_of(program: &Program, options: &Options, number: u64) -> Account {
    let (program, told) = (program.clone(), options.clone());
    // A server that does not come up panics; that is one history less, and not the end of the night.
    let ended = tokio::spawn(async move { crate::run(&program, &told).await }).await;
    let (mut totals, violations, failed) = match ended {
        Ok(Ok(Verdict { totals, violations, .. })) => (totals, violations, None),
        Ok(Err(error)) => (Totals::default(), Vec::new(), Some(error.to_string())),
        Err(panic) => (Totals::default(), Vec::new(), Some(panic.to_string())),
    };
    totals.violations = violations.len() as u64;
    totals.failed = u64::from(failed.is_some());
    Account { number, store: options.store, seed: options.seed, totals, violations, failed }
}

/// What earlier runs came to, and the numbers that they had done.
fn resume(place: &Path) -> Result<(Totals, BTreeSet<u64>), Failed> {
    let mut totals = Totals::default();
    let mut done = BTreeSet::new();
    if place.exists() {
        for line in fs::read_to_string(place)?.lines() {
            let account: Account = serde_json::from_str(line)?;
            totals.add(&account.totals);
            done.insert(account.number);
        }
    }
    Ok((totals, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_goes_on_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("night.jsonl");
        assert_eq!(resume(&place).unwrap(), (Totals::default(), BTreeSet::new()));
        let line = |number, grants| {
            let totals = Totals { histories: 1, grants, ..Totals::default() };
            let account = Account { number, store: Store::R3, seed: 9, totals, violations: vec![], failed: None };
            serde_json::to_string(&account).unwrap() + "\n"
        };
        fs::write(&place, line(3, 5) + &line(1, 6)).unwrap();
        let (totals, done) = resume(&place).unwrap();
        assert_eq!((totals.histories, totals.grants, done), (2, 11, BTreeSet::from([1, 3])));
    }
}
