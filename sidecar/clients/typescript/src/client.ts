/** The client: one connection, and a method for each of the protocol's. */

import { createConnection } from "node:net";
import { Connection } from "./connection.js";
import * as errors from "./errors.js";
import { Lock, Membership, Office, type Abortable, type Home, type Lease } from "./lease.js";
import type {
  Candidate, Check, ElectionView, Entry, GroupView, Hello, KeyPage, Leadership, LockView, Member, MemberPage, MemberState, Status,
} from "./model.js";
import { Subscription } from "./subscription.js";
import { defaultSocket, params, read, value, type Json, type Value } from "./wire.js";

/** Leases are let go when the daemon has heard nothing for this long. */
export const HEARTBEAT_MS = 10_000;
/** Events kept for a subscription that nobody reads. */
export const EVENTS = 16_384;

/** How to connect. */
export interface ConnectOptions extends Abortable {
  /** Where the daemon listens; {@link defaultSocket} unless told. */
  socket?: string;
  /** What the client calls itself, for people. */
  name?: string;
  /** For how long the daemon may hear nothing from here before it lets everything go; null for ever. */
  heartbeatMs?: number | null;
  /** Leaves it to the application to call `ping`, from wherever it can tell that it is well. */
  manualPing?: boolean;
  /** How many unread events are kept for each subscription before it ends as `slow_reader`. */
  events?: number;
}

/** How to wait for something to be held. */
export interface AcquireOptions extends Abortable {
  /** How long to wait: for ever unless told, 0 to try once. */
  waitMs?: number;
  /** How long a crash of the daemon keeps it; the daemon's default unless told. */
  leaseMs?: number;
  /** Shown to whoever looks. */
  label?: string;
}

/** How to campaign. */
export interface CampaignOptions extends AcquireOptions {
  /** What to proclaim when elected. */
  value?: Value;
  /** A leader with a lower one is asked to step down. */
  priority?: number;
  /** As leader, is not asked to step down before having led for so long. */
  minTenureMs?: number;
}

/** How to join a group. */
export interface JoinOptions extends Abortable {
  /** The member's id; the daemon makes one unless told. */
  id?: string;
  value?: Value;
  address?: string;
  zone?: string;
  weight?: number;
  metadata?: Record<string, string>;
  state?: MemberState;
  checks?: Check[];
  /** Leave when it has been critical for so long. */
  leaveWhenCriticalMs?: number;
  label?: string;
  leaseMs?: number;
}

/** What a write depends on. */
export interface FenceOptions extends Abortable {
  /** Write only while that lease of this client holds, which the store itself checks. */
  fencedBy?: Lock | Office;
  /** With `lock` or `election`: write only while that hold lasts, whoever has it. */
  fence?: number;
  lock?: string;
  election?: string;
  /** A bucket other than the coordination bucket. */
  bucket?: string;
}

/** How to put, create or update. */
export interface PutOptions extends FenceOptions {
  /** Forget the value after this time. */
  ttlMs?: number;
}

/** How to delete. */
export interface DeleteOptions extends FenceOptions {
  /** Only if the value is still that one. */
  revision?: number;
}

/** What to follow: one key, or all with a prefix. */
export interface WatchOptions extends Abortable {
  key?: string;
  prefix?: string;
  fromRevision?: number;
  updatesOnly?: boolean;
  bucket?: string;
}

type Params = { [name: string]: Json };

/**
 * Connects to the daemon and says hello.
 *
 * @throws {@link errors.ConnectError} where nobody answers, {@link errors.Unsupported} where another protocol is spoken.
 */
export function connect(options: ConnectOptions = {}): Promise<Client> {
  return Client.connect(options);
}

/**
 * A connection to the daemon. Everything held through it is released when it closes. Make one with {@link connect}.
 *
 * A connection that has ended is not made again: what was held through it is lost, and only the application knows what that
 * means.
 *
 * Pings are sent from a timer on the event loop, so a loop that is blocked for longer than the heartbeat loses what it holds.
 */
