/**
 * One connection: lines in, lines out, requests that wait, the heartbeat, and the end of it all.
 *
 * Lines are dealt with as they are read, in the order of the daemon, which says first what is lost; no queue stands between a
 * notice and the lease that it is about.
 */

import type { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import * as errors from "./errors.js";
import { HARMLESS, type Json } from "./wire.js";

/** The longest line taken from a daemon, whose own limit may be set higher than usual. */
const MAX_LINE = 64 << 20;

type Params = { [name: string]: Json };

interface Incoming {
  id?: number | null;
  method?: string;
  params?: Params;
  result?: Json;
  error?: { code?: number; message?: string; data?: Params };
}

interface Pending {
  method: string;
  sent: number;
  /** Nobody waits any more. */
  dropped: boolean;
  settle(answer: Incoming): void;
  fail(error: unknown): void;
}

/** How to call. */
export interface How<T> {
  /** Reads the result while its line is read: the next line may be about it. */
  take(result: Json): T;
  /** Gives back what came although nobody waits any more. */
  undo?(taken: T): void;
  /** Cancels the request when it is aborted. */
  signal?: AbortSignal | undefined;
}

/** Speaks JSON-RPC over a stream. */
export class Connection {
  maxLine = Infinity;
  /** When the last line was sent that has been answered: the daemon heard of us since. */
  #confirmed = performance.now();
  #why: string | undefined;
  #lastId = 0;
  #pending = new Map<number, Pending>();
  #parts: Buffer[] = [];
  #length = 0;
  #pinging: NodeJS.Timeout | undefined;
  /** Resolves when the socket is closed. */
  readonly gone: Promise<void>;

  constructor(
    private readonly socket: Socket,
    private readonly told: (method: string, params: Params) => void,
    private readonly ended: (why: string) => void,
  ) {
    this.gone = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("data", (chunk) => this.#data(chunk));
    // What is wrong with it does not matter: it closes, too.
    socket.on("error", () => {});
    socket.on("close", () => this.close("disconnected"));
    socket.on("end", () => this.close("disconnected"));
  }

  get closed(): boolean {
    return this.#why !== undefined;
  }

  get inFlight(): number {
    return [...this.#pending.values()].filter((pending) => pending.method !== "ping" && !pending.dropped).length;
  }

  /** Whether the daemon has surely heard from here within the heartbeat. */
  heard(heartbeatMs: number | null): boolean {
    return !this.closed && (heartbeatMs === null || performance.now() - this.#confirmed < heartbeatMs);
  }

  /** Sends a request and waits for what `take` makes of its result. */
  async call<T>(method: string, params: Params, how: How<T>): Promise<T> {
    const { signal } = how;
    signal?.throwIfAborted();
    const { id, line } = this.#line(method, params);
    let abort: (() => void) | undefined;
    try {
      const taken = await new Promise<T>((resolve, reject) => {
        const pending: Pending = {
          method,
          sent: performance.now(),
          dropped: false,
          settle: (answer) => {
            if (answer.error) return reject(errors.fromWire(answer.error));
            let taken: T;
            try {
              taken = how.take(answer.result ?? null);
            } catch (cause) {
              return reject(new errors.TenureError(`the answer to ${method} is not understood`, "internal", false, {}, undefined, { cause }));
            }
            if (pending.dropped) how.undo?.(taken);
            else resolve(taken);
          },
          fail: reject,
        };
        this.#pending.set(id, pending);
        abort = () => {
          if (!this.#pending.has(id)) return;
          pending.dropped = true;
          this.#write({ jsonrpc: "2.0", method: "cancel", params: { id } });
          reject(signal?.reason);
        };
        signal?.addEventListener("abort", abort);
        this.socket.write(line);
      });
      if (signal?.aborted && how.undo) {
        // Granted in the very moment.
        how.undo(taken);
        signal.throwIfAborted();
      }
      return taken;
    } finally {
      if (abort) signal?.removeEventListener("abort", abort);
    }
  }

  /** Sends a request whose answer nobody waits for. */
  post(method: string, params: Params): void {
    if (!this.closed) this.call(method, params, { take: () => undefined }).catch(() => {});
  }

  /** Ends the connection: what is held is told lost, then every request that waits fails. */
  close(why: string): void {
    if (this.#why !== undefined) return;
    this.#why = why;
    clearInterval(this.#pinging);
    this.socket.destroy();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.ended(why);
    for (const { method, fail } of pending) fail(errors.disconnected(method, !HARMLESS.has(method)));
  }

  /** Sends a ping three times per heartbeat, and closes a connection whose daemon says nothing for one. */
  keepAlive(heartbeatMs: number): void {
    this.post("ping", {});
    this.#pinging = setInterval(() => {
      // Answers that arrived while this loop was busy are read before they are missed.
      setImmediate(() => {
        if (!this.closed && !this.heard(heartbeatMs)) this.close("daemon_silent");
      });
      this.post("ping", {});
    }, heartbeatMs / 3);
    // The socket keeps a process alive that has reason to.
    this.#pinging.unref();
  }

  #line(method: string, params: Params): { id: number; line: string } {
    if (this.closed) throw errors.notSent(method);
    const id = ++this.#lastId;
    const line = JSON.stringify({ jsonrpc: "2.0", id, method, params });
    const length = Buffer.byteLength(line);
    if (length > this.maxLine) {
      // The daemon would close the connection, and with it release everything.
      throw new errors.Invalid(`the request has ${length} bytes and the daemon takes ${this.maxLine}`, "invalid_request", false, {
        limit: "line_bytes",
      });
    }
    return { id, line: line + "\n" };
  }

  #write(message: Json): void {
    if (!this.closed) this.socket.write(JSON.stringify(message) + "\n");
  }

  #data(chunk: Buffer): void {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      this.#parts.push(chunk.subarray(from, end));
      from = end + 1;
      const line = Buffer.concat(this.#parts).toString();
      this.#parts = [];
      this.#length = 0;
      try {
        const message = JSON.parse(line) as Incoming | null;
        if (message !== null && typeof message === "object") this.#message(message);
      } catch {
        // Not JSON, or nothing that can be made sense of.
        return this.close("malformed");
      }
    }
    if (from < chunk.length) {
      this.#parts.push(chunk.subarray(from));
      this.#length += chunk.length - from;
      if (this.#length > MAX_LINE) this.close("malformed");
    }
  }

  #message(message: Incoming): void {
    if (typeof message.method === "string") return this.told(message.method, message.params ?? {});
    const pending = typeof message.id === "number" ? this.#pending.get(message.id) : undefined;
    if (!pending) return;
    this.#pending.delete(message.id as number);
    this.#confirmed = Math.max(this.#confirmed, pending.sent);
    pending.settle(message);
  }
}
