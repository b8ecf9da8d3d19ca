//! The names there are, for what is being typed: asked of the daemon, quickly or not at all.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::CommandFactory;
use serde_json::{Value, json};

use crate::{
    Client,
    command::{Cli, say::print},
    protocol::default_socket,
};

/// The argument that asks for names; the words typed so far follow, the last of them unfinished.
const COMPLETE: &str = "__complete";
/// All the time there is. Whoever presses a key does not wait for a daemon that is gone.
const PATIENCE: Duration = Duration::from_millis(150);
/// More than that nobody chooses from.
const MOST: usize = 500;

/// What is being typed.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Lock,
    Election,
    Group,
    /// A key, of this bucket where one is named.
    Key(Option<String>),
    /// The token of the hold of this lock.
    Token(String),
}

/// The words typed so far, if names are asked for.
pub(in crate::command) fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    (arguments.next()? == COMPLETE).then(|| arguments.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Prints the names that go on from `words`. Says nothing else, whatever happens.
pub(in crate::command) fn complete(words: &[String]) {
    let Some((typed, before)) = words.split_last() else { return };
    let Some((wanted, socket)) = wanted(before, typed) else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let socket = socket.unwrap_or_else(default_socket);
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, names(&wanted, typed, socket)).await });
    runtime.shutdown_background();
    let Ok(Some(mut names)) = found else { return };
    // What somebody else has called a lock must not be taken for an option.
    names.retain(|name| name.starts_with(typed.as_str()) && !name.starts_with('-'));
    names.truncate(MOST);
    print(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
}

/// What goes on from `typed` after `before`, and where the daemon is.
fn wanted(before: &[String], typed: &str) -> Option<(Wanted, Option<PathBuf>)> {
    if typed.starts_with('-') {
        return None;
    }
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    let mut path = Vec::new();
    let mut positional: Vec<&str> = Vec::new();
    let (mut socket, mut bucket) = (None, None);
    let mut words = before.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--" || word == "--store" || word.starts_with("--store=") {
            return None;
        }
        if let Some(path) = word.strip_prefix("--socket=") {
            socket = Some(PathBuf::from(path));
        } else if let Some(name) = word.strip_prefix("--bucket=") {
            bucket = Some(name.to_owned());
        } else if word.starts_with('-') && word.len() > 1 {
            let takes = command.get_arguments().any(|argument| {
                let long = argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
                let short = argument.get_short().is_some_and(|short| !word.starts_with("--") && word.ends_with(short));
                (long || short) && argument.get_action().takes_values()
            });
            if takes {
                // Shells may hand `--flag=value` over in three parts.
                let value = words.next().and_then(|value| if value == "=" { words.next() } else { Some(value) });
                match (word, value) {
                    ("--socket", Some(path)) => socket = Some(PathBuf::from(path)),
                    ("--bucket", Some(name)) => bucket = Some(name.to_owned()),
                    ("--fence", None) if path == ["locks", "break"] => {
                        return Some((Wanted::Token((*positional.first()?).to_owned()), socket));
                    }
                    (_, None) => return None,
                    _ => {}
                }
            }
        } else if let Some(next) = command.find_subcommand(word).filter(|_| positional.is_empty()) {
            command = next;
            path.push(next.get_name());
        } else {
            positional.push(word);
        }
    }
    let wanted = match (path.as_slice(), positional.as_slice()) {
        (["lock"] | ["locks", "ls" | "show" | "break"], []) => Wanted::Lock,
        (["wait" | "watch"], ["lock"]) => Wanted::Lock,
        (["elect"], []) | (["wait" | "watch"], ["leader"]) => Wanted::Election,
        (["members" | "join"], []) | (["watch"], ["members"]) => Wanted::Group,
        (["kv", "get" | "put" | "create" | "update" | "del" | "purge" | "ls" | "watch" | "history"], []) => Wanted::Key(bucket),
        (["wait"], ["key"]) | (["watch"], ["kv"]) => Wanted::Key(bucket),
        _ => return None,
    };
    Some((wanted, socket))
}

async fn names(wanted: &Wanted, typed: &str, socket: PathBuf) -> Option<Vec<String>> {
    let client = Client::connect(socket).await.ok()?;
    let prefix = json!({ "prefix": typed });
    let named = |answer: &Value, list: &str| -> Option<Vec<String>> {
        Some(answer[list].as_array()?.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
    };
    match wanted {
        Wanted::Lock => named(&client.call("lock.list", prefix).await.ok()?, "locks"),
        Wanted::Election => {
            let mut names = named(&client.call("election.list", prefix).await.ok()?, "elections")?;
            // Those are Tenure's own.
            names.retain(|name| typed.starts_with("tenure/") || !name.starts_with("tenure/"));
            Some(names)
        }
        Wanted::Group => named(&client.call("member.groups", prefix).await.ok()?, "groups"),
        Wanted::Key(bucket) => {
            let mut params = if typed.is_empty() { json!({}) } else { prefix };
            if let Some(bucket) = bucket {
                params["bucket"] = json!(bucket);
            }
            let answer = client.call("kv.keys", params).await.ok()?;
            Some(answer["keys"].as_array()?.iter().filter_map(|key| Some(key.as_str()?.to_owned())).collect())
        }
        Wanted::Token(name) => {
            let lock = client.call("lock.get", json!({ "name": name })).await.ok()?;
            Some(vec![lock["holder"]["fence"].as_u64()?.to_string()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Option<Wanted> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let (typed, before) = words.split_last().unwrap();
        wanted(before, typed).map(|(wanted, _)| wanted)
    }

    #[test]
    fn what_is_typed_is_known_by_where_it_stands() {
        for (words, expected) in [
            ("lock ", Some(Wanted::Lock)),
            ("lock -w 30s --label x ni", Some(Wanted::Lock)),
            ("lock --wait = 30s ni", Some(Wanted::Lock)),
            ("lock -q n", Some(Wanted::Lock)),
            ("locks break x", Some(Wanted::Lock)),
            ("locks break x --fence ", Some(Wanted::Token("x".to_owned()))),
            ("elect ", Some(Wanted::Election)),
            ("join we", Some(Wanted::Group)),
            ("kv del a", Some(Wanted::Key(None))),
            ("kv delete a", Some(Wanted::Key(None))),
            ("kv --bucket b get ", Some(Wanted::Key(Some("b".to_owned())))),
            ("kv get --bucket=b a", Some(Wanted::Key(Some("b".to_owned())))),
            ("kv put a b", None),
            ("wait leader ", Some(Wanted::Election)),
            ("watch members ", Some(Wanted::Group)),
            ("watch kv ", Some(Wanted::Key(None))),
            ("watch ", None),
            ("", None),
            ("lo", None),
            ("lock -", None),
            ("lock -w ", None),
            ("lock x ", None),
            ("lock x -- ", None),
            ("lock --store memory: ", None),
        ] {
            assert_eq!(of(words), expected, "{words:?}");
        }
    }

    #[test]
    fn the_socket_is_the_one_that_was_named() {
        for words in [&["lock", "--socket", "/s"][..], &["lock", "--socket", "=", "/s"], &["lock", "--socket=/s"]] {
            let before: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(wanted(&before, ""), Some((Wanted::Lock, Some(PathBuf::from("/s")))));
        }
    }
}
