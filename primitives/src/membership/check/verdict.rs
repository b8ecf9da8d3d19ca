//! From the results of a check to a state, with rise and fall counts; pure.

use super::super::InstanceState::{self, Critical, Passing, Warning};

/// What one check says of its member.
///
/// It gets worse when the last `fall` results in a row were at least that bad, and better when the last
/// `rise` were at least that good. The first result of all counts at once.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    rise: u32,
    fall: u32,
    state: InstanceState,
    fresh: bool,
    /// Results in a row that were passing; that were not critical; that were not passing; that were critical.
    well: u32,
    alive: u32,
    unwell: u32,
    dead: u32,
}

impl Verdict {
    pub(crate) const fn new(initial: InstanceState, rise: u32, fall: u32) -> Self {
        Self { rise, fall, state: initial, fresh: true, well: 0, alive: 0, unwell: 0, dead: 0 }
    }

    /// Takes in a result and says what holds now.
    pub(crate) fn result(&mut self, result: InstanceState) -> InstanceState {
        let count = |counter: &mut u32, in_a_row: bool| *counter = if in_a_row { counter.saturating_add(1) } else { 0 };
        count(&mut self.well, result == Passing);
        count(&mut self.alive, result != Critical);
        count(&mut self.unwell, result != Passing);
        count(&mut self.dead, result == Critical);
        self.state = match self.state {
            _ if std::mem::take(&mut self.fresh) => result,
            _ if self.dead >= self.fall => Critical,
            Passing if self.unwell >= self.fall => Warning,
            Warning | Critical if self.well >= self.rise => Passing,
            Critical if self.alive >= self.rise => Warning,
            state => state,
        };
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rise: u32, fall: u32, results: &[InstanceState]) -> Vec<InstanceState> {
        let mut verdict = Verdict::new(Critical, rise, fall);
        results.iter().map(|result| verdict.result(*result)).collect()
    }

    #[test]
    fn the_first_result_counts_at_once() {
        for result in [Passing, Warning, Critical] {
            assert_eq!(run(5, 5, &[result]), [result]);
        }
    }

    #[test]
    fn it_falls_and_rises_after_so_many_results_in_a_row() {
        let (p, w, c) = (Passing, Warning, Critical);
        assert_eq!(run(2, 3, &[p, c, c, c, p, p]), [p, p, p, c, c, p]);
        assert_eq!(run(2, 3, &[p, c, c, p, c, c, c]), [p, p, p, p, p, p, c], "a good result begins the count anew");
        assert_eq!(run(3, 2, &[c, p, p, c, p, p, p]), [c, c, c, c, c, c, p], "a bad one as well");
        assert_eq!(run(1, 1, &[p, c, p, w, c, w]), [p, c, p, w, c, w]);
    }

    #[test]
    fn warnings_lie_in_between() {
        let (p, w, c) = (Passing, Warning, Critical);
        assert_eq!(run(2, 2, &[p, w, c, c]), [p, p, w, c], "as bad as the better of the last two");
        assert_eq!(run(2, 2, &[c, w, p, p]), [c, c, w, p]);
        assert_eq!(run(2, 2, &[w, c, p, c, p]), [w; 5]);
    }
}
