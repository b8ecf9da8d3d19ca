//! What one process writes down of what it does: a file of its own, in which nothing is lost when it is killed.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tenure_check::history::{Call, Done, Line, Micros, Op, Outcome, Return, Seen, Sight};

use crate::clock::now;

/// Identifiers of one process. A history has fewer processes than would overflow.
const CALLS: u64 = 1 << 32;

/// Who made the call `id`.
pub(crate) const fn client_of(id: u64) -> u64 {
    id / CALLS
}

/// An id for what `client` did without saying so.
pub(crate) const fn made_up(client: u64, n: u64) -> u64 {
    client * CALLS + CALLS / 2 + n
}

/// A line of a tape: one of a history, or what only the merging needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Taped {
    /// The random id of the epoch that a session is in.
    Epoch {
        /// The session's id.
        session_of: String,
        /// As in `meta.epoch`.
        epoch: String,
    },
    /// A client of the daemon is connected to this one from here on.
    Daemon {
        /// Its process.
        pid: u32,
    },
    /// A line of the history.
    Line(Line),
}

/// The recorder of one process, or of a part of what it does.
#[derive(Debug)]
pub(crate) struct Tape {
    file: Arc<Mutex<File>>,
    client: u64,
    calls: Arc<AtomicU64>,
    /// Calls of this part that have not ended.
    open: Mutex<BTreeSet<u64>>,
}

impl Tape {
    /// Begins the tape of `client`.
    pub(crate) fn create(path: &Path, client: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)), client, calls: Arc::default(), open: Mutex::default() })
    }

    /// The same tape, for those who end together.
    pub(crate) fn part(&self) -> Self {
        let (file, calls) = (self.file.clone(), self.calls.clone());
        Self { file, client: self.client, calls, open: Mutex::default() }
    }

    /// Whoever made calls through this part is gone: those that had not ended were turned away from.
    pub(crate) fn abandon(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for id in open {
            self.dropped(id);
        }
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> u64 {
        self.client
    }

    /// Something unique in the history.
    pub(crate) fn unique(&self) -> u64 {
        self.client * CALLS + self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// A nonce, unique in the history.
    pub(crate) fn nonce(&self) -> String {
        format!("n{:x}", self.unique())
    }

    /// Notes that `op` begins now. It is on the tape when this returns.
    pub(crate) fn call(&self, op: Op) -> u64 {
        let id = self.unique();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.put(&Taped::Line(Line::Call(Call { at: now(), id, client: self.client, op })));
        id
    }

    /// Notes how the call `id` has ended, unless it has ended already: of one that was abandoned nobody hears any more.
    pub(crate) fn returned(&self, id: u64, outcome: Outcome) {
        if !self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            return;
        }
        self.put(&Taped::Line(Line::Return(Return { at: now(), id, outcome })));
    }

    /// Notes that the call `id` was done.
    pub(crate) fn done(&self, id: u64, done: Done) {
        self.returned(id, Outcome::Ok(done));
    }

    /// Notes that the caller turned away from the call `id` before it had ended.
    pub(crate) fn dropped(&self, id: u64) {
        self.returned(id, Outcome::Unknown { why: "dropped".to_owned() });
    }

    /// Notes what was seen at some moment from `from` to now.
    pub(crate) fn seen(&self, from: Micros, what: Sight) {
        self.put(&Taped::Line(Line::Seen(Seen { from, at: now(), client: self.client, what })));
    }

    /// Any other line.
    pub(crate) fn put(&self, line: &Taped) {
        if let Err(error) = self.write(line) {
            // Going on would make a history that says less than happened.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("the tape of client {} cannot be written: {error}", self.client);
            }
            std::process::exit(70);
        }
    }

    fn write(&self, line: &Taped) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
    }
}

/// Reads a tape. Its last line may have been cut by a kill.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Taped>> {
    let text = std::fs::read(path)?;
    let mut lines = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(line) => lines.push(line),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_is_read_as_it_was_written_even_if_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tape");
        let tape = Tape::create(&path, 3).unwrap();
        let id = tape.call(Op::Open { lease_ms: 500 });
        tape.done(id, Done { session: Some("s".into()), ..Done::default() });
        tape.put(&Taped::Epoch { session_of: "s".into(), epoch: "e".into() });
        tape.call(Op::Close { session: "s".into() });
        let whole = read(&path).unwrap();
        assert_eq!(whole.len(), 4);
        assert!(matches!(&whole[0], Taped::Line(Line::Call(call)) if call.id == id && call.client == 3));
        assert!(matches!(&whole[2], Taped::Epoch { epoch, .. } if epoch == "e"));
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert_eq!(read(&path).unwrap(), whole[..3]);
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn what_had_not_ended_when_its_part_did_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tape");
        let tape = Tape::create(&path, 3).unwrap();
        let part = tape.part();
        let other = tape.call(Op::Open { lease_ms: 500 });
        let ended = part.call(Op::Close { session: "s".into() });
        let open = part.call(Op::Close { session: "t".into() });
        part.done(ended, Done::default());
        part.abandon();
        part.abandon();
        part.done(open, Done::default());
        let returns: Vec<_> = read(&path)
            .unwrap()
            .into_iter()
            .filter_map(|taped| match taped {
                Taped::Line(Line::Return(returned)) => Some((returned.id, matches!(returned.outcome, Outcome::Ok(_)))),
                _ => None,
            })
            .collect();
        assert_eq!(returns, [(ended, true), (open, false)]);
        assert!(other != ended && other != open);
    }
}
