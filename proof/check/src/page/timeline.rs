//! What the timeline draws: lanes, and in them bars and marks, each with the lines it stands for.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::{
    History, Violation,
    case::{Case, End, Operation, Prize, Tenure},
    faults::span,
    history::{Hold, MemberKind, Micros, Op, Outcome, Seen, Sight, ViewKind},
    report,
    stream::Entry,
};

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    end: Micros,
    quiet: Option<Micros>,
    lanes: Vec<Lane>,
    bars: Vec<Bar>,
    marks: Vec<Mark>,
    faults: Vec<Shade>,
    violations: Vec<Spot>,
}

#[derive(Debug, Serialize)]
struct Lane {
    kind: &'static str,
    name: String,
    /// How many rows of bars lie below each other.
    rows: usize,
}

/// Something that lasts.
#[derive(Debug, Serialize)]
struct Bar {
    lane: usize,
    row: usize,
    from: Micros,
    to: Micros,
    /// `ok`, `failed`, `unknown`, `open` for calls; `hold`, `session`, `member`.
    kind: &'static str,
    /// Colours those of one client alike.
    client: Option<u64>,
    label: String,
    detail: String,
    lines: Vec<usize>,
}

/// Something at a moment.
#[derive(Debug, Serialize)]
struct Mark {
    lane: usize,
    at: Micros,
    /// `yes`, `no`, `lost`, `word`, `gap`.
    kind: &'static str,
    detail: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct Shade {
    /// Absent for what struck more than one client.
    lane: Option<usize>,
    from: Micros,
    to: Micros,
    label: String,
    detail: String,
    line: usize,
}

/// A violation: where to look.
#[derive(Debug, Serialize)]
struct Spot {
    promise: &'static str,
    what: String,
    at: Option<Micros>,
    lines: Vec<usize>,
}

/// Rows of bars that overlap, beyond which they lie on each other.
const MAX_ROWS: usize = 12;

impl Timeline {
    pub(super) fn new(history: &History, violations: &[&Violation]) -> Self {
        let case = Case::new(history);
        let mut drawing = Drawing::new(&case);
        drawing.calls();
        drawing.sessions();
        drawing.holds();
        drawing.members();
        drawing.seen();
        drawing.faults();
        let Drawing { lanes, bars, marks, shades, .. } = drawing;
        let violations = violations.iter().map(|violation| Spot {
            promise: violation.promise.as_str(),
            what: violation.what.clone(),
            at: violation.at,
            lines: violation.lines.clone(),
        });
        Self { end: case.end, quiet: case.quiet, lanes, bars, marks, faults: shades, violations: violations.collect() }
    }
}

struct Drawing<'c, 'a> {
    case: &'c Case<'a>,
    lanes: Vec<Lane>,
    by_name: HashMap<(&'static str, String), usize>,
    /// Until when each row of a lane is taken.
    rows: HashMap<usize, Vec<Micros>>,
    bars: Vec<Bar>,
    marks: Vec<Mark>,
    shades: Vec<Shade>,
}

impl<'c, 'a> Drawing<'c, 'a> {
    fn new(case: &'c Case<'a>) -> Self {
        let mut drawing = Self {
            case,
            lanes: Vec::new(),
            by_name: HashMap::new(),
            rows: HashMap::new(),
            bars: Vec::new(),
            marks: Vec::new(),
            shades: Vec::new(),
        };
        // What people come to see is above: who held what.
        for prize in case.tenures.keys().chain(case.grants.keys()) {
            drawing.prize_lane(*prize);
        }
        let groups: BTreeMap<&str, ()> = case
            .stream
            .epochs()
            .flat_map(|epoch| case.stream.keys_under(epoch, "member."))
            .filter_map(|(key, _)| group(key))
            .map(|group| (group, ()))
            .collect();
        for group in groups.keys() {
            drawing.lane("group", (*group).to_owned());
        }
        let mut clients: Vec<u64> = case
            .operations
            .iter()
            .map(|operation| operation.call.client)
            .chain(case.seen.iter().map(|(_, seen)| seen.client))
            .collect();
        clients.sort_unstable();
        clients.dedup();
        for client in clients {
            drawing.lane("client", client.to_string());
        }
        drawing
    }

    fn lane(&mut self, kind: &'static str, name: String) -> usize {
        *self.by_name.entry((kind, name.clone())).or_insert_with(|| {
            self.lanes.push(Lane { kind, name, rows: 1 });
            self.lanes.len() - 1
        })
    }

    fn prize_lane(&mut self, prize: Prize<'_>) -> usize {
        match prize {
            Prize::Lock(name) => self.lane("lock", name.to_owned()),
            Prize::Election(name) => self.lane("election", name.to_owned()),
        }
    }

