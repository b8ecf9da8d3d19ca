//! What the files name as their neighbours: a hold in a store, its session, and the connection that owns the tasks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tenure::{Candidate, Error, Loss, SessionState};
use tokio::sync::watch;

/// The store behind, as a test moves it.
#[derive(Debug)]
pub(super) struct Behind {
    /// Set when the hold is lost.
    pub(super) lost: watch::Sender<Option<Loss>>,
    /// How often it was let go.
    pub(super) let_go: AtomicUsize,
    /// How many tries to let go are not answered.
    pub(super) unanswered: AtomicUsize,
}

impl Behind {
    pub(super) fn new(unanswered: usize) -> Arc<Self> {
        Arc::new(Self { lost: watch::Sender::new(None), let_go: AtomicUsize::new(0), unanswered: AtomicUsize::new(unanswered) })
    }

    pub(super) fn let_go(&self) -> usize {
        self.let_go.load(Ordering::SeqCst)
    }

    /// One try to let go, during which others go on.
    async fn try_to_let_go(&self) -> Result<(), Error> {
        crate::sync::others();
        if self.unanswered.load(Ordering::SeqCst) > 0 {
            self.unanswered.fetch_sub(1, Ordering::SeqCst);
            return Err(tenure_kv::Error::unavailable("played: not answered").into());
        }
        self.let_go.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// What is held.
pub(super) mod held {
    use std::{fmt, sync::Arc};

    use futures::{FutureExt, future::BoxFuture};
    use tenure_kv::Revision;

    use super::{Behind, Candidate, Error, Loss};

    #[allow(dead_code, reason = "a lease of one kind is enough")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::server) enum Kind {
        Lock,
        Leadership,
        Member,
    }

    impl Kind {
        pub(in crate::server) const fn release(self) -> &'static str {
            "played.release"
        }
    }

    impl fmt::Display for Kind {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(self, f)
        }
    }

    #[derive(Debug)]
    pub(in crate::server) struct Held {
        pub(in crate::server) fence: u64,
        pub(in crate::server) behind: Arc<Behind>,
    }

    impl Held {
        pub(in crate::server) const fn kind(&self) -> Kind {
            Kind::Leadership
        }

        pub(in crate::server) const fn name(&self) -> &str {
            "played"
        }

        pub(in crate::server) const fn fence(&self) -> Revision {
            Revision::new(self.fence)
        }

        pub(in crate::server) fn is_valid(&self) -> bool {
            self.behind.lost.borrow().is_none()
        }

        pub(in crate::server) fn lost(&self) -> BoxFuture<'static, Loss> {
            let behind = self.behind.clone();
            async move { behind.lost.subscribe().wait_for(Option::is_some).await.unwrap().unwrap() }.boxed()
        }

        pub(in crate::server) fn asked_to_step_down(&self) -> BoxFuture<'static, Candidate> {
            futures::future::pending().boxed()
        }

        pub(in crate::server) async fn release(self) -> Result<(), Error> {
            self.behind.try_to_let_go().await
        }
    }

    pub(in crate::server) async fn give_up(held: &mut Option<Held>) -> Result<(), Error> {
        if let Some(held) = held {
            held.behind.try_to_let_go().await?;
        }
        *held = None;
        Ok(())
    }
}

/// The session behind a lease.
pub(super) mod sessions {
    use super::{SessionState, watch};

    #[derive(Debug)]
    pub(in crate::server) struct SessionUse(watch::Sender<SessionState>);

    impl Default for SessionUse {
        fn default() -> Self {
            Self(watch::Sender::new(SessionState::Held))
        }
    }

    impl SessionUse {
        pub(in crate::server) const fn session(&self) -> &Self {
            self
        }

        pub(in crate::server) fn states(&self) -> watch::Receiver<SessionState> {
            self.0.subscribe()
        }
    }
}

/// Candidates on the wire.
pub(super) mod elections {
    use tenure_sidecar::protocol::CandidateView;

    pub(in crate::server) fn candidate(_: &super::Candidate) -> CandidateView {
        unreachable!("nobody asks a leader to step down")
    }
}

/// Errors on the wire.
pub(super) mod errors {
    use tenure_sidecar::protocol::{ErrorObject, Kind};

    pub(in crate::server) fn of(error: &super::Error) -> ErrorObject {
        ErrorObject::new(Kind::Unavailable, error.to_string())
    }
}

/// Who owns the tasks.
pub(super) mod connection {
    use std::sync::{Arc, Mutex};

    use shuttle::future::{JoinHandle, block_on, spawn};

    use crate::server::{
        leases::{Everywhere, Leases},
        outbox::Outbox,
    };

    pub(in crate::server) struct Connection {
        pub(in crate::server) outbox: Arc<Outbox>,
        pub(in crate::server) leases: Arc<Leases>,
        tasks: Mutex<Vec<JoinHandle<()>>>,
    }

    impl Connection {
        pub(in crate::server) fn new(everywhere: Everywhere) -> Arc<Self> {
            let outbox = Arc::new(Outbox::new(1_024));
            let leases = Leases::new(2, Default::default(), everywhere, outbox.clone());
            Arc::new(Self { outbox, leases, tasks: Mutex::default() })
        }

        pub(in crate::server) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            let task = spawn(task);
            self.tasks.lock().unwrap().push(task);
        }

        /// Waits for all that was spawned.
        pub(in crate::server) fn join(&self) {
            loop {
                let task = self.tasks.lock().unwrap().pop();
                match task {
                    Some(task) => block_on(task).unwrap(),
                    None => return,
                }
            }
        }
    }
}
