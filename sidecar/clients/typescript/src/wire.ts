/** Parameters on their way out, results on their way in, and where the daemon listens. No I/O. */

import { join } from "node:path";

/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A value of the application's. */
export type Value = string | Uint8Array;

/** Methods that change nothing by themselves once their connection is gone. Any other may have been done. */
export const HARMLESS: ReadonlySet<string> = new Set([
  "hello", "ping", "status", "rpc.discover", "cancel", "subscription.cancel",
  "lock.acquire", "lock.check", "lock.get", "lock.list", "lock.observe",
  "election.campaign", "election.leader", "election.candidates", "election.list", "election.observe",
  "member.join", "member.beat", "member.list", "member.groups", "member.watch",
  "kv.get", "kv.keys", "kv.history", "kv.watch",
]);

/**
 * Where the daemon listens: `$TENURE_SOCKET`, else `$XDG_RUNTIME_DIR/tenure/tenured.sock`, else
 * `/run/tenure/tenured.sock`.
 */
export function defaultSocket(): string {
  return process.env.TENURE_SOCKET || join(process.env.XDG_RUNTIME_DIR || "/run", "tenure", "tenured.sock");
}

/** `value` or `value_b64`. */
export function value(data: Value | undefined): { [name: string]: Json } {
  if (data === undefined) return {};
  if (typeof data === "string") return { value: data };
  return { value_b64: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") };
}

/** Those that are there. Fractions of milliseconds are rounded up, so that little is not nothing. */
export function params(given: { [name: string]: Json | undefined }): { [name: string]: Json } {
  const there = Object.entries(given).filter((entry): entry is [string, Json] => entry[1] !== undefined);
  return Object.fromEntries(
    there.map(([name, value]) => [name, name.endsWith("_ms") && typeof value === "number" ? Math.ceil(value) : value]),
  );
}

/** A result with the names that JavaScript has, and its values as bytes. Members not known here come along. */
export function read<T>(result: Json): T {
  return readAny(result) as T;
}

function readAny(found: Json): unknown {
  if (Array.isArray(found)) return found.map(readAny);
  if (found === null || typeof found !== "object") return found;
  const object: Record<string, unknown> = {};
  for (const [name, member] of Object.entries(found)) {
    if (name === "value" && typeof member === "string") object.value = Buffer.from(member);
    else if (name === "value_b64" && typeof member === "string") object.value = Buffer.from(member, "base64");
    // The application's own names stay as they are.
    else if (name === "metadata") object.metadata = member;
    else object[name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())] = readAny(member);
  }
  return object;
}
