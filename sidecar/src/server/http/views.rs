//! What the public may see of leaders and members: neither labels nor who runs them.

use serde::Serialize;
use serde_json::Value as Json;

use crate::protocol::{Happening, LeaderView, MemberView};

const LEADER: [&str; 6] = ["value", "value_b64", "fence", "revision", "priority", "since_ms"];
const MEMBER: [&str; 9] = ["id", "revision", "value", "value_b64", "address", "zone", "weight", "metadata", "state"];

/// Keeps of an object only what is named.
fn only(names: &[&str], view: &mut Json) {
    if let Some(fields) = view.as_object_mut() {
        fields.retain(|name, _| names.contains(&name.as_str()));
    }
}

fn written(view: impl Serialize) -> Json {
    // All of them are plain objects.
    serde_json::to_value(view).unwrap_or_default()
}

pub(super) fn leader(view: &LeaderView) -> Json {
    let mut view = written(view);
    only(&LEADER, &mut view);
    view
}

pub(super) fn member(view: &MemberView) -> Json {
    let mut view = written(view);
    only(&MEMBER, &mut view);
    view
}

/// An event: its kind, and what there is to say.
pub(super) fn event(what: &Happening) -> (String, Json) {
    let mut view = written(what);
    if let Some(leader) = view.get_mut("leader") {
        only(&LEADER, leader);
    }
    if let Some(member) = view.get_mut("member") {
        only(&MEMBER, member);
    }
    let kind = view.get("kind").and_then(Json::as_str).unwrap_or("event").to_owned();
    (kind, view)
}
