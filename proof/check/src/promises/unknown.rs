//! Promise 6: no unknown outcome is reported as success or as failure. Ok means that the stream has the write at
//! that revision, failed that it has it nowhere, and whatever was written is there once.

use std::collections::HashMap;

use crate::{
    case::{Case, Operation, nonce, writes},
    history::{Micros, Op, Outcome},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Unknown);
    let updates = updates(case);
    for operation in &case.operations {
        if !writes(operation.op()) {
            continue;
        }
        match operation.returned.map(|(_, returned)| &returned.outcome) {
            Some(Outcome::Ok(_)) => was_done(case, operation, &updates, &mut verdict),
            Some(Outcome::Failed { kind, .. }) => was_not_done(case, operation, &format!("{kind:?}"), &mut verdict),
            Some(Outcome::Unknown { .. }) | None => {}
        }
        if let Some(nonce) = nonce(operation.op()) {
            once(case, operation, nonce, &mut verdict);
        }
    }
    verdict
}

/// Updates of one member, by its group and id.
type Updates<'c> = HashMap<(&'c str, &'c str), Vec<(Micros, Micros, &'c str)>>;

fn updates<'c>(case: &'c Case<'_>) -> Updates<'c> {
    let mut updates: Updates<'c> = HashMap::new();
    for operation in &case.operations {
        if let Op::Update { group, member, nonce, .. } | Op::Join { group, member, nonce, .. } = operation.op() {
            updates.entry((group, member)).or_default().push((operation.call.at, operation.ended(), nonce));
        }
    }
    updates
}

fn was_done(case: &Case<'_>, operation: &Operation<'_>, updates: &Updates<'_>, verdict: &mut Verdict) {
    let Some(key) = key(operation.op()) else { return };
    verdict.checked();
    let nonce = nonce(operation.op());
    let told = operation.ok().and_then(|done| done.revision);
    let Some(revision) = told else {
        if let Some(nonce) = nonce.filter(|nonce| case.stream.nonce(nonce).is_empty()) {
            verdict.violated(
                format!("{key}: {nonce} was reported as written, and is nowhere"),
                ended(operation),
                operation.lines(),
            );
        }
        return;
    };
    let epoch = case.epoch_of(operation);
    let Some(entry) = case.stream.at(epoch, revision) else {
        if case.stream.gap(epoch, revision - 1, revision + 1) {
            return verdict.skip();
        }
        let what = format!("{key}: revision {revision} was reported as written, and the stream does not have it");
        return verdict.violated(what, ended(operation), operation.lines());
    };
    let written = entry.write.value.nonce.as_deref();
    let same = match nonce {
        Some(nonce) => entry.is_live() && (written == Some(nonce) || merged(operation, written, updates)),
        None => !entry.is_live(),
    };
    if entry.write.key != key || !same {
        let found = written.unwrap_or("something else");
        let what = format!("{key}: {} was reported at {revision}, where the stream has {found}", nonce.unwrap_or("its end"));
        verdict.violated(what, ended(operation), operation.lines().into_iter().chain([entry.line]));
    }
}

/// Updates of one record that are asked for at the same time may go out as one write.
fn merged(operation: &Operation<'_>, written: Option<&str>, updates: &Updates<'_>) -> bool {
    let Op::Update { group, member, .. } = operation.op() else { return false };
    let others = updates.get(&(group.as_str(), member.as_str()));
    others.is_some_and(|others| {
        others
            .iter()
            .any(|(called, ended, nonce)| Some(*nonce) == written && *called <= operation.ended() && *ended >= operation.call.at)
    })
}

fn was_not_done(case: &Case<'_>, operation: &Operation<'_>, kind: &str, verdict: &mut Verdict) {
    let Some(nonce) = nonce(operation.op()) else { return };
    verdict.checked();
    if let Some((_, entry)) = case.stream.nonce(nonce).first() {
        let revision = entry.revision();
        let what = format!("{}: {nonce} was reported as not written ({kind}), and is at {revision}", entry.write.key);
        verdict.violated(what, ended(operation), operation.lines().into_iter().chain([entry.line]));
    }
}

fn once(case: &Case<'_>, operation: &Operation<'_>, nonce: &str, verdict: &mut Verdict) {
    let written = case.stream.nonce(nonce);
    for pair in written.windows(2) {
        if let [(epoch, first), (other, second)] = pair
            && epoch == other
            && !kept(first, second)
        {
            let what =
                format!("{}: {nonce} was written at {} and again at {}", first.write.key, first.revision(), second.revision());
            verdict.violated(what, second.write.at, operation.lines().into_iter().chain([first.line, second.line]));
        }
    }
}

/// A member's record is written anew when its health changes, with the rest of it as it was.
fn kept(first: &Entry<'_>, second: &Entry<'_>) -> bool {
    first.write.key == second.write.key && first.write.key.starts_with("member.") && first.write.value == second.write.value
}

fn ended(operation: &Operation<'_>) -> Option<Micros> {
    operation.returned.map(|(_, returned)| returned.at)
}

/// The key that an ok speaks of; tickets and terms are promise 1.
fn key(op: &Op) -> Option<String> {
    match op {
        Op::Put { key, .. } | Op::FencedPut { key, .. } | Op::Delete { key, .. } => Some(format!("data.{key}")),
        Op::Proclaim { election, .. } => Some(format!("election.{election}")),
        Op::Join { group, member, .. } | Op::Update { group, member, .. } | Op::Leave { group, member, .. } => {
            Some(format!("member.{group}.{member}"))
        }
        _ => None,
    }
}
