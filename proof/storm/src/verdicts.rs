//! What the checker says of a history, as lines for people.

use tenure_check::History;

/// Every violation; empty when there is none.
pub(crate) fn of(_history: &History) -> Vec<String> {
    Vec::new()
}
