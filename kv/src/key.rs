//! Keys and ranges of keys, parsed once.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::{Error, Result};

/// The longest key in bytes.
pub const MAX_KEY: usize = 1_024;

/// A key: tokens of `A–Z a–z 0–9 - / _ =` joined by single dots.
///
/// These are the rules of a NATS key-value bucket: no empty token (so no leading, trailing or double
/// dot), nothing that starts with the reserved `_kv`, at most [`MAX_KEY`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which rule is broken.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check(text, "key", |_| false)?;
        Ok(Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The dot-separated tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// This key with `.token` appended; `token` may itself have dots.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the result is not a key.
    pub fn child(&self, token: impl fmt::Display) -> Result<Self> {
        Self::new(format!("{}.{token}", self.0))
    }

    /// The tokens after the prefix `parent`, when this key lies under it.
    pub fn under(&self, parent: &str) -> Option<&str> {
        self.0.strip_prefix(parent)?.strip_prefix('.')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl FromStr for Key {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A key in which at least one token is `*`, which stands for exactly one token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Parses a pattern such as `lock.orders.*`.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which rule is broken.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check(text, "key pattern", |token| token == "*")?;
        if !text.split('.').any(|token| token == "*") {
            return Err(Error::invalid(format!("the key pattern {text:?} has no token *; name the key itself")));
        }
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` fits.
    pub fn matches(&self, key: &Key) -> bool {
        let mut tokens = key.tokens();
        self.0.split('.').all(|part| tokens.next().is_some_and(|token| part == "*" || part == token)) && tokens.next().is_none()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// This key.
    One(Key),
    /// Every key that has this one and a dot before it; not the key itself.
    Under(Key),
    /// Every key that fits the pattern.
    Like(Pattern),
    /// Every key.
    All,
}

impl KeyRange {
    /// Parses `>` (all), `a.b.>` (under `a.b`), `a.*` (a pattern) or `a.b` (one key).
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which rule is broken.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if text == ">" {
            return Ok(Self::All);
        }
        if let Some(parent) = text.strip_suffix(".>") {
            return Key::new(parent).map(Self::Under);
        }
        if text.contains('*') { Pattern::new(text).map(Self::Like) } else { Key::new(text).map(Self::One) }
    }

    /// Exactly one token below `parent`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `parent` leaves no room for a token.
    pub fn children(parent: &Key) -> Result<Self> {
        Pattern::new(format!("{parent}.*")).map(Self::Like)
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Under(parent) => key.under(parent.as_str()).is_some(),
            Self::Like(pattern) => pattern.matches(key),
            Self::All => true,
        }
    }

    /// The literal text that every key of the range starts with.
    pub fn literal_prefix(&self) -> &str {
        match self {
            Self::One(key) | Self::Under(key) => key.as_str(),
            Self::Like(pattern) => pattern.as_str().split('*').next().unwrap_or(""),
            Self::All => "",
        }
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(key) => write!(f, "{key}"),
            Self::Under(key) => write!(f, "{key}.>"),
            Self::Like(pattern) => f.write_str(pattern.as_str()),
            Self::All => f.write_str(">"),
        }
    }
}

impl FromStr for KeyRange {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

fn check(text: &str, what: &str, wild: impl Fn(&str) -> bool) -> Result<()> {
    let shown = || text.chars().take(80).collect::<String>();
    if text.is_empty() {
        return Err(Error::invalid(format!("a {what} has at least one character")));
    }
    if text.len() > MAX_KEY {
        return Err(Error::invalid(format!("the {what} {:?}… has {} bytes; the limit is {MAX_KEY}", shown(), text.len())));
    }
    if text.starts_with("_kv") {
        return Err(Error::invalid(format!("the {what} {:?} starts with _kv, which is reserved", shown())));
    }
    for token in text.split('.') {
        if token.is_empty() {
            return Err(Error::invalid(format!("the {what} {:?} has an empty token: dots stand singly between tokens", shown())));
        }
        if !wild(token)
            && let Some(bad) = token.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '_' | '=')))
        {
            return Err(Error::invalid(format!(
                "the {what} {:?} has the character {bad:?}; allowed are letters, digits, - / _ = and dots between tokens",
                shown()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_rules_of_a_bucket() {
        for good in ["a", "a.b", "A-z/0_9=.x", "kv", "x_kv", "-", "a.-.b"] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", ".a", "a.", "a..b", "a b", "a*", "*", ">", "a.>", "_kv", "_kv.x", "ä", "a\n", "a\0"] {
            assert!(Key::new(bad).unwrap_err().is_invalid(), "{bad:?}");
        }
        assert!(Key::new("x".repeat(MAX_KEY)).is_ok());
        assert!(Key::new("x".repeat(MAX_KEY + 1)).is_err());
    }

    #[test]
    fn ranges_hold_what_they_name() {
        let key = |text| Key::new(text).unwrap();
        let under = KeyRange::new("a.b.>").unwrap();
        assert!(under.contains(&key("a.b.c")) && under.contains(&key("a.b.c.d")));
        assert!(!under.contains(&key("a.b")) && !under.contains(&key("a.bc")));
        let like = KeyRange::new("a.*.c").unwrap();
        assert!(like.contains(&key("a.b.c")));
        assert!(!like.contains(&key("a.b")) && !like.contains(&key("a.b.c.d")) && !like.contains(&key("a.b.d")));
        assert_eq!(like.literal_prefix(), "a.");
        assert!(KeyRange::new(">").unwrap().contains(&key("z")));
        for bad in ["a.>.b", ">.a", "a*", "a.*b", "", "..", "a.."] {
            assert!(KeyRange::new(bad).is_err(), "{bad:?}");
        }
    }
}
