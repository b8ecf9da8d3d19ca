/** The typed method for a method's parameters on the wire, and what it returned as it was on the wire. */

import { Lease, Membership, Office, Lock, type Client, type Json, type Value } from "../src/index.js";

type Params = { [name: string]: any };
/** A call of a typed method. */
export type Typed = (signal: AbortSignal) => Promise<unknown>;

/** What the client returned, as it was on the wire. */
export function dump(found: unknown): Json {
  if (found instanceof Lease) {
    const common = { lease: found.handle, waited_ms: found.waitedMs, remaining_ms: found.remainingMs, lease_ms: found.leaseMs };
    if (found instanceof Membership) return { ...common, id: found.id, revision: found.revision };
    if (found instanceof Office) return { ...common, fence: found.fence, candidate: found.candidate };
    return { ...common, fence: (found as Lock).fence };
  }
  if (Array.isArray(found)) return found.map(dump);
  if (found === undefined) return null;
  if (found === null || typeof found !== "object") return found as Json;
  const object: { [name: string]: Json } = {};
  for (const [name, member] of Object.entries(found)) {
    if (Buffer.isBuffer(member)) {
      const text = member.toString();
      if (Buffer.from(text).equals(member)) object.value = text;
      else object.value_b64 = member.toString("base64");
    } else if (name === "metadata") object.metadata = member as Json;
    else object[name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)] = dump(member);
  }
  return object;
}

function camel(params: Params): Params {
  return Object.fromEntries(Object.entries(params).map(([name, member]) =>
    [name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()), member]));
}

/** The typed method for these parameters; undefined where there is none. */
export function typedCall(client: Client, lease: (handle: string) => Lease | undefined, method: string, params: Params): Typed | undefined {
  const held = lease(params.lease), fencedBy = lease(params.fence_lease) as Lock | undefined;
  if (("lease" in params && !held) || ("fence_lease" in params && !fencedBy)) return undefined;
  const value: Value = params.value_b64 === undefined ? params.value : new Uint8Array(Buffer.from(params.value_b64, "base64"));
  const { name, key, group, lease: _, value_b64: __, value: ___, fence_lease: ____, ...rest } = params;
  const options = { ...camel(rest), ...(fencedBy && { fencedBy }) };
  const revision = (written: Promise<number>): Promise<Json> => written.then((revision) => ({ revision }));
  const nothing = (done: Promise<void>): Promise<Json> => done.then(() => ({}));
  const named = <T>(name: string, found: Promise<T>): Promise<object> => found.then((found) => ({ [name]: found }));
  const calls: Record<string, Typed> = {
    "ping": (signal) => nothing(client.ping({ signal })),
    "status": (signal) => client.status({ signal }),
    "rpc.discover": (signal) => client.discover({ signal }),
    "lock.acquire": (signal) => client.lock(name, { ...options, signal }),
    "lock.release": (signal) => nothing(held!.release({ signal })),
    "lock.check": (signal) => held!.check({ signal }),
    "lock.get": (signal) => client.lockGet(name, { signal }),
    "lock.list": (signal) => named("locks", client.lockList(params.prefix, { signal })),
    "lock.break": (signal) => nothing(client.lockBreak(name, params.fence, { signal })),
    "election.campaign": (signal) => client.campaign(name, { ...options, value, signal }),
    "election.proclaim": (signal) => revision((held as Office).proclaim(value, { signal })),
    "election.resign": (signal) => nothing((held as Office).resign({ signal })),
    "election.transfer": (signal) => named("fence", (held as Office).transfer(params.candidate, { signal })),
    "election.leader": (signal) => client.leader(name, { signal }),
    "election.candidates": (signal) => named("candidates", client.candidates(name, { signal })),
    "member.join": (signal) => client.join(group, { ...options, value, checks: params.checks?.map(camel), signal }),
    "member.update": (signal) => revision((held as Membership).update({ ...options, value }, { signal })),
    "member.beat": (signal) => nothing((held as Membership).beat({ signal })),
    "member.leave": (signal) => nothing((held as Membership).leave({ signal })),
    "election.list": (signal) => named("elections", client.electionList(params.prefix, { signal })),
    "member.groups": (signal) => named("groups", client.groups(params.prefix, { signal })),
    "member.list": (signal) => client.memberList(group, params.after, { signal }),
    "kv.get": (signal) => named("entry", client.get(key, { ...options, signal })),
    "kv.put": (signal) => revision(client.put(key, value, { ...options, signal })),
    "kv.create": (signal) => revision(client.create(key, value, { ...options, signal })),
    "kv.update": (signal) => revision(client.update(key, value, params.revision, { ...options, signal })),
    "kv.delete": (signal) => revision(client.delete(key, { ...options, signal })),
    "kv.purge": (signal) => revision(client.purge(key, { ...options, signal })),
    "kv.keys": (signal) => "after" in params ? client.keyPage(params.prefix, params.after, { ...options, signal })
      : named("keys", client.keys(params.prefix, { ...options, signal })),
    "kv.history": (signal) => named("entries", client.history(key, { ...options, signal })),
  };
  if (method === "hello") return undefined;
  const typed = calls[method];
  if (!typed) throw new Error(`there is no typed method for ${method}`);
  return typed;
}
