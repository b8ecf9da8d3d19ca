//! Rendezvous hashing: which of several owns a key, agreed on by all who know the same several.
//!
//! Everybody scores each candidate for the key, and the highest score owns it. So a candidate that comes
//! takes only what it now owns, and of one that goes only its own moves.
//!
//! - D. Thaler, C. Ravishankar: *Using name-based mappings to increase hit rates*, IEEE/ACM Transactions on
//!   Networking 6 (1), 1998.
//! - Weights by `−w / ln(h)`, the logarithmic method of C. Schindelhauer, G. Schomaker: *Weighted distributed
//!   hash tables*, SPAA 2005.
//!
//! The hash is XXH64 of the candidate's id, seeded with XXH64 of the key, and the logarithm is computed in
//! software: the result is the same on every machine and in every release.

use std::cmp::Ordering;

use twox_hash::XxHash64;

/// A hash of `key` that never changes.
pub(crate) fn hash(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// A candidate's claim to a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Claim<'a> {
    score: f64,
    hash: u64,
    id: &'a str,
}

impl<'a> Claim<'a> {
    /// The claim of `id` with this `weight` to the key that [hashes](hash()) to `key`.
    pub(crate) fn new(key: u64, id: &'a str, weight: u32) -> Self {
        let hash = XxHash64::oneshot(key, id.as_bytes());
        // Evenly spread in the open interval from 0 to 1, and exact: 53 bits.
        let even = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        Self { score: f64::from(weight) / -libm::log(even), hash, id }
    }

    /// Which claim prevails; never equal for two different ids.
    pub(crate) fn against(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(self.hash.cmp(&other.hash)).then_with(|| other.id.cmp(self.id))
    }
}

/// Which of `candidates` owns the key that [hashes](hash()) to `key`: its place among them. A weight of 0
/// owns nothing, unless all weigh 0: then they count as equal.
pub(crate) fn owner<'a>(key: u64, candidates: impl Iterator<Item = (&'a str, u32)> + Clone) -> Option<usize> {
    let weightless = candidates.clone().all(|(_, weight)| weight == 0);
    let claims = candidates.enumerate().filter(|(_, (_, weight))| weightless || *weight > 0);
    claims
        .map(|(place, (id, weight))| (place, Claim::new(key, id, if weightless { 1 } else { weight })))
        .max_by(|(_, a), (_, b)| a.against(b))
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_everybody_has() {
        // From the specification's own implementation: `xxhsum -H1`.
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn owners_are_the_same_in_every_release() {
        let of = |weights: [u32; 3]| -> String {
            let candidates = ["anna", "bert", "cleo"].into_iter().zip(weights);
            (0..16)
                .map(|n: u32| char::from(b'a' + owner(hash(n.to_string().as_bytes()), candidates.clone()).unwrap() as u8))
                .collect()
        };
        assert_eq!(of([1, 1, 1]), "ccccacacbccacccb");
        assert_eq!(of([1, 4, 0]), "bbbbababbbbababb");
    }

    #[test]
    fn shares_follow_the_weights() {
        let candidates = [("a", 1), ("b", 2), ("c", 5), ("d", 0)];
        let mut shares = [0_u32; 4];
        for n in 0..16_000_u32 {
            shares[owner(hash(&n.to_le_bytes()), candidates.into_iter()).unwrap()] += 1;
        }
        assert_eq!(shares[3], 0);
        for (share, weight) in shares.into_iter().zip([1, 2, 5]) {
            // The spread is binomial: four standard deviations are below 260.
            assert!(share.abs_diff(weight * 2_000) < 260, "{shares:?}");
        }
    }

    #[test]
    fn where_nobody_weighs_anything_all_count_alike() {
        let mut shares = [0_u32; 2];
        for n in 0..2_000_u32 {
            shares[owner(hash(&n.to_le_bytes()), [("a", 0), ("b", 0)].into_iter()).unwrap()] += 1;
        }
        assert!(shares[0].abs_diff(1_000) < 100, "{shares:?}");
        assert_eq!(owner(1, std::iter::empty()), None);
    }

    #[test]
    fn the_extremes_of_the_hash_have_a_finite_score() {
        for hash in [0_u64, u64::MAX] {
            let even = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
            assert!(even > 0.0 && even < 1.0 && (1.0 / -libm::log(even)).is_finite());
        }
    }
}
