//! Which grants of a lock came before a lower ticket had ended, shared by the promises about holders and about the
//! order of the queue.

use std::collections::HashMap;

use crate::{
    case::{Case, Prize, Tenure},
    history::{Micros, Mode, Op},
};

/// A grant, and a lower ticket that was still live.
#[derive(Debug)]
pub(super) struct Jump<'c, 'a> {
    pub(super) granted: &'c Tenure<'a>,
    pub(super) operation: usize,
    pub(super) over: &'c Tenure<'a>,
}

impl Jump<'_, '_> {
    pub(super) fn at(&self, case: &Case<'_>) -> Option<Micros> {
        Some(case.operations[self.operation].ended())
    }

    pub(super) fn lines(&self, case: &Case<'_>) -> Vec<usize> {
        let tickets = [self.granted, self.over];
        let writes = tickets.iter().flat_map(|ticket| [Some(ticket.born.line), ticket.end.line()]);
        let mut lines = case.lines(std::iter::once(self.operation).chain(self.over.grant));
        lines.extend(writes.flatten());
        lines
    }
}

/// Of every lock the grants that jumped over a ticket which was itself granted (`held`), or was waiting (not `held`).
///
/// A ticket is granted while it is live and after every lower one has ended. So a lower ticket must have ended
/// before the acquire returned, and, in revisions, before the granted ticket itself ended.
pub(super) fn jumps<'c, 'a>(case: &'c Case<'a>, held: bool) -> Vec<Jump<'c, 'a>> {
    let mut jumps = Vec::new();
    for (prize, tickets) in &case.tenures {
        if !matches!(prize, Prize::Lock(_)) {
            continue;
        }
        // The lower ticket that ended last, by the clock and by revision.
        let (mut by_instant, mut by_revision): (Option<&Tenure<'_>>, Option<&Tenure<'_>>) = (None, None);
        let mut epoch = 0;
        for ticket in tickets {
            if ticket.epoch != epoch {
                (epoch, by_instant, by_revision) = (ticket.epoch, None, None);
            }
            if let Some(operation) = ticket.grant {
                let returned = case.operations[operation].ended().saturating_add(case.slack);
                let late = by_instant.filter(|lower| lower.end.surely_after(returned));
                let late = late.or_else(|| by_revision.filter(|lower| !ticket.end.may_be_above(lower.end.revision())));
                if let Some(over) = late {
                    jumps.push(Jump { granted: ticket, operation, over });
                }
            }
            if ticket.grant.is_some() == held {
                by_instant = by_instant.filter(|kept| kept.end.earliest() >= ticket.end.earliest()).or(Some(ticket));
                by_revision = by_revision.filter(|kept| kept.end.revision() >= ticket.end.revision()).or(Some(ticket));
            }
        }
    }
    jumps
}

/// The acquires that wait without a limit and have not returned, by lock and session; of several the last.
pub(super) fn open_waits<'a>(case: &Case<'a>) -> HashMap<(&'a str, &'a str), usize> {
    let open = case.operations.iter().enumerate().filter_map(|(place, operation)| match operation.op() {
        Op::Acquire { session, lock, mode: Mode::Wait, .. } if operation.returned.is_none() => {
            Some(((lock.as_str(), session.as_str()), place))
        }
        _ => None,
    });
    open.collect()
}
