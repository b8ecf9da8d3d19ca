/** What can go wrong, sorted by what the caller should do about it. */

import type { Json } from "./wire.js";

/** Anything that went wrong with the daemon. Subclasses say what to do; `kind` is the wire's own word. */
export class TenureError extends Error {
  constructor(
    message: string,
    /** The kind on the wire, also one that this library does not know. */
    readonly kind: string = "internal",
    /** Whether the same request may be sent again as it is, with nothing read back before. */
    readonly retryable: boolean = false,
    /** What else came with it. */
    readonly data: Readonly<Record<string, Json>> = {},
    /** The number on the wire; undefined where no daemon said it. */
    readonly code?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }

  /** A text in `data`. */
  protected text(name: string): string | undefined {
    const found = this.data[name];
    return typeof found === "string" ? found : undefined;
  }
}

/** The call is wrong and will be wrong again. */
export class Invalid extends TenureError {
  /** The parameter to blame, where there is one. */
  get param(): string | undefined {
    return this.text("param");
  }
}

/** This daemon does not offer that. */
export class Unsupported extends TenureError {}

/** A precondition failed and nothing was applied. */
export class Conflict extends TenureError {
  /** What was found instead, where that is known. */
  get revision(): number | undefined {
    return typeof this.data.revision === "number" ? this.data.revision : undefined;
  }
}

/** The store is out of reach, or there is no connection; nothing was applied. */
export class Unavailable extends TenureError {}

/** No daemon answers; the message says where it was looked for and what to do. */
export class ConnectError extends Unavailable {}

/** It may have been applied: read back before assuming either. */
export class UnknownOutcome extends TenureError {}

/** Not acquired in time. */
export class Timeout extends TenureError {
  /** Who had it, with the wire's own names, where that is known. */
  get holder(): Readonly<Record<string, Json>> | undefined {
    const found = this.data.holder;
    return found !== null && typeof found === "object" && !Array.isArray(found) ? found : undefined;
  }
}

/** No such lease on this connection. */
export class NotHeld extends TenureError {}

/** The lease is lost. Whatever it protected may have a new owner. */
export class Lost extends TenureError {
  /** Why. */
  get reason(): string {
    return this.text("reason") ?? "";
  }
}

/** This user may not. */
export class Denied extends TenureError {
  /** What the daemon's policy would have to allow. */
  get needs(): string | undefined {
    return this.text("needs");
  }
}

/** A limit of this connection or of the daemon. */
export class Limit extends TenureError {
  /** Which. */
  get limit(): string | undefined {
    return this.text("limit");
  }
}

/** No such key, bucket, name, request or subscription. */
export class NotFound extends TenureError {}

/** The request was cancelled by a `cancel` that the application sent itself, and holds nothing. */
export class Cancelled extends TenureError {}

const KINDS: Record<string, typeof TenureError> = {
  parse_error: Invalid,
  invalid_request: Invalid,
  invalid_params: Invalid,
  method_not_found: Unsupported,
  unsupported: Unsupported,
  cancelled: Cancelled,
  timeout: Timeout,
  conflict: Conflict,
  not_held: NotHeld,
  lost: Lost,
  not_found: NotFound,
  unavailable: Unavailable,
  denied: Denied,
  limit: Limit,
  unknown_outcome: UnknownOutcome,
};

/** The error for the `error` member of an answer, also for one of a later version. */
export function fromWire(error: { code?: number; message?: string; data?: Record<string, Json> }): TenureError {
  const { kind: told, retryable, ...data } = error.data ?? {};
  const kind = typeof told === "string" ? told : "internal";
  const Kind = Object.hasOwn(KINDS, kind) ? KINDS[kind]! : TenureError;
  return new Kind(error.message ?? kind, kind, retryable === true, data, error.code);
}

/** That a lease is lost. */
export function lost(what: string, reason: string): Lost {
  return new Lost(`the ${what} is lost: ${reason}`, "lost", false, { reason });
}

/** A request that the connection did not outlive. */
export function disconnected(method: string, writes: boolean): TenureError {
  const said = `the connection to the daemon ended before ${method} was answered`;
  return writes
    ? new UnknownOutcome(`${said}, so it may have been done`, "unknown_outcome")
    : new Unavailable(said, "unavailable", true);
}

/** A request that was never sent. */
export function notSent(method: string): Unavailable {
  return new Unavailable(`the connection is closed, so ${method} was not sent; connect again`, "unavailable", true);
}
