//! The tickets of one queue as a view tells them, one change after the other; pure. What a change costs does not grow
//! with the queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tenure_kv::{Entry, Key, Revision};

use crate::{Holder, LockState, layout::parse_ticket};

/// The tickets of a queue, those of sessions that are known to be dead apart from the others.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// In the order of grants.
    live: BTreeMap<Revision, (Key, Holder)>,
    /// Where the live ones are.
    places: HashMap<Key, Revision>,
    /// Which of the live ones are whose.
    owned: HashMap<String, BTreeSet<Key>>,
    /// What is left of sessions that are dead. Forgotten with their last ticket.
    dead: HashMap<String, HashSet<Key>>,
}

impl Tickets {
    /// A ticket is there.
    pub(super) fn put(&mut self, entry: &Entry) {
        // What has something else written over it is a ticket where it stands now.
        self.gone(&entry.key);
        let Some((_, session)) = parse_ticket(&entry.key) else {
            tracing::warn!(key = %entry.key, "this key is in a lock's range but is no ticket; it is passed over");
            return;
        };
        if let Some(left) = self.dead.get_mut(session) {
            left.insert(entry.key.clone());
            return;
        }
        self.live.insert(entry.revision, (entry.key.clone(), Holder::of(entry, session)));
        self.places.insert(entry.key.clone(), entry.revision);
        self.owned.entry(session.to_owned()).or_default().insert(entry.key.clone());
    }

    /// A ticket is gone, if it was there.
    pub(super) fn gone(&mut self, ticket: &Key) {
        let Some((_, session)) = parse_ticket(ticket) else { return };
        let left = if let Some(place) = self.places.remove(ticket) {
            self.live.remove(&place);
            let Some(owned) = self.owned.get_mut(session) else { return };
            owned.remove(ticket);
            owned.len()
        } else {
            let Some(dead) = self.dead.get_mut(session) else { return };
            dead.remove(ticket);
            dead.len()
        };
        if left == 0 {
            self.owned.remove(session);
            self.dead.remove(session);
        }
    }

    /// `session` is dead: none of its tickets counts.
    pub(super) fn bury(&mut self, session: &str) {
        let Some(owned) = self.owned.remove(session) else { return };
        for place in owned.iter().filter_map(|ticket| self.places.remove(ticket)) {
            self.live.remove(&place);
        }
        self.dead.insert(session.to_owned(), owned.into_iter().collect());
    }

    /// The holder and those waiters who are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Holder> {
        self.live.values().take(1 + LockState::SHOWN).map(|(_, holder)| holder)
    }

    /// The holder's ticket and where it is.
    pub(super) fn first(&self) -> Option<(Key, Revision)> {
        self.live.first_key_value().map(|(revision, (ticket, _))| (ticket.clone(), *revision))
    }

    pub(super) fn state(&self) -> LockState {
        let mut shown = self.shown().cloned();
        LockState { holder: shown.next(), waiters: shown.collect(), waiting: self.live.len().saturating_sub(1) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tenure_kv::State;

    use super::*;

    const ONE: &str = "11111111111111111111111111111111";
    const TWO: &str = "22222222222222222222222222222222";

    fn key(session: &str, n: u64) -> Key {
        Key::new(format!("lock.x.{session}-{n}")).unwrap()
    }

    fn ticket(session: &str, n: u64) -> Entry {
        let state = State::Live(r#"{"host":"h","pid":7}"#.into());
        Entry { key: key(session, n), revision: Revision::new(n), state, created: SystemTime::UNIX_EPOCH }
    }

    fn told(tickets: &Tickets) -> (Option<u64>, Vec<u64>, usize) {
        let state = tickets.state();
        let tokens = state.waiters.iter().map(|waiter| waiter.token.get()).collect();
        (state.holder.map(|holder| holder.token.get()), tokens, state.waiting)
    }

    #[test]
    fn the_lowest_holds_and_the_others_wait_in_order() {
        let mut tickets = Tickets::default();
        assert_eq!(told(&tickets), (None, vec![], 0));
        for n in [5, 3, 9] {
            tickets.put(&ticket(ONE, n));
        }
        assert_eq!(told(&tickets), (Some(3), vec![5, 9], 2));
        tickets.gone(&key(ONE, 3));
        tickets.gone(&key(ONE, 3));
        assert_eq!(told(&tickets), (Some(5), vec![9], 1));
        let mut foreign = ticket(ONE, 1);
        foreign.key = Key::new("lock.x.something").unwrap();
        tickets.put(&foreign);
        tickets.gone(&foreign.key);
        assert_eq!(told(&tickets), (Some(5), vec![9], 1));
        for n in [5, 9] {
            tickets.gone(&key(ONE, n));
        }
        assert!(tickets.live.is_empty() && tickets.places.is_empty() && tickets.owned.is_empty());
    }

    #[test]
    fn tickets_of_the_dead_count_for_nothing_and_are_forgotten_with_the_last() {
        let mut tickets = Tickets::default();
        for (session, n) in [(ONE, 1), (TWO, 2), (ONE, 3), (TWO, 4)] {
            tickets.put(&ticket(session, n));
        }
        tickets.bury(ONE);
        assert_eq!(told(&tickets), (Some(2), vec![4], 1));
        // It lands late.
        tickets.put(&ticket(ONE, 5));
        assert_eq!(told(&tickets), (Some(2), vec![4], 1));
        for n in [1, 3, 5] {
            assert!(tickets.dead.contains_key(ONE));
            tickets.gone(&key(ONE, n));
        }
        assert!(tickets.dead.is_empty());
        assert_eq!(told(&tickets), (Some(2), vec![4], 1));
    }

    #[test]
    fn what_was_overwritten_is_where_it_stands_now() {
        let mut tickets = Tickets::default();
        tickets.put(&ticket(ONE, 1));
        tickets.put(&ticket(TWO, 2));
        let mut again = ticket(ONE, 1);
        again.revision = Revision::new(3);
        tickets.put(&again);
        assert_eq!(told(&tickets), (Some(2), vec![3], 1));
        tickets.gone(&again.key);
        assert_eq!(told(&tickets), (Some(2), vec![], 0));
    }

    #[test]
    fn a_long_queue_is_counted_and_its_front_is_shown() {
        let mut tickets = Tickets::default();
        for n in 1..=1_000 {
            tickets.put(&ticket(if n % 2 == 0 { TWO } else { ONE }, n));
        }
        let state = tickets.state();
        assert_eq!((state.waiters.len(), state.waiting), (LockState::SHOWN, 999));
        tickets.bury(ONE);
        assert_eq!((tickets.state().holder.unwrap().token.get(), tickets.state().waiting), (2, 499));
    }
}
