//! A few seeds, every one of which must keep every promise; `tenure-sim` runs many.

use tenure_check::history::{Line, Op};
use tenure_sim::{Plan, judge, shrink};

/// Those that once did not are among them.
const SEEDS: [u64; 26] = [
    1, 2, 3, 5, 8, 13, 21, 3261, 5141, 7605, 18108, 20554, 27333, 41160, 44836, 49357, 55487, 55597, 62262, 500119, 700866,
    701529, 701770, 702384, 800220, 801706,
];

fn kept(seeds: &[u64]) -> Result<usize, String> {
    let mut asked = 0;
    for seed in seeds {
        let plan = Plan::draw(*seed);
        let verdict = judge(&plan, &vec![true; plan.faults.len()], None).map_err(|error| error.to_string())?;
        let acquires = |line: &&Line| matches!(line, Line::Call(call) if matches!(call.op, Op::Acquire { .. }));
        asked += verdict.history.lines.iter().filter(acquires).count();
        if let Some(shrunk) = shrink(&plan, verdict, None).map_err(|error| error.to_string())? {
            return Err(format!("seed {seed}:\n{shrunk}"));
        }
    }
    Ok(asked)
}

#[test]
fn every_promise_is_kept() -> Result<(), String> {
    let halves = SEEDS.split_at(SEEDS.len() / 2);
    let asked = std::thread::scope(|scope| {
        let one = scope.spawn(|| kept(halves.0));
        let other = kept(halves.1)?;
        Ok::<_, String>(other + one.join().map_err(|_| "a run panicked")??)
    })?;
    assert!(asked > 500, "little was asked for: {asked} acquires");
    Ok(())
}
