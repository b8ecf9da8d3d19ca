/** What is held through a connection. */

import type { Client } from "./client.js";
import * as errors from "./errors.js";
import type { Candidate, LeaseCheck, MemberState } from "./model.js";
import { params, read, value, type Json, type Value } from "./wire.js";

/** Where a lease stands. A suspect one may be held again, or lost. */
export type LeaseState = "held" | "suspect" | "lost" | "released";

/** A call that may be given up. */
export interface Abortable {
  /** Cancels the request at the daemon, too, when it is aborted. */
  signal?: AbortSignal;
}

/** What a lease needs of its client. */
export interface Home {
  readonly client: Client;
  forget(lease: Lease): void;
  heard(): boolean;
}

/** Something held through a connection: a lock, an office or a membership. */
export abstract class Lease implements AsyncDisposable {
  /** The handle on this connection. */
  readonly handle: string;
  /** How long the request waited. */
  readonly waitedMs: number;
  /** How long a crash of the daemon would keep it. */
  readonly leaseMs: number;
  /** How long it was valid, when it was granted, without another renewal. */
  readonly remainingMs: number;

  protected abstract readonly what: string;
  protected abstract readonly releaseMethod: string;
  #state: LeaseState = "held";
  #over = false;
  #lost: errors.Lost | undefined;
  #abort = new AbortController();
  #listeners = new Set<(state: LeaseState) => void>();

  constructor(
    protected readonly home: Home,
    /** The lock's, the election's or the group's name. */
    readonly name: string,
    result: { [name: string]: Json },
  ) {
    if (typeof result.lease !== "string") throw new TypeError("there is no lease in it");
    this.handle = result.lease;
    this.waitedMs = Number(result.waited_ms ?? 0);
    this.leaseMs = Number(result.lease_ms ?? 0);
    this.remainingMs = Number(result.remaining_ms ?? 0);
  }

  /** Where it stands, as far as it was told. */
  get state(): LeaseState {
    return this.#state;
  }

  /** Why it is lost; undefined while it is not. */
  get lost(): errors.Lost | undefined {
    return this.#lost;
  }

