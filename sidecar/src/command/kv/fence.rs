//! What a write is fenced by, from the environment that `tenure lock` and `tenure elect` give their command.

use crate::command::exit::Failure;

/// The hold without which a write is refused; nothing fences by default.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) lock: Option<String>,
    pub(super) election: Option<String>,
    pub(super) token: Option<u64>,
}

/// The hold that this process runs under.
pub(super) fn from_environment() -> Result<Fence, Failure> {
    read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Fence, Failure> {
    let (lock, election) = (variable("TENURE_LOCK"), variable("TENURE_ELECTION"));
    let Some(token) = variable("TENURE_FENCE") else {
        return Err(Failure::usage(
            "--fence is for a command that `tenure lock` or `tenure elect` runs; TENURE_FENCE is not set here",
        ));
    };
    let token = token.parse().map_err(|_| Failure::usage(format!("TENURE_FENCE is {token:?}, which is no fencing token")))?;
    match (&lock, &election) {
        (None, None) => Err(Failure::usage("TENURE_FENCE is set, but neither TENURE_LOCK nor TENURE_ELECTION says of what")),
        (Some(_), Some(_)) => Err(Failure::usage(
            "TENURE_LOCK and TENURE_ELECTION are both set; unset the one that TENURE_FENCE does not belong to",
        )),
        _ => Ok(Fence { lock, election, token: Some(token) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<Fence, u8> {
        read(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
            .map_err(|failure| failure.code)
    }

    #[test]
    fn a_hold_is_a_token_with_one_name() {
        let (lock, election, token) = (("TENURE_LOCK", "a"), ("TENURE_ELECTION", "b"), ("TENURE_FENCE", "7"));
        let fence = |lock: Option<&str>, election: Option<&str>| {
            Ok(Fence { lock: lock.map(str::to_owned), election: election.map(str::to_owned), token: Some(7) })
        };
        assert_eq!(of(&[lock, token]), fence(Some("a"), None));
        assert_eq!(of(&[election, token]), fence(None, Some("b")));
        for wrong in [&[][..], &[lock], &[token], &[lock, election, token], &[lock, ("TENURE_FENCE", "high")]] {
            assert_eq!(of(wrong), Err(64), "{wrong:?}");
        }
    }
}
