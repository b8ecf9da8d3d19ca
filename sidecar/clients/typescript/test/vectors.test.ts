/** The driver of the shared vectors: `vectors/README.md` says what they mean. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Lease, Office, Subscription, TenureError, connect, type Client, type Event, type Json } from "../src/index.js";
import { CLIENTS, Daemon, PATIENCE, soon, until } from "./daemon.js";
import { dump, typedCall } from "./typed.js";

type Step = { [name: string]: any };
interface Case {
  name: string;
  needs?: string[];
  daemon?: string[];
  clients?: { [name: string]: { heartbeat_ms?: number | null; ping?: boolean; events?: number } };
  steps: Step[];
}
interface Started {
  on: string;
  outcome: Promise<{ result: unknown } | { error: unknown }>;
  abort: AbortController;
}

/** Why `found` does not match. */
function differs(pattern: Json, found: Json | undefined, where = "it"): string | undefined {
  const shown = JSON.stringify(found);
  if (Array.isArray(pattern)) {
    if (!Array.isArray(found) || found.length !== pattern.length) return `${where} is ${shown} and not ${JSON.stringify(pattern)}`;
    return pattern.map((one, i) => differs(one, found[i], `${where}.${i}`)).find((why) => why !== undefined);
  }
  if (pattern === null || typeof pattern !== "object") {
    return pattern === (found ?? null) ? undefined : `${where} is ${shown} and not ${JSON.stringify(pattern)}`;
  }
  for (const [name, operand] of Object.entries(pattern)) {
    let why: string | undefined;
    if (name === "$any") why = found === null || found === undefined ? `${where} is missing` : undefined;
    else if (name === "$gt") why = typeof found === "number" && found > Number(operand) ? undefined : `${where} is ${shown} and not greater than ${operand}`;
    else if (name === "$len") why = Array.isArray(found) && found.length === operand ? undefined : `${where} is ${shown} and has not ${operand} elements`;
    else if (name === "$has") why = Array.isArray(found) && found.some((one) => !differs(operand, one)) ? undefined : `${where} is ${shown} and has no ${JSON.stringify(operand)}`;
    else if (found === null || typeof found !== "object" || Array.isArray(found)) why = `${where} is ${shown} and no object`;
    else why = differs(operand, found![name], `${where}.${name}`);
    if (why) return why;
  }
  return undefined;
}

let numbers = 0;

class Run implements AsyncDisposable {
  #variables: { [name: string]: Json } = { case: `v${++numbers}`, x400: "x".repeat(400), x800: "x".repeat(800), x1024: "x".repeat(1024), x2048: "x".repeat(2048) };
  #clients = new Map<string, Client>();
  #leases = new Map<string, Lease>();
  #started = new Map<string, Started>();
  #subscriptions = new Map<string, Subscription>();

