//! What the director itself puts into the history, and the merging of everything by time.

mod epochs;
mod sockets;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use tenure_check::{
    History,
    history::{Fault, FaultKind, Head, Line, Micros, Outcome, Value},
};

pub(crate) use self::epochs::{Daemons, Epochs, Facts};
use crate::{
    clock::now,
    stream::Observed,
    tape::{self, Taped},
};

/// The director's own lines.
#[derive(Debug, Default)]
pub(crate) struct Record {
    lines: Mutex<Vec<Line>>,
}

impl Record {
    /// A fault begins; its end is told with [`Record::over`].
    pub(crate) fn fault(&self, kind: FaultKind, what: impl FnOnce(&mut Fault)) -> usize {
        let mut fault = Fault { from: now(), until: None, kind, client: None, server: None, note: String::new() };
        what(&mut fault);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(Line::Fault(fault));
        lines.len() - 1
    }

    /// It has turned out that the fault had begun at `from`.
    pub(crate) fn began(&self, fault: usize, from: Micros) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Line::Fault(fault)) = lines.get_mut(fault) {
            fault.from = from;
        }
    }

    /// The fault that began so is over.
    pub(crate) fn over(&self, fault: usize) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Line::Fault(fault)) = lines.get_mut(fault) {
            fault.until = Some(now());
        }
    }

    /// No fault is active from now on.
    pub(crate) fn quiet(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(Line::Quiet { at: now() });
    }

    /// The recording ends.
    pub(crate) fn end(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(Line::End { at: now() });
    }

    /// How often each kind of fault was done, by its word in the history and the first word of its note.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = |line: &Line| match line {
            Line::Fault(fault) => Some(fault.clone()),
            _ => None,
        };
        lines.iter().filter_map(fault).collect()
    }

    /// Merges all tapes of `dir`, the stream, and what the director did.
    pub(crate) fn merge(self, mut head: Head, dir: &Path, observed: Observed, daemons: &Daemons) -> io::Result<History> {
        head.notes.extend(observed.notes);
        let faults = self.faults();
        let began = faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Rollback | FaultKind::Recreate));
        // A daemon takes its memory with it, and the writes say so themselves.
        let epochs = Epochs::of(&observed.writes, began.map(|fault| fault.from).collect());
        let mut timed: Vec<(Micros, Line)> = Vec::new();
        let mut aliases = sockets::Aliases::new();
        let mut tapes: Vec<_> = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        tapes.sort_by_key(std::fs::DirEntry::file_name);
        for tape in tapes.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|end| end == "tape")) {
            let taped = tape::read(&tape)?;
            let lines = if taped.iter().any(|taped| matches!(taped, Taped::Daemon { .. })) {
                sockets::lines(taped, &epochs, daemons, &mut aliases)
            } else {
                lines(taped, &epochs, daemons)
            };
            timed.extend(lines.into_iter().filter_map(|line| at(&line).map(|at| (at, line))));
        }
        let mut own = self.lines.into_inner().unwrap_or_else(PoisonError::into_inner);
        for line in &mut own {
            if let Line::Fault(fault) = line
                && let Some(client) = &mut fault.client
            {
                let mut then = aliases.iter().rev().filter(|(from, number, _)| *from <= fault.from && number == client);
                *client = then.next().map_or(*client, |(_, _, alias)| *alias);
            }
        }
        timed.extend(own.into_iter().filter_map(|line| at(&line).map(|at| (at, line))));
        timed.sort_by_key(|(at, _)| *at);
        let mut history = History::new(head);
        history.lines = timed.into_iter().map(|(_, line)| line).collect();
        history.lines.extend(observed.writes.into_iter().map(|mut write| {
            if write.key == "meta.epoch" {
                // No operation gave that.
                write.value = Value::default();
            }
            Line::Write(write)
        }));
        Ok(history)
    }
}

