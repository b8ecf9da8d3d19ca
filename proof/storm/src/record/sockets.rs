//! The lines of a client of the daemon: by which of the daemon's sessions its holds lived, and what the end of its
//! connection gave up without a word.

use std::collections::{BTreeMap, HashMap};

use tenure_check::history::{Call, Done, Hold, Line, Micros, Op, Outcome, Return, Sight};

use super::{Daemons, Epochs, at};
use crate::tape::{self, Taped};

/// What a connection has.
#[derive(Default)]
struct Had {
    locks: BTreeMap<(String, u64), String>,
    offices: BTreeMap<(String, u64), String>,
    members: BTreeMap<(String, String), String>,
}

/// The numbers that a client has in the history, and from when on. Where a daemon takes its store with it, the next
/// one gives out the same tokens; so whoever comes to that one is another client.
pub(super) type Aliases = Vec<(Micros, u64, u64)>;

/// Far from all numbers that processes have.
const ALIAS: u64 = 1_000_000;

pub(super) fn lines(taped: Vec<Taped>, epochs: &Epochs, daemons: &Daemons, aliases: &mut Aliases) -> Vec<Line> {
    let returned = returned(&taped);
    // Known before it calls anything: it may have been killed as the client of the daemon that it found first.
    let number = taped.iter().find_map(|taped| if let Taped::Line(Line::Call(call)) = taped { Some(call.client) } else { None });
    let number = number.unwrap_or_default();
    let mut lines = Vec::new();
    let (mut alias, mut of) = (0, None);
    let (mut had, mut epoch, mut last, mut client, mut made) = (Had::default(), None, 0, number, 0);
    for taped in taped {
        let mut line = match taped {
            Taped::Line(line) => line,
            Taped::Daemon { pid } => {
                had.end(last, client, &mut made, &mut lines);
                of = Some(pid);
                epoch = daemons.of_pid(pid).and_then(|daemon| daemon.epoch);
                alias = epoch.map_or(0, |epoch| (epoch - 1) * ALIAS);
                aliases.push((last, number, number + alias));
                continue;
            }
            Taped::Epoch { .. } => continue,
        };
        last = at(&line).unwrap_or(last).max(last);
        match &mut line {
            Line::Call(call) => {
                call.client += alias;
                client = call.client;
                had.call(call, returned.get(&call.id), epochs, epoch);
            }
            Line::Return(one) => {
                if let (Outcome::Ok(done), Some((op, _))) = (&mut one.outcome, returned.get(&one.id)) {
                    done.epoch = epoch.or_else(|| done.revision.and_then(|revision| epochs.of_write(op, revision, one.at)));
                }
            }
            Line::Seen(seen) => {
                seen.client += alias;
                // Who was asked while it stood still has not looked before it went on.
                if let (Some(pid), Sight::Held { .. } | Sight::Leading { .. }) = (of, &seen.what) {
                    seen.from = daemons.answers(pid, seen.from).min(seen.at);
                }
            }
            _ => {}
        }
        lines.push(line);
    }
    had.end(last, client, &mut made, &mut lines);
    lines
}

/// Each call, and what it gave if it was done.
fn returned(taped: &[Taped]) -> HashMap<u64, (Op, Option<(Micros, Done)>)> {
    let mut all = HashMap::new();
    for taped in taped {
        match taped {
            Taped::Line(Line::Call(call)) => drop(all.insert(call.id, (call.op.clone(), None))),
            Taped::Line(Line::Return(one)) => {
                if let (Outcome::Ok(done), Some((_, known))) = (&one.outcome, all.get_mut(&one.id)) {
                    *known = Some((one.at, done.clone()));
                }
            }
            _ => {}
        }
    }
    all
}

