//! What a recorder writes down: the lines of a history, one JSON object each.
//!
//! Instants are integer microseconds on one monotonic clock, the recorder's. Revisions, tokens and terms are the
//! store's own numbers. An *epoch* counts the incarnations of the bucket, from 1: one that was made anew or set
//! back to an earlier state begins the next, and there revisions may repeat. One that was set back begins with the
//! writes of the one before below its own first revision; they are not recorded again. A recorder that knows epochs by
//! their random id in `meta.epoch` numbers them in the order in which they appeared.
//!
//! What a recorder owes, so that what is no fault is not taken for one:
//!
//! - Lines may stand in any order; what one client, view or observer says at one instant stands in its order.
//! - A call's instant is before it can have any effect, a return's is after its answer.
//! - What ends a hold from within is a call, too: a guard that is dropped is a release without a return, a session
//!   that is dropped a close, a member that withdraws itself a leave.
//! - The whole stream, tombstones included. What a recorder outside the store missed is seen by the gap in the
//!   revisions, and nothing is concluded from it; in a simulation or an embedded store there are no gaps.
//! - `failed` only where it is certain that nothing was done; what says neither is `unknown`.
//! - Every fault that was injected, and of one that was in force for a while how long. A wall clock that was set
//!   excuses nothing.

use serde::{Deserialize, Serialize};

pub use crate::file::{History, ReadError, Writer};

/// Microseconds on the recorder's clock.
pub type Micros = u64;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Line {
    /// The first line.
    Head(Head),
    /// A client began an operation.
    Call(Call),
    /// It ended.
    Return(Return),
    /// A client saw something that is no answer to an operation.
    Seen(Seen),
    /// Something was done to the system on purpose.
    Fault(Fault),
    /// The store's own stream.
    Write(Write),
    /// From here on no fault is active, and liveness may be asked for.
    Quiet {
        /// The instant.
        at: Micros,
    },
    /// The recording ends.
    End {
        /// The instant.
        at: Micros,
    },
}

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of this format: 1.
    pub version: u32,
    /// `sim`, `memory`, `file`, `nats-r1` or `nats-r3`.
    pub store: String,
    /// What repeats the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// How far an instant may be off; 0 in a simulation.
    #[serde(default)]
    pub slack_us: Micros,
    /// By how much reads may lag behind what was acknowledged while no fault makes them lag more: several servers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag_us: Micros,
    /// For people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A client began an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Not after it could have any effect.
    pub at: Micros,
    /// Unique in the history.
    pub id: u64,
    /// The number of a process incarnation; one that is started again is a new client.
    pub client: u64,
    /// What it asked for.
    pub op: Op,
}

/// An operation ended. One without this has an unknown outcome: its client died, or the recording ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// Not before its effect was over.
    pub at: Micros,
    /// The call's.
    pub id: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// An operation of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Op {
    /// Opens a session. Ok gives its id and the epoch.
    Open {
        /// The lease.
        lease_ms: u64,
    },
    /// Closes it.
    Close {
        /// Its id.
        session: String,
    },
    /// Takes a lock. Ok gives the token as the revision.
    Acquire {
        /// Whose.
        session: String,
        /// The lock's name.
        lock: String,
        /// How long it waits.
        mode: Mode,
        /// With [`Mode::Timeout`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_ms: Option<u64>,
    },
    /// Gives a lock up. Ok may give the revision of the tombstone.
    Release {
        /// Whose.
        session: String,
        /// The lock's name.
        lock: String,
        /// What the grant gave.
        token: u64,
    },
    /// An administrator ends one hold.
    Break {
        /// The lock's name.
        lock: String,
        /// Of which hold.
        token: u64,
    },
    /// Stands for election. Ok gives the term as the revision.
    Campaign {
        /// Whose.
        session: String,
        /// The election's name.
        election: String,
    },
    /// Gives the office up.
    Resign {
        /// Whose.
        session: String,
        /// The election's name.
        election: String,
        /// What the campaign gave.
        term: u64,
    },
    /// Hands the office to a candidate.
    Transfer {
        /// Whose.
        session: String,
        /// The election's name.
        election: String,
        /// What the campaign gave.
        term: u64,
        /// The session of the next leader, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Changes what the leader says. Ok gives the revision.
    Proclaim {
        /// Whose.
        session: String,
        /// The election's name.
        election: String,
        /// What the campaign gave.
        term: u64,
        /// Unique in the history.
        nonce: String,
    },
    /// Writes `data.<key>` under a fence. Ok gives the revision.
    FencedPut {
        /// Whose.
        session: String,
        /// The fence.
        under: Hold,
        /// Without `data.`.
        key: String,
        /// Unique in the history.
        nonce: String,
    },
    /// Writes `data.<key>`. Ok gives the revision.
    Put {
        /// Without `data.`.
        key: String,
        /// Unique in the history.
        nonce: String,
        /// What must be there.
        expect: Expect,
    },
    /// Deletes `data.<key>`. Ok gives the revision of the tombstone.
    Delete {
        /// Without `data.`.
        key: String,
        /// What must be there.
        expect: Expect,
    },
    /// Reads `data.<key>`. Ok gives what is there as `revision` and `nonce`, or neither. May lag.
    Get {
        /// Without `data.`.
        key: String,
    },
    /// Enters a group. Ok gives the revision.
    Join {
        /// Whose.
        session: String,
        /// The group's name.
        group: String,
        /// The member's id.
        member: String,
        /// Unique in the history.
        nonce: String,
    },
    /// Changes a member's record. Ok gives the revision.
    Update {
        /// Whose.
        session: String,
        /// The group's name.
        group: String,
        /// The member's id.
        member: String,
        /// Unique in the history.
        nonce: String,
    },
    /// Leaves a group.
    Leave {
        /// Whose.
        session: String,
        /// The group's name.
        group: String,
        /// The member's id.
        member: String,
    },
    /// Reads a group. Ok gives `found`. May lag.
    Members {
        /// The group's name.
        group: String,
    },
}

