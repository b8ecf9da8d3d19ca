//! A few seeds, every one of which must keep every promise; `tenure-sim` runs many.

use tenure_sim::{Plan, judge, shrink};

/// Those that once did not are among them.
const SEEDS: [u64; 12] = [1, 2, 3, 5, 8, 13, 19, 534, 547, 589, 960, 1271];

fn kept(seeds: &[u64]) -> usize {
    let mut grants = 0;
    for seed in seeds {
        let plan = Plan::draw(*seed);
        let verdict = judge(&plan, &vec![true; plan.faults.len()], None).unwrap();
        grants += verdict.history.lines.iter().filter(|line| format!("{line:?}").contains("Acquire")).count();
        if !verdict.broken.is_empty() {
            let shrunk = shrink(&plan, verdict, None).unwrap().unwrap();
            panic!("seed {seed}:\n{shrunk}");
        }
    }
    grants
}

#[test]
fn every_promise_is_kept() {
    let halves = SEEDS.split_at(SEEDS.len() / 2);
    let grants = std::thread::scope(|scope| {
        let one = scope.spawn(|| kept(halves.0));
        kept(halves.1) + one.join().unwrap()
    });
    assert!(grants > 500, "little was asked for: {grants} acquires");
}
