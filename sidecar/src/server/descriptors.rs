//! What the limit of open files of this process leaves room for. A daemon that lets in more than that lets whoever comes
//! first lock everybody out.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::protocol::Limits;

/// Descriptors of nobody: the store's, the runtime's.
const OWN: usize = 64;
/// Connections to the HTTP listener where there are descriptors enough.
pub(super) const HTTP: usize = 256;
/// Beyond the connections there may be, and their descriptors, one in so many is kept for users who have none yet.
pub(super) const KEPT: usize = 10;

/// How many there may be of what takes descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The limit that all this comes from.
    pub(super) files: usize,
    /// For connections, one each, and for the processes at their other ends, one each.
    pub(super) clients: usize,
    pub(super) checks: usize,
    pub(super) http: usize,
}

/// Of so many descriptors for clients those that whoever comes first may take. The rest is for users who have no connection yet.
pub(super) const fn common(clients: usize) -> usize {
    clients - clients.div_ceil(KEPT + 1)
}

impl Room {
    /// Of this process; absent where the system does not tell.
    pub(super) fn of_process(http: bool) -> Option<Self> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        Some(Self::of(usize::try_from(hard).unwrap_or(usize::MAX), http))
    }

    /// Of so many `files`, with the HTTP listener or without.
    fn of(files: usize, http: bool) -> Self {
        let free = files - OWN.min(files / 2);
        let http = if http { HTTP.min(free / 4) } else { 0 };
        let checks = Limits::default().checks_per_uid.min(free / 8);
        Self { files, clients: free - http - checks, checks, http }
    }

    /// Connections if each is of a process of its own: as many there may be in any case.
    pub(super) fn fewest(&self) -> usize {
        (common(self.clients) / 2).max(1)
    }

    /// Connections if all are of one process.
    pub(super) fn most(&self) -> usize {
        common(self.clients).saturating_sub(1).max(1)
    }

    /// These limits where there may be room for them, else what there is.
    pub(super) fn within(&self, limits: Limits) -> Limits {
        let (wanted, checks_per_uid) = (limits.connections, limits.checks_per_uid.min(self.checks));
        let fewest = self.fewest();
        if wanted <= fewest {
            return Limits { checks_per_uid, ..limits };
        }
        let connections = wanted.min(self.most());
        let each = limits.connections_per_uid.min(wanted);
        // Who would have most of them now has as large a part as was meant, and that of what there is in any case.
        let part = usize::try_from(each as u128 * fewest as u128 / wanted as u128).unwrap_or(fewest);
        let connections_per_uid = match each {
            _ if each == wanted => connections,
            _ if each <= fewest / 2 => each,
            _ => part.max(1),
        };
        Limits { connections, connections_per_uid, checks_per_uid, ..limits }
    }
}

/// Lets this process open as many files as it may at most, and no more: whoever set that meant it.
pub(super) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_clients_is_what_others_do_not_need_and_of_it_some_is_kept() {
        for files in (16..5_000).chain([20_000, 1 << 20, usize::MAX]) {
            for http in [false, true] {
                let room = Room::of(files, http);
                assert_eq!(room.clients + room.checks + room.http, files - OWN.min(files / 2), "{room:?}");
                assert!(files < 32 || room.fewest() >= files.min(20_000) / 16, "{room:?} is less than it could be");
                assert!(files < 32 || room.most() + 1 < room.clients && room.most() > room.fewest(), "{room:?}");
            }
        }
        assert!(Room::of(20_000, true).most() > 10_000, "ten thousand of one process");
        assert!(Room::of(30_000, true).fewest() > 10_000, "ten thousand of as many");
    }

    #[test]
    fn limits_that_have_room_stay_and_the_share_of_one_user_stays_a_share() {
        let room = Room::of(1_024, true);
        let (fewest, most) = (room.fewest(), room.most());
        for (each, part) in [(2_500, fewest / 4), (10_000, most), (99_999, most), (100, 100), (1, 1)] {
            let limits = Limits { connections_per_uid: each, ..Limits::default() };
            assert_eq!(Room::of(1 << 20, true).within(limits.clone()), limits);
            let clamped = room.within(limits);
            assert_eq!((clamped.connections, clamped.connections_per_uid), (most, part), "{each}");
            assert!(clamped.checks_per_uid == room.checks && (200..400).contains(&fewest), "{room:?}");
        }
        let limits = Limits { connections: fewest + 1, connections_per_uid: fewest + 1, ..Limits::default() };
        assert_eq!(room.within(limits.clone()), Limits { checks_per_uid: room.checks, ..limits });
    }
}
