//! Short histories for tests: two sessions `a` and `b` of clients 1 and 2 with a lease of 500 ms, in a simulation, and
//! what a test adds. Instants are milliseconds here.

use crate::{
    History, Promise, Verdict, check,
    history::{
        Call, Done, Expect, Failure, Fault, FaultKind, Head, Hold, Line, Mode, Op, Outcome, Return, Seen, Sight, Value, Write,
        WriteState,
    },
};

#[derive(Clone)]
pub(crate) struct Tape {
    pub(crate) history: History,
    calls: u64,
    pub(crate) revision: u64,
    pub(crate) epoch: u64,
}

pub(crate) fn lock(token: u64) -> Hold {
    Hold::Lock { lock: "l".into(), token }
}

pub(crate) fn acquire(session: &str) -> Op {
    Op::Acquire { session: session.into(), lock: "l".into(), mode: Mode::Wait, limit_ms: None }
}

pub(crate) fn release(session: &str, token: u64) -> Op {
    Op::Release { session: session.into(), lock: "l".into(), token }
}

pub(crate) fn campaign(session: &str) -> Op {
    Op::Campaign { session: session.into(), election: "e".into() }
}

pub(crate) fn close(session: &str) -> Op {
    Op::Close { session: session.into() }
}

pub(crate) fn put(nonce: &str, expect: Expect) -> Op {
    Op::Put { key: "k".into(), nonce: nonce.into(), expect }
}

pub(crate) fn fenced(session: &str, under: Hold, nonce: &str) -> Op {
    Op::FencedPut { session: session.into(), under, key: "k".into(), nonce: nonce.into() }
}

pub(crate) fn join(session: &str, nonce: &str) -> Op {
    Op::Join { session: session.into(), group: "g".into(), member: format!("m-{session}"), nonce: nonce.into() }
}

pub(crate) fn held(token: u64, yes: bool) -> Sight {
    Sight::Held { lock: "l".into(), token, yes }
}

pub(crate) fn lost(token: u64, loss: &str) -> Sight {
    Sight::Lost { hold: lock(token), loss: loss.into() }
}

impl Tape {
    pub(crate) fn new() -> Self {
        Self::of("sim")
    }

    pub(crate) fn of(store: &str) -> Self {
        let head = Head { version: 1, store: store.into(), seed: None, slack_us: 0, lag_us: 0, notes: Vec::new() };
        let mut tape = Self { history: History::new(head), calls: 0, revision: 0, epoch: 1 };
        for (client, session) in [(1, "a"), (2, "b")] {
            tape.open(0, client, session);
        }
        tape
    }

    /// The last revision that was written.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Reads lag by up to so many milliseconds.
    pub(crate) fn lags(&mut self, by: u64) {
        self.history.head.lag_us = by * 1000;
    }

    pub(crate) fn open(&mut self, at: u64, client: u64, session: &str) {
        let call = self.call(at, client, Op::Open { lease_ms: 500 });
        self.renew(at, session);
        let done = Done { session: Some(session.into()), epoch: Some(self.epoch), ..Done::default() };
        self.end_with(at, call, Outcome::Ok(done));
    }

    pub(crate) fn call(&mut self, at: u64, client: u64, op: Op) -> u64 {
        self.calls += 1;
        self.line(Line::Call(Call { at: at * 1000, id: self.calls, client, op }));
        self.calls
    }

    pub(crate) fn end_with(&mut self, at: u64, id: u64, outcome: Outcome) {
        self.line(Line::Return(Return { at: at * 1000, id, outcome }));
    }

    pub(crate) fn ok(&mut self, at: u64, id: u64, revision: u64) {
        self.end_with(at, id, Outcome::Ok(Done { revision: Some(revision), ..Done::default() }));
    }

    pub(crate) fn failed(&mut self, at: u64, id: u64, kind: Failure) {
        self.end_with(at, id, Outcome::Failed { kind, why: String::new() });
    }

    /// Everything that a write may have; `session` and `nonce` go into the value where they are not empty.
    pub(crate) fn write(&mut self, at: u64, key: &str, state: WriteState, session: &str, nonce: &str) -> u64 {
        self.revision += 1;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let value = Value { session: some(session), nonce: some(nonce), ..Value::default() };
        let at = (self.history.head.store == "sim").then_some(at * 1000);
        let (revision, epoch, key) = (self.revision, self.epoch, key.to_owned());
        self.line(Line::Write(Write { revision, epoch, key, state, value, note: None, at }));
        revision
    }

