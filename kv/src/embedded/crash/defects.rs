//! Deliberate defects, each of which the runs must notice.

use std::sync::Mutex;

use super::story;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Defect {
    /// The disk is never told to sync.
    NeverSyncs,
    /// What a sync is for is only safe with the next one.
    AcknowledgesBeforeSync,
    SyncsAllButTheHeader,
    ForgetsTheDirectory,
    TakesTheWrongSlot,
    /// Readers and watchers see a group before it is on disk.
    ShowsBeforeSync,
    /// The writes of a group are two transactions.
    WritesInHalves,
    /// What has been given out is told by what is there.
    ReusesRevisions,
    /// The file is closed in a way that spares the next opening the look at the checksums.
    SkipsChecksums,
    /// A write in doubt is said not to be applied.
    DeniesDoubt,
    /// A failed sync is taken for a failed write.
    GoesOnAfterAFailedSync,
    /// What a failed sync left in the kernel's cache is taken for what is on disk.
    TrustsTheCache,
    /// A late flush leaves out some keys.
    FlushesHalf,
    /// Revisions that are not on disk are given out without a reserve.
    KeepsNoReserve,
}

const ALL: [Defect; 14] = [
    Defect::NeverSyncs,
    Defect::AcknowledgesBeforeSync,
    Defect::SyncsAllButTheHeader,
    Defect::ForgetsTheDirectory,
    Defect::TakesTheWrongSlot,
    Defect::ShowsBeforeSync,
    Defect::WritesInHalves,
    Defect::ReusesRevisions,
    Defect::SkipsChecksums,
    Defect::DeniesDoubt,
    Defect::GoesOnAfterAFailedSync,
    Defect::TrustsTheCache,
    Defect::FlushesHalf,
    Defect::KeepsNoReserve,
];

/// After how many crashes and in which seed `defect` is noticed, and by what.
fn noticed(defect: Defect) -> (u64, u64, String) {
    let mut crashes = 0;
    for seed in 0..1_000 {
        match std::panic::catch_unwind(|| story::run(seed, Some(defect))) {
            Ok(Ok((tally, _))) => crashes += tally.crashes,
            Ok(Err(error)) => return (crashes, seed, error),
            Err(_) => return (crashes, seed, "a panic".to_owned()),
        }
    }
    panic!("{defect:?} was not noticed in {crashes} crashes");
}

#[test]
fn every_defect_is_noticed() {
    let next = Mutex::new(ALL.iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(defect) = { next.lock().unwrap().next() } {
                    let (crashes, seed, error) = noticed(*defect);
                    let error = error.lines().next().unwrap_or_default();
                    println!("{defect:?}: seed {seed}, after {crashes} crashes: {error}");
                }
            });
        }
    });
}
