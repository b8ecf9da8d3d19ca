//! The connection: made, watched, and asked one question at a time.

use std::{
    future::Future,
    io::Error as IoError,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind, ServerError, Statistics,
    connection::State as Connection, rustls,
};
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::target::{Login, Target};
use crate::{Error, Result};

/// A server that says nothing for three of these is given up.
const PING: Duration = Duration::from_millis(1_500);
const CONNECT: Duration = Duration::from_secs(2);
const SLOWEST_RECONNECT: Duration = Duration::from_secs(2);
/// Between two attempts to be heard.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(2);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How often a foreign client, whose events we cannot hear, is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What became of the connection since it was first made.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    pub(super) up: bool,
    /// How often it was lost.
    pub(super) losses: u64,
    /// How often a subscription lost messages because nobody read it.
    pub(super) overflows: u64,
    /// How often, and last how, the server refused something for want of permission.
    pub(super) denials: u64,
    pub(super) denial: Arc<str>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent.
    Down,
    /// Nothing was sent: larger than the server takes.
    TooLarge(String),
    /// Nobody was there to hear it.
    NoResponders,
    /// The server refused to pass it on.
    Denied(Arc<str>),
    /// The connection was lost while waiting.
    Lost,
    /// No answer in time.
    TimedOut(Duration),
    /// Anything else.
    Other(String),
}

impl Failure {
    /// The error of something that changes nothing.
    pub(super) fn of_read(self, what: &str) -> Error {
        match self {
            Self::Down => down(),
            Self::TooLarge(why) => Error::invalid(format!("{what} is too large for this NATS server: {why}")),
            Self::NoResponders => Error::unavailable(format!("{what}: JetStream does not answer (no leader or no stream)")),
            Self::Denied(why) => denied(what, &why),
            Self::Lost => Error::unavailable(format!("{what}: the connection to NATS was lost")),
            Self::TimedOut(limit) => Error::unavailable(format!("{what}: no answer from NATS within {limit:?}")),
            Self::Other(why) => Error::unavailable(format!("{what}: {why}")),
        }
    }

    /// The error of a write that may have been applied unless proven otherwise.
    pub(super) fn of_write(self, what: &str) -> Error {
        match self {
            Self::Down | Self::TooLarge(_) | Self::NoResponders | Self::Denied(_) => self.of_read(what),
            Self::Lost => Error::unknown(format!("{what}: the connection to NATS was lost before the acknowledgement")),
            Self::TimedOut(limit) => Error::unknown(format!("{what}: no acknowledgement within {limit:?}")),
            Self::Other(why) => Error::unknown(format!("{what}: {why}")),
        }
    }
}

pub(super) fn down() -> Error {
    Error::unavailable("no NATS server is connected at the moment; reconnecting")
}

pub(super) fn denied(what: &str, why: &str) -> Error {
    Error::invalid(format!("{what}: this NATS user may not ({why}); grant it the permission"))
}

/// A client and the news of its connection.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    statistics: Arc<Statistics>,
    health: watch::Receiver<Health>,
    _looker: Option<AbortOnDropHandle<()>>,
}

