//! What this process has seen of a bucket, over all its sessions there: which incarnation it is, how
//! far its revisions had come, and until when no lock may be granted.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tenure_kv::{Clock, ClockExt, Expect, Moment, Op, Revision, Store};
use tokio::sync::watch;

use super::heights::{Heights, Mark};
use crate::{
    Result, ids, layout,
    record::{EpochRecord, decode, encode},
};

/// One for each store that this process has opened.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    heights: Heights,
    sight: Mutex<Sight>,
    /// Moves whenever the epoch does.
    turns: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Sight {
    epoch: Option<String>,
    /// The epoch of a bucket that went back: its tokens would be given out a second time.
    spoiled: Option<String>,
    grants_from: Option<Moment>,
    /// The longest lease that this process has had here; others are taken to have none longer.
    longest: Duration,
    /// The bucket is new and nobody has written down yet that one lease has passed.
    unsettled: bool,
}

type Known = (Weak<dyn Store>, Arc<Witness>);

static WITNESSES: LazyLock<Mutex<Vec<Known>>> = LazyLock::new(Mutex::default);

impl Witness {
    /// The witness for `store`, the same for every clone of this handle.
    pub(crate) fn of(store: &Arc<dyn Store>) -> Arc<Self> {
        let mut all = WITNESSES.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known.strong_count() > 0);
        let same = |known: &Weak<dyn Store>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(store));
        if let Some((_, witness)) = all.iter().find(|(known, _)| same(known)) {
            return witness.clone();
        }
        let witness = Arc::new(Self::default());
        all.push((Arc::downgrade(store), witness.clone()));
        witness
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the revisions are known to have come. Ask *before* a write is sent: the write's revision must
    /// then be higher, or the bucket has gone back.
    pub(crate) fn mark(&self) -> Mark {
        self.heights.mark()
    }

    /// As [`Heights::committed`].
    #[must_use]
    pub(crate) fn committed(&self, before: Mark, now: Revision) -> bool {
        self.heights.committed(before, now)
    }

    /// The bucket may not be what it was: leases that others had in it may still run, so wait for them.
    pub(crate) fn hold_off(&self, clock: &dyn Clock) {
        self.sight().hold_off(clock);
    }

    /// A committed write has shown that the bucket of `epoch` has gone back: every session in that epoch is
    /// lost, and its tokens must not be given out again under its name.
    pub(crate) fn went_back(&self, clock: &dyn Clock, epoch: &str) {
        let mut sight = self.sight();
        if sight.epoch.as_deref() == Some(epoch) {
            sight.epoch = None;
            sight.spoiled = Some(epoch.to_owned());
            sight.hold_off(clock);
            self.heights.turn();
            self.turns.send_replace(());
        }
    }

    /// Whether the bucket is still in `epoch`, as far as this process knows.
    pub(crate) fn is_in(&self, epoch: &str) -> bool {
        self.sight().epoch.as_deref() == Some(epoch)
    }

    /// Changes whenever [`is_in`](Self::is_in) may.
    pub(crate) fn turns(&self) -> watch::Receiver<()> {
        self.turns.subscribe()
    }

    /// From when grants may be given, if that is still to come.
    pub(crate) fn grants_from(&self, clock: &dyn Clock) -> Option<Moment> {
        self.sight().grants_from.filter(|from| *from > clock.now())
    }

    /// Reads the bucket's epoch, or writes it into a new bucket, and compares it with what was seen.
    ///
    /// A bucket that others can write to and that is new may be one that was deleted under running
    /// holders. Nobody can tell, so grants wait one lease, once in the bucket's life.
    pub(crate) async fn establish(&self, store: &Arc<dyn Store>, clock: &dyn Clock, lease: Duration) -> Result<String> {
        let spoiled = self.sight().spoiled.clone();
        let record = read_or_write(store, clock, spoiled.as_deref()).await?;
        let mut sight = self.sight();
        sight.longest = sight.longest.max(lease);
        let changed = sight.epoch.as_ref().is_some_and(|known| *known != record.id);
        if changed {
            self.heights.turn();
            self.turns.send_replace(());
        }
        if changed || (!record.settled && sight.grants_from.is_none()) {
            tracing::warn!(
                bucket = %store.info().url,
                wait_ms = u64::try_from(sight.longest.as_millis()).unwrap_or(u64::MAX),
                "the bucket is new: grants wait one lease, for holders that an earlier bucket of this name may have had"
            );
            sight.hold_off(clock);
        }
        sight.unsettled = !record.settled;
        sight.epoch = Some(record.id.clone());
        Ok(record.id)
    }

    /// Whether the bucket's epoch is still `id`, as far as one read tells.
    pub(crate) async fn is_epoch(store: &Arc<dyn Store>, id: &str) -> Result<bool> {
        let entry = store.entry(&layout::epoch_key()?).await?;
        Ok(entry.is_some_and(|entry| EpochRecord::is_of(&entry, id)))
    }

    /// Once grants may be given, tells newcomers to the new bucket so. Best effort: whoever finds it
    /// unsaid waits once more.
    pub(crate) async fn settle(&self, store: &Arc<dyn Store>, clock: &dyn Clock) {
        let epoch = {
            let mut sight = self.sight();
            if !sight.unsettled || sight.grants_from.is_some_and(|from| from > clock.now()) {
                return;
            }
            sight.unsettled = false;
            sight.epoch.clone()
        };
        if let Some(epoch) = epoch
            && let Err(error) = write_settled(store, &epoch).await
        {
            tracing::debug!(%error, "the new bucket could not be marked as settled");
            self.sight().unsettled = !error.is_conflict();
        }
    }
}

impl Sight {
    fn hold_off(&mut self, clock: &dyn Clock) {
        self.grants_from = self.grants_from.max(Some(clock.now() + self.longest));
    }
}

async fn write_settled(store: &Arc<dyn Store>, epoch: &str) -> tenure_kv::Result<()> {
    let Ok(key) = layout::epoch_key() else { return Ok(()) };
    if let Some(entry) = store.entry(&key).await?
        && let Some(record) = entry.value().and_then(decode::<EpochRecord>)
        && record.id == epoch
        && !record.settled
    {
        let settled = EpochRecord { settled: true, ..record };
        store.commit(Op::put(key, encode(&settled)).if_at(entry.revision).into()).await?;
    }
    Ok(())
}

/// The epoch that is written down, unless it is `spoiled`; else a new one, written down now.
async fn read_or_write(store: &Arc<dyn Store>, clock: &dyn Clock, spoiled: Option<&str>) -> Result<EpochRecord> {
    let key = layout::epoch_key()?;
    let fresh = EpochRecord { id: ids::fresh(), settled: !store.info().shared };
    let mut tries = 0;
    loop {
        let mut expect = Expect::Absent;
        if let Some(entry) = store.entry(&key).await?
            && let Some(value) = entry.value()
        {
            let Some(record) = decode::<EpochRecord>(value) else {
                return Err(crate::Error::invalid(format!(
                    "{key} in {} was not written by Tenure; use a bucket that Tenure has for itself",
                    store.info().url
                )));
            };
            if spoiled != Some(record.id.as_str()) {
                return Ok(record);
            }
            expect = Expect::At(entry.revision);
        }
        match store.commit(Op::put(key.clone(), encode(&fresh)).expect(expect).into()).await {
            Ok(_) => return Ok(fresh),
            // Somebody was first, or our own write landed: a read from a replica may lag behind.
            Err(error) if (error.is_conflict() || error.is_unknown()) && tries < 40 => {
                tries += 1;
                clock.sleep(Duration::from_millis(5 * tries)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
