"""Parameters on their way out, and where the daemon listens. No I/O."""

from __future__ import annotations

import base64
import math
import os
import time
from typing import Any

#: Methods that change nothing by themselves once their connection is gone. Any other may have been done.
HARMLESS = frozenset((
    "hello", "ping", "status", "rpc.discover", "cancel", "subscription.cancel",
    "lock.acquire", "lock.check", "lock.get", "lock.list", "lock.observe",
    "election.campaign", "election.leader", "election.candidates", "election.list", "election.observe",
    "member.join", "member.beat", "member.list", "member.groups", "member.watch",
    "kv.get", "kv.keys", "kv.history", "kv.watch",
))

#: How to give back a lease that nobody takes.
RELEASES = {"lock.acquire": "lock.release", "election.campaign": "election.resign", "member.join": "member.leave"}


def default_socket() -> str:
    """Where the daemon listens: ``$TENURE_SOCKET``, else ``$XDG_RUNTIME_DIR/tenure/tenured.sock``, else
    ``/run/tenure/tenured.sock``."""
    named = os.environ.get("TENURE_SOCKET")
    return named or os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "tenure", "tenured.sock")


def millis(seconds: float | None) -> int | None:
    """Whole milliseconds, rounded up, so that little is not nothing."""
    return None if seconds is None else math.ceil(round(seconds * 1_000, 3))


def value(data: str | bytes | None) -> dict[str, Any]:
    """``value`` or ``value_b64``."""
    if data is None:
        return {}
    if isinstance(data, str):
        return {"value": data}
    return {"value_b64": base64.b64encode(data).decode()}


def params(**given: Any) -> dict[str, Any]:
    """Those that are there."""
    return {name: value for name, value in given.items() if value is not None}


def now() -> float:
    """Seconds on a clock that counts suspend, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
