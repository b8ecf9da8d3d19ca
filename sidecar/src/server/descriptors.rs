//! What the limit of open files of this process leaves room for. A daemon that lets in more than that lets whoever comes
//! first lock everybody out.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::protocol::Limits;

/// Descriptors of a connection: its socket, and its client's process if that has no other.
const OF_CONNECTION: usize = 2;
/// Descriptors of nobody: the store's, the runtime's.
const OWN: usize = 64;
/// Connections to the HTTP listener where there are descriptors enough.
pub(super) const HTTP: usize = 256;
/// Beyond the connections there may be, one in so many is kept for users who have none yet.
pub(super) const KEPT: usize = 10;

/// How many there may be of what takes descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The limit that all this comes from.
    pub(super) files: usize,
    pub(super) connections: usize,
    pub(super) checks: usize,
    pub(super) http: usize,
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
        let places = (free - http - checks) / OF_CONNECTION;
        // What is kept for others has to be there, too.
        let connections = (places - places.div_ceil(KEPT + 1)).max(1);
        Self { files, connections, checks, http }
    }

    /// These limits where there is room for them, else what there is.
    pub(super) fn within(&self, limits: Limits) -> Limits {
        let (wanted, checks_per_uid) = (limits.connections, limits.checks_per_uid.min(self.checks));
        if wanted <= self.connections {
            return Limits { checks_per_uid, ..limits };
        }
        let each = limits.connections_per_uid.min(wanted);
        // Who would have most of them now has as large a part as was meant.
        let part = usize::try_from(each as u128 * self.connections as u128 / wanted as u128).unwrap_or(self.connections);
        let connections_per_uid = if each <= self.connections / 2 { each } else { part.max(1) };
        Limits { connections: self.connections, connections_per_uid, checks_per_uid, ..limits }
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
    fn all_that_is_let_in_has_its_descriptors() {
        for files in (16..5_000).chain([20_000, 1 << 20, usize::MAX]) {
            for http in [false, true] {
                let room = Room::of(files, http);
                let kept = room.connections.div_ceil(KEPT);
                let taken = (room.connections + kept).saturating_mul(OF_CONNECTION) + room.checks + room.http;
                assert!(taken <= files - OWN.min(files / 2), "{room:?}");
                assert!(files < 32 || room.connections >= files.min(20_000) / 16, "{room:?} is less than it could be");
            }
        }
    }

    #[test]
    fn limits_that_have_room_stay_and_the_share_of_one_user_stays_a_share() {
        let room = Room::of(1_024, true);
        for (each, part) in
            [(2_500, room.connections / 4), (10_000, room.connections), (99_999, room.connections), (100, 100), (1, 1)]
        {
            let limits = Limits { connections_per_uid: each, ..Limits::default() };
            assert_eq!(Room::of(1 << 20, true).within(limits.clone()), limits);
            let clamped = room.within(limits);
            assert_eq!((clamped.connections, clamped.connections_per_uid), (room.connections, part), "{each}");
            assert!(clamped.checks_per_uid == room.checks && (200..400).contains(&room.connections), "{room:?}");
        }
    }
}
