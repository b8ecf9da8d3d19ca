//! Connections to the daemon: made, lost, and made again by who has nothing to lose by it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio::sync::watch;

use super::{
    Socket,
    exit::{self, Failure},
    keep::{Patience, Person, Refused, Seen, interject},
    refusal,
};
use crate::{
    CallError, Client, Notices,
    protocol::{Kind, Owner, default_socket},
};

/// How long an answer that needs no waiting may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before a place in the queue that was lost is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// The longest pause before a daemon that is gone is looked for again.
const LONGEST: Duration = Duration::from_secs(1);

/// The daemon at one socket.
#[derive(Debug)]
pub(super) struct Daemon {
    path: PathBuf,
    otherwise: Otherwise,
    /// The latest connection.
    client: watch::Sender<Arc<Client>>,
}

/// What else can be done where no daemon answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Otherwise {
    /// The command does without one, straight on a store.
    Store,
    Nothing,
}

impl Otherwise {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "name its --socket, or use --store URL",
            Self::Nothing => "or name its --socket",
        }
    }
}

/// Connects to the daemon at `path`, or where it listens by default.
pub(super) async fn connect(path: Option<&Path>, otherwise: Otherwise) -> Result<(PathBuf, Client), Failure> {
    let path = path.map_or_else(default_socket, Path::to_owned);
    // What is kept at another directory's relative path would be told wrongly to the command.
    let path = std::path::absolute(&path).unwrap_or(path);
    match Client::connect(&path).await {
        Ok(client) => Ok((path, client)),
        Err(error) => {
            let io = error.io().kind();
            Err(Failure::failed(match io {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    format!("no tenured answers at {}: start one with `tenured`, {}", path.display(), otherwise.as_str())
                }
                _ => error.to_string(),
            }))
        }
    }
}

/// What a failed wait for a lease means for the user: nothing was run.
pub(super) fn failure(error: &CallError) -> Failure {
    match error.kind() {
        Some(Kind::InvalidParams) => Failure::usage(error.to_string()),
        Some(Kind::Denied) => Failure::new(exit::DENIED, format!("tenured: {error}")),
        _ if matches!(error, CallError::Closed) => Failure::failed("tenured closed the connection; see its log, and try again"),
        _ => Failure::failed(format_args!("tenured: {error}")),
    }
}

/// A daemon that listens and says nothing.
pub(super) fn unanswered(path: &Path) -> Failure {
    Failure::failed(format_args!(
        "tenured at {} does not answer, and may have done what it was asked for; look at its log, or restart it",
        path.display()
    ))
}

impl From<Owner> for Person {
    fn from(owner: Owner) -> Self {
        let since = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(owner.since_ms));
        Self { token: owner.fence, label: owner.label, host: owner.host, pid: owner.pid, since }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What became of one request for a lease.
enum Answer<T> {
    Granted(T),
    /// The daemon lost its own session, and with it our place in the queue.
    Requeue,
    /// The daemon is gone, or leaves.
    Gone,
}

impl Daemon {
    /// For a command that could do without.
    pub(super) async fn open(path: Option<&Path>) -> Result<Self, Failure> {
        Self::connected(path, Otherwise::Store).await
    }

    /// For a command that needs one.
    pub(super) async fn at(socket: &Socket) -> Result<Self, Failure> {
        Self::connected(socket.path(), Otherwise::Nothing).await
    }

