//! What is to happen when: one queue of events for the whole world, in an order that follows from the seed alone.

use std::collections::BTreeMap;

use tenure_check::history::Micros;

/// Where an event stands in the agenda.
pub(crate) type Place = (Micros, u64);

/// Events by their time; those of one moment in the order in which they were put in.
pub(crate) struct Agenda<E> {
    events: BTreeMap<Place, E>,
    count: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), count: 0 }
    }
}

impl<E> Agenda<E> {
    pub(crate) fn add(&mut self, at: Micros, event: E) -> Place {
        self.count += 1;
        self.events.insert((at, self.count), event);
        (at, self.count)
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.events.remove(&place);
    }

    pub(crate) fn next(&mut self) -> Option<(Micros, E)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}
