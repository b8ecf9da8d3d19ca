//! A history digested for the checks: calls joined with their returns, sessions, tickets, terms and grants, each
//! with the writes that made and ended it.

use std::collections::{BTreeMap, HashMap};

use crate::{
    faults::Faults,
    history::{Call, Done, Failure, History, Hold, Line, Micros, Op, Outcome, Return, Seen},
    stream::{Entry, Known, Stream, parse_ticket},
};

/// A session's TTL is at least two of its leases and this.
const FORGOTTEN: Micros = 2_000_000;

/// A call, and its return if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) line: usize,
    pub(crate) call: &'a Call,
    pub(crate) returned: Option<(usize, &'a Return)>,
}

impl<'a> Operation<'a> {
    pub(crate) fn op(&self) -> &'a Op {
        &self.call.op
    }

    pub(crate) fn ok(&self) -> Option<&'a Done> {
        match self.returned?.1.outcome {
            Outcome::Ok(ref done) => Some(done),
            _ => None,
        }
    }

    pub(crate) fn failed(&self) -> Option<Failure> {
        match self.returned?.1.outcome {
            Outcome::Failed { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// When it returned; never, as it seems, if it did not.
    pub(crate) fn ended(&self) -> Micros {
        self.returned.map_or(Micros::MAX, |(_, returned)| returned.at)
    }

    pub(crate) fn lines(&self) -> Vec<usize> {
        std::iter::once(self.line).chain(self.returned.map(|(line, _)| line)).collect()
    }
}

/// The end of something in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// By this write.
    At(Entry<'a>),
    /// The stream does not show it.
    Never,
    /// The stream does not show it, but has a gap in which it may be.
    Missed,
}

impl<'a> End<'a> {
    pub(crate) const fn entry(&self) -> Option<Entry<'a>> {
        match self {
            Self::At(entry) => Some(*entry),
            Self::Never | Self::Missed => None,
        }
    }

    /// It cannot have been by `at`.
    pub(crate) fn surely_after(&self, at: Micros) -> bool {
        self.earliest() > at
    }

    /// It must have been by `at`.
    pub(crate) fn surely_by(&self, at: Micros) -> bool {
        self.entry().is_some_and(|entry| entry.latest <= at)
    }

    pub(crate) fn earliest(&self) -> Micros {
        match self {
            Self::At(entry) => entry.earliest,
            Self::Never => Micros::MAX,
            Self::Missed => 0,
        }
    }

    /// By when it has been; never, as far as is known, where the stream does not show it.
    pub(crate) fn latest(&self) -> Micros {
        self.entry().map_or(Micros::MAX, |entry| entry.latest)
    }

    /// The highest where it never ended; zero where that was missed.
    pub(crate) const fn revision(&self) -> u64 {
        match self {
            Self::At(entry) => entry.revision(),
            Self::Never => u64::MAX,
            Self::Missed => 0,
        }
    }

    pub(crate) fn is_below(&self, revision: u64) -> bool {
        self.entry().is_some_and(|entry| entry.revision() < revision)
    }

    pub(crate) fn may_be_below(&self, revision: u64) -> bool {
        matches!(self, Self::Missed) || self.is_below(revision)
    }

    pub(crate) fn may_be_above(&self, revision: u64) -> bool {
        self.entry().is_none_or(|entry| entry.revision() > revision)
    }

    pub(crate) fn line(&self) -> Option<usize> {
        self.entry().map(|entry| entry.line)
    }
}

/// A lock or an election: which of the two, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Prize<'a> {
    Lock(&'a str),
    Election(&'a str),
}

impl std::fmt::Display for Prize<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lock(name) => write!(f, "lock {name}"),
            Self::Election(name) => write!(f, "election {name}"),
        }
    }
}

pub(crate) fn prize(hold: &Hold) -> (Prize<'_>, u64) {
    match hold {
        Hold::Lock { lock, token } => (Prize::Lock(lock), *token),
        Hold::Election { election, term } => (Prize::Election(election), *term),
    }
}

