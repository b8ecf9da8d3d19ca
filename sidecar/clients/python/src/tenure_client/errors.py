"""What can go wrong, sorted by what the caller should do about it."""

from __future__ import annotations

from typing import Any, Mapping


class TenureError(Exception):
    """Anything that went wrong with the daemon. Subclasses say what to do; ``kind`` is the wire's own word."""

    def __init__(self, message: str, *, kind: str = "internal", retryable: bool = False,
                 code: int | None = None, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        #: One sentence for people.
        self.message = message
        #: The kind on the wire, also of one that this library does not know.
        self.kind = kind
        #: Whether the same request may be sent again as it is, with nothing read back before.
        self.retryable = retryable
        #: The number on the wire; ``None`` where no daemon said it.
        self.code = code
        #: Whatever else came with it.
        self.data: dict[str, Any] = dict(data or {})


class Invalid(TenureError):
    """The call is wrong and will be wrong again; ``param`` names the parameter where one is to blame."""

    @property
    def param(self) -> str | None:
        return self.data.get("param")


class Unsupported(TenureError):
    """This daemon does not offer that."""


class Conflict(TenureError):
    """A precondition failed and nothing was applied; ``revision`` where it is known."""

    @property
    def revision(self) -> int | None:
        return self.data.get("revision")


class Unavailable(TenureError):
    """The store is out of reach, or there is no connection; nothing was applied."""


class ConnectError(Unavailable):
    """No daemon answers; the message says where it was looked for and what to do."""


class UnknownOutcome(TenureError):
    """It may have been applied: read back before assuming either."""


class Timeout(TenureError):
    """Not acquired in time; ``holder`` is who had it, where that is known."""

    @property
    def holder(self) -> dict[str, Any] | None:
        return self.data.get("holder")


class NotHeld(TenureError):
    """No such lease on this connection."""


class Lost(TenureError):
    """The lease is lost; ``reason`` says why. Whatever it protected may have a new owner."""

    @property
    def reason(self) -> str:
        return str(self.data.get("reason", ""))


class Denied(TenureError):
    """This user may not; ``needs`` is what the daemon's policy would have to allow."""

    @property
    def needs(self) -> str | None:
        return self.data.get("needs")


class Limit(TenureError):
    """A limit of this connection or of the daemon, named by ``limit``."""

    @property
    def limit(self) -> str | None:
        return self.data.get("limit")


class NotFound(TenureError):
    """No such key, bucket, name, request or subscription."""


class Cancelled(TenureError):
    """The request was cancelled by a ``cancel`` that the application sent itself, and holds nothing."""


_KINDS: dict[str, type[TenureError]] = {
    "parse_error": Invalid,
    "invalid_request": Invalid,
    "invalid_params": Invalid,
    "method_not_found": Unsupported,
    "unsupported": Unsupported,
    "cancelled": Cancelled,
    "timeout": Timeout,
    "conflict": Conflict,
    "not_held": NotHeld,
    "lost": Lost,
    "not_found": NotFound,
    "unavailable": Unavailable,
    "denied": Denied,
    "limit": Limit,
    "unknown_outcome": UnknownOutcome,
}


def from_wire(error: Mapping[str, Any]) -> TenureError:
    """The exception for the ``error`` member of an answer, also for one of a later version."""
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    kind = str(data.get("kind", "internal"))
    return _KINDS.get(kind, TenureError)(
        str(error.get("message", kind)), kind=kind, retryable=data.get("retryable") is True,
        code=error.get("code"), data={k: v for k, v in data.items() if k not in ("kind", "retryable")})


def lost(what: str, reason: str) -> Lost:
    return Lost(f"{what} is lost: {reason}", kind="lost", data={"reason": reason})


def disconnected(method: str, writes: bool) -> TenureError:
    """A request that the connection did not outlive."""
    if writes:
        return UnknownOutcome(f"the connection to the daemon ended before {method} was answered, so it may have been done",
                              kind="unknown_outcome")
    return Unavailable(f"the connection to the daemon ended before {method} was answered", kind="unavailable", retryable=True)


def closed(method: str) -> Unavailable:
    """A request that was never sent."""
    return Unavailable(f"the connection is closed, so {method} was not sent; connect again", kind="unavailable", retryable=True)