impl Had {
    /// Says whose session the call is about, and keeps account of what there is.
    fn call(&mut self, call: &mut Call, returned: Option<&(Op, Option<(Micros, Done)>)>, epochs: &Epochs, epoch: Option<u64>) {
        let nobody = format!("socket-{}", call.client);
        let done = returned.and_then(|(op, done)| Some((op, done.as_ref()?)));
        let given = done.and_then(|(op, (at, done))| Some((op, done.revision?, *at)));
        let by = given.and_then(|(op, revision, at)| epochs.session(op, epoch, revision, at));
        let known = |session: Option<&String>| session.cloned().unwrap_or_else(|| nobody.clone());
        match &mut call.op {
            Op::Acquire { session, lock, .. } => {
                if let (Some(by), Some((_, token, _))) = (&by, given) {
                    self.locks.insert((lock.clone(), token), by.clone());
                }
                *session = known(by.as_ref());
            }
            Op::Campaign { session, election } => {
                if let (Some(by), Some((_, term, _))) = (&by, given) {
                    self.offices.insert((election.clone(), term), by.clone());
                }
                *session = known(by.as_ref());
            }
            Op::Release { session, lock, token } => *session = known(self.locks.remove(&(lock.clone(), *token)).as_ref()),
            Op::Resign { session, election, term } => {
                *session = known(self.offices.remove(&(election.clone(), *term)).as_ref());
            }
            Op::Transfer { session, election, term, .. } | Op::Proclaim { session, election, term, .. } => {
                *session = known(self.offices.get(&(election.clone(), *term)));
            }
            Op::FencedPut { session, under, .. } => {
                *session = known(match under {
                    Hold::Lock { lock, token } => self.locks.get(&(lock.clone(), *token)),
                    Hold::Election { election, term } => self.offices.get(&(election.clone(), *term)),
                });
            }
            Op::Join { session, group, member, nonce } => {
                // One that was not answered may be there all the same.
                let by = by.or_else(|| epochs.session_of_nonce(nonce));
                if let Some(by) = &by {
                    self.members.insert((group.clone(), member.clone()), by.clone());
                }
                *session = known(by.as_ref());
            }
            Op::Update { session, group, member, nonce } => {
                let place = (group.clone(), member.clone());
                // The write of its join may have been missed.
                if !self.members.contains_key(&place)
                    && let Some(by) = epochs.session_of_nonce(nonce)
                {
                    self.members.insert(place.clone(), by);
                }
                *session = known(self.members.get(&place));
            }
            Op::Leave { session, group, member } => {
                *session = known(self.members.remove(&(group.clone(), member.clone())).as_ref());
            }
            _ => {}
        }
    }

