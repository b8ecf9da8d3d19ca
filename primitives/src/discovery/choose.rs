//! Which of several instances: pure functions from numbers to a place among them.

/// The next in turn.
pub(super) fn in_turn(count: usize, turn: usize) -> usize {
    turn % count.max(1)
}

/// Any, each as likely.
pub(super) fn at_random(count: usize, random: impl FnOnce(usize) -> usize) -> usize {
    random(count.max(1))
}

/// The less loaded of two drawn at random, the first of them where they are equal.
///
/// M. Mitzenmacher: *The power of two choices in randomized load balancing*, IEEE Transactions on Parallel and
/// Distributed Systems 12 (10), 2001. Two suffice for nearly the balance of asking all, and unlike with the
/// least loaded of all, those who choose at the same time do not all choose the same.
pub(super) fn less_loaded_of_two(count: usize, load: impl Fn(usize) -> usize, mut random: impl FnMut(usize) -> usize) -> usize {
    if count < 2 {
        return 0;
    }
    let first = random(count);
    // Any but the first.
    let second = (first + 1 + random(count - 1)) % count;
    if load(second) < load(first) { second } else { first }
}

/// At random, as likely as it weighs. A weight of 0 is chosen only where all weigh 0.
pub(super) fn by_weight(weights: impl Iterator<Item = u32> + Clone, random: impl FnOnce(u64) -> u64) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        let count = weights.count().max(1);
        return usize::try_from(random(count as u64)).unwrap_or(0);
    }
    let mut left = random(total);
    for (place, weight) in weights.enumerate() {
        match left.checked_sub(weight.into()) {
            Some(rest) => left = rest,
            None => return place,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round() {
        assert_eq!((4..9).map(|turn| in_turn(3, turn)).collect::<Vec<_>>(), [1, 2, 0, 1, 2]);
        assert_eq!(in_turn(1, usize::MAX), 0);
    }

    #[test]
    fn of_two_the_less_loaded_is_chosen_and_they_are_never_the_same() {
        let loads = [5, 0, 3, 1];
        for first in 0..4 {
            for second in 0..3 {
                let mut draws = [first, second].into_iter();
                let other = (first + 1 + second) % 4;
                assert_ne!(first, other);
                let chosen = less_loaded_of_two(4, |place| loads[place], |_| draws.next().unwrap());
                assert_eq!(loads[chosen], loads[first].min(loads[other]));
            }
        }
        assert_eq!(less_loaded_of_two(1, |_| 9, |_| unreachable!("there is no choice")), 0);
        let mut draws = [2, 0].into_iter();
        assert_eq!(less_loaded_of_two(4, |_| 7, |_| draws.next().unwrap()), 2, "of equals the first drawn");
    }

    #[test]
    fn two_choices_keep_the_highest_load_low() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut one, mut two) = (vec![0_usize; 1_000], vec![0_usize; 1_000]);
        for _ in 0..1_000 {
            one[at_random(1_000, |n| rng.usize(..n))] += 1;
            let chosen = less_loaded_of_two(1_000, |place| two[place], |n| rng.usize(..n));
            two[chosen] += 1;
        }
        // ln ln n / ln 2 against ln n / ln ln n.
        assert!(two.iter().max().unwrap() <= &4 && two.iter().max() < one.iter().max());
    }

    #[test]
    fn every_draw_falls_to_the_weight_that_covers_it() {
        let weights = [2, 0, 3];
        let places: Vec<_> = (0..5).map(|draw| by_weight(weights.into_iter(), |total| draw.min(total - 1))).collect();
        assert_eq!(places, [0, 0, 2, 2, 2]);
        assert_eq!(by_weight([0, 0].into_iter(), |total| total - 1), 1);
        assert_eq!(by_weight([u32::MAX, u32::MAX].into_iter(), |total| total - 1), 1);
    }
}
