//! Leader election: one key, won and taken over by compare-and-set on its revision.

mod attempt;
mod challenge;
mod decide;
mod leadership;
mod observe;
mod office;
mod record;
mod standing;
mod strays;
mod sweep;
mod tenancy;
mod withdrawal;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use tenure_kv::{ClockExt, Entry, Key, Moment, StoreExt};
use tokio::sync::watch;

use self::attempt::Attempt;
#[cfg(feature = "fuzzing")]
pub(crate) use self::record::fuzzing;
pub(crate) use self::strays::end_strays;
pub use self::{
    leadership::Leadership,
    record::{Candidate, Leader},
    standing::{Standing, standings},
};
use crate::{Error, OnLoss, Result, Session, layout, layout::Name, living, record::TicketRecord};

/// How long whoever gives up waits for what is good to know and good to have done, but not worth a delay.
const COURTESY: Duration = Duration::from_millis(250);

/// An election that at most one candidate leads at a time. Cheap to clone.
///
/// One key names the leader. It is won where nobody leads, and taken over from a leader whose session is
/// dead, by a write that the store takes only if the key has not moved; the revision of that write is the
/// **term**, which grows from one leader to the next and does not change with what is proclaimed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure::{Session, data_key};
/// use tenure_kv::Op;
///
/// let session = Session::open(tenure_kv::open("memory:").await?).await?;
/// let election = session.election("scheduler")?;
/// let leadership = election.campaign("10.0.0.7:9000").await?;
/// assert_eq!(election.leader().await?.map(|leader| leader.term), Some(leadership.term()));
/// // Refused by the store itself once somebody else leads.
/// leadership.commit(Op::put(data_key("schedule")?, "v2").into()).await?;
/// leadership.resign().await?;
/// assert_eq!(election.leader().await?, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    session: Session,
    ballot: Ballot,
}

/// An election as its tasks know it: without the session, which they must not keep open.
#[derive(Clone, Debug)]
struct Ballot {
    name: Name,
    key: Key,
    owner: TicketRecord,
    priority: i32,
    min_tenure: Duration,
    health: Option<watch::Receiver<bool>>,
    on_loss: OnLoss,
    yields: bool,
}

impl Election {
    /// The election called `name` for `session`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name breaks the rules of [`Session::mutex`].
    pub fn new(session: &Session, name: &str) -> Result<Self> {
        let name = Name::of("election name", name)?;
        let ballot = Ballot {
            key: name.election()?,
            name,
            owner: session.inner().owner.clone(),
            priority: 0,
            min_tenure: Duration::ZERO,
            health: None,
            on_loss: OnLoss::WhenProven,
            yields: false,
        };
        Ok(Self { session: session.clone(), ballot })
    }

    /// The election's name.
    pub fn name(&self) -> &str {
        self.ballot.name.as_str()
    }

