"""One connection: lines in, lines out, requests that wait, the heartbeat, and the end of it all.

Everything here runs on one event loop. Lines are dealt with as the loop reads them, in the order of the daemon, which
says first what is lost; no queue stands between a notice and the lease that it is about.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Callable, Mapping

from . import _wire, errors

#: The longest line taken from a daemon, whose own limit may be set higher than usual.
MAX_LINE = 64 << 20

Take = Callable[[dict[str, Any]], Any]
Undo = Callable[[Any], None]


class _Pending:
    __slots__ = ("method", "future", "take", "undo", "sent", "dropped")

    def __init__(self, method: str, future: asyncio.Future[Any], take: Take, undo: Undo | None, sent: float) -> None:
        self.method, self.future, self.take, self.undo, self.sent = method, future, take, undo, sent
        self.dropped = False


class Connection(asyncio.Protocol):
    """Speaks JSON-RPC over a stream. ``told`` gets the notifications, ``ended`` the end, once."""

    def __init__(self, told: Callable[[str, Mapping[str, Any]], None], ended: Callable[[str], None]) -> None:
        self._told, self._ended = told, ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._looked_at = 0
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._why: str | None = None
        self._gone = asyncio.Event()
        self.max_line: int | None = None
        #: When the last line was sent that has been answered: the daemon heard of us since.
        self.confirmed = _wire.now()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._looked_at)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[:end + 1]
            self._looked_at = 0
            try:
                message = json.loads(line)
                if isinstance(message, dict):
                    self._message(message)
            except (AttributeError, KeyError, TypeError, ValueError):
                # Not JSON, or nothing that can be made sense of.
                return self.close("malformed")
        self._looked_at = len(self._buffer)
        if self._looked_at > MAX_LINE:
            self.close("malformed")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close("disconnected")
        self._gone.set()

    # What the client calls.

    @property
    def is_closed(self) -> bool:
        return self._why is not None

    @property
    def in_flight(self) -> int:
        return sum(pending.method != "ping" and not pending.dropped for pending in self._pending.values())

    async def call(self, method: str, params: Mapping[str, Any], take: Take = lambda result: result,
                   undo: Undo | None = None) -> Any:
        """Sends a request and waits for what ``take`` makes of its result, which happens as the line is read.

        Cancelling the wait cancels the request; what was granted all the same goes to ``undo``.
        """
        while not self._writable.is_set() and not self.is_closed:
            await self._writable.wait()
        pending = self._send(method, params, take, undo)
        try:
            return await pending.future
        except asyncio.CancelledError:
            future = pending.future
            if future.done() and not future.cancelled() and future.exception() is None:
                # Granted in the very moment.
                if undo is not None:
                    undo(future.result())
            elif (id := self._id_of(pending)) is not None:
                pending.dropped = True
                self._write({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}})
            raise

    def post(self, method: str, params: Mapping[str, Any]) -> None:
        """Sends a request whose answer nobody waits for."""
        if not self.is_closed:
            self._send(method, params, lambda result: None, None).future.add_done_callback(lambda future: future.exception())

    def close(self, why: str) -> None:
        """Ends the connection: every request that waits fails, then ``ended`` is told."""
        if self._why is not None:
            return
        self._why = why
        if self._transport is not None:
            # What is still unsent is not wanted any more.
            self._transport.abort()
        self._writable.set()
        pending, self._pending = self._pending, {}
        self._ended(why)
        for waiting in pending.values():
            if not waiting.future.done():
                waiting.future.set_exception(errors.disconnected(waiting.method, waiting.method not in _wire.HARMLESS))

    async def gone(self) -> None:
        """Resolves when the socket is closed."""
        await self._gone.wait()

    async def keep_alive(self, heartbeat: float) -> None:
        """Sends a ping three times per ``heartbeat``, and closes a connection whose daemon says nothing for one."""
        while not self.is_closed:
            self.post("ping", {})
            await asyncio.sleep(heartbeat / 3)
            # Answers that arrived while this loop was busy are read before they are missed.
            await asyncio.sleep(0)
            if _wire.now() - self.confirmed > heartbeat:
                self.close("daemon_silent")

    # Inside.

    def _id_of(self, wanted: _Pending) -> int | None:
        return next((id for id, pending in self._pending.items() if pending is wanted), None)

    def _send(self, method: str, params: Mapping[str, Any], take: Take, undo: Undo | None) -> _Pending:
        if self.is_closed:
            raise errors.closed(method)
        self._last_id += 1
        line = self._line({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        pending = _Pending(method, self._loop.create_future(), take, undo, _wire.now())
        self._pending[self._last_id] = pending
        assert self._transport is not None
        self._transport.write(line)
        return pending

    def _write(self, message: Mapping[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(self._line(message))

    def _line(self, message: Mapping[str, Any]) -> bytes:
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        if self.max_line is not None and len(line) > self.max_line:
            # The daemon would close the connection, and with it release everything.
            raise errors.Invalid(f"the request has {len(line)} bytes and the daemon takes {self.max_line}",
                                 kind="invalid_request", data={"limit": "line_bytes"})
        return line + b"\n"

    def _message(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if isinstance(method, str):
            params = message.get("params")
            self._told(method, params if isinstance(params, dict) else {})
            return
        pending = self._pending.pop(message.get("id"), None)  # type: ignore[arg-type]
        if pending is None:
            return
        self.confirmed = max(self.confirmed, pending.sent)
        error = message.get("error")
        if isinstance(error, dict):
            if not pending.future.done():
                pending.future.set_exception(errors.from_wire(error))
            return
        try:
            taken = pending.take(message.get("result") or {})
        except (KeyError, TypeError, ValueError) as problem:
            if not pending.future.done():
                pending.future.set_exception(errors.TenureError(f"the answer to {pending.method} is not understood: {problem!r}"))
            return
        if not pending.future.done():
            pending.future.set_result(taken)
        elif pending.undo is not None:
            pending.undo(taken)
