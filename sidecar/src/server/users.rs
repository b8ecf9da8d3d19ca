//! The users who are connected: how much of the daemon each of them has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    descriptors::{KEPT, common},
    quota::{Limit, Quota, Unread},
};
use crate::protocol::{ErrorObject, Limits};

/// How many connections a user gets when others have taken all there are.
const FIRST: usize = 16;
/// What all watches of keys of one user keep together of what is not read, in bytes.
const UNREAD: usize = 64 << 20;

/// What the connections of one user share.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    pub(super) requests: Quota,
    pub(super) leases: Quota,
    pub(super) subscriptions: Quota,
    pub(super) checks: Quota,
    pub(super) unread: Unread,
}

impl Quotas {
    fn new(limits: &Limits) -> Self {
        let of = |name, most, words| Quota::new(Limit { name, words, most });
        Self {
            requests: of("requests_per_uid", limits.requests_per_uid, "requests in flight; wait for an answer"),
            leases: of("leases_per_uid", limits.leases_per_uid, "leases, waits for one included; release one"),
            subscriptions: of("subscriptions_per_uid", limits.subscriptions_per_uid, "subscriptions; cancel one"),
            checks: of("checks_per_uid", limits.checks_per_uid, "checks of members; leave a group, or check less"),
            unread: Unread::new(UNREAD),
        }
    }
}

#[derive(Debug)]
struct User {
    connections: usize,
    quotas: Quotas,
}

#[derive(Debug, Default)]
struct Table {
    connections: usize,
    users: HashMap<u32, User>,
}

/// All users with a connection.
#[derive(Debug)]
pub(super) struct Users {
    table: Mutex<Table>,
    limits: Limits,
    /// Descriptors that connections and their processes may take.
    files: usize,
}

/// The place of one connection, free when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    users: Arc<Users>,
    uid: u32,
    pub(super) quotas: Quotas,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.users.table();
        table.connections -= 1;
        if let Some(user) = table.users.get_mut(&self.uid) {
            user.connections -= 1;
            if user.connections == 0 {
                table.users.remove(&self.uid);
            }
        }
    }
}

impl Users {
    pub(super) fn new(limits: Limits, files: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), limits, files })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connections(&self) -> usize {
        self.table().connections
    }

    /// How many there may be: those there are, and as many more as have descriptors if each is of another process.
    pub(super) fn most(&self, processes: usize) -> usize {
        let all = self.connections();
        let left = common(self.files).saturating_sub(all + processes) / 2;
        self.limits.connections.min(all + left)
    }

    /// A place for a connection of user `uid`, where there are so many `processes` with connections, that of this one included.
    ///
    /// # Errors
    /// When there is none, with the limit.
    pub(super) fn enter(self: &Arc<Self>, uid: u32, processes: usize) -> Result<Place, ErrorObject> {
        let mut table = self.table();
        let own = table.users.get(&uid).map_or(0, |user| user.connections);
        admit(&self.limits, self.files, &Taken { all: table.connections, own, processes })?;
        table.connections += 1;
        let user = table.users.entry(uid).or_insert_with(|| User { connections: 0, quotas: Quotas::new(&self.limits) });
        user.connections += 1;
        Ok(Place { users: self.clone(), uid, quotas: user.quotas.clone() })
    }
}

/// What there is when one more connection comes.
struct Taken {
    /// Connections.
    all: usize,
    /// Those of the same user.
    own: usize,
    /// Processes with connections, the new one's included.
    processes: usize,
}