/// How long an acquire waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Until it has the lock.
    Wait,
    /// Not at all.
    Try,
    /// For a limited time.
    Timeout,
}

/// What must be under a key for a write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Anything.
    Any,
    /// No value; a tombstone counts as none.
    Absent,
    /// The entry with this revision.
    At(u64),
}

/// A lock or an office that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// A lock.
    Lock {
        /// Its name.
        lock: String,
        /// What the grant gave.
        token: u64,
    },
    /// An office.
    Election {
        /// Its name.
        election: String,
        /// What the campaign gave.
        term: u64,
    },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok(Done),
    /// It was not done and never will be.
    Failed {
        /// The sort of failure.
        kind: Failure,
        /// The message.
        #[serde(default)]
        why: String,
    },
    /// It may have been done.
    Unknown {
        /// The message.
        #[serde(default)]
        why: String,
    },
}

/// What a successful operation gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Token, term, or the revision that was written or read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The id of the session opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The epoch of the session, or of the revision where the recorder knows it. Absent means that of the session
    /// named in the operation, or the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What a read of one key found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// What a read of many found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Found>,
}

/// One of many that were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// A member's id, or a key.
    pub key: String,
    /// Where it was written.
    pub revision: u64,
    /// What was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Why an operation was not done. All of these mean: not applied, not acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Something else was there; somebody else holds it.
    Conflict,
    /// The store could not be asked.
    Unavailable,
    /// The caller was wrong.
    Invalid,
    /// The session or the hold was lost.
    Lost,
    /// The limit of the wait ran out.
    Timeout,
    /// It never left the client.
    NotSent,
    /// Anything else that is certain not to have been applied.
    #[serde(other)]
    Other,
}

