//! Who is at the other end of a connection, and the moment that process dies.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerPidfd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

use super::policy::Who;

/// The process at the other end, as the kernel told when it connected.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its user.
    pub(super) uid: u32,
    /// Its user and its groups, for the policy.
    pub(super) who: Who,
    /// Its id here; absent when it lives in a process namespace that this one cannot see.
    pub(super) pid: Option<u32>,
    alive: Alive,
}

#[derive(Debug)]
enum Alive {
    /// Readable once the process is dead.
    Watched(Arc<Process>),
    /// It was dead before it could be watched.
    Dead,
    /// The kernel cannot tell: only the end of the connection counts.
    Unknown,
}

/// The file system of descriptors of processes, where each process has a number of its own for as long as the system runs.
const PIDFS: u32 = 0x5049_4446;

/// The processes of clients: each is watched once, however many connections it has.
#[derive(Debug, Default)]
pub(super) struct Processes {
    watched: Mutex<HashMap<Number, Weak<Process>>>,
    /// Those that are watched, with or without a number: each has a descriptor.
    count: AtomicUsize,
}

/// What tells a process from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Number {
    /// From all.
    Pidfs(u64),
    /// From all that are alive.
    Pid(u32),
}

/// A process that is watched.
#[derive(Debug)]
struct Process {
    pidfd: AsyncFd<OwnedFd>,
    processes: Arc<Processes>,
    /// By which it is found, if it can be told from others.
    number: Option<Number>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.processes.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(number) = &self.number {
            let mut all = self.processes.all();
            // Another connection may have come meanwhile.
            if all.get(number).is_some_and(|process| process.strong_count() == 0) {
                all.remove(number);
            }
        }
    }
}

impl Processes {
    fn all(&self) -> MutexGuard<'_, HashMap<Number, Weak<Process>>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The process behind `pidfd`, which has that number.
    fn watched(self: &Arc<Self>, pidfd: OwnedFd, number: Option<Number>) -> std::io::Result<Arc<Process>> {
        let known = number.and_then(|number| self.all().get(&number).and_then(Weak::upgrade));
        // One that lives has had its id since before this client connected, so that is the same. The id of one that has died
        // may be another's by now.
        if let Some(process) = known.filter(|process| is_alive(process.pidfd.get_ref())) {
            return Ok(process);
        }
        #[allow(deprecated, reason = "what replaces it is unsafe for descriptors in general; an OwnedFd keeps its own open")]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        let process = Arc::new(Process { pidfd, processes: self.clone(), number });
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(number) = number {
            self.all().insert(number, Arc::downgrade(&process));
        }
        Ok(process)
    }
}

/// What tells a process from others: before Linux 6.9 its id, if that can be seen from here.
fn number(pidfd: &OwnedFd, pid: Option<u32>) -> Option<Number> {
    let kind = rustix::fs::fstatfs(pidfd).ok()?.f_type;
    if u32::try_from(kind).is_ok_and(|kind| kind == PIDFS) {
        rustix::fs::fstat(pidfd).ok().map(|stat| Number::Pidfs(stat.st_ino))
    } else {
        pid.map(Number::Pid)
    }
}

/// Whether the process is there still.
fn is_alive(pidfd: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

impl Peer {
    /// Asks the kernel; for all groups of the process only where those are wanted.
    ///
    /// # Errors
    /// When it does not tell, mostly for want of file descriptors.
    pub(super) fn of(stream: &UnixStream, processes: &Arc<Processes>, groups: bool) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let alive = watch(stream, processes, pid)?;
        let more = if groups { supplementary(pid, uid, gid, &alive)? } else { None };
        let who = Who { uid, all_gids: more.is_some(), gids: std::iter::once(gid).chain(more.into_iter().flatten()).collect() };
        Ok(Self { uid, who, pid, alive })
    }

    /// Resolves when the process is dead, though children that inherited the connection may keep it open.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(super) async fn died(&self) {
        match &self.alive {
            Alive::Dead => {}
            Alive::Watched(process) => match process.pidfd.readable().await {
                Ok(_) => {}
                // The runtime is going away, and this connection with it.
                Err(_) => std::future::pending().await,
            },
            Alive::Unknown => std::future::pending().await,
        }
    }
}

