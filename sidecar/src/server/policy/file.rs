//! The policy file: `[[allow]]` and `[[deny]]`, each a rule.

use toml::{Spanned, de::DeValue};

use super::rules::{Ability, Buckets, Family, Part, Policy, Rule, Whom};
use crate::server::toml_file::{Entry, TomlFile, in_order, unknown};

const KEYS: [&str; 7] = ["user", "group", "http", "methods", "name", "prefix", "bucket"];
const METHODS: [&str; 14] = [
    "lock",
    "lock.observe",
    "lock.use",
    "election",
    "election.observe",
    "election.use",
    "member",
    "member.observe",
    "member.use",
    "member.check",
    "kv",
    "kv.observe",
    "kv.use",
    "admin",
];

/// The numbers of users and groups, by their names.
pub(super) struct Directory<'a> {
    pub(super) user: &'a dyn Fn(&str) -> Result<Option<u32>, String>,
    pub(super) group: &'a dyn Fn(&str) -> Result<Option<u32>, String>,
}

/// The rules in the file.
///
/// # Errors
/// The first mistake, with its line.
pub(super) fn parse(file: &TomlFile, directory: &Directory<'_>) -> Result<Policy, String> {
    let table = file.table()?;
    let mut rules = Vec::new();
    for Entry { key, at, value } in in_order(&table) {
        if !matches!(key, "allow" | "deny") {
            return Err(file.refuse(at, &unknown("key", key, &["allow", "deny"])));
        }
        let written = || file.refuse(at, &format!("a rule begins with [[{key}]] on a line of its own"));
        let all = value.get_ref().as_array().ok_or_else(written)?;
        for rule in all.iter() {
            rules.push(read_rule(file, directory, key == "allow", rule)?);
        }
    }
    Ok(Policy { rules })
}

fn read_rule(file: &TomlFile, directory: &Directory<'_>, allow: bool, value: &Spanned<DeValue<'_>>) -> Result<Rule, String> {
    let at = value.span().start;
    let word = if allow { "allow" } else { "deny" };
    let table = value.get_ref().as_table();
    let table = table.ok_or_else(|| file.refuse(at, &format!("a rule begins with [[{word}]] on a line of its own")))?;
    let mut rule =
        Rule { allow, http: false, users: None, groups: None, abilities: Vec::new(), names: None, buckets: Buckets::Own };
    for entry in in_order(table) {
        let refuse = |said: String| file.refuse(entry.at, &said);
        let key = entry.key;
        match key {
            "user" => rule.users = Some(whom(key, entry.value.get_ref(), directory.user).map_err(refuse)?),
            "group" => rule.groups = Some(whom(key, entry.value.get_ref(), directory.group).map_err(refuse)?),
            "http" if matches!(entry.value.get_ref(), DeValue::Boolean(true)) => rule.http = true,
            "http" => return Err(refuse("http: write http = true, or leave it out".to_owned())),
            "methods" => {
                for method in texts(key, entry.value.get_ref()).map_err(refuse)? {
                    rule.abilities.extend(abilities(&method).ok_or_else(|| refuse(unknown("method", &method, &METHODS)))?);
                }
            }
            "name" => rule.names.get_or_insert_default().exact = texts(key, entry.value.get_ref()).map_err(refuse)?,
            "prefix" => rule.names.get_or_insert_default().prefixes = texts(key, entry.value.get_ref()).map_err(refuse)?,
            "bucket" => {
                let names = texts(key, entry.value.get_ref()).map_err(refuse)?;
                rule.buckets = if names.iter().any(|name| name == "*") { Buckets::Any } else { Buckets::These(names) };
            }
            _ => return Err(refuse(unknown("key", key, &KEYS))),
        }
    }
    if rule.http && (rule.users.is_some() || rule.groups.is_some()) {
        return Err(file.refuse(at, "whoever asks over HTTP is no user of this machine; write another rule for users and groups"));
    }
    if !rule.http && rule.users.is_none() && rule.groups.is_none() {
        let said = r#"the rule does not say for whom it is: user = "NAME", group = "NAME", user = "*" for all, or http = true"#;
        return Err(file.refuse(at, said));
    }
    if rule.http && rule.abilities.iter().any(|ability| ![Ability::SEE_ELECTIONS, Ability::SEE_GROUPS].contains(ability)) {
        return Err(file.refuse(at, "over HTTP there is nothing but election.observe and member.observe"));
    }
    if rule.abilities.is_empty() {
        return Err(file.refuse(at, r#"the rule does not say what it is about: methods = ["lock", "kv.observe"]"#));
    }
    if rule.buckets != Buckets::Own && rule.abilities.iter().any(|ability| ability.family != Family::Kv) {
        return Err(file.refuse(at, "bucket is for kv alone; write another rule for the other methods"));
    }
    Ok(rule)
}

/// A name, a number, or a list of them.
fn whom(key: &str, value: &DeValue<'_>, look_up: &dyn Fn(&str) -> Result<Option<u32>, String>) -> Result<Whom, String> {
    let one = std::slice::from_ref(value);
    let many: Vec<&DeValue<'_>> = match value {
        DeValue::Array(all) => all.iter().map(Spanned::get_ref).collect(),
        _ => one.iter().collect(),
    };
    let mut numbers = Vec::new();
    for value in many {
        match value {
            DeValue::String(name) if name == "*" => return Ok(Whom::Anyone),
            DeValue::String(name) => match look_up(name)? {
                Some(number) => numbers.push(number),
                None => return Err(format!("{key}: this machine knows no {key} {:?}", shortened(name))),
            },
            DeValue::Integer(number) => {
                let number = u32::from_str_radix(number.as_str(), number.radix());
                numbers.push(number.map_err(|_| format!("{key}: a number of a {key} is from 0 to {}", u32::MAX))?);
            }
            _ => return Err(format!(r#"{key}: use a name in quotes, a number, or a list of them: {key} = ["www", 1000]"#)),
        }
    }
    if numbers.is_empty() {
        Err(format!("{key}: the list is empty, so the rule is for nobody"))
    } else {
        Ok(Whom::These(numbers))
    }
}

/// A text, or a list of them.
fn texts(key: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = || format!(r#"{key}: use a text in quotes, or a list of them: {key} = ["…", "…"]"#);
    let texts: Vec<String> = match value {
        DeValue::String(text) => vec![text.to_string()],
        DeValue::Array(all) => {
            let texts = all.iter().map(|value| value.get_ref().as_str().map(str::to_owned).ok_or_else(wrong));
            texts.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    if texts.is_empty() { Err(format!("{key}: the list is empty, so the rule is about nothing")) } else { Ok(texts) }
}

/// What a word of `methods` stands for: a family, or a part of one.
fn abilities(word: &str) -> Option<Vec<Ability>> {
    if word == "admin" {
        return Some(vec![Ability::ADMIN]);
    }
    let (family, part) = word.split_once('.').map_or((word, None), |(family, part)| (family, Some(part)));
    let family = match family {
        "lock" => Family::Lock,
        "election" => Family::Election,
        "member" => Family::Member,
        "kv" => Family::Kv,
        _ => return None,
    };
    let parts: &[Part] = match part {
        None => &[Part::Observe, Part::Use],
        Some("observe") => &[Part::Observe],
        Some("use") => &[Part::Use],
        // By this name alone.
        Some("check") if family == Family::Member => &[Part::Check],
        Some(_) => return None,
    };
    Some(parts.iter().map(|part| Ability { family, part: *part }).collect())
}

fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}