impl Link {
    pub(super) async fn connect(target: &Target) -> Result<Self> {
        let (news, health) = watch::channel(Health::default());
        let options = options(target)?
            .name("tenure")
            .ping_interval(PING)
            .connection_timeout(CONNECT)
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
                if attempt <= 1 { Duration::ZERO } else { Duration::from_millis(1 << doublings).min(SLOWEST_RECONNECT) }
            })
            .event_callback(move |event| {
                news.send_modify(|health| health.learn(&event));
                std::future::ready(())
            });
        let scheme = if target.tls { "tls" } else { "nats" };
        let servers: Vec<_> = target.servers.iter().map(|server| format!("{scheme}://{server}")).collect();
        let shown = target.servers.join(", ");
        let client = options.connect(servers).await.map_err(|e| match e.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Error::invalid(format!("the NATS server at {shown} refuses the credentials; check user, token, creds or nkey"))
            }
            ConnectErrorKind::ServerParse => Error::invalid(format!("{shown} is no address of a NATS server")),
            kind if kind == ConnectErrorKind::Tls || about_tls(&e) => Error::invalid(format!(
                "no TLS connection to NATS at {shown}: {}; check ca, cert and key, and that the server speaks TLS",
                root(&e)
            )),
            _ => Error::unavailable(format!("no NATS server answers at {shown} ({}): start one or check the address", root(&e))),
        })?;
        Ok(Self { statistics: client.statistics(), client, health, _looker: None })
    }

    /// Uses a client that somebody else made, whose events only they hear.
    pub(super) fn over(client: Client) -> Self {
        let statistics = client.statistics();
        let connected = |client: &Client| client.connection_state() == Connection::Connected;
        let first = statistics.connects.load(Ordering::Relaxed);
        let (news, health) = watch::channel(Health { up: connected(&client), ..Health::default() });
        let (looked_at, counted) = (client.clone(), statistics.clone());
        let looker = tokio::spawn(async move {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let up = connected(&looked_at);
                let losses = counted.connects.load(Ordering::Relaxed).saturating_sub(first) + u64::from(!up);
                news.send_if_modified(|health| {
                    let changed = (health.up, health.losses) != (up, losses);
                    (health.up, health.losses) = (up, losses);
                    changed
                });
            }
        });
        Self { client, statistics, health, _looker: Some(AbortOnDropHandle::new(looker)) }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// How often a connection was made. Counted before anything is answered over it, unlike what [`Health`] says.
    pub(super) fn connections(&self) -> u64 {
        self.statistics.connects.load(Ordering::Acquire)
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.connection_state() == Connection::Connected
    }

    /// Sends a request and waits for one reply, no longer than `limit`. Gives up at once when the connection
    /// is lost or the server refuses the subject.
    pub(super) async fn ask(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, Failure> {
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let reply = async {
            self.client.send_request(subject.to_owned(), request).await.map_err(|e| match e.kind() {
                RequestErrorKind::NoResponders => Failure::NoResponders,
                RequestErrorKind::MaxPayloadExceeded => Failure::TooLarge(root(&e)),
                _ => Failure::Other(e.to_string()),
            })
        };
        self.unless_it_fails(subject, limit, reply).await
    }

    /// Asks as [`ask`](Self::ask) does, and asks again while nobody listens: a stream that was just made or is
    /// choosing a leader is not heard of everywhere. What nobody heard was not applied.
    pub(super) async fn ask_patiently(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, Failure> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            match self.ask(subject, headers.clone(), payload.clone(), left).await {
                Err(Failure::NoResponders) if left > pause => sleep(pause).await,
                Err(Failure::TimedOut(_)) => return Err(Failure::TimedOut(limit)),
                answer => return answer,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs `reply` until it is done, `limit` is over, the connection is lost or `subject` is refused.
    pub(super) async fn unless_it_fails<T>(
        &self,
        subject: &str,
        limit: Duration,
        reply: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if !self.is_up() {
            return Err(Failure::Down);
        }
        let mut health = self.health.clone();
        let (losses, denials) = {
            let before = health.borrow_and_update();
            (before.losses, before.denials)
        };
        let reply = pin!(reply);
        let trouble = async {
            loop {
                if health.changed().await.is_err() {
                    // The client is being torn down; its own end of the request reports that.
                    return std::future::pending().await;
                }
                let now = health.borrow_and_update();
                if now.losses > losses {
                    return Failure::Lost;
                }
                if now.denials > denials && now.denial.contains(&format!("\"{subject}\"")) {
                    return Failure::Denied(now.denial.clone());
                }
            }
        };
        tokio::select! {
            biased;
            reply = reply => reply,
            failure = trouble => Err(failure),
            () = sleep(limit) => Err(Failure::TimedOut(limit)),
        }
    }
}

impl Health {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Connected => self.up = true,
            Event::Disconnected | Event::Closed => {
                self.up = false;
                self.losses += 1;
            }
            Event::SlowConsumer(_) => self.overflows += 1,
            Event::ServerError(ServerError::Other(text)) if text.to_ascii_lowercase().contains("permissions violation") => {
                self.denials += 1;
                self.denial = text.as_str().into();
            }
            _ => {}
        }
    }
}

/// The innermost message: the outer ones only say that something failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Whether the connection broke over TLS, which is reported as a failure of input or output.
fn about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<IoError>().and_then(IoError::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}

fn options(target: &Target) -> Result<ConnectOptions> {
    let mut options = match &target.login {
        Login::Nobody => ConnectOptions::new(),
        Login::Token(token) => ConnectOptions::with_token(token.clone()),
        Login::Password(user, password) => ConnectOptions::with_user_and_password(user.clone(), password.clone()),
        Login::Seed(seed) => ConnectOptions::with_nkey(seed.clone()),
        // The library's message could quote the file.
        Login::Credentials(text) => ConnectOptions::with_credentials(text)
            .map_err(|_| Error::invalid("the credentials file holds no user JWT and seed; make it with `nsc generate creds`"))?,
    };
    if target.tls {
        options = options.require_tls(true);
    }
    if target.tls_first {
        options = options.tls_first();
    }
    if let Some(ca) = &target.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &target.certificate {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(prefix) = &target.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}
