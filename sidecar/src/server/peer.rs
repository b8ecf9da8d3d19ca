//! Who is at the other end of a connection, and the moment that process dies.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

/// The process at the other end, as the kernel told when it connected.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its user.
    pub(super) uid: u32,
    /// Its id here; absent when it lives in a process namespace that this one cannot see.
    pub(super) pid: Option<u32>,
    alive: Alive,
}

#[derive(Debug)]
enum Alive {
    /// Readable once the process is dead.
    Watched(AsyncFd<OwnedFd>),
    /// It was dead before it could be watched.
    Dead,
    /// The kernel cannot tell: only the end of the connection counts.
    Unknown,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not tell, mostly for want of file descriptors.
    pub(super) fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok(Self { uid: credentials.uid(), pid, alive: watch(stream, credentials.pid())? })
    }

    /// Resolves when the process is dead, though children that inherited the connection may keep it open.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(super) async fn died(&self) {
        match &self.alive {
            Alive::Dead => {}
            Alive::Watched(pidfd) => match pidfd.readable().await {
                Ok(_) => {}
                // The runtime is going away, and this connection with it.
                Err(_) => std::future::pending().await,
            },
            Alive::Unknown => std::future::pending().await,
        }
    }
}

fn watch(stream: &UnixStream, pid: Option<i32>) -> std::io::Result<Alive> {
    use nix::errno::Errno;
    let pidfd = match getsockopt(&stream.as_fd(), PeerPidfd) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(Alive::Dead),
        Err(Errno::EMFILE | Errno::ENFILE) => return Err(Errno::EMFILE.into()),
        // Before Linux 6.5: by number, right after the connection was accepted.
        Err(_) => match pid.and_then(Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) {
            None => return Ok(Alive::Unknown),
            Some(Ok(pidfd)) => pidfd,
            Some(Err(rustix::io::Errno::SRCH)) => return Ok(Alive::Dead),
            Some(Err(error @ (rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))) => return Err(error.into()),
            Some(Err(error)) => {
                tracing::debug!(%error, "the peer's process cannot be watched; only the end of its connection counts");
                return Ok(Alive::Unknown);
            }
        },
    };
    #[allow(deprecated, reason = "what replaces it is unsafe for descriptors in general; an OwnedFd keeps its own open")]
    let watched = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    Ok(Alive::Watched(watched))
}
