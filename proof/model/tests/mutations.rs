//! Each rule of the protocol is needed: without it the search finds a run that breaks a promise.

use tenure_model::{Config, Faults, Mutation, Policy, counterexample};

/// As little as the broken rule needs to show, and the promise that it breaks.
fn little(mutation: Mutation) -> (Config, &'static [&'static str]) {
    let pair = Config::pair();
    let none = pair.faults;
    let renewed = Config { faults: Faults { renewals: 1, ..none }, ..pair.clone() };
    let unanswered = Config { faults: Faults { timeouts: 1, ..none }, ..pair.clone() };
    match mutation {
        Mutation::ReleaseWithoutCas => (Config { faults: Faults { copies: 1, ..none }, ..pair }, &[ENDED]),
        Mutation::DeposeWithoutCas | Mutation::DeadlineFromAfterSend | Mutation::WindowKeptOverRenewal => (renewed, HOLDERS),
        Mutation::SilenceTooShort | Mutation::StaleReadGrants => (pair, HOLDERS),
        Mutation::SightFromBeforeSend => (Config { sightings: true, ..renewed }, HOLDERS),
        Mutation::MissingReRead => (Config { faults: Faults { cancels: 1, ..none }, ..Config::three() }, HOLDERS),
        Mutation::RevivedSession => (Config { policy: [Policy::WhenProven; 3], ..renewed }, &["death is permanent"]),
        Mutation::UnansweredRenewalCounts => (Config { faults: Faults { timeouts: 1, renewals: 1, ..none }, ..pair }, HOLDERS),
        Mutation::UnansweredReleaseIsOk => (unanswered, &["a release that is Ok is done"]),
        Mutation::CreateOverTombstone => (Config { faults: Faults { timeouts: 1, cancels: 1, ..none }, ..pair }, &[THROUGH]),
        Mutation::ForestallOverTombstone => {
            (Config { faults: Faults { timeouts: 3, ..none }, ..pair }, &["who is told Lost was deposed"])
        }
        Mutation::UnansweredTicketForgotten => (unanswered, &[THROUGH]),
        Mutation::CancelledTicketLeft => (Config { faults: Faults { cancels: 1, ..none }, ..pair }, &[THROUGH]),
        Mutation::DeadTicketLeft => (Config { faults: Faults { crashes: 1, ..none }, ..pair }, &[THROUGH]),
        Mutation::FenceIgnored => (Config { writes: 1, ..pair }, &["no old token writes after a later grant"]),
    }
}

const ENDED: &str = "nobody ends a hold that is valid";
const THROUGH: &str = "who lives gets through";
/// Two that hold at once show in whichever of these the shortest run comes to.
const HOLDERS: &[&str] =
    &["validity never overlaps", "a grant finds nothing before its own ticket", "tokens grow in the order of grants", ENDED];

#[test]
fn each_broken_rule_is_noticed() {
    for mutation in Mutation::ALL {
        let (config, promises) = little(mutation);
        assert_eq!(counterexample(&config, promises), None, "{mutation:?}: the promise is broken without it");
        let Some((promise, steps)) = counterexample(&config.with(mutation), promises) else {
            panic!("{mutation:?} goes unnoticed: none of {promises:?} is broken")
        };
        println!("{mutation:?}: not so that {promise}: {steps:?}");
    }
}
