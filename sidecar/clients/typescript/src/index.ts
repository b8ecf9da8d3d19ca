/**
 * Locks, leader election and membership through the daemon `tenured`.
 *
 * @packageDocumentation
 */

export {
  Client, EVENTS, HEARTBEAT_MS, connect,
  type AcquireOptions, type CampaignOptions, type ConnectOptions, type DeleteOptions, type FenceOptions, type JoinOptions,
  type PutOptions, type WatchOptions,
} from "./client.js";
export {
  Cancelled, Conflict, ConnectError, Denied, Invalid, Limit, Lost, NotFound, NotHeld, TenureError, Timeout, Unavailable,
  UnknownOutcome, Unsupported,
} from "./errors.js";
export { Lease, Lock, Membership, Office, type Abortable, type LeaseState, type MemberChange } from "./lease.js";
export type {
  Candidate, Check, ElectionView, Entry, Event, GroupView, Hello, KeyPage, Leader, Leadership, LeaseCheck, Limits, LockView, Member,
  MemberPage, MemberState, Owner, Status, Store,
} from "./model.js";
export { Subscription } from "./subscription.js";
export { defaultSocket, type Json, type Value } from "./wire.js";