  /** Aborted when the lease is lost, with that as the reason. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /**
   * Whether it is held as far as this process can know without asking: it was not given up, no loss was told, and the daemon has
   * heard from this client within the heartbeat. The clock of that does not count a suspended machine.
   */
  get held(): boolean {
    return (this.#state === "held" || this.#state === "suspect") && this.home.heard();
  }

  /** Throws {@link errors.Lost} when it is. */
  throwIfLost(): void {
    if (this.#lost) throw this.#lost;
  }

  /** Resolves when it is lost; never where it is given up instead. */
  whenLost(): Promise<errors.Lost> {
    return new Promise((resolve) => {
      if (this.#lost) resolve(this.#lost);
      else this.signal.addEventListener("abort", () => resolve(this.#lost!), { once: true });
    });
  }

  /** Calls `listener` with each new state: `suspect`, `held` again, `lost`. Returns how to stop that. */
  onChange(listener: (state: LeaseState) => void): () => void {
    this.#listeners.add(listener);
    if (this.#state === "suspect" || this.#state === "lost") listener(this.#state);
    return () => this.#listeners.delete(listener);
  }

  /** Asks the daemon how it stands. */
  async check(options: Abortable = {}): Promise<LeaseCheck> {
    return read(await this.home.client.call("lock.check", { lease: this.handle }, options));
  }

  /**
   * Gives it up. After {@link errors.Unavailable} or {@link errors.UnknownOutcome} the daemon goes on with it by itself; ask
   * again to learn what came of it. Once that is known asking again does nothing.
   */
  async release(options: Abortable = {}): Promise<void> {
    this.throwIfLost();
    if (this.#over) return;
    this.#state = "released";
    try {
      await this.home.client.call(this.releaseMethod, { lease: this.handle }, options);
    } catch (error) {
      if (error instanceof errors.Lost) this.lose(error.reason);
      throw error;
    }
    this.end();
  }

  /** {@link release}, for `await using`; where the lease was lost meanwhile this throws {@link errors.Lost}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** @internal Ends it because its owner wanted so. */
  end(): void {
    this.#state = "released";
    this.#over = true;
    this.home.forget(this);
  }

  /** @internal */
  tell(state: string, reason: string): void {
    if (state === "lost") this.lose(reason);
    else if (!this.#over && this.#state !== "released") this.#change(state === "suspect" ? "suspect" : "held");
  }

  /** @internal */
  lose(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#lost = errors.lost(`${this.what} ${this.name}`, reason);
    this.home.forget(this);
    this.#state = "lost";
    this.#abort.abort(this.#lost);
    this.#change("lost");
  }

  #change(state: LeaseState): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) {
      try {
        listener(state);
      } catch (error) {
        // A listener's fault must not keep others from being told, nor stay unseen.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** A lock that is held. */
export class Lock extends Lease {
  protected readonly what = "lock";
  protected readonly releaseMethod = "lock.release";
  /** The fencing token: it grows with every later holder. */
  readonly fence: number;

  /** @internal */
  constructor(home: Home, name: string, result: { [name: string]: Json }) {
    super(home, name, result);
    this.fence = Number(result.fence);
  }
}

/** An office that is held. */
export class Office extends Lease {
  protected readonly what = "leadership of";
  protected readonly releaseMethod = "election.resign";
  /** The term, which is the fencing token. */
  readonly fence: number;
  /** The id of the candidature that won. */
  readonly candidate: string;
  #asked: Candidate | undefined;
  #waiting: ((candidate: Candidate) => void)[] = [];

  /** @internal */
  constructor(home: Home, name: string, result: { [name: string]: Json }) {
    super(home, name, result);
    this.fence = Number(result.fence);
    this.candidate = String(result.candidate ?? "");
  }

  /** Who asked to take over, having a higher priority; undefined while nobody has. */
  get asked(): Candidate | undefined {
    return this.#asked;
  }

  /** Resolves when a candidate with a higher priority asks for the office. */
  whenAsked(): Promise<Candidate> {
    return new Promise((resolve) => (this.#asked ? resolve(this.#asked) : this.#waiting.push(resolve)));
  }

  /** Says something new to whoever asks who leads; resolves to the revision. */
  proclaim(data: Value, options: Abortable = {}): Promise<number> {
    return this.home.client.revision("election.proclaim", { lease: this.handle, ...value(data) }, options);
  }

  /** Hands the office to that candidate; resolves to the new leader's term. */
  async transfer(candidate: string | Candidate, options: Abortable = {}): Promise<number> {
    const id = typeof candidate === "string" ? candidate : candidate.id;
    const moved = await this.home.client.call("election.transfer", { lease: this.handle, candidate: id }, options);
    this.end();
    return Number((moved as { fence: number }).fence);
  }

  /** {@link release}. */
  resign(options: Abortable = {}): Promise<void> {
    return this.release(options);
  }

  /** @internal */
  ask(candidate: Json): void {
    const asked = read<Candidate>(candidate);
    this.#asked = asked;
    this.#waiting.splice(0).forEach((resolve) => resolve(asked));
  }
}

/** What {@link Membership.update} changes; the rest stays as it is. */
export interface MemberChange {
  value?: Value;
  /** Null for nowhere. */
  address?: string | null;
  /** Null for nowhere in particular. */
  zone?: string | null;
  weight?: number;
  /** All of it, in place of what was there. */
  metadata?: Record<string, string>;
  state?: MemberState;
}

/** A place in a group. */
export class Membership extends Lease {
  protected readonly what = "membership of";
  protected readonly releaseMethod = "member.leave";
  /** The member's id. */
  readonly id: string;
  /** The store's revision of its first record. */
  readonly revision: number;

  /** @internal */
  constructor(home: Home, name: string, result: { [name: string]: Json }) {
    super(home, name, result);
    this.id = String(result.id);
    this.revision = Number(result.revision ?? 0);
  }

  /** Changes the member's record; resolves to the revision. */
  update(change: MemberChange, options: Abortable = {}): Promise<number> {
    const { value: data, ...rest } = change;
    return this.home.client.revision("member.update", params({ lease: this.handle, ...rest, ...value(data) }), options);
  }

  /** Says that it is well, for a `heartbeat:` check. */
  async beat(options: Abortable = {}): Promise<void> {
    await this.home.client.call("member.beat", { lease: this.handle }, options);
  }

  /** {@link release}. */
  leave(options: Abortable = {}): Promise<void> {
    return this.release(options);
  }
}
