//! The bounds within which everything is searched.

use crate::{
    config::{Config, Policy},
    state::{CLIENTS, Faults, LOCKS},
};

/// What is searched whole.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Who wants what, in words.
    pub name: &'static str,
    /// The same as the search takes it.
    pub config: Config,
}

const NOTHING: [bool; LOCKS] = [false, false];
const A: [bool; LOCKS] = [true, false];
const B: [bool; LOCKS] = [false, true];
const BOTH: [bool; LOCKS] = [true, true];

/// A run in which nothing goes wrong and nothing is renewed.
const NONE: Faults = Faults { crashes: 0, timeouts: 0, copies: 0, cancels: 0, renewals: 0 };

impl Config {
    /// Who wants what; nothing goes wrong.
    #[must_use]
    pub const fn calm(wants: [[bool; LOCKS]; CLIENTS]) -> Self {
        Self {
            wants,
            policy: [Policy::AtDeadline; CLIENTS],
            attempts: 1,
            writes: 0,
            faults: NONE,
            eager: false,
            sightings: false,
            coverage: false,
            converge: true,
            mutation: None,
        }
    }

    /// Two clients that want one lock.
    #[must_use]
    pub const fn pair() -> Self {
        Self::calm([A, A, NOTHING])
    }

    /// Three clients that want one lock.
    #[must_use]
    pub const fn three() -> Self {
        Self::calm([A, A, A])
    }

    /// One client that wants two locks, and for each another client that wants it.
    #[must_use]
    pub const fn two_locks() -> Self {
        Self::calm([BOTH, A, B])
    }
}

/// A crash, a request given up on, a copy and a renewal in every run.
const EACH: Faults = Faults { crashes: 1, timeouts: 1, copies: 1, cancels: 0, renewals: 1 };

/// What every run of the tests searches.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let once = Faults { timeouts: 0, renewals: 0, ..EACH };
    vec![
        Bounds {
            name: "two clients, one lock, time passes at any moment",
            config: Config {
                writes: 1,
                faults: EACH,
                eager: true,
                sightings: true,
                coverage: true,
                policy: [Policy::WhenProven, Policy::WhenProven, Policy::AtDeadline],
                ..Config::pair()
            },
        },
        Bounds { name: "three clients, one lock", config: Config { faults: Faults { renewals: 1, ..once }, ..Config::three() } },
        Bounds { name: "three clients, two locks", config: Config { faults: once, ..Config::two_locks() } },
    ]
}

/// What takes minutes.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let proven = [Policy::WhenProven, Policy::WhenProven, Policy::AtDeadline];
    vec![
        Bounds {
            name: "two clients, one lock, time passes at any moment",
            config: Config {
                attempts: 2,
                writes: 1,
                faults: Faults { cancels: 1, ..EACH },
                eager: true,
                sightings: true,
                policy: proven,
                ..Config::pair()
            },
        },
        Bounds {
            name: "two clients, one lock, deeper",
            config: Config {
                attempts: 2,
                writes: 1,
                faults: Faults { timeouts: 2, renewals: 2, ..EACH },
                sightings: true,
                policy: proven,
                ..Config::pair()
            },
        },
        Bounds {
            name: "three clients, one lock",
            config: Config { writes: 1, faults: Faults { cancels: 1, ..EACH }, ..Config::three() },
        },
        Bounds {
            name: "three clients, two locks, two of whom want both",
            config: Config { faults: Faults { timeouts: 0, renewals: 0, ..EACH }, ..Config::calm([BOTH, BOTH, A]) },
        },
        Bounds { name: "three clients, two locks", config: Config { faults: EACH, sightings: true, ..Config::two_locks() } },
        Bounds {
            name: "three clients that all want both locks",
            config: Config { faults: Faults { timeouts: 0, renewals: 0, ..EACH }, ..Config::calm([BOTH; CLIENTS]) },
        },
    ]
}
