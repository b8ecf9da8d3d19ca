"""The blocking client: the asyncio one, run by a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, Callable, Coroutine, Iterable, Mapping, Self, TypeVar

from . import errors
from ._held import Lease, Lock, Membership, Office, Subscription, Thread
from ._leases import AsyncLease
from ._subscriptions import AsyncSubscription, Subscribing
from .aio import EVENTS, HEARTBEAT, AsyncClient
from .model import (Candidate, Check, ElectionView, Entry, GroupView, Hello, KeyPage, Leadership, LockView, Member, MemberPage,
                    Status)

T = TypeVar("T")


class Client:
    """A connection to the daemon, for any number of threads. Everything held through it is released when it closes.

    ``with Client() as client`` connects and closes. Threads may call at the same time; :meth:`submit` starts a call
    without waiting for it. A call that is interrupted (such as by ``KeyboardInterrupt``) is cancelled at the daemon,
    too, and a lease that was granted in the same moment is given back.

    ``heartbeat`` is for how many seconds the daemon may hear nothing from here before it lets everything go. The pings
    come from a thread of the client, so they stop with the process (stopped, swapped out, or the interpreter held up
    by an extension) and not with a thread of the application that hangs. Where that matters, say ``manual_ping=True``
    and call :meth:`ping` from the thread that must not hang.

    A client does not survive ``fork``: connect after it.
    """

    def __init__(self, path: str | None = None, *, name: str | None = None, heartbeat: float | None = HEARTBEAT,
                 manual_ping: bool = False, events: int = EVENTS) -> None:
        self._client = AsyncClient(path, name=name, heartbeat=heartbeat, manual_ping=manual_ping, events=events)
        self._thread: Thread | None = None

    # The connection.

    def connect(self) -> Self:
        """Connects and says hello.

        Raises :class:`ConnectError` where nobody answers, :class:`Unsupported` where another protocol is spoken.
        """
        if self._thread is not None:
            raise errors.Invalid("this client was connected already; make a new one", kind="invalid_request")
        self._thread = Thread()
        try:
            self._thread.run(self._client.connect())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def close(self) -> None:
        """Closes the connection; the daemon releases whatever is still held."""
        if self._thread is not None and not self._thread.stopped:
            self._thread.run(self._client.close())
            self._thread.stop()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hello(self) -> Hello:
        """What the daemon said of itself."""
        return self._client.hello

    @property
    def path(self) -> str:
        """The socket."""
        return self._client.path

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, and with it everything held through it."""
        return self._client.is_closed

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self._run(self._count())

    async def _count(self) -> int:
        return self._client.in_flight

    @property
    def goaway_ms(self) -> int | None:
        """Set when the daemon is leaving: what is still held this many milliseconds after that is lost."""
        return self._client.goaway_ms

    @property
    def on_goaway(self) -> Callable[[int], None] | None:
        """Called with that number when it comes, on the connection's thread: it must not block, nor call the client."""
        return self._client.on_goaway

    @on_goaway.setter
    def on_goaway(self, listener: Callable[[int], None] | None) -> None:
        self._client.on_goaway = listener

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Waits until the connection has ended; whether it has."""
        try:
            self._run(asyncio.wait_for(self._client.closed(), timeout))
        except TimeoutError:
            return False
        return True

    def supports(self, method: str) -> bool:
        """Whether the daemon serves ``method``."""
        return self._client.supports(method)

    def submit(self, method: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Starts a call of this client, such as ``client.submit(client.lock, "nightly")``, without waiting for it.
        Cancelling the future before it is done cancels the request at the daemon, too."""
        name = method.__name__
        if getattr(method, "__self__", None) is not self or name not in _WORK:
            raise TypeError("submit takes a method of this client that calls the daemon")
        future: Future[T] = self._on().start(_WORK[name](self, *args, **options))
        return future

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Calls any method by its name on the wire and returns its result as it is.

        A lease or subscription in it is the caller's own business.
        """
        return self._run(self._client.call(method, params))

    def ping(self) -> None:
        """Says that this client is alive."""
        self._run(self._client.ping())

    def status(self) -> Status:
        """How the daemon and this connection fare."""
        return self._run(self._client.status())

    def discover(self) -> dict[str, Any]:
        """The protocol as an OpenRPC document."""
        return self._run(self._client.discover())

    # Locks.

    def lock(self, name: str, *, wait: float | None = None, lease: float | None = None, label: str | None = None) -> Lock:
        """Acquires a lock: ``wait`` seconds, ``None`` for ever, 0 to try once. Use it in ``with``.

        Raises :class:`Timeout` when it was in vain.
        """
        return self._run(self._lock(name, wait=wait, lease=lease, label=label))

    async def _lock(self, name: str, **options: Any) -> Lock:
        return Lock(self._on(), await self._client.lock(name, **options))

    def lock_get(self, name: str) -> LockView:
        """Who holds a lock and who waits for it."""
        return self._run(self._client.lock_get(name))

    def lock_list(self, prefix: str | None = None) -> list[LockView]:
        """The locks that somebody holds or waits for."""
        return self._run(self._client.lock_list(prefix))

    def observe_lock(self, name: str) -> Subscription:
        """Follows who holds a lock and who waits: events ``lock``, ``sync``, ``gap``, ``end``."""
        return self._subscribe(self._client.observe_lock(name))

    def lock_break(self, name: str, fence: int) -> None:
        """Ends the hold of a lock that has this token, and no other; for administrators."""
        self._run(self._client.lock_break(name, fence))

    # Elections.

    def campaign(self, name: str, data: str | bytes | None = None, *, wait: float | None = None,
                 lease: float | None = None, label: str | None = None, priority: int | None = None,
                 min_tenure: float | None = None) -> Office:
        """Campaigns until elected; ``data`` is what is proclaimed then. Use it in ``with``."""
        return self._run(self._campaign(name, data, wait=wait, lease=lease, label=label, priority=priority,
                                        min_tenure=min_tenure))

    async def _campaign(self, name: str, data: str | bytes | None = None, **options: Any) -> Office:
        return Office(self._on(), await self._client.campaign(name, data, **options))

    def leader(self, name: str) -> Leadership:
        """Who leads."""
        return self._run(self._client.leader(name))

    def candidates(self, name: str) -> list[Candidate]:
        """Who waits to lead, longest first."""
        return self._run(self._client.candidates(name))

    def election_list(self, prefix: str | None = None) -> list[ElectionView]:
        """The elections that somebody leads or waits to lead."""
        return self._run(self._client.election_list(prefix))

    def observe(self, name: str) -> Subscription:
        """Follows who leads: events ``leader``, ``sync``, ``gap``, ``end``."""
        return self._subscribe(self._client.observe(name))

    # Groups.

    def join(self, group: str, id: str | None = None, data: str | bytes | None = None, *, address: str | None = None,
             zone: str | None = None, weight: int | None = None, metadata: Mapping[str, str] | None = None,
             state: str | None = None, checks: Iterable[Check] = (), leave_when_critical: float | None = None,
             label: str | None = None, lease: float | None = None) -> Membership:
        """Joins a group. Use it in ``with``.

        Raises :class:`Conflict` where somebody else who lives has that ``id``.
        """
        return self._run(self._join(group, id, data, address=address, zone=zone, weight=weight, metadata=metadata,
                                    state=state, checks=checks, leave_when_critical=leave_when_critical, label=label,
                                    lease=lease))

    async def _join(self, group: str, id: str | None = None, data: str | bytes | None = None, **options: Any) -> Membership:
        return Membership(self._on(), await self._client.join(group, id, data, **options))

    def member_list(self, group: str, after: str | None = None) -> MemberPage:
        """One line's worth of members, by id; those after ``after``."""
        return self._run(self._client.member_list(group, after))

    def members(self, group: str) -> list[Member]:
        """All members, by id."""
        return self._run(self._client.members(group))

    def groups(self, prefix: str | None = None) -> list[GroupView]:
        """The groups that have members."""
        return self._run(self._client.groups(prefix))

    def watch_members(self, group: str) -> Subscription:
        """Follows a group: events ``join``, ``update``, ``leave``, ``sync``, ``gap``, ``end``."""
        return self._subscribe(self._client.watch_members(group))

    # Values.

    def get(self, key: str, *, revision: int | None = None, bucket: str | None = None) -> Entry | None:
        """The value of a key; ``None`` where it has none."""
        return self._run(self._client.get(key, revision=revision, bucket=bucket))

    def put(self, key: str, data: str | bytes, *, ttl: float | None = None, fenced_by: Lease[Any] | None = None,
            lock: str | None = None, election: str | None = None, fence: int | None = None, bucket: str | None = None) -> int:
        """Writes a value; returns the revision. With ``fenced_by`` only while that lease of this client holds, which
        the store itself checks; with ``fence`` and ``lock`` or ``election`` while that hold lasts, whoever has it.

        Raises :class:`Conflict`, :class:`Lost` or :class:`NotHeld` where it does not, and nothing is written.
        """
        return self._run(self._client.put(key, data, ttl=ttl, fenced_by=_inner(fenced_by), lock=lock, election=election,
                                          fence=fence, bucket=bucket))

    def create(self, key: str, data: str | bytes, *, ttl: float | None = None, fenced_by: Lease[Any] | None = None,
               lock: str | None = None, election: str | None = None, fence: int | None = None,
               bucket: str | None = None) -> int:
        """Writes a value where there is none, else raises :class:`Conflict`; returns the revision."""
        return self._run(self._client.create(key, data, ttl=ttl, fenced_by=_inner(fenced_by), lock=lock, election=election,
                                             fence=fence, bucket=bucket))

    def update(self, key: str, data: str | bytes, revision: int, *, ttl: float | None = None,
               fenced_by: Lease[Any] | None = None, lock: str | None = None, election: str | None = None,
               fence: int | None = None, bucket: str | None = None) -> int:
        """Writes over that very revision, else raises :class:`Conflict`; returns the new one."""
        return self._run(self._client.update(key, data, revision, ttl=ttl, fenced_by=_inner(fenced_by), lock=lock,
                                             election=election, fence=fence, bucket=bucket))

    def delete(self, key: str, *, revision: int | None = None, fenced_by: Lease[Any] | None = None,
               lock: str | None = None, election: str | None = None, fence: int | None = None,
               bucket: str | None = None) -> int:
        """Deletes a key's value, if it is still at ``revision`` where that is given; returns the revision of that."""
        return self._run(self._client.delete(key, revision=revision, fenced_by=_inner(fenced_by), lock=lock,
                                             election=election, fence=fence, bucket=bucket))

    def purge(self, key: str, *, revision: int | None = None, fenced_by: Lease[Any] | None = None,
              lock: str | None = None, election: str | None = None, fence: int | None = None,
              bucket: str | None = None) -> int:
        """As :meth:`delete`, its history included."""
        return self._run(self._client.purge(key, revision=revision, fenced_by=_inner(fenced_by), lock=lock,
                                            election=election, fence=fence, bucket=bucket))

    def key_page(self, prefix: str | None = None, after: str | None = None, *, bucket: str | None = None) -> KeyPage:
        """One line's worth of the keys that have a value, sorted; those after ``after``."""
        return self._run(self._client.key_page(prefix, after, bucket=bucket))

    def keys(self, prefix: str | None = None, *, bucket: str | None = None) -> list[str]:
        """All keys that have a value, sorted."""
        return self._run(self._client.keys(prefix, bucket=bucket))

    def history(self, key: str, *, bucket: str | None = None) -> list[Entry]:
        """What the bucket has kept of a key, oldest first."""
        return self._run(self._client.history(key, bucket=bucket))

    def watch(self, key: str | None = None, *, prefix: str | None = None, from_revision: int | None = None,
              updates_only: bool | None = None, bucket: str | None = None) -> Subscription:
        """Follows one key, or all with a prefix: events ``put``, ``delete``, ``purge``, ``expire``, ``sync``, ``gap``,
        ``end``. After a ``gap`` that is followed by ``end``, or any other ``end``, watch again with the subscription's
        ``resume_revision`` as ``from_revision`` and no write is missed, but those that the store has forgotten."""
        return self._subscribe(self._client.watch(key, prefix=prefix, from_revision=from_revision,
                                                  updates_only=updates_only, bucket=bucket))

    # Inside.

    def _on(self) -> Thread:
        if self._thread is None:
            raise errors.Unavailable("this client is not connected; use `with` or connect()", kind="unavailable")
        return self._thread

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            thread = self._on()
        except errors.TenureError:
            work.close()
            raise
        return thread.run(work)

    def _subscribe(self, subscribing: Subscribing) -> Subscription:
        async def subscribe() -> AsyncSubscription:
            return await subscribing

        return Subscription(self._on(), self._run(subscribe()))


#: What :meth:`Client.submit` starts.
_WORK: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "lock": Client._lock, "campaign": Client._campaign, "join": Client._join,
    **{name: (lambda name: lambda client, *args, **options: getattr(client._client, name)(*args, **options))(name)
       for name in ("call", "ping", "status", "discover", "lock_get", "lock_list", "lock_break", "leader", "candidates",
                    "election_list", "member_list", "members", "groups", "get", "key_page", "keys", "history")},
    **{name: (lambda name: lambda client, *args, fenced_by=None, **options:
              getattr(client._client, name)(*args, fenced_by=_inner(fenced_by), **options))(name)
       for name in ("put", "create", "update", "delete", "purge")},
}


def _inner(lease: Lease[Any] | None) -> AsyncLease | None:
    return None if lease is None else lease._lease