/// The lines of a process that had sessions of its own.
fn lines(taped: Vec<Taped>, epochs: &Epochs, daemons: &Daemons) -> Vec<Line> {
    let (mut named, mut calls) = (HashMap::new(), HashMap::new());
    let mut lines = Vec::new();
    for taped in taped {
        let mut line = match taped {
            Taped::Epoch { session_of, epoch } => {
                named.insert(session_of, epoch);
                continue;
            }
            Taped::Daemon { .. } => continue,
            Taped::Line(line) => line,
        };
        match &mut line {
            Line::Call(call) => drop(calls.insert(call.id, call.op.clone())),
            Line::Return(returned) => {
                if let (Outcome::Ok(done), Some(op)) = (&mut returned.outcome, calls.get(&returned.id)) {
                    done.epoch = match (&done.session, done.revision) {
                        (Some(session), _) => named.get(session).and_then(|id| epochs.named(id)),
                        (None, Some(revision)) => epochs.of_write(op, revision, returned.at),
                        (None, None) => None,
                    };
                }
                // A daemon opens its sessions where it says itself.
                if let Outcome::Ok(done) = &mut returned.outcome
                    && done.session.is_some()
                    && done.epoch.is_none()
                {
                    done.epoch = daemons.of_call(returned.id).and_then(|daemon| daemon.epoch);
                }
            }
            _ => {}
        }
        lines.push(line);
    }
    lines
}

pub(crate) fn at(line: &Line) -> Option<Micros> {
    match line {
        Line::Call(call) => Some(call.at),
        Line::Return(returned) => Some(returned.at),
        Line::Seen(seen) => Some(seen.at),
        Line::Fault(fault) => Some(fault.from),
        Line::Quiet { at } | Line::End { at } => Some(*at),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tenure_check::history::{Call, Done, Op, Return, Write, WriteState};

    use super::*;

    fn write(epoch: u64, revision: u64, key: &str, nonce: Option<&str>) -> Write {
        let value = Value { nonce: nonce.map(str::to_owned), ..Value::default() };
        Write { revision, epoch, key: key.to_owned(), state: WriteState::Live, value, note: None, at: None }
    }

    #[test]
    fn tapes_are_merged_by_time_and_epochs_are_numbered() {
        let dir = tempfile::tempdir().unwrap();
        let say = |name: &str, lines: &[Taped]| {
            let text: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
            std::fs::write(dir.path().join(name), text.join("\n") + "\n").unwrap();
        };
        let call = |at, id, op| Taped::Line(Line::Call(Call { at, id, client: 1, op }));
        let done = |at, id, done| Taped::Line(Line::Return(Return { at, id, outcome: Outcome::Ok(done) }));
        let acquire =
            || Op::Acquire { session: "s".into(), lock: "l".into(), mode: tenure_check::history::Mode::Wait, limit_ms: None };
        say(
            "1.tape",
            &[
                call(5, 1, Op::Open { lease_ms: 500 }),
                Taped::Epoch { session_of: "s".into(), epoch: "first".into() },
                done(9, 1, Done { session: Some("s".into()), ..Done::default() }),
                call(10, 2, acquire()),
                done(12, 2, Done { revision: Some(3), ..Done::default() }),
            ],
        );
        say("2.tape", &[call(7, 3, Op::Open { lease_ms: 500 })]);
        std::fs::write(dir.path().join("other"), "nothing of ours").unwrap();
        let writes = vec![
            write(1, 1, "meta.epoch", Some("first")),
            write(1, 3, "lock.m.s-1", None),
            write(2, 1, "meta.epoch", Some("first")),
            write(2, 3, "lock.l.s-1", None),
        ];
        let head = Head { version: 1, store: "nats-r1".into(), seed: None, slack_us: 0, lag_us: 0, notes: Vec::new() };
        let record = Record::default();
        record.lines.lock().unwrap().push(Line::Fault(Fault {
            from: 8,
            until: None,
            kind: FaultKind::Rollback,
            client: None,
            server: None,
            note: String::new(),
        }));
        let history = record
            .merge(head, dir.path(), Observed { writes, notes: vec!["n".into()], clashes: Vec::new() }, &Daemons::default())
            .unwrap();
        let at: Vec<_> = history.lines.iter().filter_map(at).collect();
        assert_eq!(at, [5, 7, 8, 9, 10, 12]);
        let epochs = history.lines.iter().filter_map(|line| match line {
            Line::Return(Return { outcome: Outcome::Ok(done), .. }) => Some(done.epoch),
            _ => None,
        });
        assert_eq!(epochs.collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!((history.lines.len(), history.head.notes.len()), (10, 1));
    }
}