    async fn connected(path: Option<&Path>, otherwise: Otherwise) -> Result<Self, Failure> {
        let (path, client) = connect(path, otherwise).await?;
        Ok(Self { path, otherwise, client: watch::Sender::new(Arc::new(client)) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The latest connection.
    pub(super) fn client(&self) -> Arc<Client> {
        self.client.borrow().clone()
    }

    /// The latest connection, now and later.
    pub(super) fn clients(&self) -> watch::Receiver<Arc<Client>> {
        self.client.subscribe()
    }

    /// Calls a method that answers at once. A failure ends with the code of its kind.
    pub(super) async fn call<T: DeserializeOwned>(&self, method: &str, params: impl serde::Serialize) -> Result<T, Failure> {
        match tokio::time::timeout(PATIENCE, self.client().call_as(method, params)).await {
            Ok(answer) => answer.map_err(|error| refusal::failure(method, &error)),
            Err(_) => Err(Failure { code: refusal::silence(method), ..unanswered(&self.path) }),
        }
    }

    /// All elements of the list that `method` answers with, however many answers that takes.
    pub(super) async fn all<T: DeserializeOwned>(&self, method: &str, mut params: Json, list: &str) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        loop {
            let mut page: Json = self.call(method, &params).await?;
            let elements = page.get_mut(list).map(Json::take).unwrap_or_default();
            let elements: Vec<T> =
                serde_json::from_value(elements).map_err(|error| Failure::failed(format_args!("tenured: {method}: {error}")))?;
            all.extend(elements);
            match page.get_mut("next").map(Json::take) {
                Some(next @ Json::String(_)) => params["after"] = next,
                _ => return Ok(all),
            }
        }
    }

    /// Asks for what becomes a lease, also at the next daemon if this one goes: who only waits has nothing to
    /// lose. Returns the connection that it was granted on. `name` is for people.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Fn(Option<Duration>) -> Json,
        patience: Patience,
        name: &str,
    ) -> Result<(T, Arc<Client>, Notices), Refused> {
        loop {
            let client = self.client();
            let mut notices = client.notices();
            match self.ask_once(&client, &mut notices, method, &params, patience).await? {
                Answer::Granted(acquired) => return Ok((acquired, client, notices)),
                Answer::Requeue => tokio::time::sleep(AGAIN).await,
                Answer::Gone => {
                    interject(&format!("tenured went away while {name} was waited for; waiting for the next one"));
                    self.reconnect(patience).await?;
                }
            }
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        client: &Client,
        notices: &mut Notices,
        method: &str,
        params: &impl Fn(Option<Duration>) -> Json,
        patience: Patience,
    ) -> Result<Answer<T>, Refused> {
        let left = patience.left();
        let call = client.call_as(method, params(left));
        let answer = match left {
            // The daemon keeps the time; this is for one that does not answer at all.
            Some(left) => tokio::time::timeout(left + PATIENCE, call).await,
            None => Ok(call.await),
        };
        let error = match answer {
            Ok(Ok(acquired)) => return Ok(Answer::Granted(acquired)),
            Ok(Err(error)) => error,
            Err(_) => return Err(unanswered(&self.path).into()),
        };
        let told = |name| error.object().and_then(|object| object.data.get(name));
        let waits = left != Some(Duration::ZERO);
        match error.kind() {
            Some(Kind::Timeout) => {
                let holder = told("holder").and_then(|holder| Owner::deserialize(holder).ok()).map(Person::from);
                Err(Refused::Busy(holder.map(|holder| Seen { holder: Some(holder), waiting: 0 })))
            }
            Some(Kind::Conflict) => Err(Refused::Taken(error.to_string())),
            Some(Kind::Unavailable) if waits && told("reason").is_some() => Ok(Answer::Requeue),
            Some(Kind::Unavailable) if waits && leaves(notices) => Ok(Answer::Gone),
            None if waits && matches!(error, CallError::Closed) => Ok(Answer::Gone),
            _ => Err(failure(&error).into()),
        }
    }

    /// Connects to whoever listens next, for as long as that may take.
    pub(super) async fn reconnect(&self, patience: Patience) -> Result<(), Failure> {
        let mut pause = AGAIN;
        loop {
            let left = patience.left();
            tokio::time::sleep(left.map_or(pause, |left| pause.min(left))).await;
            pause = (pause * 2).min(LONGEST);
            match connect(Some(&self.path), self.otherwise).await {
                Ok((_, client)) => {
                    self.client.send_replace(Arc::new(client));
                    return Ok(());
                }
                Err(failure) if left == Some(Duration::ZERO) => return Err(failure),
                Err(_) => {}
            }
        }
    }
}

/// Whether the daemon has said that it leaves.
fn leaves(notices: &mut Notices) -> bool {
    std::iter::from_fn(|| notices.recv().now_or_never().flatten()).any(|notice| notice.method == "goaway")
}
