//! The configuration as it takes effect, in the words of the file.

use super::{
    layers::{Effective, Origin},
    settings::{Form, SETTINGS},
};
use crate::server::descriptors::Room;

/// What stands for a secret.
const LEFT_OUT: &str = "***";

/// Every setting on a line, with where it came from, and what it comes to where there is less `room` than it wants. `tenured`
/// takes it as a file, but for the secrets left out.
pub(crate) fn show(effective: &Effective, secrets: bool, room: Option<Room>) -> String {
    let limits = &effective.settings.config.limits;
    let within = room.map_or_else(|| limits.clone(), |room| room.within(limits.clone()));
    let in_effect = |key: &str| {
        let Some(room) = room else { return String::new() };
        let given = match key {
            "max_connections" if room.fewest() < limits.connections => format!("{} to {}", room.fewest(), within.connections),
            "max_connections_per_uid" if within.connections_per_uid < limits.connections_per_uid => {
                within.connections_per_uid.to_string()
            }
            _ => return String::new(),
        };
        format!("; {given} with the {} files that this process may open", room.files)
    };
    let mut text = String::new();
    for (setting, origin) in SETTINGS.iter().zip(&effective.origins) {
        let Some(value) = (setting.show)(&effective.settings) else {
            text.push_str(&line(&format!("# {}: {}", setting.key, setting.default_text()), &commented(origin)));
            continue;
        };
        let (value, hidden) = if setting.is_secret() && !secrets { without_secret(value) } else { (value, false) };
        let value = match setting.form {
            Form::Text => toml::Value::String(value).to_string(),
            Form::Number => value,
        };
        let note = if hidden { "; --secrets shows the secret".to_owned() } else { in_effect(setting.key) };
        text.push_str(&line(&format!("{} = {value}", setting.key), &format!("{}{note}", commented(origin))));
    }
    text
}

fn line(setting: &str, origin: &str) -> String {
    format!("{setting:<40} # {origin}\n")
}

fn commented(origin: &Origin) -> String {
    let kind = match origin {
        Origin::Flag(_) => "flag ",
        Origin::Environment(_) => "environment ",
        Origin::File(..) => "file ",
        Origin::Default => "",
    };
    // A path may have a line break in it.
    format!("{kind}{}", origin.to_string().escape_debug())
}

/// A URL without what stands before the `@` of its hosts, and whether there was something.
fn without_secret(url: String) -> (String, bool) {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme @ ("nats" | "tls"), _)), Some((_, rest))) => (format!("{scheme}://{LEFT_OUT}@{rest}"), true),
        _ => (url, false),
    }
}
