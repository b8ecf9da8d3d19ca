//! URLs of stores.
#![allow(clippy::unwrap_used, reason = "tests")]

use bolero::check;
use tenure_fuzz::Corpus;
use tenure_kv::{check_url, fuzzing::shown_url};

/// What stands before the `@` of a NATS URL, where it can be told.
fn secret(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let (secret, _) = rest.rsplit_once('@').filter(|_| matches!(scheme, "nats" | "tls"))?;
    // What comes after a question mark is parameters, whatever is meant by them.
    (!secret.contains(['?', '#'])).then_some(secret)
}

#[test]
fn url() {
    let corpus = Corpus::of("url");
    check!(name = "url").for_each(|input: &[u8]| {
        corpus.each(input, |input| {
            let Ok(url) = std::str::from_utf8(input) else { return };
            // A device might have no end.
            if url.contains("/dev") || url.contains("/proc") {
                return;
            }
            let told = match (check_url(url), shown_url(url)) {
                (Ok(()), Ok(shown)) => {
                    let again = shown_url(&shown);
                    assert_eq!(again.as_deref().ok(), Some(&*shown), "{again:?}");
                    // The unit does not get lost.
                    let seconds = url.rsplit_once("?sync=").filter(|_| url.starts_with("file:"));
                    if let Some(Ok(seconds)) = seconds.and_then(|(_, time)| time.strip_suffix('s')).map(str::parse::<u64>) {
                        assert!(shown.ends_with(&format!("?sync={}ms", seconds * 1_000)), "{shown}");
                    }
                    shown
                }
                (Err(error), Err(same)) => {
                    assert!(error.is_invalid() && error.to_string() == same.to_string(), "{error}");
                    error.to_string()
                }
                (checked, shown) => panic!("{checked:?}, {shown:?}"),
            };
            // Words that are long enough not to be in the message, the hosts or the bucket by chance.
            let (_, after) = url.rsplit_once('@').unwrap_or(("", url));
            for word in secret(url).into_iter().flat_map(|secret| secret.split(|c: char| !c.is_ascii_alphanumeric())) {
                assert!(word.len() < 12 || after.contains(word) || !told.contains(word), "{told} tells {word}");
            }
        });
    });
}
