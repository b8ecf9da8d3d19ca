//! A commit: attempts until one is applied, proven impossible, or of unknown outcome.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    read::Reader,
    write::{Refusal, Writer, checked_key},
};
use crate::{Batch, Change, Entry, Error, Expect, Key, Op, Result, Revision, State};

/// How often a tombstone is looked for after a refusal.
const LOOKS: u32 = 8;
/// After so many looks at a key that shows nothing its tombstone has probably expired.
const ENOUGH: u32 = 2;
/// No tombstone is gone before that.
const TOMBSTONES_LAST: Duration = Duration::from_secs(1);

/// Applies `batch`. Only refused attempts are repeated, so an unknown outcome stays unknown. Where `clustered`, a
/// refusal counts once it is proven.
pub(super) async fn commit(writer: Writer<'_>, reader: Reader<'_>, clustered: bool, batch: &Batch) -> Result<Revision> {
    batch.validate()?;
    let ops = &batch.ops;
    let mut expected: Vec<Option<u64>> = ops
        .iter()
        .map(|op| match op.expect {
            Expect::Any => None,
            Expect::Absent => Some(0),
            Expect::At(revision) => Some(revision.get()),
        })
        .collect();
    // A server that stands alone says what it did.
    let mark = (clustered && !writer.plain).then(|| uuid::Uuid::new_v4().simple().to_string());
    let mark = mark.as_deref();
    let begun = Instant::now();
    let mut tries = 0;
    let mut busy = false;
    loop {
        let sent = Instant::now();
        match writer.attempt(ops, &expected, mark).await {
            Ok(revision) => return Ok(Revision::new(revision)),
            // What was called busy before may have been applied.
            Err(Refusal::Final(error)) if clustered && busy && !error.is_unknown() => {
                return Err(Error::unknown(format!("the write to {} was called busy before, and now: {error}", ops[0].key)));
            }
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Repeated(why)) => {
                let repeated = Refused { ops, expected: &expected, mark, found: 0, begun };
                return where_it_is(reader, &repeated).await?.ok_or_else(|| Error::unknown(why));
            }
            Err(Refusal::Wrong { found }) => {
                if clustered {
                    prove(writer, reader, ops, &expected, found, if busy { begun } else { sent }).await?;
                    if busy {
                        let refused = Refused { ops, expected: &expected, mark, found, begun };
                        if let Some(revision) = by_itself(reader, &refused).await? {
                            return Ok(revision);
                        }
                    }
                }
                if let Some(revision) = reconsider(reader, clustered, ops, &mut expected, mark, found).await? {
                    return Ok(revision);
                }
            }
            Err(Refusal::Busy(why)) => {
                // Nothing would refuse a second copy of it.
                if clustered && ops.iter().all(|op| op.expect == Expect::Any && op.fence.is_none()) {
                    return Err(Error::unknown(why));
                }
                busy = true;
                if begun.elapsed() >= writer.timeout {
                    return Err(if clustered {
                        still(writer, ops, &expected, begun, why).await
                    } else {
                        Error::unavailable(why)
                    });
                }
                sleep(pause(tries)).await;
                tries += 1;
                // Whoever runs out of time here has something to prove first.
                continue;
            }
        }
        tries += 1;
        if begun.elapsed() >= writer.timeout {
            return Err(Error::unavailable(format!("{} changes too fast to be written", ops[0].key)));
        }
    }
}

fn pause(tries: u32) -> Duration {
    Duration::from_millis(1 << tries.min(6))
}

/// Whether a refusal means that nothing was applied.
///
/// For a moment after a partition two servers lead the stream, and both may get the same message: the former leader
/// refuses it for what it does not know yet, while the new one applies it. A revision beyond the expected one was
/// not found by a server that is behind. One below it proves something only if it is still there for those who lead: a
/// message that goes through on that condition shows it.
async fn prove(
    writer: Writer<'_>,
    reader: Reader<'_>,
    ops: &[Op],
    expected: &[Option<u64>],
    found: u64,
    sent: Instant,
) -> Result<()> {
    let own = ops.iter().zip(expected).filter_map(|(op, expected)| Some((&op.key, (*expected)?)));
    let fences = ops.iter().filter_map(|op| op.fence.as_ref()).map(|fence| (&fence.key, fence.revision.get()));
    // What is where it should be is not what was in the way.
    let checked: Vec<(&Key, u64)> = own.chain(fences).filter(|(_, expected)| *expected != found).collect();
    if checked.iter().all(|(_, expected)| *expected < found) {
        return Ok(());
    }
    if checked.len() > 1 {
        let keys: Vec<Key> = checked.iter().map(|(key, _)| (*key).clone()).collect();
        let entries = reader.entries(&keys).await.unwrap_or_default();
        let is_there = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| entry.revision.get() == found);
        // It was beyond before the refusal, and whatever the batch wrote would be beyond it.
        if checked.iter().zip(&entries).any(|((_, expected), entry)| *expected < found && is_there(entry)) {
            return Ok(());
        }
    }
    for (key, _) in checked.iter().filter(|(_, expected)| *expected > found) {
        // A tombstone of its own that has expired would look the same as nothing.
        if writer.finds(key, found).await && (found > 0 || sent.elapsed() < TOMBSTONES_LAST) {
            return Ok(());
        }
    }
    let message = format!(
        "the write to {} was refused by a server that is behind ({found} was found there), and one that is not may have \
         applied it; read what is there",
        ops[0].key
    );
    Err(Error::unknown(message))
}