/// A ticket of a lock, or the term of a leader, as the stream shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenure<'a> {
    pub(crate) epoch: u64,
    pub(crate) token: u64,
    /// Of whom, as far as the stream says.
    pub(crate) session: Option<&'a str>,
    pub(crate) born: Entry<'a>,
    pub(crate) end: End<'a>,
    /// The operation that it was granted to.
    pub(crate) grant: Option<usize>,
}

impl Tenure<'_> {
    pub(crate) fn was_broken(&self) -> bool {
        self.end.entry().is_some_and(|entry| entry.write.note.as_deref() == Some("broken"))
    }
}

/// An operation that returned a hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant<'a> {
    /// Its place in [`Case::operations`].
    pub(crate) operation: usize,
    pub(crate) prize: Prize<'a>,
    pub(crate) epoch: u64,
    pub(crate) token: u64,
    pub(crate) session: &'a str,
    pub(crate) client: u64,
    pub(crate) called: Micros,
    pub(crate) returned: Micros,
}

/// A session that a client opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) client: u64,
    /// When it was asked for.
    pub(crate) opened: Micros,
    pub(crate) lease: Micros,
    pub(crate) epoch: u64,
    /// When it was first asked to close.
    pub(crate) closed: Option<Micros>,
}

/// How long whoever watches a bucket may take to hear that it was made anew.
const HEARD: Micros = 5_000_000;