/// Whether one more is let in, of a user who has `own` of `all` connections, where they and their processes may have so many
/// `files`.
fn admit(limits: &Limits, files: usize, taken: &Taken) -> Result<(), ErrorObject> {
    let (most, each) = (limits.connections, limits.connections_per_uid);
    let &Taken { all, own, processes } = taken;
    let open = all + 1 + processes;
    if own >= each {
        let words = "connections; close one, or try again later";
        return Err(Limit { name: "connections_per_uid", words, most: each }.reached());
    }
    // Whoever has taken all there are has not taken the first few of others.
    let is_one_of_the_first = own < FIRST.min(most / 2) && all < most.saturating_add(most.div_ceil(KEPT)) && open <= files;
    if (all < most && open <= common(files)) || is_one_of_the_first {
        return Ok(());
    }
    let why = if all < most { ", and may open no more files" } else { "" };
    let said = format!("the daemon serves {all} connections{why}; close one, or try again later");
    Err(ErrorObject::limit("connections", said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(error: &ErrorObject) -> &str {
        error.data["limit"].as_str().unwrap()
    }

    #[test]
    fn one_user_cannot_take_what_is_kept_for_others() {
        let limits = Limits { connections: 100, connections_per_uid: 200, ..Limits::default() };
        let users = Users::new(limits, usize::MAX);
        let mut places: Vec<_> = (0..100).map(|_| users.enter(1, 1).unwrap()).collect();
        assert_eq!(limit(&users.enter(1, 1).unwrap_err()), "connections");
        // Another has its first ones all the same, until what is kept is used up.
        places.extend((0..6).map(|_| users.enter(2, 2).unwrap()));
        places.extend((0..4).map(|_| users.enter(3, 3).unwrap()));
        assert_eq!((users.connections(), limit(&users.enter(4, 4).unwrap_err())), (110, "connections"));
        places.clear();
        assert_eq!((users.connections(), users.table().users.len()), (0, 0));
    }

    #[test]
    fn a_user_has_a_limit_of_its_own() {
        let limits = Limits { connections: 100, connections_per_uid: 2, leases_per_uid: 3, ..Limits::default() };
        let users = Users::new(limits, usize::MAX);
        let (first, second) = (users.enter(1, 1).unwrap(), users.enter(1, 1).unwrap());
        assert_eq!(limit(&users.enter(1, 1).unwrap_err()), "connections_per_uid");
        let other = users.enter(2, 2).unwrap();
        // Whichever of its connections has them.
        let taken: Vec<_> = [&first, &second, &first].map(|place| place.quotas.leases.take().unwrap()).into();
        assert_eq!(limit(&second.quotas.leases.take().unwrap_err()), "leases_per_uid");
        assert_eq!((first.quotas.leases.used(), other.quotas.leases.used()), (3, 0), "what is refused counts for nothing");
        assert!(other.quotas.leases.take().is_ok());
        drop(taken);
        assert!(first.quotas.leases.take().is_ok());
    }

    #[test]
    fn a_small_daemon_keeps_to_its_limit() {
        for most in 1..4 {
            let limits = Limits { connections: most, ..Limits::default() };
            assert!(admit(&limits, usize::MAX, &Taken { all: most, own: most, processes: 1 }).is_err(), "{most}");
        }
    }

    #[test]
    fn as_many_are_let_in_as_have_descriptors_whichever_processes_they_are_of() {
        let limits = Limits { connections: 100, connections_per_uid: 100, ..Limits::default() };
        // Of 66 six are kept for others.
        let files = 66;
        let of_one_process = Users::new(limits.clone(), files);
        let mine: Vec<_> = std::iter::from_fn(|| of_one_process.enter(1, 1).ok()).collect();
        assert_eq!((mine.len(), of_one_process.most(1)), (59, 59));
        let others: Vec<_> = std::iter::from_fn(|| of_one_process.enter(2, 2).ok()).collect();
        assert_eq!(others.len(), 5, "59 and 5, and two processes");
        let of_many = Users::new(limits, files);
        let mut places = Vec::new();
        while let Ok(place) = of_many.enter(1, places.len() + 1) {
            places.push(place);
            assert_eq!(of_many.most(places.len()), 30);
        }
        assert_eq!(places.len(), 30);
        assert_eq!(limit(&of_many.enter(1, 31).unwrap_err()), "connections");
        let others: Vec<_> = std::iter::from_fn(|| of_many.enter(2, 31).ok()).collect();
        assert_eq!(others.len(), 5, "30 and 5, and 31 processes");
    }
}
