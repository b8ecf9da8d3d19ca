/** What is Node's own, and what only a scripted daemon shows. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { ConnectError, Lost, TenureError, Unavailable, UnknownOutcome, connect, defaultSocket, type Client, type Json, type Lock } from "../src/index.js";
import { CLIENTS, Daemon, soon, until } from "./daemon.js";

describe("a client", () => {
  let daemon: Daemon, client: Client;
  before(async () => {
    daemon = await Daemon.start();
    client = await connect({ socket: daemon.socket });
  });
  after(async () => {
    await client.close();
    await daemon[Symbol.asyncDispose]();
  });

  test("releases a lock at the end of its work, whatever happens", async () => {
    const mine = new Error("mine");
    let held: Lock | undefined;
    await assert.rejects(client.withLock("a", {}, (lock) => {
      held = lock;
      assert.ok(lock.held);
      throw mine;
    }), mine);
    assert.deepEqual([held?.state, held?.held], ["released", false]);
    await held?.release();
    {
      await using lock = await client.lock("a");
      assert.equal((await client.lockGet("a")).holder?.fence, lock.fence);
    }
    assert.equal((await client.lockGet("a")).holder, null);
    assert.equal(await client.withLock("a", {}, () => 7), 7);
  });

  test("aborts work under a lock that is lost, and says so", async () => {
    const states: string[] = [];
    const lost = await client.withLock("b", {}, async (lock, signal) => {
      lock.onChange((state) => states.push(state));
      await client.lockBreak("b", lock.fence);
      // It may have come before the answer.
      if (!signal.aborted) await soon("the abort", new Promise((resolve) => signal.addEventListener("abort", resolve)));
      assert.ok(signal.reason instanceof Lost);
      signal.throwIfAborted();
    }).catch((error: unknown) => error);
    assert.ok(lost instanceof Lost && lost.reason === "broken" && lost.name === "Lost", String(lost));
    assert.deepEqual(states, ["lost"]);
    await assert.rejects(client.withLock("b", {}, (lock) => client.lockBreak("b", lock.fence).then(() => lock.whenLost())), Lost);
  });

  test("cancels what is aborted", async () => {
    await using other = await connect({ socket: daemon.socket });
    await using _lock = await client.lock("c");
    const abort = new AbortController();
    const waits = other.lock("c", { signal: abort.signal });
    await until("it waits", async () => (await client.lockGet("c")).waiters.length === 1);
    abort.abort();
    await assert.rejects(waits, { name: "AbortError" });
    await until("it waits no more", async () => (await client.lockGet("c")).waiters.length === 0);
    await assert.rejects(other.lock("d", { signal: abort.signal }), { name: "AbortError" });
  });

  test("loses no event to a wait that is aborted", async () => {
    await using watch = await client.watch({ key: "g", updatesOnly: true });
    assert.equal((await watch.next())?.kind, "sync");
    const abort = new AbortController();
    const waits = watch.next({ signal: abort.signal });
    abort.abort();
    await assert.rejects(waits, { name: "AbortError" });
    const revision = await client.put("g", "x");
    assert.deepEqual(await soon("the event", watch.next()), { kind: "put", key: "g", value: Buffer.from("x"), revision, subscription: watch.handle });
  });

  test("loses what it holds when its loop is blocked for longer than the heartbeat", async () => {
    await using busy = await connect({ socket: daemon.socket, heartbeatMs: 300 });
    const lock = await busy.lock("e");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 900);
    assert.equal(lock.held, false);
    const lost = await soon("the loss", lock.whenLost());
    assert.match(lost.reason, /client_silent|daemon_silent/);
    await using next = await client.lock("e");
    assert.ok(next.fence > lock.fence);
  });

  test("ends a subscription whose loop is left", async () => {
    for await (const event of await client.observe("f")) {
      if (event.kind === "sync") break;
    }
    await until("it ended", async () => (await client.status()).connection.subscriptions === 0);
  });

  test("gives up a daemon that says nothing", async () => {
    await using quiet = await Daemon.start();
    await using held = await connect({ socket: quiet.socket, heartbeatMs: 600 });
    const lock = await held.lock("a");
    await quiet.signal("SIGSTOP");
    assert.equal((await soon("the loss", lock.whenLost())).reason, "daemon_silent");
    assert.equal(await held.closed, "daemon_silent");
  });

  test("leaves nothing behind when it is closed, or its daemon dies", async () => {
    const left = (): number[] => [
      process.getActiveResourcesInfo().filter((kind) => kind === "PipeWrap").length, readdirSync("/proc/self/fd").length,
    ];
    const quiet = await Daemon.start();
    const before = left();
    for (const ends of ["close", "daemon"]) {
      const held = await connect({ socket: quiet.socket });
      const lock = await held.lock("a");
      const watch = await held.watch({ prefix: "" });
      const waits = held.lock("a");
      const failed = assert.rejects(waits, Unavailable);
      if (ends === "close") await held.close();
      else await quiet[Symbol.asyncDispose]();
      await soon("the failure", failed);
      const why = ends === "close" ? "closed" : "disconnected";
      assert.equal((await soon("the loss", lock.whenLost())).reason, why);
      const events = [];
      for await (const event of watch) events.push(event);
      assert.deepEqual(events.at(-1), { kind: "end", reason: why });
      await held.close();
    }
    const after = left();
    assert.ok(after[0]! <= before[0]! && after[1]! <= before[1]!, `${before} became ${after}`);
  });

  test("is not connected once that is aborted", async () => {
    await assert.rejects(connect({ socket: daemon.socket, signal: AbortSignal.abort() }), { name: "AbortError" });
  });

  test("is packed with its types and its licence, and nothing else", () => {
    const [packed] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      cwd: join(CLIENTS, "typescript"), encoding: "utf8", stdio: ["ignore", "pipe", "ignore"],
    })) as [{ files: { path: string }[] }];
    const files = packed.files.map((file) => file.path);
    const { main, types } = JSON.parse(readFileSync(join(CLIENTS, "typescript/package.json"), "utf8"));
    for (const path of ["LICENSE", "README.md", "package.json", main, types]) {
      assert.ok(files.includes(path.replace("./", "")), `${path} is not in ${files}`);
    }
    assert.deepEqual(files.filter((path) => !/^(LICENSE|README.md|package.json|dist\/src\/.*\.(js|d\.ts))$/.test(path)), []);
  });

  test("runs the first example of the README", async () => {
    const example = readFileSync(join(CLIENTS, "typescript/README.md"), "utf8").split("```ts\n")[1]!.split("```")[0]!;
    assert.match(example, /await using/);
    // This Node may not know `await using` yet: here it is told the same in words that it knows.
    const plain = example.replace(/await using client = (.*);/, "const client = $1;") + "\nawait client.close();\n";
    const directory = mkdtempSync(join(tmpdir(), "tenure-ts-"));
    const index = pathToFileURL(join(CLIENTS, "typescript/dist/src/index.js")).href;
    writeFileSync(join(directory, "example.mjs"), plain.replace('"tenure-client"', JSON.stringify(index)));
    process.env.TENURE_SOCKET = daemon.socket;
    try {
      await import(pathToFileURL(join(directory, "example.mjs")).href);
    } finally {
      delete process.env.TENURE_SOCKET;
      rmSync(directory, { recursive: true });
    }
    assert.equal((await client.get("report"))?.value.toString(), "done");
    assert.equal((await client.lockGet("nightly")).holder, null);
  });

  test("says where nobody listens, and what to do", async () => {
    await assert.rejects(connect({ socket: "/nonexistent/s.sock" }), (error) =>
      error instanceof ConnectError && /start tenured/.test(error.message));
  });

  test("finds the socket as the protocol says", () => {
    const { TENURE_SOCKET, XDG_RUNTIME_DIR } = process.env;
    delete process.env.TENURE_SOCKET;
    delete process.env.XDG_RUNTIME_DIR;
    assert.equal(defaultSocket(), "/run/tenure/tenured.sock");
    process.env.XDG_RUNTIME_DIR = "/run/user/7";
    assert.equal(defaultSocket(), "/run/user/7/tenure/tenured.sock");
    process.env.TENURE_SOCKET = "/x";
    assert.equal(defaultSocket(), "/x");
    for (const [name, value] of Object.entries({ TENURE_SOCKET, XDG_RUNTIME_DIR })) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
});

/** A daemon that plays a part: it hands over each message but hello and ping, and says what it is given. */
class Script implements AsyncDisposable {
  client!: Client;
  #server!: Server;
  #stream!: Socket;
  #directory = mkdtempSync(join(tmpdir(), "tenure-ts-"));
  #messages: any[] = [];