/// Everything that the checks ask for.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) history: &'a History,
    pub(crate) slack: Micros,
    pub(crate) lag: Micros,
    pub(crate) operations: Vec<Operation<'a>>,
    pub(crate) sessions: HashMap<&'a str, Session>,
    pub(crate) stream: Stream<'a>,
    /// Ascending by epoch and token.
    pub(crate) tenures: BTreeMap<Prize<'a>, Vec<Tenure<'a>>>,
    /// Ascending by epoch and token.
    pub(crate) grants: BTreeMap<Prize<'a>, Vec<Grant<'a>>>,
    granted: HashMap<(Prize<'a>, u64, u64), Vec<usize>>,
    /// Each epoch but the first, ascending: when the one before was over, and by when it had begun.
    pub(crate) began: Vec<(u64, Micros, Micros)>,
    deaths: HashMap<(u64, &'a str), End<'a>>,
    /// Ascending by when they were over.
    pub(crate) seen: Vec<(usize, &'a Seen)>,
    pub(crate) faults: Faults<'a>,
    pub(crate) quiet: Option<Micros>,
    pub(crate) end: Micros,
    /// The longest lease of any session.
    pub(crate) longest_lease: Micros,
}

impl<'a> Case<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut operations: Vec<Operation<'a>> = Vec::new();
        let mut places = HashMap::new();
        let (mut seen, mut quiet, mut end, mut last) = (Vec::new(), None, None, 0);
        for (line, what) in history.lines.iter().enumerate() {
            let at = match what {
                Line::Call(call) => {
                    places.insert(call.id, operations.len());
                    operations.push(Operation { line, call, returned: None });
                    call.at
                }
                // A return may stand in the file before its call where clients were recorded apart.
                Line::Return(returned) => returned.at,
                Line::Seen(sight) => {
                    seen.push((line, sight));
                    sight.at
                }
                Line::Fault(fault) => fault.from,
                Line::Write(write) => write.at.unwrap_or_default(),
                Line::Quiet { at } => {
                    quiet = quiet.max(Some(*at));
                    *at
                }
                Line::End { at } => {
                    end = Some(*at);
                    *at
                }
                Line::Head(_) => 0,
            };
            last = last.max(at);
        }
        for (line, what) in history.lines.iter().enumerate() {
            if let Line::Return(returned) = what
                && let Some(operation) = places.get(&returned.id).and_then(|place| operations.get_mut(*place))
            {
                operation.returned.get_or_insert((line, returned));
            }
        }
        operations.sort_by_key(|operation| operation.call.at);
        seen.sort_by_key(|(_, seen)| (seen.at, seen.from));
        let end = end.unwrap_or(last);

        let sessions = sessions(&operations);
        let may_miss = history.head.store.starts_with("nats");
        let mut case = Self {
            history,
            slack: history.head.slack_us,
            lag: history.head.lag_us,
            longest_lease: sessions.values().map(|session| session.lease).max().unwrap_or_default(),
            faults: Faults::new(&history.lines, quiet, end),
            stream: Stream::new(&history.lines, may_miss),
            sessions,
            tenures: BTreeMap::new(),
            grants: BTreeMap::new(),
            granted: HashMap::new(),
            began: Vec::new(),
            deaths: HashMap::new(),
            operations,
            seen,
            quiet,
            end,
        };
        // Each reset begins the next incarnation, also one that nobody wrote to and that the stream does not show.
        let resets = (2_u64..).zip(case.faults.resets());
        let mut began: Vec<_> = resets.map(|(epoch, (over, began))| (epoch, over, began)).collect();
        let told = began.last().map_or(1, |(epoch, ..)| *epoch);
        let untold = case.stream.epochs().filter(|epoch| *epoch > told);
        began.extend(untold.filter_map(|epoch| case.stream.began(epoch).map(|at| (epoch, at, at))));
        case.began = began;
        let known = case.known();
        case.stream.bound(known);
        case.find_grants();
        case.find_tenures();
        case.find_deaths();
        case
    }

    /// What the operations tell about when revisions were committed.
    fn known(&self) -> Vec<Known> {
        let mut known = Vec::new();
        for operation in &self.operations {
            let after = operation.call.at.saturating_sub(self.slack);
            let before = operation.ended().saturating_add(self.slack);
            if writes(operation.op())
                && let Some(revision) = operation.ok().and_then(|done| done.revision)
            {
                known.push(Known { epoch: self.epoch_of(operation), revision, after, before });
            } else if let Some(nonce) = nonce(operation.op()) {
                let landed = self.stream.nonce(nonce).into_iter();
                known.extend(landed.map(|(epoch, entry)| Known {
                    epoch,
                    revision: entry.revision(),
                    after,
                    before: Micros::MAX,
                }));
            }
        }
        known
    }

    fn find_grants(&mut self) {
        for (place, operation) in self.operations.iter().enumerate() {
            let (prize, session) = match operation.op() {
                Op::Acquire { session, lock, .. } => (Prize::Lock(lock), session),
                Op::Campaign { session, election } => (Prize::Election(election), session),
                _ => continue,
            };
            if let Some(token) = operation.ok().and_then(|done| done.revision) {
                let epoch = self.epoch_of(operation);
                self.grants.entry(prize).or_default().push(Grant {
                    operation: place,
                    prize,
                    epoch,
                    token,
                    session,
                    client: operation.call.client,
                    called: operation.call.at,
                    returned: operation.ended(),
                });
            }
        }
        for grants in self.grants.values_mut() {
            grants.sort_by_key(|grant| (grant.epoch, grant.token, grant.returned));
        }
        for (prize, grants) in &self.grants {
            for (place, grant) in grants.iter().enumerate() {
                self.granted.entry((*prize, grant.token, grant.client)).or_default().push(place);
            }
        }
    }

    fn find_deaths(&mut self) {
        let mut deaths = HashMap::new();
        for epoch in self.stream.epochs() {
            for (key, entries) in self.stream.keys_under(epoch, "session.") {
                let tombstone = entries.iter().find(|entry| !entry.is_live()).copied();
                let last = entries.last().map_or(0, Entry::revision);
                deaths.insert((epoch, &key["session.".len()..]), self.end(epoch, last, tombstone));
            }
        }
        self.deaths = deaths;
    }

    fn find_tenures(&mut self) {
        let mut tenures: BTreeMap<Prize<'a>, Vec<Tenure<'a>>> = BTreeMap::new();
        for epoch in self.stream.epochs() {
            for (key, entries) in self.stream.keys_under(epoch, "lock.") {
                let Some((lock, session)) = parse_ticket(key, "lock") else { continue };
                for (place, born) in entries.iter().enumerate().filter(|(_, entry)| entry.is_live()) {
                    let end = entries[place + 1..].iter().find(|entry| !entry.is_live()).copied();
                    // What stands there may have been written over a tombstone that was missed, but for what is written
                    // over the ticket itself alone.
                    let over = |end: &Entry<'_>| matches!(end.write.note.as_deref(), Some("held" | "broken"));
                    let missed = end.is_some_and(|end| !over(&end) && self.stream.gap(epoch, born.revision(), end.revision()));
                    let end = if missed { End::Missed } else { self.end(epoch, born.revision(), end) };
                    let session = Some(session);
                    let tenure = Tenure { epoch, token: born.revision(), session, born: *born, end, grant: None };
                    tenures.entry(Prize::Lock(lock)).or_default().push(tenure);
                }
            }
            for (key, entries) in self.stream.keys_under(epoch, "election.") {
                let name = &key["election.".len()..];
                for (place, born) in entries.iter().enumerate().filter(|(_, entry)| wins(entry)) {
                    let token = born.revision();
                    let goes_on = |entry: &&Entry<'_>| !entry.is_live() || entry.write.value.term != Some(token);
                    let later = &entries[place + 1..];
                    let until = later.iter().position(|entry| goes_on(&entry)).unwrap_or(later.len());
                    let (last, next) = (entries[place + until].revision(), later.get(until).copied());
                    // Before the next one won it may have been resigned, where that was missed; that one may have resigned, too.
                    let own = born.write.value.candidate.as_deref();
                    let anothers =
                        |end: &Entry<'_>| end.is_live() || end.write.note.as_deref().is_some_and(|who| Some(who) != own);
                    let missed = next.is_some_and(|next| anothers(&next) && self.stream.gap(epoch, last, next.revision()));
                    let end = if missed { End::Missed } else { self.end(epoch, token, next) };
                    let session = born.write.value.session.as_deref();
                    let tenure = Tenure { epoch, token, session, born: *born, end, grant: None };
                    tenures.entry(Prize::Election(name)).or_default().push(tenure);
                }
            }
        }
        for (prize, tenures) in &mut tenures {
            tenures.sort_by_key(|tenure| (tenure.epoch, tenure.token));
            let grants = self.grants.get(prize).map_or(&[][..], Vec::as_slice);
            for grant in grants {
                let place = tenures.binary_search_by_key(&(grant.epoch, grant.token), |tenure| (tenure.epoch, tenure.token));
                if let Ok(place) = place
                    && tenures[place].session.is_none_or(|session| session == grant.session)
                {
                    tenures[place].grant.get_or_insert(grant.operation);
                }
            }
        }
        self.tenures = tenures;
    }

    fn end(&self, epoch: u64, revision: u64, end: Option<Entry<'a>>) -> End<'a> {
        match end {
            Some(entry) => End::At(entry),
            None if self.stream.gap(epoch, revision, u64::MAX) => End::Missed,
            None => End::Never,
        }
    }

    pub(crate) fn tenure<'b>(&'b self, prize: Prize<'b>, epoch: u64, token: u64) -> Option<&'b Tenure<'b>> {
        let tenures = self.tenures.get(&prize)?;
        let place = tenures.binary_search_by_key(&(epoch, token), |tenure| (tenure.epoch, tenure.token)).ok()?;
        tenures.get(place)
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = &Grant<'a>> {
        self.grants.values().flatten()
    }

    /// What a client means at `at` by its hold of `token`. In another epoch it may have had another one.
    pub(crate) fn grant<'b>(&'b self, prize: Prize<'b>, token: u64, client: u64, at: Micros) -> Option<&'b Grant<'b>> {
        let grants = self.grants.get(&prize)?;
        let places = self.granted.get(&(prize, token, client))?;
        let all = || places.iter().filter_map(|place| grants.get(*place));
        all().rfind(|grant| grant.returned <= at).or_else(|| all().next())
    }

    /// The end of a session in the stream: its tombstone.
    pub(crate) fn death(&self, epoch: u64, session: &str) -> End<'a> {
        self.deaths.get(&(epoch, session)).copied().unwrap_or_else(|| self.end(epoch, 0, None))
    }

    /// The store may have forgotten the session by the time of `end`: nothing was renewed for as long as a session's TTL is
    /// at least, which no write tells of.
    pub(crate) fn may_be_forgotten(&self, epoch: u64, session: &str, end: &Entry<'_>) -> bool {
        self.forgotten(epoch, session, end.revision()).is_some_and(|at| at <= end.latest.min(self.end))
    }

    /// When the store may have forgotten the session at the earliest, if nothing renewed it from the last time below `revision`.
    pub(crate) fn forgotten(&self, epoch: u64, session: &str, revision: u64) -> Option<Micros> {
        let last = self.stream.before(epoch, &format!("session.{session}"), revision).filter(Entry::is_live)?;
        Some(last.earliest.saturating_add(self.sessions.get(session)?.lease * 2 + FORGOTTEN))
    }

    /// The bucket of this epoch was no more by `at`.
    pub(crate) fn is_over(&self, epoch: u64, at: Micros) -> bool {
        self.began.iter().any(|(next, over, _)| *next > epoch && *over <= at)
    }

    /// The epoch that an operation's revisions are of.
    pub(crate) fn epoch_of(&self, operation: &Operation<'_>) -> u64 {
        if let Some(epoch) = operation.ok().and_then(|done| done.epoch) {
            return epoch;
        }
        let session = session_of(operation.op()).and_then(|session| self.sessions.get(session));
        if let Some(session) = session {
            return session.epoch;
        }
        let current = self.epoch_at(operation.call.at);
        let Some((key, revision)) = key(operation.op()).zip(operation.ok().and_then(|done| done.revision)) else {
            return current;
        };
        // It may have been called before one began and done after, so where it is in the stream comes first.
        let is_there = |epoch: &u64| {
            self.stream.at(*epoch, revision).is_some_and(|entry| {
                entry.write.key == key && entry.is_live() == !matches!(operation.op(), Op::Delete { .. }) && {
                    let nonce = nonce(operation.op());
                    nonce.is_none() || entry.write.value.nonce.as_deref() == nonce
                }
            })
        };
        let mut found = Some(current).into_iter().chain(self.stream.epochs()).filter(is_there);
        found.next().unwrap_or(current)
    }

    /// The epoch at this instant, as far as is known.
    fn epoch_at(&self, at: Micros) -> u64 {
        let began = self.began.iter().rfind(|(_, over, _)| *over <= at).map(|(epoch, ..)| *epoch);
        began.or_else(|| self.stream.epochs().next()).unwrap_or(1)
    }

    /// No epoch began between the two instants, nor just before, so that what was seen at both is of one and the same. It
    /// takes a while to hear of a new one, and longer for who stands still.
    pub(crate) fn is_one_epoch(&self, from: Micros, to: Micros) -> bool {
        self.began.iter().all(|(_, over, began)| {
            let heard = began.saturating_add(self.longest_lease + HEARD);
            *over > to || (heard < from && self.faults.calm(heard, from, 0, None))
        })
    }

    /// An epoch began while it was under way.
    pub(crate) fn spans_epochs(&self, operation: &Operation<'_>) -> bool {
        self.began.iter().any(|(_, over, began)| operation.call.at <= *began && *over <= operation.ended())
    }

    /// The client of a session was killed, or closed the session, by `at`.
    pub(crate) fn is_gone_by(&self, session: &str, at: Micros) -> bool {
        self.gone_at(session) <= at
    }

    /// Since when a session is gone: never, if it is not, and always, if it is nobody's.
    pub(crate) fn gone_at(&self, session: &str) -> Micros {
        self.sessions.get(session).map_or(0, |session| {
            let crashed = self.faults.crashed(session.client).map(|(_, at)| at);
            session.closed.into_iter().chain(crashed).min().unwrap_or(Micros::MAX)
        })
    }

    pub(crate) fn lines(&self, operations: impl IntoIterator<Item = usize>) -> Vec<usize> {
        operations.into_iter().flat_map(|place| self.operations[place].lines()).collect()
    }

    /// Somebody who asked the store itself, for nothing that makes one wait, between the two instants, was not answered
    /// within `limit`. Where time is simulated nobody is busy.
    pub(crate) fn store_was_slow(&self, from: Micros, to: Micros, limit: Micros) -> bool {
        let verb = |op: &Op| matches!(op, Op::Put { .. } | Op::Delete { .. } | Op::Get { .. });
        let slow = |operation: &Operation<'_>| {
            let ended = operation.ended().min(self.end);
            operation.call.at <= to && ended >= from && ended.saturating_sub(operation.call.at) > limit
        };
        let lives = |client| self.faults.crashed(client).is_none();
        self.history.head.store != "sim"
            && self.operations.iter().any(|one| verb(one.op()) && slow(one) && lives(one.call.client))
    }

    /// The store is in the recorder's own process or machine.
    pub(crate) fn is_embedded(&self) -> bool {
        !self.history.head.store.starts_with("nats")
    }
}