  constructor(private readonly daemon: Daemon, private readonly vector: Case) {}

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients.values()) await client.close();
  }

  async run(): Promise<void> {
    for (const [number, step] of this.vector.steps.entries()) {
      try {
        await this.#step(step);
      } catch (cause) {
        throw new Error(`step ${number} ${JSON.stringify(step)}: ${cause}`, { cause });
      }
    }
  }

  #filled(thing: any): any {
    if (Array.isArray(thing)) return thing.map((one) => this.#filled(one));
    if (typeof thing === "string") {
      if (/^\$\w+$/.test(thing)) return this.#variables[thing.slice(1)];
      return thing.replace(/\$\{(\w+)\}/g, (_, name: string) => String(this.#variables[name]));
    }
    if (thing === null || typeof thing !== "object") return thing;
    return Object.fromEntries(Object.entries(thing).map(([name, member]) => [name, this.#filled(member)]));
  }

  #save(step: Step, found: Json): void {
    for (const [name, path] of Object.entries<string>(step.save ?? {})) {
      this.#variables[name] = path.split(".").reduce((part: any, key) => part[key], found);
    }
  }

  async #client(name: string): Promise<Client> {
    let client = this.#clients.get(name);
    if (!client) {
      const { heartbeat_ms: heartbeatMs, ping, events } = this.vector.clients?.[name] ?? {};
      client = await connect({
        socket: this.daemon.socket, manualPing: ping === false,
        ...(heartbeatMs !== undefined && { heartbeatMs }), ...(events !== undefined && { events }),
      });
      this.#clients.set(name, client);
    }
    return client;
  }

  #lease(on: string, handle: string): Lease | undefined {
    return this.#leases.get(`${on}/${handle}`);
  }

  async #step(step: Step): Promise<void> {
    const on: string = step.on ?? "a";
    if ("call" in step) await this.#call(step, on);
    else if ("in_flight" in step) {
      const client = await this.#client(on);
      await until("enough in flight", () => client.inFlight >= step.in_flight);
    } else if ("await" in step) await this.#finish(step, this.#started.get(step.await)!);
    else if ("cancel" in step) this.#started.get(step.cancel)!.abort.abort();
    else if ("subscribe" in step) {
      const client = await this.#client(on), given = this.#filled(step.params);
      const subscribe: Record<string, () => Promise<Subscription>> = {
        "lock.observe": () => client.observeLock(given.name),
        "election.observe": () => client.observe(given.name),
        "member.watch": () => client.watchMembers(given.group),
        "kv.watch": () => client.watch({
          key: given.key, prefix: given.prefix, fromRevision: given.from_revision, updatesOnly: given.updates_only, bucket: given.bucket,
        }),
      };
      this.#subscriptions.set(step.as, await subscribe[step.subscribe]!());
    } else if ("event" in step) await this.#event(step);
    else if ("unsubscribe" in step) {
      const subscription = this.#subscriptions.get(step.unsubscribe)!;
      await subscription.close();
      assert.equal(await subscription.next(), undefined);
    } else if ("state" in step) {
      const lease = this.#lease(on, this.#filled(step.lease))!;
      const lost = await soon("the loss", lease.whenLost());
      assert.deepEqual([lost.reason, lease.state, lease.held, lease.signal.aborted], [step.reason, step.state, false, true]);
    } else if ("asked" in step) {
      const office = this.#lease(on, this.#filled(step.asked)) as Office;
      const why = differs(this.#filled(step.match), dump(await soon("the question", office.whenAsked())));
      assert.ok(!why, why);
    } else if ("close" in step) await (await this.#client(step.close)).close();
    else if ("resume" in step) this.#save(step, { revision: this.#subscriptions.get(step.resume)!.resumeRevision ?? null });
    else if ("leaving" in step) {
      const client = await this.#client(step.leaving);
      await until("it leaves", () => client.goawayMs !== undefined);
      assert.ok(client.goawayMs! > 0);
    } else if ("closed" in step) await soon("the end", (await this.#client(step.closed)).closed);
    else if ("daemon" in step) await this.daemon.signal(`SIG${step.daemon.toUpperCase()}` as NodeJS.Signals);
    else if ("compare" in step) {
      const [left, operator, right] = this.#filled(step.compare);
      const holds = operator === "<" ? left < right : (left === right) === (operator === "=");
      assert.ok(holds, `${left} ${operator} ${right}`);
    } else throw new Error("unknown step");
  }

  async #event(step: Step): Promise<void> {
    const pattern = this.#filled(step.match);
    for (;;) {
      const event = await soon("an event", this.#subscriptions.get(step.event)!.next());
      assert.ok(event, "there is no event any more");
      const found = dump(event as Event);
      const why = differs(pattern, found);
      if (!why) return this.#save(step, found);
      if (step.next || event.kind === "end") throw new Error(why);
    }
  }

  async #call(step: Step, on: string): Promise<void> {
    const client = await this.#client(on), given = this.#filled(step.params ?? {});
    if (step.as) {
      this.#started.set(step.as, this.#start(client, step, on, given));
      return;
    }
    for (const deadline = Date.now() + PATIENCE; ; await sleep(10)) {
      try {
        return await this.#finish(step, this.#start(client, step, on, given));
      } catch (error) {
        if (!step.eventually || Date.now() > deadline) throw error;
      }
    }
  }

  #start(client: Client, step: Step, on: string, given: any): Started {
    const abort = new AbortController();
    const typed = step.raw ? undefined : typedCall(client, (handle) => this.#lease(on, handle), step.call, given);
    const work = (async () => (typed ? typed(abort.signal) : client.call(step.call, given, { signal: abort.signal })))();
    return { on, abort, outcome: work.then((result) => ({ result }), (error: unknown) => ({ error })) };
  }

  async #finish(step: Step, { on, outcome }: Started): Promise<void> {
    const came = await soon("an answer", outcome);
    if (step.cancelled) {
      if (step.cancelled === "or held" && "result" in came) return (came.result as Lease).release();
      assert.ok("error" in came && (came.error as Error).name === "AbortError", `it was not cancelled: ${JSON.stringify(came)}`);
      return;
    }
    let found: Json;
    if ("error" in came) {
      if (!(came.error instanceof TenureError)) throw came.error;
      const { data, kind, retryable, code, message } = came.error;
      found = { ...data, kind, retryable, code: code ?? null, message };
      assert.ok(step.error, `it failed: ${JSON.stringify(found)}`);
    } else {
      if (came.result instanceof Lease) this.#leases.set(`${on}/${came.result.handle}`, came.result);
      found = dump(came.result);
      assert.ok(!step.error, `it came to ${JSON.stringify(found)}`);
    }
    const why = differs(this.#filled(step.error ?? step.result ?? {}), found);
    assert.ok(!why, why);
    this.#save(step, found);
  }
}

const shared = await Daemon.start();
const capabilities = await connect({ socket: shared.socket });
after(async () => {
  await capabilities.close();
  await shared[Symbol.asyncDispose]();
});
const vectors = join(CLIENTS, "vectors");
const files = readdirSync(vectors).filter((name) => name.endsWith(".json")).sort();
assert.ok(files.length > 0, "there are no vectors");
for (const file of files) {
  const { cases } = JSON.parse(readFileSync(join(vectors, file), "utf8")) as { cases: Case[] };
  describe(file.replace(".json", ""), () => {
    for (const vector of cases) {
      test(vector.name, async (t) => {
        const missing = vector.needs?.find((method) => !capabilities.supports(method));
        if (missing) return t.skip(`${vector.name}: this daemon does not serve ${missing}`);
        await using own = vector.daemon && (await Daemon.start(...vector.daemon.map((flag) => flag.replace("${vectors}", vectors))));
        await using run = new Run(own ?? shared, vector);
        await run.run();
      });
    }
  });
}
