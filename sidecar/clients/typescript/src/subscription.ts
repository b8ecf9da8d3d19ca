/** What is told through a connection. */

import type { Client } from "./client.js";
import * as errors from "./errors.js";
import type { Abortable } from "./lease.js";
import type { Event } from "./model.js";
import { read, type Json } from "./wire.js";

/** The events of one subscription. A loop over it ends after an `end` event, and closes it when left early. */
export class Subscription implements AsyncIterable<Event>, AsyncDisposable {
  /** The handle on this connection. */
  readonly handle: string;
  #resume: number | undefined;
  #events: Event[] = [];
  #over = false;
  #waiting: ((event: Event | undefined) => void)[] = [];

  /** @internal */
  constructor(
    private readonly client: Client,
    private readonly forget: (subscription: Subscription) => void,
    result: { [name: string]: Json },
    private readonly room: number,
    resumeRevision: number | undefined,
  ) {
    if (typeof result.subscription !== "string") throw new TypeError("there is no subscription in it");
    this.handle = result.subscription;
    this.#resume = resumeRevision;
  }

  /**
   * Of a watch of keys: where to go on after what was taken from here, as the `fromRevision` of the next one. Undefined while nothing
   * was told.
   */
  get resumeRevision(): number | undefined {
    return this.#resume;
  }

  /** The next event; undefined when there will be none. Aborting the wait loses none. */
  async next({ signal }: Abortable = {}): Promise<Event | undefined> {
    signal?.throwIfAborted();
    const event = this.#events.shift();
    if (event) this.#taken(event);
    if (event || this.#over) return event;
    return new Promise((resolve, reject) => {
      const take = (event: Event | undefined): void => {
        signal?.removeEventListener("abort", abort);
        resolve(event);
      };
      const abort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        reject(signal?.reason);
      };
      this.#waiting.push(take);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  #taken(event: Event): void {
    if (event.kind === "put" || event.kind === "delete" || event.kind === "purge" || event.kind === "expire") {
      this.#resume = event.revision + 1;
    } else if (event.kind === "gap") {
      this.#resume = event.resumeRevision ?? this.#resume;
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, void> {
    try {
      for (let event = await this.next(); event; event = await this.next()) yield event;
    } finally {
      await this.close();
    }
  }

  /** Ends it; no event comes after that. */
  async close(): Promise<void> {
    this.#events = [];
    if (this.#over) return;
    this.#stop();
    try {
      await this.client.call("subscription.cancel", { subscription: this.handle });
    } catch (error) {
      // It may have ended already.
      if (!(error instanceof errors.NotFound || error instanceof errors.Unavailable)) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #stop(): void {
    this.#over = true;
    this.forget(this);
    this.#waiting.splice(0).forEach((resolve) => resolve(undefined));
  }

  /** @internal */
  tell(said: { [name: string]: Json }): void {
    if (this.#over) return;
    let event = read<Event>(said);
    const waiting = this.#waiting.shift();
    if (waiting) {
      this.#taken(event);
      waiting(event);
    } else {
      if (this.#events.length >= this.room) {
        this.client.post("subscription.cancel", { subscription: this.handle });
        event = { kind: "end", reason: "slow_reader" };
      }
      this.#events.push(event);
    }
    if (event.kind === "end") this.#stop();
  }
}
