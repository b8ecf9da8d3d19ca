//! Checks what clients of Tenure saw, and what the store wrote, against what Tenure promises.
//!
//! Pure: a recorded [`History`] goes in, verdicts come out. Nothing here knows Tenure's code, so no mistake in
//! it can hide here.

mod file;
pub mod history;

pub use history::History;
