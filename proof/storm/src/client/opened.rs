//! A session whose end is on the tape, however its own client brings it about.

use std::{sync::Arc, time::Duration};

use tenure::Session;
use tenure_check::history::{Done, Op};
use tokio_util::sync::CancellationToken;

use super::{in_time, outcome};
use crate::tape::Tape;

/// A session of this client. Dropping it gives the session up, too, and the tape says so before.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: Session,
    tape: Arc<Tape>,
    ended: bool,
}

impl Opened {
    pub(super) fn new(session: Session, tape: Arc<Tape>) -> Self {
        Self { session, tape, ended: false }
    }

    /// Closes it, waiting as [`in_time`] says.
    pub(super) async fn close(mut self, patience: Duration, stop: &CancellationToken) {
        let id = self.end();
        match in_time(self.session.close(), patience, stop).await {
            Some(Ok(())) => self.tape.done(id, Done::default()),
            Some(Err(error)) => self.tape.returned(id, outcome::of(&error)),
            None => self.tape.dropped(id),
        }
    }

    fn end(&mut self) -> u64 {
        self.ended = true;
        self.tape.call(Op::Close { session: self.session.id().to_owned() })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.ended {
            let id = self.end();
            self.tape.dropped(id);
        }
    }
}