/// A write of which an attempt was refused because `found` stood somewhere, after another one had found a key busy.
struct Refused<'a> {
    ops: &'a [Op],
    expected: &'a [Option<u64>],
    mark: Option<&'a str>,
    found: u64,
    begun: Instant,
}

impl Refused<'_> {
    fn unknown(&self, why: &str) -> Error {
        Error::unknown(format!("the write to {} was refused after it had found its keys busy, and {why}", self.ops[0].key))
    }
}

/// The revision of the write itself, if that was what refused it: "busy", too, may have been said by a server that led
/// before, while the one that leads applied it.
async fn by_itself(reader: Reader<'_>, refused: &Refused<'_>) -> Result<Option<Revision>> {
    let ops = refused.ops;
    let fences = ops.iter().filter_map(|op| op.fence.as_ref()).map(|fence| fence.key.clone());
    let keys: Vec<Key> = ops.iter().map(|op| op.key.clone()).chain(fences).collect();
    for look in 0..LOOKS {
        match look_for_itself(reader, refused, &keys).await? {
            Seen::Itself(revision) => return Ok(Some(revision)),
            Seen::Another => return Ok(None),
            Seen::Neither if refused.begun.elapsed() >= reader.timeout => break,
            Seen::Neither => sleep(pause(look)).await,
        }
    }
    Err(refused.unknown("the replicas that answer reads do not show why"))
}

/// The revision of a write that is known to have been applied, if it still stands.
async fn where_it_is(reader: Reader<'_>, applied: &Refused<'_>) -> Result<Option<Revision>> {
    let keys: Vec<Key> = applied.ops.iter().map(|op| op.key.clone()).collect();
    for look in 0..LOOKS {
        if let Seen::Itself(revision) = look_for_itself(reader, applied, &keys).await? {
            return Ok(Some(revision));
        }
        // A replica that is behind does not show it yet.
        sleep(pause(look)).await;
    }
    Ok(None)
}

/// What a look at what was in the way of a write shows.
enum Seen {
    /// The write itself, whose last revision that is.
    Itself(Revision),
    Another,
    /// Too little.
    Neither,
}

/// One look at `keys`, those of the operations first.
///
/// What expects nothing of its own key leaves no proof that it was not applied and written over since: then another's
/// write is taken for the first.
async fn look_for_itself(reader: Reader<'_>, refused: &Refused<'_>, keys: &[Key]) -> Result<Seen> {
    let Refused { ops, expected, mark, found, .. } = *refused;
    let Ok(entries) = reader.entries(keys).await else { return Ok(Seen::Neither) };
    // A replica that is behind shows neither.
    if found > 0 && !entries.iter().flatten().any(|entry| entry.revision.get() >= found) {
        return Ok(Seen::Neither);
    }
    let mut proven = expected.iter().all(Option::is_none);
    for (i, (op, entry)) in ops.iter().zip(&entries).enumerate() {
        let Some(entry) = entry else {
            proven |= expected[i] == Some(0);
            continue;
        };
        let at = entry.revision.get();
        if expected[i].is_some_and(|expected| at <= expected) {
            // Of all or nothing this part is missing.
            proven |= expected[i] == Some(at);
            continue;
        }
        let Ok(origin) = reader.origin(entry).await else { return Ok(Seen::Neither) };
        match mark {
            Some(mark) if origin.mark.as_deref() == Some(mark) => return Ok(Seen::Itself(last(ops, i, entry))),
            None if leaves(op, entry) => return Err(refused.unknown("what stands there may be that write itself")),
            // It took the place that the write was to take.
            _ => proven |= expected[i].is_some() && origin.replaced == expected[i],
        }
    }
    if proven { Ok(Seen::Another) } else { Err(refused.unknown("others have written since")) }
}

/// The revision of the last of `ops`, of which the one at `place` made `entry`: theirs follow each other.
fn last(ops: &[Op], place: usize, entry: &Entry) -> Revision {
    Revision::new(entry.revision.get() + (ops.len() - 1 - place) as u64)
}

/// Whether `op` leaves its key as `entry` shows it.
fn leaves(op: &Op, entry: &Entry) -> bool {
    match (&op.change, &entry.state) {
        (Change::Put(value, _), State::Live(live)) => value == live,
        (Change::Put(..), _) => false,
        (Change::Delete { .. } | Change::Purge { .. }, state) => !matches!(state, State::Live(_)),
    }
}

