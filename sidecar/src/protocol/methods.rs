//! The one table of methods: what the daemon serves, and what `rpc.discover` says of it.

use schemars::SchemaGenerator;

use super::{
    Cancel, Done, ElectionCampaign, ElectionCampaigned, ElectionCandidateList, ElectionCandidates, ElectionLeader, ElectionList,
    ElectionName, ElectionProclaim, ElectionTransfer, ElectionTransferred, Elections, Groups, Hello, HelloResult, KvDelete,
    KvEntries, KvEntry, KvGet, KvHistory, KvKeys, KvKeysListed, KvPut, KvUpdate, KvWatch, LeaseRef, LockAcquire, LockAcquired,
    LockBreak, LockCheck, LockGet, LockList, LockView, Locks, MemberGroups, MemberJoin, MemberJoined, MemberList, MemberListed,
    MemberUpdate, MemberWatchParams, NoParams, Status, Subscribed, SubscriptionCancel, Written,
    openrpc::{Described, Document},
};

/// What this version of the daemon can besides: `buckets` is the parameter `bucket` of `kv.*`.
pub const CAPABILITIES: &[&str] = &["buckets"];

macro_rules! methods {
    ($($name:literal: $params:ty => $result:ty, $summary:literal;)+) => {
        /// The methods this version of the daemon serves.
        pub const METHODS: &[&str] = &[$($name),+];

        /// All of them, as they are described.
        pub(super) fn described(generator: &mut SchemaGenerator) -> Vec<Described> {
            vec![$(Described::new::<$params, $result>($name, $summary, generator)),+]
        }
    };
}

methods! {
    "hello": Hello => HelloResult, "Agrees on the protocol's version and asks for a heartbeat. Optional.";
    "ping": NoParams => Done, "Shows that both sides are there.";
    "status": NoParams => Status, "The health of the store, of the daemon's sessions and of this connection.";
    "rpc.discover": NoParams => Document, "This document.";
    "cancel": Cancel => Done, "Cancels a request in flight, which then holds nothing.";
    "lock.acquire": LockAcquire => LockAcquired, "Takes a lock, in the order of requests.";
    "lock.release": LeaseRef => Done, "Gives a lock back.";
    "lock.check": LeaseRef => LockCheck, "Whether a lease is valid now. Takes any lease.";
    "lock.get": LockGet => LockView, "Who holds a lock and who waits for it.";
    "lock.list": LockList => Locks, "The locks that somebody holds or waits for.";
    "lock.observe": LockGet => Subscribed, "Follows who holds a lock and who waits. Events: lock, sync, gap, end.";
    "lock.break": LockBreak => Done, "Ends one hold of a lock, whoever has it.";
    "election.campaign": ElectionCampaign => ElectionCampaigned, "Stands for election and waits to lead.";
    "election.proclaim": ElectionProclaim => Written, "Says something else as leader.";
    "election.resign": LeaseRef => Done, "Gives an office up.";
    "election.transfer": ElectionTransfer => ElectionTransferred, "Hands an office to a candidate.";
    "election.leader": ElectionName => ElectionLeader, "Who leads, as the store says now.";
    "election.candidates": ElectionCandidateList => ElectionCandidates, "Who waits to lead.";
    "election.list": ElectionList => Elections, "The elections that somebody leads or waits to lead.";
    "election.observe": ElectionName => Subscribed, "Follows who leads. Events: leader, sync, gap, end.";
    "member.join": MemberJoin => MemberJoined, "Becomes a member of a group.";
    "member.update": MemberUpdate => Written, "Changes what a member says of itself.";
    "member.beat": LeaseRef => Done, "The heartbeat that a check of a member waits for.";
    "member.leave": LeaseRef => Done, "Leaves a group.";
    "member.list": MemberList => MemberListed, "The members of a group.";
    "member.groups": MemberGroups => Groups, "The groups that have members.";
    "member.watch": MemberWatchParams => Subscribed, "Follows a group. Events: join, update, leave, sync, gap, end.";
    "kv.get": KvGet => KvEntry, "The value of a key.";
    "kv.put": KvPut => Written, "Writes a value, whatever is there.";
    "kv.create": KvPut => Written, "Writes a value where there is none.";
    "kv.update": KvUpdate => Written, "Writes a value where the latest write to the key is that of `revision`.";
    "kv.delete": KvDelete => Written, "Deletes a value.";
    "kv.purge": KvDelete => Written, "Deletes a value and what the bucket keeps of its past.";
    "kv.keys": KvKeys => KvKeysListed, "The keys that have a value.";
    "kv.history": KvHistory => KvEntries, "What the bucket still has of a key.";
    "kv.watch": KvWatch => Subscribed, "Follows keys. Events: put, delete, purge, expire, sync, gap, end.";
    "subscription.cancel": SubscriptionCancel => Done, "Ends a subscription; no event of it comes after the answer.";
}