    /// The connection is over: whatever it has is given up, from `at` on.
    fn end(&mut self, at: Micros, client: u64, made: &mut u64, lines: &mut Vec<Line>) {
        let had = std::mem::take(self);
        let locks = had.locks.into_iter().map(|((lock, token), session)| Op::Release { session, lock, token });
        let offices = had.offices.into_iter().map(|((election, term), session)| Op::Resign { session, election, term });
        let members = had.members.into_iter().map(|((group, member), session)| Op::Leave { session, group, member });
        for op in locks.chain(offices).chain(members) {
            *made += 1;
            let id = tape::made_up(client % ALIAS, *made);
            lines.push(Line::Call(Call { at, id, client, op }));
            let outcome = Outcome::Unknown { why: "its connection ended".to_owned() };
            lines.push(Line::Return(Return { at, id, outcome }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tenure_check::history::{Mode, Value, Write, WriteState};

    use super::*;

    #[test]
    fn what_was_asked_while_the_daemon_stood_still_was_answered_after_it() {
        let mut daemons = Daemons::default();
        daemons.stopped(7, 1_000_000, 3_000_000);
        let look = |from| {
            let what = Sight::Held { lock: "l".into(), token: 5, yes: true };
            Taped::Line(Line::Seen(tenure_check::history::Seen { from, at: 4_000_000, client: 4, what }))
        };
        let taped = vec![Taped::Daemon { pid: 7 }, look(1_050_000), look(2_000_000), Taped::Daemon { pid: 8 }, look(2_000_000)];
        let froms: Vec<_> = lines(taped, &Epochs::of(&[], Vec::new()), &daemons, &mut Vec::new())
            .into_iter()
            .filter_map(|line| if let Line::Seen(seen) = line { Some(seen.from) } else { None })
            .collect();
        assert_eq!(froms, [1_050_000, 3_000_000, 2_000_000]);
    }

    #[test]
    fn a_client_is_known_by_another_number_from_the_daemon_on_that_it_finds_first() {
        let mut daemons = Daemons::default();
        daemons.add(crate::record::Facts { number: 6, pid: 9, epoch: Some(2) });
        let call = Taped::Line(Line::Call(Call { at: 5, id: 1, client: 4, op: Op::Members { group: "g".into() } }));
        let mut aliases = Aliases::new();
        let lines = lines(vec![Taped::Daemon { pid: 9 }, call], &Epochs::of(&[], Vec::new()), &daemons, &mut aliases);
        assert_eq!(aliases, [(0, 4, ALIAS + 4)]);
        assert!(matches!(lines.as_slice(), [Line::Call(call)] if call.client == ALIAS + 4));
    }

    #[test]
    fn a_member_whose_join_was_missed_is_known_by_its_update() {
        let of = || (String::new(), "g".to_owned(), "m".to_owned());
        let call = |id, op| Taped::Line(Line::Call(Call { at: id, id, client: 4, op }));
        let (session, group, member) = of();
        let join = call(1, Op::Join { session, group, member, nonce: "missed".into() });
        let (session, group, member) = of();
        let update = call(2, Op::Update { session, group, member, nonce: "n".into() });
        let (session, group, member) = of();
        let leave = call(3, Op::Leave { session, group, member });
        let value = Value { session: Some("s".into()), nonce: Some("n".into()), ..Value::default() };
        let key = "member.g.m".to_owned();
        let write = Write { revision: 9, epoch: 1, key, state: WriteState::Live, value, note: None, at: None };
        let epochs = Epochs::of(&[write], Vec::new());
        let lines = lines(vec![Taped::Daemon { pid: 7 }, join, update, leave], &epochs, &Daemons::default(), &mut Vec::new());
        let leaver = lines.iter().find_map(|line| match line {
            Line::Call(Call { op: Op::Leave { session, .. }, .. }) => Some(session.as_str()),
            _ => None,
        });
        assert_eq!(leaver, Some("s"));
    }

    #[test]
    fn holds_get_their_session_and_the_end_of_a_connection_gives_them_up() {
        let call = |at, id, op| Taped::Line(Line::Call(Call { at, id, client: 4, op }));
        let acquire = |lock: &str| Op::Acquire { session: String::new(), lock: lock.into(), mode: Mode::Wait, limit_ms: None };
        let done = |at, id, revision| {
            let outcome = Outcome::Ok(Done { revision: Some(revision), ..Done::default() });
            Taped::Line(Line::Return(Return { at, id, outcome }))
        };
        let taped = vec![
            Taped::Daemon { pid: 7 },
            call(1, 1, acquire("l")),
            done(2, 1, 5),
            call(3, 2, acquire("m")),
            done(4, 2, 6),
            call(5, 3, Op::Release { session: String::new(), lock: "l".into(), token: 5 }),
            Taped::Daemon { pid: 8 },
        ];
        let write = |revision, key: &str, session: &str| Write {
            revision,
            epoch: 1,
            key: key.into(),
            state: WriteState::Live,
            value: Value { session: Some(session.into()), ..Value::default() },
            note: None,
            at: None,
        };
        let epochs = Epochs::of(&[write(5, "lock.l.s-1", "s"), write(6, "lock.m.s-2", "s")], Vec::new());
        let ops: Vec<_> = lines(taped, &epochs, &Daemons::default(), &mut Vec::new())
            .into_iter()
            .filter_map(|line| match line {
                Line::Call(call) => Some((call.at, call.op)),
                _ => None,
            })
            .collect();
        assert!(matches!(&ops[0].1, Op::Acquire { session, .. } if session == "s"));
        assert_eq!(ops[2], (5, Op::Release { session: "s".into(), lock: "l".into(), token: 5 }));
        assert_eq!(ops[3], (5, Op::Release { session: "s".into(), lock: "m".into(), token: 6 }));
        assert_eq!(ops.len(), 4);
    }
}
