//! The subjects that a user of a bucket needs: what the rest of this module sends and hears.

use super::names::Names;
use crate::{KeyRange, access::Permissions};

/// The least for reading and watching everything, and for writing to `writes`.
pub(super) fn least(names: &Names, inbox: &str, writes: &[KeyRange]) -> Permissions {
    let stream = &names.stream;
    let mut publish = vec![
        format!("$JS.API.STREAM.INFO.{stream}"),
        // One key by its subject, several by what the request says.
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.{}", names.everything()),
        // A watch is a consumer: made, kept flowing, deleted.
        format!("$JS.API.CONSUMER.CREATE.{stream}.*.{}", names.everything()),
        format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
        format!("$JS.FC.{stream}.>"),
    ];
    if !writes.is_empty() {
        publish.push(names.carrier("*"));
    }
    let mut ranges: Vec<String> = writes.iter().map(|range| names.filter(range)).collect();
    ranges.dedup();
    publish.extend(ranges);
    // Answers and what consumers deliver, and the writes that are told as they are committed.
    Permissions::new(publish, vec![format!("{inbox}.>"), names.republished_everything()])
}