/// The groups of the process beside its primary one, or `None` where they cannot be told for sure. SO_PEERGROUPS would say
/// what they were when it connected, and can be asked for in unsafe code only. So they are those it has now, and count only
/// while it has the user and the group that it connected with: a process that has started a program of another user is not
/// that user's.
fn supplementary(pid: Option<u32>, uid: u32, gid: u32, alive: &Alive) -> std::io::Result<Option<Vec<u32>>> {
    let (Some(pid), Alive::Watched(process)) = (pid, alive) else { return Ok(None) };
    let status = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) => {
            return Err(error);
        }
        Err(_) => return Ok(None),
    };
    // As long as the process is there, nobody else has its number.
    Ok(if is_alive(process.pidfd.get_ref()) { groups_in(&status, uid, gid) } else { None })
}

/// The line `Groups:` of `/proc/PID/status`, if all the ids there are those.
fn groups_in(status: &str, uid: u32, gid: u32) -> Option<Vec<u32>> {
    let numbers = |field: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    let only = |field: &str, id: u32| numbers(field).is_some_and(|ids| !ids.is_empty() && ids.iter().all(|other| *other == id));
    if only("Uid:", uid) && only("Gid:", gid) { numbers("Groups:") } else { None }
}

fn watch(stream: &UnixStream, processes: &Arc<Processes>, pid: Option<u32>) -> std::io::Result<Alive> {
    let pidfd = match getsockopt(&stream.as_fd(), PeerPidfd) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(Alive::Dead),
        Err(Errno::EMFILE | Errno::ENFILE) => return Err(Errno::EMFILE.into()),
        // Before Linux 6.5: by number, right after the connection was accepted.
        Err(_) => {
            match pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) {
                None => return Ok(Alive::Unknown),
                Some(Ok(pidfd)) => pidfd,
                Some(Err(rustix::io::Errno::SRCH)) => return Ok(Alive::Dead),
                Some(Err(error @ (rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))) => return Err(error.into()),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the peer's process cannot be watched; only the end of its connection counts");
                    return Ok(Alive::Unknown);
                }
            }
        }
    };
    let number = number(&pidfd, pid);
    processes.watched(pidfd, number).map(Alive::Watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_watched_once_as_long_as_it_lives() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = |pid: u32| pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::NONBLOCK).unwrap();
        let processes = Arc::<Processes>::default();
        let watched = |pid, number| processes.watched(pidfd(pid), number).unwrap();
        for number in [number(&pidfd(child.id()), Some(child.id())), Some(Number::Pid(child.id()))] {
            let (one, two) = (watched(child.id(), number), watched(child.id(), number));
            assert!(Arc::ptr_eq(&one, &two), "{number:?}");
            assert_eq!(processes.count(), 1, "{number:?}");
        }
        assert!((processes.count(), processes.all().len()) == (0, 0), "nothing stays behind");
        assert!(!Arc::ptr_eq(&watched(child.id(), None), &watched(child.id(), None)), "who cannot be told from others");
        // Another has the id of one that has died, whose connection is open still.
        let number = Some(Number::Pid(child.id()));
        let dead = watched(child.id(), number);
        child.kill().unwrap();
        child.wait().unwrap();
        let own = watched(std::process::id(), number);
        assert!(!Arc::ptr_eq(&dead, &own) && is_alive(own.pidfd.get_ref()));
        drop(dead);
        assert!(Arc::ptr_eq(&own, &watched(std::process::id(), number)), "the end of the first is not that of the second");
        assert_eq!(processes.count(), 1);
    }

    #[test]
    fn groups_count_only_while_the_process_is_who_connected() {
        let status = |uids: &str, gids: &str| format!("Name:\tx\nUid:\t{uids}\nGid:\t{gids}\nFDSize:\t64\nGroups:\t4 24 100 \n");
        let own = status("5\t5\t5\t5", "6\t6\t6\t6");
        assert_eq!(groups_in(&own, 5, 6), Some(vec![4, 24, 100]));
        assert_eq!(groups_in(&own.replace("4 24 100", ""), 5, 6), Some(vec![]));
        for (uids, gids) in [("5\t0\t0\t0", "6\t6\t6\t6"), ("0\t0\t0\t0", "6\t6\t6\t6"), ("5\t5\t5\t5", "6\t9\t9\t9"), ("", "6")]
        {
            assert_eq!(groups_in(&status(uids, gids), 5, 6), None, "{uids} {gids}");
        }
        assert_eq!(groups_in("", 5, 6), None);
    }
}
