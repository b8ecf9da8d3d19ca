// One of the five: counts under the lock, leads once, and is in the group. `run.py` starts it; README.md says what it does.

import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../typescript/dist/src/index.js";

const [name, everybody, rounds, counter] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4]), process.argv[5]];
const say = (event, details = {}) => console.log(JSON.stringify({ event, ...details }));

async function awaitEverybody(client) {
  const there = new Set();
  for await (const event of await client.watchMembers("fleet")) {
    if (event.kind === "join") there.add(event.member.id);
    else if (event.kind === "leave") there.delete(event.id);
    else if (event.kind === "end") throw new Error(`the group cannot be watched: ${event.reason}`);
    if (there.size === everybody) return say("members", { ids: [...there].sort() });
  }
}

async function count(client) {
  for (let round = 0; round < rounds; round++) {
    await client.withLock("fleet.counter", { label: "node" }, async (lock, signal) => {
      const value = Number(readFileSync(counter, "utf8")) + 1;
      await client.put("fleet.count", String(value), { fencedBy: lock, signal });
      writeFileSync(counter, String(value));
      say("count", { value, fence: lock.fence });
    });
  }
}

async function lead(client) {
  await client.whileLeader("fleet.leader", { value: name }, async (office, signal) => {
    await client.put("fleet.led-by", name, { fencedBy: office, signal });
    const { leader } = await client.leader("fleet.leader", { signal });
    if (leader?.value.toString() !== name) throw new Error(`elected, and ${leader?.value} leads`);
    say("leader", { term: office.fence });
    await sleep(200, undefined, { signal });
  });
}

const client = await connect();
const place = await client.join("fleet", { id: name, value: "mjs" });
await awaitEverybody(client);
await Promise.all([count(client), lead(client)]);
say("done");
// A member until the runner has seen all.
for await (const _ of process.stdin);
await place.leave();
await client.close();
