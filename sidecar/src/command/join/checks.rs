//! The checks of a member, as they are written on the command line.

use std::{str::FromStr, time::Duration};

use tenure::Check;

use crate::{command::daemon::millis, protocol::MemberCheck};

/// One `--check`, in the form in which the library and the socket take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    text: String,
    /// The time within which the command has to tell that it is well.
    pub(super) ttl: Option<Duration>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write tcp:HOST:PORT, http://HOST:PORT/PATH or ttl:10s";
        let spec = if let Some(time) = text.strip_prefix("ttl:") {
            let ttl = super::super::time(time)?;
            Self { text: format!("heartbeat:{}", ttl.as_secs_f64()), ttl: Some(ttl) }
        } else if text.starts_with("heartbeat:") {
            return Err(help.to_owned());
        } else {
            let url = text.strip_prefix("http:").filter(|url| url.starts_with("http://"));
            Self { text: url.unwrap_or(text).to_owned(), ttl: None }
        };
        match spec.text.parse::<Check>() {
            Ok(_) => Ok(spec),
            Err(error) if text.starts_with("tcp:") || text.starts_with("http:") || spec.ttl.is_some() => Err(error.to_string()),
            Err(_) => Err(help.to_owned()),
        }
    }
}

/// How the checks that look are made.
#[derive(Debug, clap::Args)]
pub(super) struct Looks {
    /// Time from one look to the next [default: 5s]
    #[arg(long = "check-interval", value_name = "TIME", value_parser = super::super::time)]
    interval: Option<Duration>,

    /// Time that a look may take [default: 2s]
    #[arg(long = "check-timeout", value_name = "TIME", value_parser = super::super::time)]
    timeout: Option<Duration>,

    /// Well again after so many good looks in a row [default: 2]
    #[arg(long = "check-rise", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rise: Option<u32>,

    /// Not well after so many bad looks in a row [default: 3]
    #[arg(long = "check-fall", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fall: Option<u32>,
}

impl Looks {
    /// For the library.
    pub(super) fn check(&self, spec: &Spec) -> Result<Check, tenure::Error> {
        let mut check: Check = spec.text.parse()?;
        if spec.ttl.is_some() {
            return Ok(check);
        }
        if let Some(interval) = self.interval {
            check = check.interval(interval);
        }
        if let Some(timeout) = self.timeout {
            check = check.timeout(timeout);
        }
        if let Some(rise) = self.rise {
            check = check.rise(rise);
        }
        if let Some(fall) = self.fall {
            check = check.fall(fall);
        }
        Ok(check)
    }

    /// For the socket.
    pub(super) fn wire(&self, spec: &Spec) -> MemberCheck {
        let check = spec.text.clone();
        if spec.ttl.is_some() {
            return MemberCheck { check, ..MemberCheck::default() };
        }
        MemberCheck {
            check,
            interval_ms: self.interval.map(millis),
            timeout_ms: self.timeout.map(millis),
            rise: self.rise,
            fall: self.fall,
            initially: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_they_are_written() {
        for (text, read) in [
            ("tcp:localhost:80", "tcp:localhost:80"),
            ("http://a:81/x?y", "http://a:81/x?y"),
            ("http:http://a/x", "http://a/x"),
            ("ttl:1500ms", "heartbeat:1.5"),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().text, read);
        }
        for (text, said) in [
            ("", "tcp:HOST:PORT"),
            ("heartbeat:3", "ttl:10s"),
            ("ftp://a", "http://"),
            ("https://a", "http://"),
            ("tcp:a", "HOST:PORT"),
            ("http://", "URL"),
            ("ttl:3", "unit"),
            ("ttl:1ms", "10ms"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