/// A live record without a term, or with its own revision as the term, is a win.
fn wins(entry: &Entry<'_>) -> bool {
    entry.is_live() && entry.write.value.term.is_none_or(|term| term == entry.revision())
}

fn sessions<'a>(operations: &[Operation<'a>]) -> HashMap<&'a str, Session> {
    let mut sessions = HashMap::new();
    for operation in operations {
        match operation.op() {
            Op::Open { lease_ms } => {
                let Some(done) = operation.ok() else { continue };
                let Some(id) = &done.session else { continue };
                sessions.entry(id.as_str()).or_insert(Session {
                    client: operation.call.client,
                    opened: operation.call.at,
                    lease: lease_ms * 1000,
                    epoch: done.epoch.unwrap_or(1),
                    closed: None,
                });
            }
            Op::Close { session } => {
                if let Some(session) = sessions.get_mut(session.as_str()) {
                    session.closed.get_or_insert(operation.call.at);
                }
            }
            _ => {}
        }
    }
    sessions
}

/// An ok of this gives the revision of a write.
pub(crate) const fn writes(op: &Op) -> bool {
    !matches!(op, Op::Open { .. } | Op::Get { .. } | Op::Members { .. })
}

pub(crate) fn nonce(op: &Op) -> Option<&str> {
    match op {
        Op::Proclaim { nonce, .. }
        | Op::FencedPut { nonce, .. }
        | Op::Put { nonce, .. }
        | Op::Join { nonce, .. }
        | Op::Update { nonce, .. } => Some(nonce),
        _ => None,
    }
}

pub(crate) fn session_of(op: &Op) -> Option<&str> {
    match op {
        Op::Close { session }
        | Op::Acquire { session, .. }
        | Op::Release { session, .. }
        | Op::Campaign { session, .. }
        | Op::Resign { session, .. }
        | Op::Transfer { session, .. }
        | Op::Proclaim { session, .. }
        | Op::FencedPut { session, .. }
        | Op::Join { session, .. }
        | Op::Update { session, .. }
        | Op::Leave { session, .. } => Some(session),
        Op::Open { .. } | Op::Break { .. } | Op::Put { .. } | Op::Delete { .. } | Op::Get { .. } | Op::Members { .. } => None,
    }
}

/// The key that an operation writes, but for tickets and terms, which are won.
pub(crate) fn key(op: &Op) -> Option<String> {
    match op {
        Op::Put { key, .. } | Op::FencedPut { key, .. } | Op::Delete { key, .. } => Some(format!("data.{key}")),
        Op::Proclaim { election, .. } => Some(format!("election.{election}")),
        Op::Join { group, member, .. } | Op::Update { group, member, .. } | Op::Leave { group, member, .. } => {
            Some(format!("member.{group}.{member}"))
        }
        _ => None,
    }
}