    /// Puts a bar into the first row of its lane that is free, at or below `row`.
    fn bar(&mut self, mut bar: Bar) {
        let taken = self.rows.entry(bar.lane).or_default();
        let free = (bar.row..MAX_ROWS).find(|row| taken.get(*row).is_none_or(|until| *until <= bar.from)).unwrap_or(MAX_ROWS - 1);
        taken.resize(taken.len().max(free + 1), 0);
        taken[free] = taken[free].max(bar.to.max(bar.from + 1));
        bar.row = free;
        self.lanes[bar.lane].rows = self.lanes[bar.lane].rows.max(free + 1);
        self.bars.push(bar);
    }

    fn until(&self, client: u64) -> Micros {
        self.case.faults.crashed(client).map_or(self.case.end, |(_, at)| at)
    }

    /// When what is in the bucket of this epoch was gone with it.
    fn over(&self, epoch: u64) -> Micros {
        self.case.began.iter().find(|(next, ..)| *next > epoch).map_or(self.case.end, |(_, over, _)| *over)
    }

    fn calls(&mut self) {
        for operation in &self.case.operations {
            let client = operation.call.client;
            let lane = self.lane("client", client.to_string());
            let (kind, to) = match operation.returned.map(|(_, returned)| (&returned.outcome, returned.at)) {
                Some((Outcome::Ok(_), at)) => ("ok", at),
                Some((Outcome::Failed { .. }, at)) => ("failed", at),
                Some((Outcome::Unknown { .. }, at)) => ("unknown", at),
                None => ("open", self.until(client).max(operation.call.at)),
            };
            // The first row is the session's.
            let (label, detail, lines) = (label(operation.op()), detail(operation), operation.lines());
            self.bar(Bar { lane, row: 1, from: operation.call.at, to, kind, client: Some(client), label, detail, lines });
        }
    }

    fn sessions(&mut self) {
        let mut sessions: Vec<_> = self.case.sessions.iter().collect();
        sessions.sort();
        for (id, session) in sessions {
            let lane = self.lane("client", session.client.to_string());
            let end = self.case.death(session.epoch, id);
            let opened = self.case.stream.after(session.epoch, &format!("session.{id}"), 0);
            let from = session.opened;
            let to = instant(&end, self.until(session.client));
            let detail = format!("session {id}, lease {} ms, epoch {}", session.lease / 1000, session.epoch);
            let lines = opened.map(|entry| entry.line).into_iter().chain(end.line()).collect();
            let client = Some(session.client);
            self.bar(Bar {
                lane,
                row: 0,
                from,
                to: to.max(from),
                kind: "session",
                client,
                label: (*id).to_owned(),
                detail,
                lines,
            });
        }
    }

    fn holds(&mut self) {
        for (prize, tenures) in &self.case.tenures {
            for tenure in tenures.iter().filter(|tenure| tenure.born.survived().is_none()) {
                self.hold(*prize, tenure);
            }
        }
    }

    fn hold(&mut self, prize: Prize<'_>, tenure: &Tenure<'_>) {
        let lane = self.prize_lane(prize);
        let grant = tenure.grant.map(|place| &self.case.operations[place]);
        let session = tenure.session.unwrap_or("?");
        let client = grant.map(|grant| grant.call.client);
        let client = client.or_else(|| self.case.sessions.get(session).map(|session| session.client));
        let from = grant.map_or(tenure.born.earliest, Operation::ended);
        let to = instant(&tenure.end, self.over(tenure.epoch)).max(from);
        let ended = tenure.end.entry().map_or("not ended".to_owned(), |end| {
            let note = end.write.note.as_deref().map(|note| format!(" ({note})")).unwrap_or_default();
            format!("ended at revision {}{note}", end.revision())
        });
        let who = client.map_or(session.to_owned(), |client| format!("client {client}"));
        let detail = format!("{prize}: {} of session {session}, epoch {}; {ended}", tenure.token, tenure.epoch);
        let lines: Vec<_> = [Some(tenure.born.line), tenure.end.line()].into_iter().flatten().collect();
        match grant {
            Some(grant) => {
                let lines = lines.into_iter().chain(grant.lines()).collect();
                self.bar(Bar {
                    lane,
                    row: 0,
                    from,
                    to,
                    kind: "hold",
                    client,
                    label: format!("{who} · {}", tenure.token),
                    detail,
                    lines,
                });
            }
            None if matches!(prize, Prize::Lock(_)) => {
                self.bar(Bar {
                    lane,
                    row: 1,
                    from,
                    to,
                    kind: "wait",
                    client,
                    label: format!("{who} waits · {}", tenure.token),
                    detail,
                    lines,
                });
            }
            // A term that its client has not been told of, or was told of by nobody.
            None => self.bar(Bar {
                lane,
                row: 0,
                from,
                to,
                kind: "wait",
                client,
                label: format!("{who} · {}", tenure.token),
                detail,
                lines,
            }),
        }
    }

