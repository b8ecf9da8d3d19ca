//! Whether a member is well, found out by looking.

#[cfg(feature = "checks")]
mod probe;
mod run;
mod verdict;

use std::time::Duration;

pub(super) use self::run::run;
use super::InstanceState;
use crate::{Error, Result};

/// The shortest interval, time-out and heartbeat of a check.
const SHORTEST: Duration = Duration::from_millis(10);

/// A way to find out whether a member is well. It moves the member between passing, warning and critical,
/// and leaves draining and maintenance alone.
///
/// ```
/// use std::time::Duration;
/// use tenure::{Check, Instance, JoinOptions};
///
/// let check = Check::heartbeat(Duration::from_secs(3)).fall(2);
/// let options = JoinOptions::new(Instance::at("10.0.0.7:8080")).check(check);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Check {
    pub(super) kind: Kind,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) initial: InstanceState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Heartbeat,
    #[cfg(feature = "checks")]
    Tcp(String),
    #[cfg(feature = "checks")]
    Http(String),
}

impl Check {
    /// From one look to the next where nothing else is said.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    fn new(kind: Kind) -> Self {
        let interval = Self::INTERVAL;
        Self { kind, interval, timeout: Duration::from_secs(2), rise: 2, fall: 3, initial: InstanceState::Critical }
    }

    /// The application calls [`Member::beat`](crate::Member::beat) at least every `ttl`, or it is not well.
    /// Joining counts as a beat, and as the first result unless it [begins](Self::initially) as something else.
    pub fn heartbeat(ttl: Duration) -> Self {
        Self { interval: ttl, rise: 1, fall: 1, initial: InstanceState::Passing, ..Self::new(Kind::Heartbeat) }
    }

    /// `address` (`host:port`) takes TCP connections.
    #[cfg(feature = "checks")]
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::new(Kind::Tcp(address.into()))
    }

    /// An HTTP GET of `url` (`http://…`) is answered with a status from 200 to 299. 429 is a warning,
    /// everything else critical. Redirects are not followed.
    #[cfg(feature = "checks")]
    pub fn http(url: impl Into<String>) -> Self {
        Self::new(Kind::Http(url.into()))
    }

    /// From one look to the next; [`INTERVAL`](Self::INTERVAL), 5 s, unless told.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long one look may take; 2 s unless told.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// After so many good results in a row it is well again; 2 unless told, 1 for heartbeats.
    pub const fn rise(mut self, results: u32) -> Self {
        self.rise = results;
        self
    }

    /// After so many bad results in a row it is not well; 3 unless told, 1 for heartbeats.
    pub const fn fall(mut self, results: u32) -> Self {
        self.fall = results;
        self
    }

    /// What holds before the first result, which then counts at once; critical unless told, passing for
    /// heartbeats.
    pub const fn initially(mut self, state: InstanceState) -> Self {
        self.initial = state;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(format!("the check {}: {what}", self.kind)));
        if self.interval < SHORTEST || self.timeout < SHORTEST {
            return refuse(format!("its interval, time-out or heartbeat is under {SHORTEST:?}"));
        }
        if self.rise == 0 || self.fall == 0 {
            return refuse("its rise and fall counts are at least 1".to_owned());
        }
        if !self.initial.is_checked() {
            return refuse(format!("it cannot begin with {}; use passing, warning or critical", self.initial));
        }
        #[cfg(feature = "checks")]
        if let Err(what) = probe::validate(&self.kind) {
            return refuse(what);
        }
        Ok(())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Heartbeat => f.write_str("heartbeat"),
            #[cfg(feature = "checks")]
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            #[cfg(feature = "checks")]
            Self::Http(url) => f.write_str(url),
        }
    }
}

impl std::str::FromStr for Check {
    type Err = Error;

    /// Parses `tcp:HOST:PORT`, `http://…` or `heartbeat:SECONDS`.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("the check {text:?} is none of tcp:HOST:PORT, http://…, heartbeat:SECONDS"));
        let check = if let Some(seconds) = text.strip_prefix("heartbeat:") {
            let seconds: f64 = seconds.parse().map_err(|_| refuse())?;
            Self::heartbeat(Duration::try_from_secs_f64(seconds).map_err(|_| refuse())?)
        } else {
            Self::remote(text).ok_or_else(refuse)?
        };
        check.validate()?;
        Ok(check)
    }
}

impl Check {
    #[cfg(feature = "checks")]
    fn remote(text: &str) -> Option<Self> {
        match text.strip_prefix("tcp:") {
            Some(address) => Some(Self::tcp(address)),
            None => text.starts_with("http://").then(|| Self::http(text)),
        }
    }

    #[cfg(not(feature = "checks"))]
    fn remote(_text: &str) -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_refused_by_name() {
        let short = Duration::from_millis(1);
        let beat = || Check::heartbeat(Duration::from_secs(1));
        let bad = [
            beat().interval(short),
            beat().timeout(short),
            beat().rise(0),
            beat().fall(0),
            beat().initially(InstanceState::Draining),
        ];
        for check in bad {
            let error = check.validate().unwrap_err().to_string();
            assert!(error.contains("the check heartbeat"), "{error}");
        }
        for text in ["", "ftp:x", "heartbeat:", "heartbeat:-1", "heartbeat:0", "heartbeat:1e99"] {
            let error = text.parse::<Check>().unwrap_err().to_string();
            assert!(error.contains("check"), "{error}");
        }
        assert_eq!("heartbeat:1".parse::<Check>().unwrap(), beat());
    }

    #[cfg(feature = "checks")]
    #[test]
    fn remote_checks_are_refused_by_name() {
        for text in ["tcp:", "tcp:host", "tcp:host:port", "tcp::1", "http://", "https://a", "http:///x", "http://a b/"] {
            let error = text.parse::<Check>().unwrap_err().to_string();
            assert!(error.contains("check"), "{text}: {error}");
        }
        assert_eq!("tcp:[::1]:80".parse::<Check>().unwrap(), Check::tcp("[::1]:80"));
        assert_eq!("http://a:81/x?y".parse::<Check>().unwrap(), Check::http("http://a:81/x?y"));
    }
}
