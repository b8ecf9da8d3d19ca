//! A machine's boot-time clock in the simulation: it never stands still, but it may run a little fast or slow.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::future::BoxFuture;
use tenure_check::history::Micros;
use tenure_kv::{
    Clock, Moment,
    mutants::{self, Mutant},
};

use crate::{agenda::Place, world::World};

/// How fast a clock runs, in millionths more or less than the world's.
pub(crate) type Drift = i64;

/// The clock of one process.
pub(crate) struct MachineClock {
    world: Arc<World>,
    slot: usize,
    drift: Drift,
    /// What it showed when the world began.
    origin: Micros,
}

impl MachineClock {
    pub(crate) const fn new(world: Arc<World>, slot: usize, drift: Drift, origin: Micros) -> Self {
        Self { world, slot, drift, origin }
    }

    fn here(&self, world: Micros) -> Micros {
        self.origin + scale(world, 1_000_000 + self.drift, 1_000_000)
    }

    /// When the world reaches what shows `here` as this much, rounded up.
    fn there(&self, here: Micros) -> Micros {
        scale(here.saturating_sub(self.origin), 1_000_000, 1_000_000 + self.drift) + 1
    }

    fn step(&self) -> i64 {
        if mutants::is_on(Mutant::WallClock) { self.world.wall_step(self.slot) } else { 0 }
    }
}

fn scale(value: Micros, by: i64, of: i64) -> Micros {
    let scaled = i128::from(value) * i128::from(by) / i128::from(of);
    Micros::try_from(scaled).unwrap_or(Micros::MAX)
}

impl Clock for MachineClock {
    fn now(&self) -> Moment {
        Moment::new(Duration::from_micros(self.here(self.world.now()).saturating_add_signed(self.step())))
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        let here = Micros::try_from(at.since_origin().as_micros()).unwrap_or(Micros::MAX).saturating_add_signed(-self.step());
        Box::pin(Sleep {
            world: self.world.clone(),
            slot: self.slot,
            at: self.there(here.saturating_add(1)),
            bell: Arc::default(),
            place: None,
        })
    }
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineClock").field("slot", &self.slot).field("drift", &self.drift).finish_non_exhaustive()
    }
}

/// What the world rings when a time has come.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

struct Sleep {
    world: Arc<World>,
    slot: usize,
    at: Micros,
    bell: Arc<Bell>,
    place: Option<Place>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.bell.rung.load(Ordering::Relaxed) || self.world.now() >= self.at {
            return Poll::Ready(());
        }
        let mut waker = self.bell.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        if self.place.is_none() {
            self.place = Some(self.world.set_bell(self.at, self.slot, self.bell.clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.world.unset(place);
        }
    }
}
