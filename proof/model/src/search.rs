//! The model as the checker wants it: steps, and what must be so in every state.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    config::Config,
    protocol::Step,
    state::{CLIENTS, LOCKS, Outcome, Stage, State},
};

impl Model for Config {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(self, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut state = state.clone();
        state.take(self, step);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a grant finds nothing before its own ticket", |_, state: &State| !state.broken.early_grant),
            Property::always("tokens grow in the order of grants", |_, state: &State| !state.broken.token_back),
            Property::always("validity never overlaps", |_, state: &State| !state.overlaps()),
            Property::always("no old token writes after a later grant", |_, state: &State| !state.broken.stale_write),
            Property::always("nobody ends a hold that is valid", |_, state: &State| !state.broken.freed),
            Property::always("a release that is Ok is done", |_, state: &State| !state.broken.false_ok),
            Property::always("who is told Lost was deposed", |_, state: &State| !state.misleads()),
            Property::always("death is permanent", |_, state: &State| !state.broken.revived),
        ];
        if self.converge {
            properties.push(Property::always("who lives gets through", |config: &Config, state: &State| {
                state.converges(config, true) && state.converges(config, false)
            }));
        }
        if self.coverage {
            properties.extend([
                Property::sometimes("every lock that is wanted is held", |config: &Config, state: &State| {
                    state.is_busy(&config.wants)
                }),
                Property::sometimes("a session is deposed that has not crashed", |_, state: &State| state.seen.deposed_alive),
                Property::sometimes("what comes too late is refused", |_, state: &State| state.seen.refused),
                Property::sometimes("a late renewal restores a session", |_, state: &State| state.seen.restored),
            ]);
        }
        properties
    }
}

impl State {
    /// Whether two clients rely on the same lock at this moment.
    fn overlaps(&self) -> bool {
        (0..LOCKS).any(|lock| self.holders(lock) > 1)
    }

    /// Whether somebody was told that all is lost whose session nobody had ended.
    fn misleads(&self) -> bool {
        self.clients.iter().any(|client| {
            !client.crashed && !client.session.dead && client.tasks.iter().any(|task| task.stage == Stage::Done(Outcome::Lost))
        })
    }

    fn is_busy(&self, wants: &[[bool; LOCKS]; CLIENTS]) -> bool {
        (0..LOCKS).all(|lock| self.holders(lock) == 1 || !wants.iter().any(|wants| wants[lock]))
    }

    fn holders(&self, lock: usize) -> usize {
        let lock = u8::try_from(lock).unwrap_or(u8::MAX);
        (0..CLIENTS).filter(|client| self.holds(u8::try_from(*client).unwrap_or(u8::MAX), lock)).count()
    }
}

/// What a search has come to.
#[derive(Clone, Debug)]
pub struct Report {
    /// States that differ.
    pub states: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// The longest run without a state that had been seen.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Properties that do not hold, each with what leads there.
    pub broken: Vec<(&'static str, Vec<Step>)>,
    /// What must happen in some run and never did.
    pub missing: Vec<&'static str>,
}

/// Searches all that can happen.
///
/// # Panics
/// When a thread of the checker does.
#[must_use]
pub fn exhaust(config: &Config, threads: usize) -> Report {
    let begun = Instant::now();
    let checker = config.clone().checker().threads(threads).symmetry().spawn_dfs().join();
    let mut report = Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        broken: Vec::new(),
        missing: Vec::new(),
    };
    for property in config.properties() {
        let found = checker.discovery(property.name);
        match (property.expectation, found) {
            (stateright::Expectation::Sometimes, None) => report.missing.push(property.name),
            (stateright::Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => report.broken.push((property.name, path.into_actions())),
        }
    }
    report
}

/// A short run that breaks one of these promises, which is named with it; none if nothing that can happen does.
///
/// # Panics
/// When a thread of the checker does.
#[must_use]
pub fn counterexample(config: &Config, promises: &[&'static str]) -> Option<(&'static str, Vec<Step>)> {
    let wanted = HasDiscoveries::AnyOf(promises.iter().copied().collect());
    let checker = config.clone().checker().finish_when(wanted).spawn_bfs().join();
    promises.iter().find_map(|promise| Some((*promise, checker.discovery(promise)?.into_actions())))
}
