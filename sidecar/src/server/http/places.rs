//! Who has a place at the HTTP listener, and who gives way when there is none left: pure but for one lock.
//!
//! Whoever comes is let in, so that a probe is answered however many others are there: the connection goes that has
//! been waited on for a question for the longest time, of the peer that has the most. Streams of events stay, and have a
//! share that leaves room.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Of so many places, those that streams may have.
const fn for_streams(places: usize) -> usize {
    places - places.div_ceil(4)
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    seats: HashMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    peer: Network,
    doing: Doing,
    since: Instant,
    leave: CancellationToken,
}

/// What a connection is about. What comes first gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// Its client has not said yet what it wants, or has been answered.
    Waiting,
    Asking,
    /// It is told events.
    Told,
}

/// Whom an address belongs to, as far as one can tell: of IPv6 one host has many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 4]),
    V6([u16; 4]),
    /// This machine, where one address is everybody's.
    Here,
}

impl Network {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            peer if peer.is_loopback() => Self::Here,
            IpAddr::V4(peer) => Self::V4(peer.octets()),
            IpAddr::V6(peer) => {
                let [a, b, c, d, ..] = peer.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The place of one connection, free when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().seats.remove(&self.id);
    }
}

/// What a connection is about until this is dropped.
#[derive(Debug)]
pub(super) struct During {
    place: Arc<Place>,
    doing: Doing,
}

impl Drop for During {
    fn drop(&mut self) {
        self.place.change(self.doing, Doing::Waiting);
    }
}

impl Places {
    /// At least four.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(4), table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many streams there may be at the same time.
    pub(super) const fn streams(&self) -> usize {
        for_streams(self.most)
    }

    /// A place for a connection from `peer`. If there is none another's has to go.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let mut table = self.table();
        while table.seats.len() >= self.most
            && let Some(seat) = table.to_go().and_then(|id| table.seats.remove(&id))
        {
            seat.leave.cancel();
        }
        table.last += 1;
        let (id, leave) = (table.last, CancellationToken::new());
        let seat = Seat { peer: Network::of(peer), doing: Doing::Waiting, since: Instant::now(), leave: leave.clone() };
        table.seats.insert(id, seat);
        Place { places: self.clone(), id, leave }
    }
}

impl Table {
    /// Which connection gives way.
    fn to_go(&self) -> Option<u64> {
        let mut of_peer: HashMap<Network, usize> = HashMap::new();
        for seat in self.seats.values() {
            *of_peer.entry(seat.peer).or_default() += 1;
        }
        let others = |seat: &Seat| std::cmp::Reverse(of_peer.get(&seat.peer).copied().unwrap_or_default());
        let candidates = self.seats.iter().filter(|(_, seat)| seat.doing != Doing::Told);
        candidates.min_by_key(|(_, seat)| (others(seat), seat.doing, seat.since)).map(|(id, _)| *id)
    }
}

impl Place {
    /// Resolves when the connection has to make room.
    pub(super) fn gives_way(&self) -> WaitForCancellationFuture<'_> {
        self.leave.cancelled()
    }

    fn change(&self, from: Doing, to: Doing) {
        if let Some(seat) = self.places.table().seats.get_mut(&self.id)
            && seat.doing == from
        {
            (seat.doing, seat.since) = (to, Instant::now());
        }
    }

    /// A question is being answered.
    pub(super) fn asks(self: &Arc<Self>) -> During {
        self.change(Doing::Waiting, Doing::Asking);
        During { place: self.clone(), doing: Doing::Asking }
    }

    /// The answer is a stream of events, if there may be one more.
    ///
    /// # Errors
    /// How many there may be.
    pub(super) fn is_told(self: &Arc<Self>) -> Result<During, Full> {
        let mut table = self.places.table();
        let most = self.places.streams();
        let told = |of: Option<Network>| {
            let streams = table.seats.values().filter(|seat| seat.doing == Doing::Told);
            streams.filter(|seat| of.is_none_or(|peer| seat.peer == peer)).count()
        };
        let peer = table.seats.get(&self.id).map(|seat| seat.peer).filter(|peer| *peer != Network::Here);
        if told(None) >= most {
            return Err(Full { most, of_peer: false });
        }
        if peer.is_some() && told(peer) >= most / 2 {
            return Err(Full { most: most / 2, of_peer: true });
        }
        if let Some(seat) = table.seats.get_mut(&self.id) {
            (seat.doing, seat.since) = (Doing::Told, Instant::now());
        }
        drop(table);
        Ok(During { place: self.clone(), doing: Doing::Told })
    }
}

/// There may be no more streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) most: usize,
    /// Of the one who asks.
    pub(super) of_peer: bool,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn has_to_go(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn whoever_comes_takes_the_place_of_the_one_that_idles_longest() {
        let places = Places::new(4);
        let [told, asking, first, second] = [1, 1, 1, 1].map(|last| Arc::new(places.enter(peer(last))));
        let (_told, question) = (told.is_told().unwrap(), asking.asks());
        let third = places.enter(peer(1));
        assert!(has_to_go(&first) && ![&told, &asking, &second].into_iter().any(|place| has_to_go(place)));
        drop((third, question));
        // It has been answered just now.
        let _more = [places.enter(peer(1)), places.enter(peer(1))];
        assert!(has_to_go(&second) && !has_to_go(&asking));
        assert_eq!(places.table().seats.len(), 4);
        // What has gone gives no place back a second time.
        drop((first, second));
        assert_eq!(places.table().seats.len(), 4);
    }

    #[test]
    fn questions_that_take_long_give_way_when_nothing_else_is_left_and_streams_never_do() {
        let places = Places::new(4);
        let all: Vec<_> = (0..4).map(|_| Arc::new(places.enter(Ipv4Addr::LOCALHOST.into()))).collect();
        let _streams: Vec<_> = all[..3].iter().map(|place| place.is_told().unwrap()).collect();
        let _question = all[3].asks();
        let last = Arc::new(places.enter(peer(1)));
        assert_eq!(all.iter().map(|place| has_to_go(place)).collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(last.is_told().unwrap_err(), Full { most: 3, of_peer: false });
    }

    #[test]
    fn who_has_the_most_gives_way_first_and_has_a_share_of_the_streams() {
        let places = Places::new(8);
        let one = Arc::new(places.enter(peer(1)));
        let crowd: Vec<_> = (0..7).map(|_| Arc::new(places.enter(peer(2)))).collect();
        let streams: Vec<_> = crowd.iter().map(|place| place.is_told()).collect();
        assert_eq!(streams.iter().filter(|stream| stream.is_ok()).count(), 3);
        assert_eq!(*streams[3].as_ref().unwrap_err(), Full { most: 3, of_peer: true });
        assert!(one.is_told().is_ok(), "another has its own");
        let _more: Vec<_> = (0..8).map(|_| places.enter(peer(2))).collect();
        assert!(!has_to_go(&one));
    }

    #[test]
    fn one_host_is_one_peer() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_eq!((network("::1"), network("127.0.0.9")), (Network::Here, Network::Here));
    }
}
