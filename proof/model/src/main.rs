//! Searches the large bounds, or those whose name contains the word given, and says how much there was.

use std::process::ExitCode;

use tenure_model::{exhaust, large};

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sound = true;
    for bounds in large().into_iter().filter(|bounds| bounds.name.contains(&word)) {
        println!("{}: {:?}", bounds.name, bounds.config);
        let report = exhaust(&bounds.config, threads);
        println!("  {} states, {} steps, {} deep, {:.1?}", report.states, report.steps, report.depth, report.took);
        for (property, steps) in &report.broken {
            sound = false;
            println!("  BROKEN: {property}: {steps:?}");
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