    /// Changes the last line, which is a write.
    pub(crate) fn noted(&mut self, note: &str) {
        if let Some(Line::Write(write)) = self.history.lines.last_mut() {
            write.note = Some(note.into());
        }
    }

    pub(crate) fn renew(&mut self, at: u64, session: &str) -> u64 {
        self.write(at, &format!("session.{session}"), WriteState::Live, "", "")
    }

    pub(crate) fn die(&mut self, at: u64, session: &str) -> u64 {
        self.write(at, &format!("session.{session}"), WriteState::Deleted, "", "")
    }

    pub(crate) fn ticket(&mut self, at: u64, session: &str) -> u64 {
        self.write(at, &format!("lock.l.{session}-1"), WriteState::Live, session, "")
    }

    pub(crate) fn untick(&mut self, at: u64, session: &str) -> u64 {
        self.write(at, &format!("lock.l.{session}-1"), WriteState::Deleted, "", "")
    }

    pub(crate) fn leader(&mut self, at: u64, session: &str, term: Option<u64>, nonce: &str) -> u64 {
        let revision = self.write(at, "election.e", WriteState::Live, session, nonce);
        if let Some(Line::Write(write)) = self.history.lines.last_mut() {
            write.value.term = term;
        }
        revision
    }

    pub(crate) fn data(&mut self, at: u64, nonce: &str) -> u64 {
        self.write(at, "data.k", WriteState::Live, "", nonce)
    }

    pub(crate) fn member(&mut self, at: u64, session: &str, nonce: &str) -> u64 {
        self.write(at, &format!("member.g.m-{session}"), WriteState::Live, session, nonce)
    }

    pub(crate) fn unmember(&mut self, at: u64, session: &str) -> u64 {
        self.write(at, &format!("member.g.m-{session}"), WriteState::Purged, "", "")
    }

    /// A grant at `at`, at once.
    pub(crate) fn granted(&mut self, at: u64, client: u64, session: &str) -> u64 {
        let call = self.call(at, client, acquire(session));
        let token = self.ticket(at, session);
        self.ok(at, call, token);
        token
    }

    pub(crate) fn released(&mut self, at: u64, client: u64, session: &str, token: u64) {
        let call = self.call(at, client, release(session, token));
        let end = self.untick(at, session);
        self.ok(at, call, end);
    }

    pub(crate) fn joined(&mut self, at: u64, client: u64, session: &str, nonce: &str) -> u64 {
        let call = self.call(at, client, join(session, nonce));
        let revision = self.member(at, session, nonce);
        self.ok(at, call, revision);
        revision
    }

    pub(crate) fn seen(&mut self, at: u64, client: u64, what: Sight) {
        self.line(Line::Seen(Seen { from: at * 1000, at: at * 1000, client, what }));
    }

    pub(crate) fn fault(&mut self, from: u64, until: Option<u64>, kind: FaultKind, client: u64) {
        let (from, until) = (from * 1000, until.map(|until| until * 1000));
        self.line(Line::Fault(Fault { from, until, kind, client: Some(client), server: None, note: String::new() }));
    }

    pub(crate) fn quiet(&mut self, at: u64) {
        self.line(Line::Quiet { at: at * 1000 });
    }

    pub(crate) fn end(&mut self, at: u64) {
        self.line(Line::End { at: at * 1000 });
    }

    pub(crate) fn line(&mut self, line: Line) {
        self.history.lines.push(line);
    }

    pub(crate) fn verdict(&self, promise: Promise) -> Verdict {
        let found = check(&self.history).into_iter().find(|verdict| verdict.promise == promise);
        found.unwrap_or(Verdict::new(promise))
    }

    /// Asserts that the promise was kept, and that there was something to look at.
    pub(crate) fn keeps(&self, promise: Promise) {
        let verdict = self.verdict(promise);
        assert!(verdict.violations.is_empty() && verdict.checked > 0, "{verdict:#?}");
    }

    /// Asserts that it was broken, in words that contain `what`.
    pub(crate) fn breaks(&self, promise: Promise, what: &str) {
        let verdict = self.verdict(promise);
        assert!(verdict.violations.iter().any(|violation| violation.what.contains(what)), "{verdict:#?}");
    }
}
