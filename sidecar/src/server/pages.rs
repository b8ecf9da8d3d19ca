//! Lists that may be longer than a line: as much of one as fits, and where it goes on.

use serde::Serialize;

use super::errors;
use crate::protocol::ErrorObject;

/// Room in a line for what stands around the elements of a list.
const AROUND: usize = 1_024;

/// How much room there is for elements in a line of so many bytes.
pub(super) const fn room(line_bytes: usize) -> usize {
    line_bytes.saturating_sub(AROUND)
}

/// How much room an element takes.
pub(super) fn size(element: &impl Serialize) -> usize {
    serde_json::to_string(element).map_or(0, |text| text.len() + 1)
}

/// As many as are asked for.
///
/// # Errors
/// When that is none.
pub(super) fn limit(method: &str, limit: Option<usize>) -> Result<usize, ErrorObject> {
    match limit {
        Some(0) => {
            Err(errors::param("limit", format!("{method}: limit: at least 1; leave it out for as many as fit into a line")))
        }
        limit => Ok(limit.unwrap_or(usize::MAX)),
    }
}

/// Whether a name comes after the one that is asked for.
pub(super) fn is_after(name: &str, after: Option<&str>) -> bool {
    after.is_none_or(|after| name > after)
}

/// The first of `all`, which ascend by their names: at most `limit`, and no more than have `room`, but for the first one. If
/// there are more, the name of the last one here.
pub(super) fn page<T: Serialize>(
    all: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    limit: usize,
    mut room: usize,
) -> (Vec<T>, Option<String>) {
    let mut page: Vec<T> = Vec::new();
    for element in all {
        let size = size(&element);
        if (size > room || page.len() >= limit)
            && let Some(last) = page.last()
        {
            let next = name(last);
            return (page, Some(next));
        }
        room = room.saturating_sub(size);
        page.push(element);
    }
    (page, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: usize, room: usize) -> (Vec<&'static str>, Option<String>) {
        page(["a", "b", "c"], |name| (*name).to_owned(), limit, room)
    }

    #[test]
    fn a_page_ends_where_the_line_or_the_limit_does_and_has_one_at_least() {
        let next = |name: &str| Some(name.to_owned());
        // Each takes its quotes and a comma.
        for (limit, room, expected) in [
            (9, 12, (vec!["a", "b", "c"], None)),
            (3, 99, (vec!["a", "b", "c"], None)),
            (2, 99, (vec!["a", "b"], next("b"))),
            (9, 11, (vec!["a", "b"], next("b"))),
            (9, 0, (vec!["a"], next("a"))),
        ] {
            assert_eq!(of(limit, room), expected, "{limit} {room}");
        }
        assert!(is_after("b", Some("a")) && !is_after("a", Some("a")) && is_after("a", None));
        assert!(limit("lock.list", Some(0)).is_err());
    }
}