/// Something that a client saw, at some moment from `from` to `at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Before it looked.
    pub from: Micros,
    /// After it had looked.
    pub at: Micros,
    /// Who.
    pub client: u64,
    /// What.
    pub what: Sight,
}

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sight {
    /// A guard was asked whether it holds.
    Held {
        /// The lock's name.
        lock: String,
        /// The guard's token.
        token: u64,
        /// The answer.
        yes: bool,
    },
    /// A leadership was asked whether it leads.
    Leading {
        /// The election's name.
        election: String,
        /// The leadership's term.
        term: u64,
        /// The answer.
        yes: bool,
    },
    /// A hold said that it is lost.
    Lost {
        /// Which.
        hold: Hold,
        /// Its reason, in Tenure's word: `deadline`, `deposed`, `store_reset`, `broken`, `closed` …
        loss: String,
    },
    /// A session changed its state.
    Session {
        /// Its id.
        session: String,
        /// The new one.
        state: SessionState,
    },
    /// An observer showed a leader, or that there is none.
    Leader {
        /// Number of the observer, unique in the history.
        observer: u64,
        /// The election's name.
        election: String,
        /// The term of the leader shown; absent when there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
        /// The observer said that it cannot tell, being cut off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unknown: bool,
    },
    /// A view showed a change.
    View {
        /// Number of the view, unique in the history.
        view: u64,
        /// The key in the bucket; empty unless it is about one.
        #[serde(default)]
        key: String,
        /// Of the entry; with `caught_up`, how far the view has come, or 0.
        #[serde(default)]
        revision: u64,
        /// Whether the entry has a value.
        #[serde(default)]
        live: bool,
        /// The value's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<String>,
        /// What it said.
        kind: ViewKind,
    },
    /// Who follows a group heard of a change.
    Member {
        /// Number of the watch, unique in the history.
        watch: u64,
        /// The group's name.
        group: String,
        /// The member's id; empty unless it is about one.
        #[serde(default)]
        member: String,
        /// Of the record or its tombstone; 0 where it is not known.
        #[serde(default)]
        revision: u64,
        /// What it heard.
        kind: MemberKind,
    },
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Renewed in time.
    Held,
    /// Renewals go unanswered, or the deadline has passed.
    Suspect,
    /// A late renewal succeeded.
    Restored,
    /// It is over.
    Lost,
}

/// What a view said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewKind {
    /// It was opened; `key` is what its range lies under, without the last dot, or the one key it is of.
    Open,
    /// An entry.
    Entry,
    /// It may have missed something, and begins again.
    Gap,
    /// It has shown everything that there was.
    CaughtUp,
    /// It ended.
    End,
}

/// What a follower of a group heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    /// A member came.
    Insert,
    /// Its record changed.
    Update,
    /// It went.
    Remove,
    /// It has heard of everybody who was there.
    CaughtUp,
    /// It may have missed something, and begins again.
    Gap,
    /// The watch ended.
    End,
}

/// Something that was done to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it began.
    pub from: Micros,
    /// When it was over; absent for what has no end, as a crash, or for one that lasts to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Micros>,
    /// What.
    pub kind: FaultKind,
    /// To which client; absent: all, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<u64>,
    /// To which server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// A client died without a word.
    Crash,
    /// A client did not run.
    Pause,
    /// A client or a server could not be reached.
    Partition,
    /// A write was done, its answer lost.
    LoseAnswer,
    /// A request was lost on its way.
    LoseRequest,
    /// A message was late.
    Delay,
    /// A message came twice.
    Duplicate,
    /// A server died.
    ServerKill,
    /// A server did not run.
    ServerPause,
    /// The stream's leader was told to step down.
    LeaderStepdown,
    /// The bucket went back to an earlier state.
    Rollback,
    /// The bucket was deleted and made anew.
    Recreate,
    /// A wall clock was set.
    ClockStep,
    /// A clock ran fast or slow.
    ClockRate,
    /// Reads lagged.
    StaleReads,
    /// Tombstones were forgotten.
    MarkerWipe,
    /// The disk was full.
    DiskFull,
    /// A watch was cut.
    CutWatch,
    /// Anything else; the note says what.
    #[serde(other)]
    Other,
}

/// One write in the bucket's own stream. Within an epoch each revision stands once, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// Where.
    pub revision: u64,
    /// The incarnation of the bucket, from 1.
    #[serde(default = "first")]
    pub epoch: u64,
    /// The whole key.
    pub key: String,
    /// What is there from now on.
    pub state: WriteState,
    /// As far as the recorder reads it.
    #[serde(default, skip_serializing_if = "Value::is_empty")]
    pub value: Value,
    /// The note in a tombstone: `broken`, `held`, `transferred`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The instant of the commit, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Micros>,
}

const fn first() -> u64 {
    1
}

/// What a write left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteState {
    /// A value.
    Live,
    /// A tombstone.
    Deleted,
    /// A tombstone in place of all history.
    Purged,
    /// The value ran out.
    Expired,
}

/// The parts of a value that promises are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Value {
    /// What the operation gave to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Whose it is: of a ticket, a candidate, a leader, a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Of a leader's record: where it was won; absent in the winning write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Of a leader's record: the campaign's id, `<session>-<n>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
}

impl Value {
    /// Nothing of it was read.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(micros: &Micros) -> bool {
    *micros == 0
}