export class Client implements AsyncDisposable {
  /** What the daemon said of itself. */
  hello!: Hello;
  /** Called when the daemon says that it is leaving: what is still held so much later is lost. */
  onGoaway: ((deadlineMs: number) => void) | undefined;
  /** What it said then; undefined while it has not. */
  goawayMs: number | undefined;
  #connection!: Connection;
  #leases = new Map<string, Lease>();
  #subscriptions = new Map<string, Subscription>();
  #heartbeatMs: number | null;
  #room: number;
  #closed: Promise<string>;
  #hasClosed!: (why: string) => void;

  private constructor(options: ConnectOptions) {
    this.#heartbeatMs = options.heartbeatMs === undefined ? HEARTBEAT_MS : options.heartbeatMs;
    this.#room = options.events ?? EVENTS;
    this.#closed = new Promise((resolve) => (this.#hasClosed = resolve));
  }

  /** @internal */
  static async connect(options: ConnectOptions): Promise<Client> {
    const path = options.socket ?? defaultSocket();
    const socket = createConnection(path);
    const { signal } = options;
    const abort = (): void => void socket.destroy(signal?.reason as Error | undefined);
    try {
      signal?.throwIfAborted();
      signal?.addEventListener("abort", abort);
      await new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", (error: NodeJS.ErrnoException) => reject(signal?.aborted ? signal.reason : noConnection(path, error)));
      });
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
    const client = new Client(options);
    client.#connection = new Connection(socket, (method, said) => client.#told(method, said), (why) => client.#ended(why));
    const heartbeatMs = client.#heartbeatMs ?? undefined;
    try {
      const hello = params({ protocol: [1], client: options.name ?? "tenure-client-typescript/0.1.0", heartbeat_ms: heartbeatMs });
      client.hello = read(await client.call("hello", hello, options));
    } catch (error) {
      await client.close();
      throw error;
    }
    client.#connection.maxLine = client.hello.limits?.lineBytes ?? Infinity;
    if (heartbeatMs !== undefined && !options.manualPing) client.#connection.keepAlive(heartbeatMs);
    return client;
  }

  /** Closes the connection; the daemon releases whatever is still held. */
  async close(): Promise<void> {
    this.#connection.close("closed");
    await this.#connection.gone;
  }

  /** {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Whether the connection has ended, and with it everything held through it. */
  get isClosed(): boolean {
    return this.#connection.closed;
  }

  /** Resolves, to the reason, when it has. */
  get closed(): Promise<string> {
    return this.#closed;
  }

  /** Requests that are not answered yet. */
  get inFlight(): number {
    return this.#connection.inFlight;
  }

  /** Whether the daemon serves `method`. */
  supports(method: string): boolean {
    return this.hello.capabilities?.includes(method) ?? false;
  }

  /**
   * Calls any method by its name on the wire and resolves to its result as it is. A lease or subscription in it is the caller's
   * own business.
   */
  call(method: string, params: Params = {}, options: Abortable = {}): Promise<Json> {
    return this.#connection.call(method, params, { take: (result) => result, signal: options.signal });
  }

  /** Says that this client is alive. */
  async ping(options: Abortable = {}): Promise<void> {
    await this.call("ping", {}, options);
  }

  /** How the daemon and this connection fare. */
  async status(options: Abortable = {}): Promise<Status> {
    return read(await this.call("status", {}, options));
  }

  /** The protocol as an OpenRPC document. */
  discover(options: Abortable = {}): Promise<Json> {
    return this.call("rpc.discover", {}, options);
  }

  // Locks.

  /**
   * Acquires a lock. Give it up with `release`, or hold it in `await using`.
   *
   * @throws {@link errors.Timeout} when it was in vain.
   */
  lock(name: string, options: AcquireOptions = {}): Promise<Lock> {
    const given = params({ name, ...acquiring(options) });
    return this.#acquire("lock.acquire", "lock.release", given, options, (home, result) => new Lock(home, name, result));
  }

  /**
   * Runs `work` under a lock and releases it afterwards. The signal is aborted when the lock is lost, or when that of the options
   * is; where the lock was lost this throws {@link errors.Lost}, unless `work` threw something else before.
   */
  async withLock<T>(name: string, options: AcquireOptions, work: (lock: Lock, signal: AbortSignal) => Promise<T> | T): Promise<T> {
    return under(await this.lock(name, options), options.signal, work);
  }

  /** Who holds a lock and who waits for it. */
  async lockGet(name: string, options: Abortable = {}): Promise<LockView> {
    return read(await this.call("lock.get", { name }, options));
  }

  /** The locks that somebody holds or waits for. */
  async lockList(prefix?: string, options: Abortable = {}): Promise<LockView[]> {
    return this.#list<LockView>("lock.list", "locks", { prefix }, options);
  }

  /** Follows who holds a lock and who waits: events `lock`, `sync`, `gap`, `end`. */
  observeLock(name: string, options: Abortable = {}): Promise<Subscription> {
    return this.#subscribe("lock.observe", { name }, options);
  }

  /** Ends the hold of a lock that has this token, and no other; for administrators. */
  async lockBreak(name: string, fence: number, options: Abortable = {}): Promise<void> {
    await this.call("lock.break", { name, fence }, options);
  }

  // Elections.

  /** Campaigns until elected. Give the office up with `resign`, or hold it in `await using`. */
  campaign(name: string, options: CampaignOptions = {}): Promise<Office> {
    const { priority, minTenureMs } = options;
    const given = params({ name, ...acquiring(options), priority, min_tenure_ms: minTenureMs, ...value(options.value) });
    return this.#acquire("election.campaign", "election.resign", given, options, (home, result) => new Office(home, name, result));
  }

  /** Campaigns, runs `work` while leading and resigns afterwards, as {@link withLock} does for a lock. */
  async whileLeader<T>(
    name: string,
    options: CampaignOptions,
    work: (office: Office, signal: AbortSignal) => Promise<T> | T,
  ): Promise<T> {
    return under(await this.campaign(name, options), options.signal, work);
  }

  /** Who leads. */
  async leader(name: string, options: Abortable = {}): Promise<Leadership> {
    return read(await this.call("election.leader", { name }, options));
  }

  /** Who waits to lead, longest first. */
  async candidates(name: string, options: Abortable = {}): Promise<Candidate[]> {
    return this.#list<Candidate>("election.candidates", "candidates", { name }, options);
  }

  /** The elections that somebody leads or waits to lead. */
  async electionList(prefix?: string, options: Abortable = {}): Promise<ElectionView[]> {
    return this.#list<ElectionView>("election.list", "elections", { prefix }, options);
  }

  /** Follows who leads: events `leader`, `sync`, `gap`, `end`. */
  observe(name: string, options: Abortable = {}): Promise<Subscription> {
    return this.#subscribe("election.observe", { name }, options);
  }

  // Groups.

  /**
   * Joins a group. Leave it with `leave`, or be in it in `await using`.
   *
   * @throws {@link errors.Conflict} where somebody else who lives has that `id`.
   */
  join(group: string, options: JoinOptions = {}): Promise<Membership> {
    const { signal: _, value: data, checks, leaveWhenCriticalMs, leaseMs, ...rest } = options;
    const given = params({
      group, ...rest, leave_when_critical_ms: leaveWhenCriticalMs, lease_ms: leaseMs, ...value(data),
      checks: checks?.map(({ check, intervalMs, timeoutMs, rise, fall, initially }) =>
        params({ check, interval_ms: intervalMs, timeout_ms: timeoutMs, rise, fall, initially })),
    });
    return this.#acquire("member.join", "member.leave", given, options, (home, result) => new Membership(home, group, result));
  }

  /** One line's worth of members, by id; those after `after`. */
  async memberList(group: string, after?: string, options: Abortable = {}): Promise<MemberPage> {
    return read(await this.call("member.list", params({ group, after }), options));
  }

  /** All members, by id. */
  async members(group: string, options: Abortable = {}): Promise<Member[]> {
    const all: Member[] = [];
    for (let after: string | undefined; ; ) {
      const page = await this.memberList(group, after, options);
      all.push(...page.members);
      after = page.next ?? undefined;
      if (after === undefined) return all;
    }
  }

  /** The groups that have members. */
  async groups(prefix?: string, options: Abortable = {}): Promise<GroupView[]> {
    return this.#list<GroupView>("member.groups", "groups", { prefix }, options);
  }

  /** All of a list, however many answers that takes. */
  async #list<T>(method: string, name: string, given: Record<string, unknown>, options: Abortable): Promise<T[]> {
    const all: T[] = [];
    for (let after: string | undefined; ; ) {
      const page = read<{ [list: string]: T[] } & { next?: string }>(await this.call(method, params({ ...given, after }), options));
      all.push(...(page[name] ?? []));
      after = page.next ?? undefined;
      if (after === undefined) return all;
    }
  }

  /** Follows a group: events `join`, `update`, `leave`, `sync`, `gap`, `end`. */
  watchMembers(group: string, options: Abortable = {}): Promise<Subscription> {
    return this.#subscribe("member.watch", { group }, options);
  }

  // Values.

  /** The value of a key; null where it has none. */
  async get(key: string, options: Abortable & { revision?: number; bucket?: string } = {}): Promise<Entry | null> {
    const { revision, bucket } = options;
    return read<{ entry: Entry | null }>(await this.call("kv.get", params({ key, revision, bucket }), options)).entry;
  }

  /**
   * Writes a value; resolves to the revision.
   *
   * @throws {@link errors.Conflict}, {@link errors.Lost} or {@link errors.NotHeld} where a fence does not hold; nothing is written.
   */
  put(key: string, data: Value, options: PutOptions = {}): Promise<number> {
    return this.revision("kv.put", params({ key, ...writing(options), ...value(data) }), options);
  }

  /** Writes a value where there is none, else throws {@link errors.Conflict}; resolves to the revision. */
  create(key: string, data: Value, options: PutOptions = {}): Promise<number> {
    return this.revision("kv.create", params({ key, ...writing(options), ...value(data) }), options);
  }

  /** Writes over that very revision, else throws {@link errors.Conflict}; resolves to the new one. */
  update(key: string, data: Value, revision: number, options: PutOptions = {}): Promise<number> {
    return this.revision("kv.update", params({ key, revision, ...writing(options), ...value(data) }), options);
  }

  /** Deletes a key's value; resolves to the revision of that. */
  delete(key: string, options: DeleteOptions = {}): Promise<number> {
    return this.revision("kv.delete", params({ key, revision: options.revision, ...writing(options) }), options);
  }

  /** As {@link delete}, the key's history included. */
  purge(key: string, options: DeleteOptions = {}): Promise<number> {
    return this.revision("kv.purge", params({ key, revision: options.revision, ...writing(options) }), options);
  }

  /** One line's worth of the keys that have a value, sorted; those after `after`. */
  async keyPage(prefix?: string, after?: string, options: Abortable & { bucket?: string } = {}): Promise<KeyPage> {
    return read(await this.call("kv.keys", params({ prefix, after, bucket: options.bucket }), options));
  }

  /** All keys that have a value, sorted. */
  async keys(prefix?: string, options: Abortable & { bucket?: string } = {}): Promise<string[]> {
    const all: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await this.keyPage(prefix, after, options);
      all.push(...page.keys);
      after = page.next ?? undefined;
      if (after === undefined) return all;
    }
  }

  /** What the bucket has kept of a key, oldest first. */
  async history(key: string, options: Abortable & { bucket?: string } = {}): Promise<Entry[]> {
    return read<{ entries: Entry[] }>(await this.call("kv.history", params({ key, bucket: options.bucket }), options)).entries;
  }

  /**
   * Follows values: events `put`, `delete`, `purge`, `expire`, `sync`, `gap`, `end`. After a `gap` that is followed by `end`, or any
   * other `end`, watch again with the subscription's `resumeRevision` as `fromRevision` and no write is missed, but those that the
   * store has forgotten.
   */
  watch(options: WatchOptions): Promise<Subscription> {
    const { key, prefix, fromRevision, updatesOnly, bucket } = options;
    return this.#subscribe("kv.watch", params({ key, prefix, from_revision: fromRevision, updates_only: updatesOnly, bucket }), options);
  }

  // Inside.

  /** @internal */
  async revision(method: string, given: Params, options: Abortable): Promise<number> {
    return Number((await this.call(method, given, options) as { revision: number }).revision);
  }

  /** @internal */
  post(method: string, given: Params): void {
    this.#connection.post(method, given);
  }

  #acquire<T extends Lease>(
    method: string, release: string, given: Params, { signal }: Abortable, build: (home: Home, result: Params) => T,
  ): Promise<T> {
    const home: Home = {
      client: this,
      forget: (lease) => this.#leases.delete(lease.handle),
      heard: () => this.#connection.heard(this.#heartbeatMs),
    };
    return this.#connection.call(method, given, {
      // While the line is read: the next one may tell that it is lost.
      take: (result) => {
        const lease = build(home, result as Params);
        this.#leases.set(lease.handle, lease);
        return lease;
      },
      undo: (lease) => {
        lease.end();
        this.post(release, { lease: lease.handle });
      },
      signal,
    });
  }

  #subscribe(method: string, given: Params, { signal }: Abortable): Promise<Subscription> {
    return this.#connection.call(method, given, {
      take: (result) => {
        const forget = ({ handle }: Subscription): void => void this.#subscriptions.delete(handle);
        const from = given.from_revision as number | undefined;
        const subscription = new Subscription(this, forget, result as Params, this.#room, from);
        this.#subscriptions.set(subscription.handle, subscription);
        return subscription;
      },
      undo: (subscription) => void subscription.close().catch(() => {}),
      signal,
    });
  }

  #told(method: string, said: Params): void {
    const lease = this.#leases.get(String(said.lease));
    if (method === "lease") lease?.tell(String(said.state), String(said.reason ?? ""));
    else if (method === "event" && said.kind === "asked_to_step_down") (lease as Office | undefined)?.ask(said.candidate ?? {});
    else if (method === "event") this.#subscriptions.get(String(said.subscription))?.tell(said);
    else if (method === "goaway") {
      this.goawayMs = Number(said.deadline_ms ?? 0);
      try {
        this.onGoaway?.(this.goawayMs);
      } catch (error) {
        // A listener's fault must not end the reading of the connection, nor stay unseen.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #ended(why: string): void {
    for (const lease of [...this.#leases.values()]) lease.lose(why);
    for (const subscription of [...this.#subscriptions.values()]) subscription.tell({ kind: "end", reason: why });
    this.#hasClosed(why);
  }
}

function acquiring({ waitMs, leaseMs, label }: AcquireOptions): { [name: string]: Json | undefined } {
  return { wait_ms: waitMs, lease_ms: leaseMs, label };
}

function writing(options: PutOptions): { [name: string]: Json | undefined } {
  const { ttlMs, fencedBy, fence, lock, election, bucket } = options;
  return { ttl_ms: ttlMs, fence_lease: fencedBy?.handle, fence, lock, election, bucket };
}

async function under<L extends Lease, T>(
  lease: L, given: AbortSignal | undefined, work: (lease: L, signal: AbortSignal) => Promise<T> | T,
): Promise<T> {
  const signal = given ? AbortSignal.any([lease.signal, given]) : lease.signal;
  let result: T;
  try {
    result = await work(lease, signal);
  } catch (error) {
    // What the work failed with matters more, unless it only passed on that it was aborted.
    await lease.release().catch(() => {});
    throw lease.lost && (error === signal.reason || (error as Error | undefined)?.name === "AbortError") ? lease.lost : error;
  }
  await lease.release();
  return result;
}

function noConnection(path: string, error: NodeJS.ErrnoException): errors.ConnectError {
  const said: Record<string, string> = {
    ENOENT: `there is no socket ${path}; start tenured, or name its socket`,
    ECONNREFUSED: `nobody listens on ${path}; start tenured`,
    EACCES: `this user may not use ${path}; join the group of the socket, or start tenured with --socket-group`,
  };
  const message = said[error.code ?? ""] ?? `cannot connect to ${path}: ${error.message}`;
  return new errors.ConnectError(message, "unavailable", true, {}, undefined, { cause: error });
}
