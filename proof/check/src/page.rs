//! stub
use crate::{Counts, History, Verdict};
/// A page.
pub fn page(_: &History, _: &Counts, _: &[Verdict]) -> String {
    String::new()
}
