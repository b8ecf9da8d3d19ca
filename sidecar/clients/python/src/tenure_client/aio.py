"""The asyncio client."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Iterable, Mapping, Self

from . import _wire, errors
from ._connection import Connection
from ._leases import Acquiring, AsyncLeadership, AsyncLease, AsyncLock, AsyncMembership, L
from ._subscriptions import AsyncSubscription, Subscribing
from ._wire import millis, params, value
from .model import (Candidate, Check, ElectionView, Entry, GroupView, Hello, KeyPage, Leadership, LockView, Member, MemberPage,
                    Status)

#: Leases are let go when the daemon has heard nothing for this long, in seconds.
HEARTBEAT = 10.0
#: Events kept for a subscription that nobody reads.
EVENTS = 16_384


class AsyncClient:
    """A connection to the daemon, for one event loop. Everything held through it is released when it closes.

    ``async with AsyncClient() as client`` connects and closes. Requests may run concurrently; cancelling one cancels
    it at the daemon, too, and a lease that was granted in the same moment is given back.

    ``heartbeat`` is for how many seconds the daemon may hear nothing from here before it lets everything go; a ping is
    sent three times as often by a task on this loop, so a loop that is blocked for longer loses what it holds.
    ``None`` does without. With ``manual_ping=True`` the application calls :meth:`ping` itself, from wherever it can tell
    that it is well.

    A connection that has ended is not made again: what was held through it is lost, and only the application knows what
    that means. Make a new client.
    """

    def __init__(self, path: str | None = None, *, name: str | None = None, heartbeat: float | None = HEARTBEAT,
                 manual_ping: bool = False, events: int = EVENTS) -> None:
        self.path = path or _wire.default_socket()
        self._name = name or "tenure-client-python/0.1.0"
        self._heartbeat, self._manual_ping, self._events = heartbeat, manual_ping, events
        self._connection: Connection | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._leases: dict[str, AsyncLease] = {}
        self._subscriptions: dict[str, AsyncSubscription] = {}
        self._closed = asyncio.Event()
        #: What the daemon said of itself.
        self.hello = Hello(protocol=1)
        #: Set when the daemon is leaving: what is still held this many milliseconds after that is lost.
        self.goaway_ms: int | None = None
        #: Called with that number when it comes.
        self.on_goaway: Callable[[int], None] | None = None

    # The connection.

    async def connect(self) -> Self:
        """Connects and says hello.

        Raises :class:`ConnectError` where nobody answers, :class:`Unsupported` where another protocol is spoken.
        """
        if self._connection is not None:
            raise errors.Invalid("this client was connected already; make a new one", kind="invalid_request")
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(lambda: Connection(self._told, self._ended), self.path)
        except OSError as error:
            raise _no_connection(self.path, error) from error
        self._connection = connection
        try:
            hello = params(protocol=[1], client=self._name, heartbeat_ms=millis(self._heartbeat))
            self.hello = Hello.of(await self.call("hello", hello))
        except BaseException:
            connection.close("closed")
            raise
        connection.max_line = self.hello.limits.line_bytes
        if self._heartbeat is not None and not self._manual_ping:
            self._pinging = loop.create_task(connection.keep_alive(self._heartbeat))
        return self

    async def close(self) -> None:
        """Closes the connection; the daemon releases whatever is still held."""
        if self._connection is not None:
            self._connection.close("closed")
            await self._connection.gone()
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, and with it everything held through it."""
        return self._closed.is_set()

    async def closed(self) -> None:
        """Waits for that."""
        await self._closed.wait()

    @property
    def is_heard(self) -> bool:
        """Whether the daemon has surely heard from here within the heartbeat, and so cannot have given us up."""
        if self._connection is None or self.is_closed:
            return False
        return self._heartbeat is None or _wire.now() - self._connection.confirmed < self._heartbeat

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self._connection.in_flight if self._connection else 0

    def supports(self, method: str) -> bool:
        """Whether the daemon serves ``method``."""
        return method in self.hello.capabilities

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Calls any method by its name on the wire and returns its result as it is.

        A lease or subscription in it is the caller's own business.
        """
        result: dict[str, Any] = await self._connected(method).call(method, params or {})
        return result

    async def ping(self) -> None:
        """Says that this client is alive."""
        await self.call("ping")

    async def status(self) -> Status:
        """How the daemon and this connection fare."""
        return Status.of(await self.call("status"))

    async def discover(self) -> dict[str, Any]:
        """The protocol as an OpenRPC document."""
        return await self.call("rpc.discover")

    # Locks.

    def lock(self, name: str, *, wait: float | None = None, lease: float | None = None, label: str | None = None,
             cancel_on_loss: bool = True) -> Acquiring[AsyncLock]:
        """Acquires a lock: ``wait`` seconds, ``None`` for ever, 0 to try once.

        Raises :class:`Timeout` when it was in vain.
        """
        given = params(name=name, wait_ms=millis(wait), lease_ms=millis(lease), label=label)
        return Acquiring(lambda: self._acquire("lock.acquire", name, given, AsyncLock), cancel_on_loss)

    async def lock_get(self, name: str) -> LockView:
        """Who holds a lock and who waits for it."""
        return LockView.of(await self.call("lock.get", {"name": name}))

    async def lock_list(self, prefix: str | None = None) -> list[LockView]:
        """All locks that somebody holds or waits for."""
        return [LockView.of(lock) for lock in await self._list("lock.list", "locks", prefix=prefix)]

    def observe_lock(self, name: str) -> Subscribing:
        """Follows who holds a lock and who waits: events ``lock``, ``sync``, ``gap``, ``end``."""
        return self._subscribe("lock.observe", {"name": name})

    async def lock_break(self, name: str, fence: int) -> None:
        """Ends the hold of a lock that has this token, and no other; for administrators."""
        await self.call("lock.break", {"name": name, "fence": fence})

    # Elections.

    def campaign(self, name: str, data: str | bytes | None = None, *, wait: float | None = None,
                 lease: float | None = None, label: str | None = None, priority: int | None = None,
                 min_tenure: float | None = None, cancel_on_loss: bool = True) -> Acquiring[AsyncLeadership]:
        """Campaigns until elected; ``data`` is what is proclaimed then."""
        given = params(name=name, wait_ms=millis(wait), lease_ms=millis(lease), label=label, priority=priority,
                       min_tenure_ms=millis(min_tenure), **value(data))
        return Acquiring(lambda: self._acquire("election.campaign", name, given, AsyncLeadership), cancel_on_loss)

    async def leader(self, name: str) -> Leadership:
        """Who leads."""
        return Leadership.of(await self.call("election.leader", {"name": name}))

    async def candidates(self, name: str) -> list[Candidate]:
        """Who waits to lead, longest first."""
        found = await self._list("election.candidates", "candidates", name=name)
        return [Candidate.of(candidate) for candidate in found]

    async def election_list(self, prefix: str | None = None) -> list[ElectionView]:
        """All elections that somebody leads or waits to lead."""
        return [ElectionView.of(election) for election in await self._list("election.list", "elections", prefix=prefix)]

    def observe(self, name: str) -> Subscribing:
        """Follows who leads: events ``leader``, ``sync``, ``gap``, ``end``."""
        return self._subscribe("election.observe", {"name": name})

    # Groups.

    def join(self, group: str, id: str | None = None, data: str | bytes | None = None, *, address: str | None = None,
             zone: str | None = None, weight: int | None = None, metadata: Mapping[str, str] | None = None,
             state: str | None = None, checks: Iterable[Check] = (), leave_when_critical: float | None = None,
             label: str | None = None, lease: float | None = None,
             cancel_on_loss: bool = False) -> Acquiring[AsyncMembership]:
        """Joins a group.

        Raises :class:`Conflict` where somebody else who lives has that ``id``.
        """
        given = params(group=group, id=id, address=address, zone=zone, weight=weight, metadata=metadata, state=state,
                       leave_when_critical_ms=millis(leave_when_critical), label=label, lease_ms=millis(lease), **value(data))
        if found := [params(**vars(check)) for check in checks]:
            given["checks"] = found
        return Acquiring(lambda: self._acquire("member.join", group, given, AsyncMembership), cancel_on_loss)

    async def member_list(self, group: str, after: str | None = None) -> MemberPage:
        """One line's worth of members, by id; those after ``after``."""
        return MemberPage.of(await self.call("member.list", params(group=group, after=after)))

    async def members(self, group: str) -> list[Member]:
        """All members, by id."""
        page = await self.member_list(group)
        found = list(page.members)
        while page.next is not None:
            page = await self.member_list(group, page.next)
            found += page.members
        return found

    async def groups(self, prefix: str | None = None) -> list[GroupView]:
        """All groups that have members."""
        return [GroupView.of(group) for group in await self._list("member.groups", "groups", prefix=prefix)]

    async def _list(self, method: str, list_name: str, **given: Any) -> list[Any]:
        """All of a list, however many answers that takes."""
        page = await self.call(method, params(**given))
        found = list(page[list_name])
        while page.get("next") is not None:
            page = await self.call(method, params(**given, after=page["next"]))
            found += page[list_name]
        return found

    def watch_members(self, group: str) -> Subscribing:
        """Follows a group: events ``join``, ``update``, ``leave``, ``sync``, ``gap``, ``end``."""
        return self._subscribe("member.watch", {"group": group})

    # Values.

    async def get(self, key: str, *, revision: int | None = None, bucket: str | None = None) -> Entry | None:
        """The value of a key; ``None`` where it has none."""
        entry = (await self.call("kv.get", params(key=key, revision=revision, bucket=bucket))).get("entry")
        return Entry.of(entry) if entry else None

    async def put(self, key: str, data: str | bytes, *, ttl: float | None = None, fenced_by: AsyncLease | None = None,
                  lock: str | None = None, election: str | None = None, fence: int | None = None,
                  bucket: str | None = None) -> int:
        """Writes a value; returns the revision. With ``fenced_by`` only while that lease of this client holds, which
        the store itself checks; with ``fence`` and ``lock`` or ``election`` while that hold lasts, whoever has it.

        Raises :class:`Conflict`, :class:`Lost` or :class:`NotHeld` where it does not, and nothing is written.
        """
        return await self._write("kv.put", params(key=key, ttl_ms=millis(ttl), bucket=bucket, **value(data),
                                                  **_fence(fenced_by, lock, election, fence)))

    async def create(self, key: str, data: str | bytes, *, ttl: float | None = None,
                     fenced_by: AsyncLease | None = None, lock: str | None = None, election: str | None = None,
                     fence: int | None = None, bucket: str | None = None) -> int:
        """Writes a value where there is none, else raises :class:`Conflict`; returns the revision."""
        return await self._write("kv.create", params(key=key, ttl_ms=millis(ttl), bucket=bucket, **value(data),
                                                     **_fence(fenced_by, lock, election, fence)))

    async def update(self, key: str, data: str | bytes, revision: int, *, ttl: float | None = None,
                     fenced_by: AsyncLease | None = None, lock: str | None = None, election: str | None = None,
                     fence: int | None = None, bucket: str | None = None) -> int:
        """Writes over that very revision, else raises :class:`Conflict`; returns the new one."""
        return await self._write("kv.update", params(key=key, revision=revision, ttl_ms=millis(ttl), bucket=bucket,
                                                     **value(data), **_fence(fenced_by, lock, election, fence)))

    async def delete(self, key: str, *, revision: int | None = None, fenced_by: AsyncLease | None = None,
                     lock: str | None = None, election: str | None = None, fence: int | None = None,
                     bucket: str | None = None) -> int:
        """Deletes a key's value, if it is still at ``revision`` where that is given; returns the revision of that."""
        return await self._write("kv.delete", params(key=key, revision=revision, bucket=bucket,
                                                     **_fence(fenced_by, lock, election, fence)))

    async def purge(self, key: str, *, revision: int | None = None, fenced_by: AsyncLease | None = None,
                    lock: str | None = None, election: str | None = None, fence: int | None = None,
                    bucket: str | None = None) -> int:
        """As :meth:`delete`, its history included."""
        return await self._write("kv.purge", params(key=key, revision=revision, bucket=bucket,
                                                    **_fence(fenced_by, lock, election, fence)))

    async def key_page(self, prefix: str | None = None, after: str | None = None, *, bucket: str | None = None) -> KeyPage:
        """One line's worth of the keys that have a value, sorted; those after ``after``."""
        return KeyPage.of(await self.call("kv.keys", params(prefix=prefix, after=after, bucket=bucket)))

    async def keys(self, prefix: str | None = None, *, bucket: str | None = None) -> list[str]:
        """All keys that have a value, sorted."""
        page = await self.key_page(prefix, bucket=bucket)
        found = list(page.keys)
        while page.next is not None:
            page = await self.key_page(prefix, page.next, bucket=bucket)
            found += page.keys
        return found

    async def history(self, key: str, *, bucket: str | None = None) -> list[Entry]:
        """What the bucket has kept of a key, oldest first."""
        return [Entry.of(entry) for entry in (await self.call("kv.history", params(key=key, bucket=bucket)))["entries"]]

    def watch(self, key: str | None = None, *, prefix: str | None = None, from_revision: int | None = None,
              updates_only: bool | None = None, bucket: str | None = None) -> Subscribing:
        """Follows one key, or all with a prefix: events ``put``, ``delete``, ``purge``, ``expire``, ``sync``, ``gap``,
        ``end``. After a ``gap`` that is followed by ``end``, or any other ``end``, watch again with the subscription's
        ``resume_revision`` as ``from_revision`` and no write is missed, but those that the store has forgotten."""
        return self._subscribe("kv.watch", params(key=key, prefix=prefix, from_revision=from_revision,
                                                  updates_only=updates_only, bucket=bucket))

    # Inside.

    def _connected(self, method: str) -> Connection:
        if self._connection is None:
            raise errors.Unavailable(f"this client is not connected, so {method} was not sent; use `async with` or connect()",
                                     kind="unavailable")
        return self._connection

    async def _acquire(self, method: str, name: str, given: Mapping[str, Any], kind: type[L]) -> L:
        def take(result: dict[str, Any]) -> L:
            # While the line is read: the next one may tell that it is lost.
            lease = kind(self, name, result)
            self._leases[lease.handle] = lease
            return lease

        def undo(lease: L) -> None:
            lease.state = "released"
            lease._end()
            self._post(_wire.RELEASES[method], {"lease": lease.handle})

        taken: L = await self._connected(method).call(method, given, take, undo)
        return taken

    def _subscribe(self, method: str, given: Mapping[str, Any]) -> Subscribing:
        def take(result: dict[str, Any]) -> AsyncSubscription:
            subscription = AsyncSubscription(self, result, self._events, given.get("from_revision"))
            self._subscriptions[subscription.handle] = subscription
            return subscription

        def undo(subscription: AsyncSubscription) -> None:
            subscription._stop()
            self._post("subscription.cancel", {"subscription": subscription.handle})

        async def subscribe() -> AsyncSubscription:
            taken: AsyncSubscription = await self._connected(method).call(method, given, take, undo)
            return taken

        return Subscribing(subscribe)

    async def _write(self, method: str, given: Mapping[str, Any]) -> int:
        return int((await self.call(method, given))["revision"])

    def _post(self, method: str, given: Mapping[str, Any]) -> None:
        if self._connection is not None:
            self._connection.post(method, given)

    def _forget(self, what: AsyncLease | AsyncSubscription) -> None:
        (self._leases if isinstance(what, AsyncLease) else self._subscriptions).pop(what.handle, None)

    def _told(self, method: str, said: Mapping[str, Any]) -> None:
        lease = self._leases.get(str(said.get("lease")))
        if method == "lease" and lease is not None:
            lease._told(str(said.get("state")), str(said.get("reason", "")))
        elif method == "event" and (subscription := self._subscriptions.get(str(said.get("subscription")))):
            subscription._happened(said)
        elif method == "event" and said.get("kind") == "asked_to_step_down" and isinstance(lease, AsyncLeadership):
            lease._ask(said.get("candidate") or {})
        elif method == "goaway":
            self.goaway_ms = int(said.get("deadline_ms", 0))
            if self.on_goaway is not None:
                try:
                    self.on_goaway(self.goaway_ms)
                except Exception as problem:  # it must not end the connection
                    asyncio.get_running_loop().call_exception_handler({"message": "on_goaway failed", "exception": problem})

    def _ended(self, why: str) -> None:
        self._closed.set()
        for lease in list(self._leases.values()):
            lease._lose(why)
        for subscription in list(self._subscriptions.values()):
            subscription._happened({"kind": "end", "reason": why})


def _fence(fenced_by: AsyncLease | None, lock: str | None, election: str | None, fence: int | None) -> dict[str, Any]:
    return {"fence_lease": fenced_by.handle if fenced_by else None, "lock": lock, "election": election, "fence": fence}


def _no_connection(path: str, error: OSError) -> errors.ConnectError:
    if isinstance(error, FileNotFoundError):
        said = f"there is no socket {path}; start tenured, or name its socket"
    elif isinstance(error, ConnectionRefusedError):
        said = f"nobody listens on {path}; start tenured"
    elif isinstance(error, PermissionError):
        said = f"this user may not use {path}; join the group of the socket, or start tenured with --socket-group"
    else:
        said = f"cannot connect to {path}: {error}"
    return errors.ConnectError(said, kind="unavailable", retryable=True)
