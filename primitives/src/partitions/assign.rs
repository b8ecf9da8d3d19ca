//! Which member should own which partition: pure.

use std::{fmt, sync::Arc};

use tenure_kv::Revision;

use crate::rendezvous;

/// Which member should own which partition, as of one revision of the group.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    revision: Revision,
    owners: Arc<[Option<Arc<str>>]>,
}

impl Assignment {
    /// The revision of the group that this follows from.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The id of the member that should own `partition`; `None` where nobody can, and for numbers out of range.
    pub fn owner(&self, partition: u32) -> Option<&Arc<str>> {
        self.owners.get(usize::try_from(partition).ok()?)?.as_ref()
    }

    /// Each partition and who should own it.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Option<&Arc<str>>)> {
        (0..).zip(self.owners.iter().map(Option::as_ref))
    }

    /// The partitions that `member` should own.
    pub fn of<'a>(&'a self, member: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.iter().filter(move |(_, owner)| owner.is_some_and(|owner| **owner == *member)).map(|(partition, _)| partition)
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assignment@{} ", self.revision)?;
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Assigns partitions `0..partitions` to `members` (id and weight, in any order) by rendezvous hashing.
///
/// Everybody who knows the same members comes to the same result, on every machine and in every release. A
/// member that comes takes only partitions that become its own; of one that goes only its own move. A weight
/// of 0 owns nothing, unless all weigh 0.
///
/// ```
/// use tenure::partitions::assign;
/// use tenure_kv::Revision;
///
/// let two = assign(64, Revision::new(7), [("a", 1), ("b", 1)]);
/// let three = assign(64, Revision::new(8), [("a", 1), ("b", 1), ("c", 1)]);
/// for n in 0..64 {
///     assert!(three.owner(n) == two.owner(n) || three.owner(n).map(|id| &**id) == Some("c"));
/// }
/// ```
pub fn assign<'a>(partitions: u32, revision: Revision, members: impl IntoIterator<Item = (&'a str, u32)>) -> Assignment {
    let members: Vec<_> = members.into_iter().map(|(id, weight)| (id, weight, Arc::<str>::from(id))).collect();
    let owners = (0..partitions).map(|partition| {
        let candidates = members.iter().map(|(id, weight, _)| (*id, *weight));
        let owner = rendezvous::owner(rendezvous::hash(partition.to_string().as_bytes()), candidates)?;
        members.get(owner).map(|(_, _, id)| id.clone())
    });
    Assignment { revision, owners: owners.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Members = Vec<(String, u32)>;

    fn of(partitions: u32, members: &Members) -> Assignment {
        assign(partitions, Revision::ZERO, members.iter().map(|(id, weight)| (&**id, *weight)))
    }

    /// Two hundred groups of one to twelve members, with weights, and the seed that made each.
    fn groups() -> impl Iterator<Item = (u64, fastrand::Rng, Members)> {
        (0..200).map(|seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let members = (0..rng.u32(1..=12)).map(|n| (format!("m{n}-{}", rng.u16(..)), rng.u32(1..=5))).collect();
            (seed, rng, members)
        })
    }

    #[test]
    fn every_partition_has_an_owner_among_the_members_whatever_their_order() {
        for (seed, mut rng, mut members) in groups() {
            let before = of(97, &members);
            assert!(
                before.iter().all(|(_, owner)| members.iter().any(|(id, _)| Some(&**id) == owner.map(|id| &**id))),
                "seed {seed}"
            );
            assert_eq!(members.iter().map(|(id, _)| before.of(id).count()).sum::<usize>(), 97, "seed {seed}");
            rng.shuffle(&mut members);
            assert_eq!(of(97, &members), before, "seed {seed}");
        }
    }

    #[test]
    fn a_member_that_joins_takes_only_what_becomes_its_own() {
        for (seed, mut rng, mut members) in groups() {
            let before = of(97, &members);
            members.push(("newcomer".into(), rng.u32(1..=5)));
            let after = of(97, &members);
            for ((partition, was), (_, is)) in before.iter().zip(after.iter()) {
                assert!(is == was || is.is_some_and(|id| &**id == "newcomer"), "seed {seed}, partition {partition}");
            }
        }
    }

    #[test]
    fn of_a_member_that_leaves_only_its_own_move() {
        for (seed, mut rng, mut members) in groups() {
            let before = of(97, &members);
            let (gone, _) = members.swap_remove(rng.usize(..members.len()));
            let after = of(97, &members);
            for ((partition, was), (_, is)) in before.iter().zip(after.iter()) {
                assert!(is == was || was.is_some_and(|id| **id == *gone), "seed {seed}, partition {partition}");
                assert_eq!(is.is_none(), members.is_empty(), "seed {seed}, partition {partition}");
            }
        }
    }

    #[test]
    fn a_heavier_member_takes_only_from_others() {
        for (seed, _, mut members) in groups() {
            let before = of(97, &members);
            members[0].1 += 3;
            let after = of(97, &members);
            for ((partition, was), (_, is)) in before.iter().zip(after.iter()) {
                assert!(is == was || is.is_some_and(|id| **id == *members[0].0), "seed {seed}, partition {partition}");
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let shares = assign(8_000, Revision::ZERO, [("a", 1), ("b", 3)]);
        assert!(shares.of("a").count().abs_diff(2_000) < 160, "four standard deviations");
    }
}
