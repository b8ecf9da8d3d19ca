/** What the daemon tells. Times that end in `Ms` are milliseconds. */

/** Who holds a lock or waits for it. */
export interface Owner {
  fence: number;
  label: string | null;
  session: string;
  host: string;
  pid: number;
  /** Unix time, for people. */
  sinceMs: number;
}

/** A lock as the store shows it; waiters in the order of grants to come. */
export interface LockView {
  name: string;
  holder: Owner | null;
  waiters: Owner[];
  /** How many more wait, where all of them would be longer than a line. */
  moreWaiters?: number;
}

/** Where a lease stands, as the daemon sees it. */
export interface LeaseCheck {
  held: boolean;
  remainingMs: number;
  fence: number;
}

/** Who leads an election; `fence` is the term. */
export interface Leader {
  value: Buffer;
  fence: number;
  revision: number;
  session: string;
  candidate: string;
  label: string | null;
  host: string;
  pid: number;
  priority: number;
  sinceMs: number;
}

/** The answer to who leads: null for nobody, and how long ago at most the store said so. */
export interface Leadership {
  leader: Leader | null;
  ageMs: number;
}

/** One who waits to lead. */
export interface Candidate {
  id: string;
  value: Buffer;
  session: string;
  label: string | null;
  host: string;
  pid: number;
  priority: number;
  sinceMs: number;
}

/** An election as the store shows it. */
export interface ElectionView {
  name: string;
  /** Who leads, without what it proclaims; null for nobody. */
  leader: Omit<Leader, "value"> | null;
  /** How many wait to lead. */
  candidates: number;
}

/** A group as the store shows it. */
export interface GroupView {
  name: string;
  /** How many it has. */
  members: number;
}

/** Whether a member should be given work. */
export type MemberState = "passing" | "warning" | "critical" | "draining" | "maintenance";

/** A member of a group, as others see it. */
export interface Member {
  id: string;
  revision: number;
  value: Buffer;
  address: string | null;
  zone: string | null;
  weight: number;
  metadata: Record<string, string>;
  state: MemberState;
  session: string;
  host: string;
  pid: number;
  label: string | null;
}

/** One line's worth of members, by id; `next` where there are more. */
export interface MemberPage {
  members: Member[];
  revision: number;
  unreadable: number;
  next?: string;
}

/** How the daemon finds out whether a member is well. */
export interface Check {
  /** `tcp:HOST:PORT`, `http://…` or `heartbeat:SECONDS`. */
  check: string;
  intervalMs?: number;
  timeoutMs?: number;
  rise?: number;
  fall?: number;
  initially?: MemberState;
}

/** One entry of a bucket. */
export interface Entry {
  key: string;
  value: Buffer;
  revision: number;
  created: string;
  operation: "put" | "delete" | "purge" | "expire";
}

/** One line's worth of keys, sorted; `next` where there are more. */
export interface KeyPage {
  keys: string[];
  next?: string;
}

/**
 * Something that a subscription tells. A `gap` says that events are missing here; nothing is done about it behind the application's
 * back. The last one of every subscription that was not closed by its owner is `end`, with a
 * reason: one that the daemon gave, or `slow_reader` (too many events waited here), `disconnected` or `closed`.
 */
export type Event =
  /** How a lock is now. `waiters` are the first of those who wait, and `waiting` is how many do. */
  | { kind: "lock"; holder: Owner | null; waiters: Owner[]; waiting: number }
  | { kind: "leader"; leader: Leader | null }
  | { kind: "join" | "update"; member: Member }
  | { kind: "leave"; id: string; revision: number }
  | { kind: "put"; key: string; value: Buffer; revision: number }
  | { kind: "delete" | "purge" | "expire"; key: string; revision: number }
  | { kind: "sync"; revision?: number }
  | { kind: "gap"; resumeRevision?: number }
  | { kind: "end"; reason: string };

/** What one connection and the daemon allow. */
export interface Limits {
  lineBytes: number;
  requests: number;
  subscriptions: number;
  stallMs: number;
  leases: number;
  connections: number;
  connectionsPerUid: number;
  requestsPerUid: number;
  leasesPerUid: number;
  subscriptionsPerUid: number;
  checksPerUid: number;
  minCheckIntervalMs: number;
  leaseLengths: number;
  defaultLeaseMs: number;
  minLeaseMs: number;
  maxLeaseMs: number;
}

/** Where a daemon keeps everything; `shared` where other machines see the same. */
export interface Store {
  url: string;
  shared: boolean;
  replicas: number;
}

/** How the daemon fares: what it has of everything, and of the connection that asks. */
export interface Status {
  server: string;
  pid: number;
  uptimeMs: number;
  draining: boolean;
  store: Store;
  /** The daemon's sessions with the store; `users` are the leases and waits that rest on one. */
  sessions: { id: string; leaseMs: number; state: string; remainingMs: number; users: number }[];
  connections: number;
  leases: number;
  leaderships: number;
  members: number;
  subscriptions: number;
  requests: number;
  /** The rules that say who may do what; `problem` is why what the file says now is not in force. */
  policy?: { path: string; rules: number; problem?: string };
  /** The connection that asks. */
  connection: {
    session: string; pid?: number; uid: number; leases: number; subscriptions: number; requests: number; heartbeatMs?: number;
  };
}

/** What the daemon said when the connection began. */
export interface Hello {
  protocol: number;
  server: string;
  session: string;
  store: Store;
  /** The methods that this daemon serves. */
  capabilities: string[];
  limits: Limits;
}
