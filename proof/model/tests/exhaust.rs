//! Everything that can happen within small bounds.

use tenure_model::{exhaust, small};

#[test]
fn nothing_that_can_happen_breaks_a_promise() {
    for bounds in small() {
        let report = exhaust(&bounds.config, 2);
        println!("{}: {} states, {} steps, {:?}", bounds.name, report.states, report.steps, report.took);
        assert!(report.broken.is_empty(), "{}: {:#?}", bounds.name, report.broken);
        assert!(report.missing.is_empty(), "{}: never happens: {:?}", bounds.name, report.missing);
        assert!(report.states > 1_000, "{}: nothing was searched", bounds.name);
    }
}