    /// Shows `label` to people who ask who leads or waits.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.ballot.owner.label = Some(label.into());
        self
    }

    /// Shows this machine and process as the candidate's, for whom somebody else holds the session.
    #[must_use]
    pub fn with_owner(mut self, host: impl Into<String>, pid: u32) -> Self {
        self.ballot.owner.host = host.into();
        self.ballot.owner.pid = pid;
        self
    }

    /// A candidate asks a leader with a lower priority to step down; 0 unless told. See
    /// [`Leadership::asked_to_step_down`].
    #[must_use]
    pub const fn priority(mut self, priority: i32) -> Self {
        self.ballot.priority = priority;
        self
    }

    /// As leader, is not asked to step down before having led for so long; zero unless told.
    #[must_use]
    pub const fn min_tenure(mut self, tenure: Duration) -> Self {
        self.ballot.min_tenure = tenure;
        self
    }

    /// Campaigns only while this says `true`, and gives the office up when it says `false`.
    #[must_use]
    pub fn health(mut self, health: watch::Receiver<bool>) -> Self {
        self.ballot.health = Some(health);
        self
    }

    /// What a leadership does at the deadline; [`OnLoss::WhenProven`] unless told.
    #[must_use]
    pub const fn on_loss(mut self, policy: OnLoss) -> Self {
        self.ballot.on_loss = policy;
        self
    }

    /// Whether [`run_while_leader`](Self::run_while_leader) stops its work and hands the office over when a
    /// candidate with a higher priority asks for it; not unless told.
    #[must_use]
    pub const fn yields(mut self, yields: bool) -> Self {
        self.ballot.yields = yields;
        self
    }

    /// Campaigns until elected, however long it takes, and proclaims `value`.
    ///
    /// # Errors
    /// [`Error::Lost`] when the session is lost; [`Error::Invalid`] for a value that is too long. In each case
    /// nothing is left behind.
    ///
    /// # Cancel safety
    /// Safe to drop: the candidature, or the office itself if it was won, is given up by the session.
    pub async fn campaign(&self, value: impl Into<Bytes>) -> Result<Leadership> {
        self.campaign_until(value, std::future::pending()).await
    }

    /// Campaigns until `stop` resolves. By then the candidature is given up, unless the store takes long to say
    /// so.
    ///
    /// # Errors
    /// [`Error::NotAcquired`] when `stop` resolved first; otherwise as [`Election::campaign`].
    ///
    /// # Cancel safety
    /// As [`Election::campaign`].
    pub async fn campaign_until(&self, value: impl Into<Bytes>, stop: impl Future<Output = ()>) -> Result<Leadership> {
        let clock = &self.session.inner().clock;
        let (begun, value) = (clock.now(), value.into());
        tokio::pin!(stop);
        loop {
            let mut attempt = Attempt::new(self, &value)?;
            tokio::select! {
                biased;
                () = healthy(self.ballot.health.clone()) => {}
                loss = self.session.lost() => return Err(Error::lost(loss)),
                () = &mut stop => break,
            }
            let stopped = tokio::select! {
                biased;
                won = attempt.win() => {
                    let won = won?;
                    tokio::select! {
                        biased;
                        office = attempt.take_office(won) => match office {
                            // An outage came between.
                            Err(Error::Unavailable { .. } | Error::Unknown { .. }) => continue,
                            office => return office,
                        },
                        () = unhealthy(self.ballot.health.clone()) => continue,
                        () = &mut stop => break,
                    }
                }
                () = unhealthy(self.ballot.health.clone()) => false,
                () = &mut stop => true,
            };
            // What takes longer goes on in the session.
            let _ = clock.timeout(COURTESY, attempt.withdraw()).await;
            if stopped {
                break;
            }
        }
        Err(self.not_elected(clock.now().saturating_since(begun)).await)
    }

    /// Takes the office if nobody has it.
    ///
    /// # Errors
    /// [`Error::NotAcquired`] when somebody does, or when this candidate is unhealthy; otherwise as
    /// [`Election::campaign`], and [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// As [`Election::campaign`].
    pub async fn try_campaign(&self, value: impl Into<Bytes>) -> Result<Leadership> {
        let clock = &self.session.inner().clock;
        let begun = clock.now();
        let mut attempt = Attempt::new(self, &value.into())?;
        self.session.inner().room_now()?;
        if self.ballot.health.as_ref().is_none_or(|health| *health.borrow())
            && let Ok(won) = tokio::select! {
                biased;
                won = attempt.try_once() => won?,
                loss = self.session.lost() => return Err(Error::lost(loss)),
            }
        {
            return attempt.take_office(won).await;
        }
        Err(self.not_elected(clock.now().saturating_since(begun)).await)
    }

    /// Who leads, as of one look; `None` also when the leader's session is known to have ended. A leader that has
    /// just crashed still shows: [`observe`](Self::observe) notices after a lease.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let store = &self.session.inner().store;
        let mut latest = store.entry(&self.ballot.key).await?;
        loop {
            let Some((record, revision)) = latest.as_ref().and_then(|entry| Some((record::Record::read(entry)?, entry.revision)))
            else {
                return Ok(None);
            };
            // Together, so that a replica that shows the one has the other.
            let found = store.entries(&[self.ballot.key.clone(), layout::session_key(&record.session)?]).await?;
            let mut found = found.into_iter();
            let again = decide::later(latest, found.next().flatten());
            if again.as_ref().is_some_and(|entry| entry.revision == revision) {
                let lives = found.next().flatten().is_some_and(|session| session.is_live());
                return Ok(lives.then(|| record.leader(revision)));
            }
            latest = again;
        }
    }

    /// Who waits to lead, longest first, as of one look. Those whose sessions are known to have ended are left out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn candidates(&self) -> Result<Vec<Candidate>> {
        let store = &self.session.inner().store;
        let entries = store.list(&self.ballot.name.candidates()?).await?;
        let listed = entries.iter().filter_map(|entry| Some((challenge::read(&self.ballot, &entry.key, entry)?, entry.revision)));
        let listed: Vec<_> = listed.collect();
        let dead = living::dead(&**store, listed.iter().map(|(record, _)| &*record.session)).await?;
        let alive = listed.into_iter().filter(|(record, _)| !dead.contains(&record.session));
        Ok(alive.map(|(record, revision)| record.candidate(revision)).collect())
    }

    /// The state now and every later one: who leads, or that nobody does. Level-triggered: states may be merged, the
    /// last is always told, and never one that is known to be over. A leader whose session falls silent for its
    /// lease is told as `None`, although the key still names it.
    ///
    /// An `Err` says that the store has been out of reach for so long that what was told last may no longer be
    /// so; the stream goes on, and tells the state again afterwards. It ends after [`Error::Lost`], when this
    /// session is.
    ///
    /// Costs one plain subscription, and a read of the leader's session twice per lease.
    pub fn observe(&self) -> BoxStream<'static, Result<Option<Leader>>> {
        observe::observe(self)
    }

    /// As [`observe`](Self::observe), and tells every look at the store, one that shows nothing new as well: for who
    /// must know how fresh the state is. While the store can be reached there is one twice per lease, this session's or
    /// the leader's if that is shorter.
    pub fn looks(&self) -> BoxStream<'static, Result<Look>> {
        observe::looks(self, true, None)
    }

    /// As [`looks`](Self::looks), for who goes on when the session behind the `last` look, at this election in the same
    /// store, is lost: what is older than what that one showed is not told, though a server that is behind may show it. Of
    /// a bucket that was made anew or set back what is there is told.
    pub fn looks_since(&self, last: &Look) -> BoxStream<'static, Result<Look>> {
        observe::looks(self, true, Some(last))
    }

    async fn not_elected(&self, waited: Duration) -> Error {
        // Who leads is a courtesy; it must not delay the answer.
        let look = self.session.inner().clock.timeout(COURTESY, self.leader()).await;
        let leader = look.ok().and_then(Result::ok).flatten();
        let message = match &leader {
            Some(leader) => format!("the election {} is led by {leader}", self.name()),
            None => format!("the election {} was not won in {waited:?}", self.name()),
        };
        Error::NotAcquired { message, waited, holder: leader.map(|leader| Box::new(leader.holder())) }
    }
}

/// What one look at an election showed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// Who leads, if somebody does.
    pub leader: Option<Leader>,
    /// When the store was asked, by the session's clock: what it showed is no older.
    pub asked: Moment,
    stood: Stood,
}

/// What was known of an election's key when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stood {
    latest: Option<Entry>,
    /// The session of the leader that it names, where that is proven dead.
    dead: Option<String>,
    /// How many outages the store had had before that was read.
    outages: u64,
    /// In which incarnation of the bucket.
    epoch: String,
}

/// Resolves while the candidate is healthy.
async fn healthy(health: Option<watch::Receiver<bool>>) {
    if let Some(mut health) = health
        && health.wait_for(|healthy| *healthy).await.is_err()
    {
        std::future::pending::<()>().await;
    }
}

/// Resolves while the candidate is not healthy.
async fn unhealthy(health: Option<watch::Receiver<bool>>) {
    if let Some(mut health) = health
        && health.wait_for(|healthy| !*healthy).await.is_ok()
    {
        return;
    }
    // Nobody will ever say so.
    std::future::pending().await
}