  static async play(): Promise<Script> {
    const script = new Script();
    const socket = join(script.#directory, "s");
    script.#server = createServer((stream) => {
      script.#stream = stream;
      let text = "";
      stream.on("data", (chunk) => {
        const lines = (text + chunk).split("\n");
        text = lines.pop()!;
        for (const message of lines.map((line) => JSON.parse(line))) {
          if (message.method === "hello") script.say({ id: message.id, result: { protocol: 1, later: 1, limits: { later: 1 } } });
          else if (message.method !== "ping") script.#messages.push(message);
        }
      });
    });
    await new Promise<void>((resolve) => script.#server.listen(socket, resolve));
    script.client = await connect({ socket });
    return script;
  }

  say(...messages: Json[]): void {
    this.#stream.write(messages.map((message) => JSON.stringify(message) + "\n").join(""));
  }

  raw(text: string): void {
    this.#stream.write(text);
  }

  async heard(method: string): Promise<any> {
    await until(`${method} comes`, () => this.#messages.length > 0);
    const message = this.#messages.shift();
    assert.equal(message.method, method);
    return message;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
    this.#server.close();
    rmSync(this.#directory, { recursive: true });
  }
}

describe("a scripted daemon", () => {
  test("tells that a lease is lost in the same breath, with members of a later version", async () => {
    await using script = await Script.play();
    const locking = script.client.lock("x");
    const { id } = await script.heard("lock.acquire");
    script.say({ id, result: { lease: "l_1", fence: Number.MAX_SAFE_INTEGER, later: 1 }, later: 1 }, { method: "later", params: {} },
      { method: "lease", params: { lease: "l_1", state: "lost", reason: "later_reason", later: 2 } });
    const lock = await locking;
    assert.deepEqual([lock.lost?.reason, lock.fence, lock.signal.aborted], ["later_reason", Number.MAX_SAFE_INTEGER, true]);
  });

  test("gets back a lease that comes after its wait was cancelled", async () => {
    await using script = await Script.play();
    const abort = new AbortController();
    const waits = script.client.lock("x", { signal: abort.signal });
    const { id } = await script.heard("lock.acquire");
    abort.abort();
    await assert.rejects(waits, { name: "AbortError" });
    assert.deepEqual(await script.heard("cancel"), { jsonrpc: "2.0", method: "cancel", params: { id } });
    script.say({ id, result: { lease: "l_5", fence: 5 } });
    assert.deepEqual((await script.heard("lock.release")).params, { lease: "l_5" });
  });

  test("tells that a lease is in doubt, and that it is kept", async () => {
    await using script = await Script.play();
    const locking = script.client.lock("x");
    script.say({ id: (await script.heard("lock.acquire")).id, result: { lease: "l_1", fence: 1 } });
    const lock = await locking, states: string[] = [];
    lock.onChange((state) => states.push(state));
    const notices = ["suspect", "restored"].map((state) => ({ method: "lease", params: { lease: "l_1", state } }));
    const asking = script.client.status();
    script.say(...notices, { id: (await script.heard("status")).id, result: {} });
    await asking;
    assert.deepEqual([states, lock.state, lock.signal.aborted], [["suspect", "held"], "held", false]);
  });

  test("hands a gap on, after which the watch knows where to go on", async () => {
    await using script = await Script.play();
    const watching = script.client.watch({ prefix: "" });
    const { id, params } = await script.heard("kv.watch");
    assert.deepEqual(params, { prefix: "" });
    const event = (kind: string, more: object): any => ({ method: "event", params: { subscription: "w_1", kind, ...more } });
    script.say({ id, result: { subscription: "w_1" } }, event("put", { key: "k", value: "x", revision: 5 }),
      event("gap", { resume_revision: 9 }), event("delete", { key: "k", revision: 12 }), event("gap", {}), event("end", { reason: "slow_reader" }));
    const watch = await watching, told: unknown[] = [watch.resumeRevision];
    for await (const { kind } of watch) told.push(kind, watch.resumeRevision);
    assert.deepEqual(told, [undefined, "put", 6, "gap", 9, "delete", 13, "gap", 13, "end", 13]);
  });

  test("ends the connection with what is no JSON", async () => {
    await using script = await Script.play();
    const failed = assert.rejects(script.client.put("k", "x"), UnknownOutcome);
    await script.heard("kv.put");
    script.raw("{\n");
    await failed;
    assert.equal(await script.client.closed, "malformed");
  });

  test("fails with errors of a later version", async () => {
    await using script = await Script.play();
    for (const [said, kind, retryable] of [
      [{ code: 77, message: "m", data: { kind: "newer", retryable: true } }, "newer", true],
      [{ code: -32603, message: "m" }, "internal", false],
    ] as const) {
      const asking = script.client.status();
      script.say({ id: (await script.heard("status")).id, error: said as unknown as Json });
      await assert.rejects(asking, (error) => error instanceof TenureError && error.kind === kind && error.retryable === retryable);
    }
  });

  test("is understood in pieces, and when it leaves", async () => {
    await using script = await Script.play();
    const told: number[] = [];
    script.client.onGoaway = (deadline) => told.push(deadline);
    // What is no message means nothing.
    script.say(null, [], 7, { method: "goaway", params: { deadline_ms: 70 } });
    const asking = script.client.get("k");
    script.say({ id: (await script.heard("kv.get")).id, result: { entry: { key: "k", value: "é".repeat(1_000_000), revision: 1 } } });
    assert.equal((await asking)?.value.toString(), "é".repeat(1_000_000));
    assert.deepEqual([told, script.client.goawayMs], [[70], 70]);
  });
});