    fn members(&mut self) {
        for epoch in self.case.stream.epochs() {
            for (key, entries) in self.case.stream.keys_under(epoch, "member.") {
                let Some(group) = group(key) else { continue };
                let lane = self.lane("group", group.to_owned());
                for (place, record) in
                    entries.iter().enumerate().filter(|(_, entry)| entry.is_live() && entry.survived().is_none())
                {
                    let next = entries.get(place + 1);
                    let to = next.map_or(self.over(epoch), when);
                    let session = record.write.value.session.as_deref().unwrap_or("?");
                    let client = self.case.sessions.get(session).map(|session| session.client);
                    let label = key.rsplit_once('.').map_or(key, |(_, id)| id).to_owned();
                    let detail = format!("{key} at revision {}, session {session}", record.revision());
                    let lines = [Some(record.line), next.map(|next| next.line)].into_iter().flatten().collect();
                    let from = when(record);
                    self.bar(Bar { lane, row: 0, from, to: to.max(from), kind: "member", client, label, detail, lines });
                }
            }
        }
    }

    fn seen(&mut self) {
        for (line, seen) in &self.case.seen {
            let (lane, kind) = match &seen.what {
                Sight::Held { lock, yes, .. } => (self.lane("lock", lock.clone()), if *yes { "yes" } else { "no" }),
                Sight::Leading { election, yes, .. } => {
                    (self.lane("election", election.clone()), if *yes { "yes" } else { "no" })
                }
                Sight::Lost { hold: Hold::Lock { lock, .. }, .. } => (self.lane("lock", lock.clone()), "lost"),
                Sight::Lost { hold: Hold::Election { election, .. }, .. } => (self.lane("election", election.clone()), "lost"),
                Sight::View { kind: ViewKind::Gap, .. } | Sight::Member { kind: MemberKind::Gap, .. } => {
                    (self.lane("client", seen.client.to_string()), "gap")
                }
                _ => (self.lane("client", seen.client.to_string()), "word"),
            };
            self.marks.push(Mark { lane, at: seen.from, kind, detail: told(seen), line: *line });
        }
    }

    fn faults(&mut self) {
        for (line, fault) in &self.case.faults.all {
            let lane = fault.client.map(|client| self.lane("client", client.to_string()));
            // As long as it was done, not as long as it may be felt.
            let (from, felt) = span(fault, self.case.quiet, self.case.end);
            let to = fault.until.unwrap_or(felt);
            let (label, of) = (report::name(fault.kind), fault.server.as_deref().unwrap_or_default());
            let detail = format!("{label} {of} {}", fault.note).split_whitespace().collect::<Vec<_>>().join(" ");
            self.shades.push(Shade { lane, from, to, label, detail, line: *line });
        }
    }
}

/// When a write was committed, as near as is known.
fn when(entry: &Entry<'_>) -> Micros {
    if entry.latest == Micros::MAX { entry.earliest } else { entry.latest }
}

fn instant(end: &End<'_>, or: Micros) -> Micros {
    end.entry().map_or(or, |entry| when(&entry))
}

fn group(key: &str) -> Option<&str> {
    key.strip_prefix("member.")?.rsplit_once('.').map(|(group, _)| group)
}

fn label(op: &Op) -> String {
    let named = |word: &str, name: &str| format!("{word} {name}");
    match op {
        Op::Open { .. } => "open".into(),
        Op::Close { .. } => "close".into(),
        Op::Acquire { lock, .. } => named("acquire", lock),
        Op::Release { lock, .. } => named("release", lock),
        Op::Break { lock, .. } => named("break", lock),
        Op::Campaign { election, .. } => named("campaign", election),
        Op::Resign { election, .. } => named("resign", election),
        Op::Transfer { election, .. } => named("transfer", election),
        Op::Proclaim { election, .. } => named("proclaim", election),
        Op::FencedPut { key, .. } => named("fenced put", key),
        Op::Put { key, .. } => named("put", key),
        Op::Delete { key, .. } => named("delete", key),
        Op::Get { key } => named("get", key),
        Op::Join { member, .. } => named("join", member),
        Op::Update { member, .. } => named("update", member),
        Op::Leave { member, .. } => named("leave", member),
        Op::Members { group } => named("members", group),
    }
}

fn detail(operation: &Operation<'_>) -> String {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let asked = json(serde_json::to_string(operation.op()));
    match operation.returned {
        Some((_, returned)) => format!("{asked} → {}", json(serde_json::to_string(&returned.outcome))),
        None => format!("{asked} → no answer"),
    }
}

fn told(seen: &Seen) -> String {
    format!("client {} saw {}", seen.client, serde_json::to_string(&seen.what).unwrap_or_default())
}
