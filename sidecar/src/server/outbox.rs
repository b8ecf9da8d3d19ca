//! What a connection still has to say: notices first, then answers in the order they became ready. Bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::inflight::{Finish, Slot};
use crate::{
    protocol::{ErrorObject, Event, Goaway, Id, LeaseNotice, frame},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Answers that need no slot of a request in flight, kept for a client that does not read. Beyond it the
/// daemon stops reading from that client.
const ROOM: usize = 64;

/// Leave to put one answer into the outbox without a slot.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held until its answer is written")] OwnedSemaphorePermit);

/// What is written next.
#[derive(Debug)]
pub(super) enum Next {
    /// A line.
    Line(Bytes),
    /// A lease was granted to a request that was cancelled meanwhile: give it back, then answer.
    Undo { slot: Slot, lease: u64 },
}

#[derive(Debug)]
enum Answer {
    Free(Bytes, #[expect(dead_code, reason = "dropped when the answer is taken out")] Room),
    Slotted {
        slot: Slot,
        line: Bytes,
        lease: Option<u64>,
    },
    /// Events of a subscription, and its turn.
    Events(u64, Bytes, #[expect(dead_code, reason = "dropped when the events are taken out")] OwnedSemaphorePermit),
    /// The last event of a subscription.
    End(Bytes),
}

/// What there is to say of one lease.
#[derive(Debug, Default)]
struct Untold {
    notice: Option<LeaseNotice>,
    asked: Option<Bytes>,
}

#[derive(Debug, Default)]
struct State {
    goaway: Option<Goaway>,
    /// One per lease, its latest.
    notices: VecDeque<LeaseNotice>,
    /// Leaders that are asked to step down, at most once each.
    asked: VecDeque<Bytes>,
    /// Leases whose handle the client has not been told yet, and what there is to say of them.
    untold: HashMap<String, Untold>,
    answers: VecDeque<Answer>,
    closed: bool,
}

/// Lines on their way to one client.
///
/// Answers are bounded by the slots of requests in flight and by [`ROOM`], notices by the number of
/// leases, events by the turns of the subscriptions: a client that does not read costs a fixed amount of memory and nobody else's time.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    room: Arc<Semaphore>,
    max_line: usize,
}

impl Outbox {
    pub(super) fn new(max_line: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), room: Arc::new(Semaphore::new(ROOM)), max_line }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for leave to answer without a slot.
    pub(super) async fn room(&self) -> Option<Room> {
        self.room.clone().acquire_owned().await.ok().map(Room)
    }

    /// Queues an answer that has no slot.
    pub(super) fn answer(&self, room: Room, line: Bytes) {
        self.state().answers.push_back(Answer::Free(line, room));
        self.filled.notify_one();
    }

    /// Queues the answer of a request in flight; its slot is free when the answer is taken out.
    pub(super) fn finish(&self, slot: Slot, line: Bytes, lease: Option<u64>) {
        self.state().answers.push_back(Answer::Slotted { slot, line, lease });
        self.filled.notify_one();
    }

    /// A result as a line, or the limit it would break.
    pub(super) fn encode(&self, id: &Id, result: impl serde::Serialize) -> Result<Bytes, ErrorObject> {
        let line = frame::success(id, result).map_err(|error| {
            ErrorObject::new(crate::protocol::Kind::Internal, format!("the result cannot be written: {error}"))
        })?;
        if line.len() > self.max_line + 1 {
            let said = format!("the answer has {} bytes and a line at most {}; ask for less at once", line.len(), self.max_line);
            return Err(ErrorObject::limit("line_bytes", said));
        }
        Ok(line)
    }

    /// Holds back what there is to say of `lease` until its handle has been told.
    pub(super) fn hold_back(&self, lease: String) {
        self.state().untold.insert(lease, Untold::default());
    }

    /// Forgets what was held back.
    pub(super) fn forget(&self, lease: &str) {
        self.state().untold.remove(lease);
    }

    /// Says where a lease stands, before any answer that waits. A later word replaces an unsaid earlier one.
    pub(super) fn notice(&self, notice: LeaseNotice) {
        self.state().notice(notice);
        self.filled.notify_one();
    }

    /// Says that a leader is asked to step down, after what there is to say of leases and before any answer.
    pub(super) fn asked(&self, lease: &str, event: Event) {
        let Ok(line) = frame::request(None, "event", event) else { return };
        let mut state = self.state();
        match state.untold.get_mut(lease) {
            Some(held_back) => held_back.asked = Some(line),
            None => state.asked.push_back(line),
        }
        self.filled.notify_one();
    }

    /// An event as a line, unless it is too long for one.
    pub(super) fn event(&self, event: Event) -> Option<Bytes> {
        frame::request(None, "event", event).ok().filter(|line| line.len() <= self.max_line + 1)
    }

    /// Queues events of a subscription, unless `over` says that it has none any more.
    pub(super) fn events(&self, subscription: u64, lines: Bytes, turn: OwnedSemaphorePermit, over: &CancellationToken) {
        let mut state = self.state();
        // Under the lock: whoever cancels it removes what was queued before.
        if !over.is_cancelled() {
            state.answers.push_back(Answer::Events(subscription, lines, turn));
            self.filled.notify_one();
        }
    }

    /// Queues the last event of a subscription.
    pub(super) fn end(&self, line: Bytes) {
        self.state().answers.push_back(Answer::End(line));
        self.filled.notify_one();
    }

    /// Throws away what is queued of a subscription.
    pub(super) fn drop_events(&self, subscription: u64) {
        self.state().answers.retain(|answer| !matches!(answer, Answer::Events(of, ..) if *of == subscription));
    }

    /// Says that the daemon is leaving.
    pub(super) fn goaway(&self, goaway: Goaway) {
        self.state().goaway = Some(goaway);
        self.filled.notify_one();
    }

    /// Gives no more leave: nothing new begins that would have to be answered.
    pub(super) fn no_more_room(&self) {
        self.room.close();
    }

    /// Lets the writer end once everything has been said.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    /// What to write next, or `None` when the outbox is closed and empty.
    pub(super) async fn next(&self) -> Option<Next> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state();
                if let Some(next) = state.take() {
                    return Some(next);
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// What to write next, if there is anything.
    pub(super) fn try_next(&self) -> Option<Next> {
        self.state().take()
    }
}

impl State {
    fn notice(&mut self, notice: LeaseNotice) {
        if let Some(held_back) = self.untold.get_mut(&notice.lease) {
            held_back.notice = Some(notice);
        } else if let Some(unsaid) = self.notices.iter_mut().find(|unsaid| unsaid.lease == notice.lease) {
            *unsaid = notice;
        } else {
            self.notices.push_back(notice);
        }
    }

    fn take(&mut self) -> Option<Next> {
        if let Some(goaway) = self.goaway.take() {
            return notification("goaway", goaway);
        }
        if let Some(notice) = self.notices.pop_front() {
            return notification("lease", notice);
        }
        if let Some(line) = self.asked.pop_front() {
            return Some(Next::Line(line));
        }
        match self.answers.pop_front()? {
            Answer::Free(line, _) | Answer::Events(_, line, _) | Answer::End(line) => Some(Next::Line(line)),
            Answer::Slotted { slot, line, lease } => match (slot.finish(lease.is_none()), lease) {
                (Finish::Answer, lease) => {
                    if let Some(held_back) = lease.and_then(|lease| self.untold.remove(&super::leases::handle(lease))) {
                        held_back.notice.into_iter().for_each(|notice| self.notice(notice));
                        self.asked.extend(held_back.asked);
                    }
                    Some(Next::Line(line))
                }
                (Finish::Cancelled(slot), Some(lease)) => Some(Next::Undo { slot, lease }),
                (Finish::Cancelled(slot), None) => Some(Next::Line(slot.cancelled())),
            },
        }
    }
}

fn notification(method: &str, params: impl serde::Serialize) -> Option<Next> {
    frame::request(None, method, params).ok().map(Next::Line)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{protocol::LeaseState, server::inflight::InFlight};

    fn said(outbox: &Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.try_next())
            .map(|next| match next {
                Next::Line(line) => String::from_utf8(line.to_vec()).unwrap(),
                Next::Undo { lease, .. } => format!("undo {lease}"),
            })
            .collect()
    }

    fn notice(lease: u64, state: LeaseState) -> LeaseNotice {
        LeaseNotice { lease: crate::server::leases::handle(lease), state, reason: None }
    }

    fn line(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn notices_come_first_and_the_latest_replaces_what_is_unsaid() {
        let outbox = Outbox::new(1_024);
        outbox.answer(outbox.room().await.unwrap(), line("answer"));
        outbox.notice(notice(1, LeaseState::Suspect));
        outbox.notice(notice(2, LeaseState::Suspect));
        outbox.notice(notice(1, LeaseState::Lost));
        outbox.goaway(Goaway { deadline_ms: 1 });
        let said = said(&outbox);
        let expected = ["\"goaway\"", "\"l_1\",\"state\":\"lost\"", "\"l_2\",\"state\":\"suspect\"", "answer"];
        assert_eq!(said.len(), expected.len(), "{said:?}");
        assert!(said.iter().zip(expected).all(|(said, expected)| said.contains(expected)), "{said:?}");
    }

    #[test]
    fn a_lease_is_not_spoken_of_before_its_handle_is_told() {
        let outbox = Outbox::new(1_024);
        let requests = InFlight::new(8, Arc::new(AtomicUsize::new(0)), Default::default());
        for (id, lease) in [(1, 1), (2, 2)] {
            outbox.hold_back(crate::server::leases::handle(lease));
            outbox.notice(notice(lease, LeaseState::Lost));
            outbox.finish(requests.admit(id.into(), false).unwrap(), line("granted"), Some(lease));
        }
        requests.cancel(&2.into());
        let said = said(&outbox);
        assert_eq!((said.len(), said[0].as_str(), said[2].as_str()), (3, "granted", "undo 2"), "{said:?}");
        assert!(said[1].contains("l_1"), "{said:?}");
        outbox.forget("l_2");
        assert!(outbox.try_next().is_none(), "of what was taken back nothing is said");
    }

    #[tokio::test]
    async fn room_is_bounded_and_free_again_once_answers_are_taken() {
        let outbox = Outbox::new(1_024);
        for _ in 0..ROOM {
            outbox.answer(outbox.room().await.unwrap(), line("x"));
        }
        assert!(futures::FutureExt::now_or_never(outbox.room()).is_none());
        assert!(outbox.try_next().is_some());
        assert!(futures::FutureExt::now_or_never(outbox.room()).is_some());
        outbox.close();
        assert_eq!(said(&outbox).len(), ROOM - 1);
        assert!(outbox.next().await.is_none() && outbox.room().await.is_none());
    }
}