/// The error of a write that found its keys busy for as long as there was time: not applied, if what it was to change is
/// still as expected.
async fn still(writer: Writer<'_>, ops: &[Op], expected: &[Option<u64>], begun: Instant, why: String) -> Error {
    for (op, expected) in ops.iter().zip(expected) {
        // What was written there with a TTL may have come and gone.
        if let Some(expected) = expected
            && writer.finds(&op.key, *expected).await
            && (*expected > 0 || begun.elapsed() < TOMBSTONES_LAST)
        {
            return Error::unavailable(why);
        }
    }
    Error::unknown(why)
}

/// After a refusal: sets the expectations under which absent keys can be written over their tombstones, or
/// fails with what the refusal proves. The revision is that of the write, if that was what refused it.
async fn reconsider(
    reader: Reader<'_>,
    clustered: bool,
    ops: &[Op],
    expected: &mut [Option<u64>],
    mark: Option<&str>,
    found: u64,
) -> Result<Option<Revision>> {
    let absent: Vec<usize> = (0..ops.len()).filter(|i| ops[*i].expect == Expect::Absent).collect();
    match ops {
        [op] if absent.is_empty() && (op.fence.is_none() || op.expect == Expect::Any) => return Err(single(op, found)),
        _ if absent.is_empty() => return Err(several(reader, ops, found).await),
        _ => {}
    }
    let alone = ops.len() == 1 && ops[0].fence.is_none();
    if alone && found == 0 {
        // The tombstone expected there is gone.
        expected[0] = Some(0);
        return Ok(None);
    }
    let keys: Vec<Key> = absent.iter().map(|i| ops[*i].key.clone()).collect();
    let strict = absent.len() == ops.len() && ops.iter().all(|op| op.fence.is_none());
    for look in 0..LOOKS {
        let unread = |error: Error| {
            let said = format!("the write to {} was refused, and what stands there cannot be read", ops[0].key);
            if clustered { Error::unknown(said).caused_by(error) } else { error }
        };
        let entries = reader.entries(&keys).await.map_err(unread)?;
        if let Some(live) = entries.iter().flatten().find(|entry| entry.is_live()) {
            let ours = absent.iter().copied().find(|i| ops[*i].key == live.key && leaves(&ops[*i], live));
            // A former leader may know of a tombstone that the one that leads has forgotten, and has written over.
            if let Some(place) = ours
                && clustered
                && live.revision.get() > found
            {
                let origin = reader.origin(live).await.map_err(unread)?;
                match mark {
                    Some(mark) if origin.mark.as_deref() == Some(mark) => return Ok(Some(last(ops, place, live))),
                    Some(_) => {}
                    None => {
                        return Err(Error::unknown(format!("the write to {} was refused for what may be itself", live.key)));
                    }
                }
            }
            return Err(Error::conflict(&live.key, Some(live.revision)));
        }
        let seen = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.revision.get());
        let mut moved = false;
        for (i, entry) in absent.iter().zip(&entries) {
            moved |= expected[*i] != Some(seen(entry));
            expected[*i] = Some(seen(entry));
        }
        // A replica that is behind has not seen the write that stood in the way, one that is ahead has
        // forgotten it.
        let late = alone && entries.iter().all(|entry| seen(entry) < found);
        let gone = late && look >= ENOUGH && entries.iter().all(Option::is_none);
        if moved && !late || gone {
            return Ok(None);
        }
        if !strict {
            return Err(several(reader, ops, found).await);
        }
        sleep(pause(look)).await;
    }
    Err(Error::unavailable(format!("{} was refused, and the replicas that answer reads do not show why yet", keys[0])))
}

/// The error of one message that was refused because its key was found elsewhere. A revision below the expected
/// one was found by a server that is behind, or the caller's was never this key's.
fn single(op: &Op, found: u64) -> Error {
    Error::conflict(checked_key(op), Some(found).filter(|found| *found > 0).map(Revision::new))
}

/// The error of a refused batch. The server does not say which of its keys stood in the way, so it is named
/// only when a read proves it.
async fn several(reader: Reader<'_>, ops: &[Op], found: u64) -> Error {
    let mut wanted = Vec::new();
    for op in ops {
        if let Expect::At(revision) = op.expect {
            wanted.push((op.key.clone(), revision));
        }
        if let Some(fence) = &op.fence {
            wanted.push((fence.key.clone(), fence.revision));
        }
    }
    let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
    // The refusal stands without it.
    let entries = if keys.is_empty() { Vec::new() } else { reader.entries(&keys).await.unwrap_or_default() };
    for ((key, revision), entry) in wanted.iter().zip(&entries) {
        if let Some(entry) = entry.as_ref().filter(|entry| entry.revision > *revision) {
            return Error::conflict(key, Some(entry.revision));
        }
    }
    let message = format!("a precondition of the batch does not hold (a key was found at revision {found})");
    Error::Conflict { message, key: None, revision: None }
}
