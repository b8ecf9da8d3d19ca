//! Many histories, one after another: counted, resumable, and those with a violation kept.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Failed, Verdict,
    crew::Program,
    options::{Faults, Options, Store},
    totals::Totals,
};

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
    /// Client processes at a time.
    pub clients: usize,
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
    let (mut totals, first) = resume(&place)?;
    let mut account = File::options().create(true).append(true).open(&place)?;
    for number in first..night.histories {
        let options = options(night, number);
        let line = account_of(program, &options, number).await;
        totals.add(&line.totals);
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        account.write_all(&text)?;
        let about = line.failed.clone().unwrap_or_else(|| line.violations.join("; "));
        told(&totals, &format!("{} {} {about}", line.store, line.seed));
    }
    Ok(totals)
}

fn options(night: &Night, number: u64) -> Options {
    let store = usize::try_from(number).map_or(Store::R1, |n| night.stores[n % night.stores.len()]);
    let seed = night.seed + number;
    // Convergence takes long to see, so not everybody waits for it.
    let calm = Duration::from_secs(if number.is_multiple_of(4) { 17 } else { 2 });
    Options {
        store,
        span: night.span,
        calm,
        seed,
        faults: night.faults.clone(),
        clients: night.clients,
        lease: None,
        pace: 1,
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

/// What earlier runs came to, and which number is next.
fn resume(place: &Path) -> Result<(Totals, u64), Failed> {
    let mut totals = Totals::default();
    let mut next = 0;
    if place.exists() {
        for line in fs::read_to_string(place)?.lines() {
            let account: Account = serde_json::from_str(line)?;
            totals.add(&account.totals);
            next = account.number + 1;
        }
    }
    Ok((totals, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_goes_on_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("night.jsonl");
        assert_eq!(resume(&place).unwrap(), (Totals::default(), 0));
        let line = |number, grants| {
            let totals = Totals { histories: 1, grants, ..Totals::default() };
            let account = Account { number, store: Store::R3, seed: 9, totals, violations: vec![], failed: None };
            serde_json::to_string(&account).unwrap() + "\n"
        };
        fs::write(&place, line(0, 5) + &line(1, 6)).unwrap();
        let (totals, next) = resume(&place).unwrap();
        assert_eq!((totals.histories, totals.grants, next), (2, 11, 2));
    }
}
