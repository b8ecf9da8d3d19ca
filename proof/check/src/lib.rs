//! Checks what clients of Tenure saw, and what the store wrote, against what Tenure promises.
//!
//! Pure: a recorded [`History`] goes in, verdicts come out. Nothing here knows Tenure's code, so no mistake in
//! it can hide here. Revisions give the order of all writes, so no order is searched for and a history of many
//! thousand operations takes seconds; only `linear`, a second opinion on short ones, searches.
//!
//! `cargo run -p tenure-check -- FILE [--html OUT.html]` prints the verdicts, and makes a page with a timeline.

mod case;
mod counts;
mod faults;
mod file;
pub mod history;
mod page;
mod promises;
mod report;
mod stream;
#[cfg(test)]
mod tape;
mod verdict;

pub use counts::Counts;
pub use history::History;
pub use page::page;
pub use promises::Limits;
pub use report::print;
pub use verdict::{Promise, Verdict, Violation};

/// Checks every promise, with the limits that are promised.
pub fn check(history: &History) -> Vec<Verdict> {
    check_with(history, &Limits::default())
}

/// Checks every promise; one verdict each, in the order of [`Promise::ALL`].
pub fn check_with(history: &History, limits: &Limits) -> Vec<Verdict> {
    promises::all(&case::Case::new(history), limits)
}
