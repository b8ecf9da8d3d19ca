/** A `tenured` for tests, and where the shared vectors are. */

import { spawn, type ChildProcess } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Unavailable, connect } from "../src/index.js";

/** `sidecar/clients`, seen from where this is compiled to. */
export const CLIENTS = resolve(fileURLToPath(import.meta.url), "../../../..");
/** Longer than anything here takes on a busy machine. */
export const PATIENCE = 30_000;

function tenured(): string {
  const found = process.env.TENURED || resolve(CLIENTS, "../../target/debug/tenured");
  try {
    accessSync(found, constants.X_OK);
  } catch {
    throw new Error(`there is no ${found}; build it with \`cargo build -p tenure-sidecar\`, or name it in $TENURED`);
  }
  return found;
}

/** Waits until `check` says so. */
export async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(2);
  }
}

/** `work`, within patience. */
export async function soon<T>(what: string, work: Promise<T>): Promise<T> {
  const patience = new AbortController();
  const late = sleep(PATIENCE, undefined, { signal: patience.signal }).then(
    () => Promise.reject(new Error(`waited in vain: ${what}`)),
    () => new Promise<never>(() => {}),
  );
  try {
    return await Promise.race([work, late]);
  } finally {
    patience.abort();
  }
}

/** Started, settled, and killed when disposed of. */
export class Daemon implements AsyncDisposable {
  readonly socket: string;
  #directory: string;
  #process: ChildProcess;

  private constructor(flags: string[]) {
    this.#directory = mkdtempSync(join(tmpdir(), "tenure-ts-"));
    this.socket = join(this.#directory, "s.sock");
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TENURE")));
    const args = ["--store", "memory:", "--lease", "30s", "--log", "error", "--socket", this.socket, ...flags];
    this.#process = spawn(tenured(), args, { env, stdio: ["ignore", "ignore", "inherit"] });
  }

  static async start(...flags: string[]): Promise<Daemon> {
    const daemon = new Daemon(flags);
    await until("tenured listens", async () => {
      try {
        await using client = await connect({ socket: daemon.socket });
        // A new bucket grants nothing for one lease. On a busy machine so short a one may be lost meanwhile.
        const lock = await client.lock("settle", { leaseMs: 500 });
        await lock.release().catch(() => {});
        return true;
      } catch (error) {
        if (error instanceof Unavailable && daemon.#process.exitCode === null) return false;
        await daemon[Symbol.asyncDispose]();
        throw error;
      }
    });
    return daemon;
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    this.#process.kill(signal);
    if (signal !== "SIGSTOP") return;
    const tasks = `/proc/${this.#process.pid}/task`;
    const still = (task: string): boolean => / T /.test(readFileSync(`${tasks}/${task}/stat`, "utf8").replace(/^.*\)/s, ""));
    await until("every thread stands still", () => readdirSync(tasks).every(still));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill("SIGKILL");
      await ended;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
