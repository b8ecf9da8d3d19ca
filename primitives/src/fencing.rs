//! Fencing an application's batch with the key that proves a hold.

use tenure_kv::{
    Batch, Expect, Fence, Key, Revision,
    mutants::{self, Mutant},
};

use crate::{Error, Result, layout};

/// Refuses what an application may not write under a fence of ours.
pub(crate) fn check(batch: &Batch) -> Result<()> {
    if let Some(op) = batch.ops.iter().find(|op| layout::is_own(&op.key)) {
        return Err(Error::invalid(format!("{} is one of Tenure's own keys; use data_key for yours", op.key)));
    }
    if let Some(op) = batch.ops.iter().find(|op| op.fence.is_some()) {
        return Err(Error::invalid(format!("{} has a fence of its own; the hold it is written under is the fence", op.key)));
    }
    Ok(())
}

/// Has the store refuse the whole batch unless `key` is at `revision`.
pub(crate) fn fence(batch: &mut Batch, key: &Key, revision: Revision) {
    if mutants::is_on(Mutant::MissingFence) {
        return;
    }
    // One fence guards the whole batch; a change without an expectation bears it for free.
    let bearer = batch.ops.iter().position(|op| op.expect == Expect::Any).unwrap_or(0);
    if let Some(op) = batch.ops.get_mut(bearer) {
        op.fence = Some(Fence { key: key.clone(), revision });
    }
}
