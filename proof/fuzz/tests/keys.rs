//! Keys and ranges of keys, against rules written down apart.
#![allow(clippy::unwrap_used, reason = "tests")]

use bolero::check;
use tenure_fuzz::Corpus;
use tenure_kv::{Key, KeyRange, MAX_KEY};

/// The rules of a bucket, and where a token may be `*`.
fn follows_the_rules(text: &str, wild: bool) -> bool {
    let token = |token: &str| {
        (wild && token == "*")
            || (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/_=".contains(&byte)))
    };
    text.len() <= MAX_KEY && !text.starts_with("_kv") && text.split('.').all(token)
}

#[test]
fn key() {
    let corpus = Corpus::of("key");
    check!(name = "key").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            match Key::new(text) {
                Ok(key) => {
                    assert!(follows_the_rules(text, false));
                    assert_eq!((key.as_str(), key.to_string().as_str()), (text, text));
                    assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
                    assert_eq!(key.tokens().collect::<Vec<_>>().join("."), text);
                    if let Ok(child) = key.child("x") {
                        assert_eq!(child.under(text), Some("x"));
                        assert!(KeyRange::Under(key.clone()).contains(&child) && !KeyRange::Under(child).contains(&key));
                    } else {
                        assert!(text.len() + 2 > MAX_KEY);
                    }
                }
                Err(error) => {
                    assert!(!follows_the_rules(text, false), "{error}");
                    assert!(error.is_invalid() && error.to_string().len() < 800, "{error}");
                }
            }
        });
    });
}

/// Whether `range` has `key`, token by token.
fn has(range: &str, key: &str) -> bool {
    match range.strip_suffix(".>") {
        _ if range == ">" => true,
        Some(parent) => key.len() > parent.len() && key.starts_with(parent) && key.as_bytes()[parent.len()] == b'.',
        None => {
            let (range, key) = (range.split('.').collect::<Vec<_>>(), key.split('.').collect::<Vec<_>>());
            range.len() == key.len() && range.iter().zip(key).all(|(part, token)| *part == "*" || *part == token)
        }
    }
}

/// A line is a range, and the others are keys.
#[test]
fn range() {
    let corpus = Corpus::of("range");
    check!(name = "range").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            let mut lines = text.split('\n');
            let text = lines.next().unwrap();
            let rules = text == ">" || follows_the_rules(text.strip_suffix(".>").unwrap_or(text), !text.ends_with(".>"));
            let range = match KeyRange::new(text) {
                Ok(range) => range,
                Err(error) => {
                    assert!(error.is_invalid() && !rules, "{error}");
                    return;
                }
            };
            assert!(rules);
            assert_eq!(range.to_string(), text);
            assert_eq!(range.to_string().parse::<KeyRange>().unwrap(), range);
            for key in lines.filter_map(|line| Key::new(line).ok()) {
                assert_eq!(range.contains(&key), has(text, key.as_str()), "{key}");
                assert!(!range.contains(&key) || key.as_str().starts_with(range.literal_prefix()), "{key}");
            }
        });
    });
}
