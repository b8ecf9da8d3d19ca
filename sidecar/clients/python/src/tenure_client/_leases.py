"""What is held through a connection, for asyncio."""

from __future__ import annotations

import asyncio
import enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Generator, Generic, Literal, Mapping, TypeVar

from . import errors
from ._wire import params, value
from .model import Candidate, LeaseCheck

if TYPE_CHECKING:
    from .aio import AsyncClient

LeaseState = Literal["held", "suspect", "lost", "released"]


class Unset(enum.Enum):
    """Leaves a member's address or zone as it is, since ``None`` takes it away."""

    UNSET = "unset"


UNSET = Unset.UNSET


class AsyncLease:
    """Something held through a connection: a lock, a leadership or a membership."""

    _release_method = ""
    _what = "lease"

    def __init__(self, client: AsyncClient, name: str, result: Mapping[str, Any]) -> None:
        self._client = client
        #: The lock's, the election's or the group's name.
        self.name = name
        #: The handle on this connection.
        self.handle: str = result["lease"]
        #: How long the request waited.
        self.waited_ms: int = result.get("waited_ms", 0)
        #: How long a crash of the daemon would keep it.
        self.lease_ms: int = result.get("lease_ms", 0)
        #: How long it was valid, when it was granted, without another renewal.
        self.remaining_ms: int = result.get("remaining_ms", 0)
        self.state: LeaseState = "held"
        #: Why it is lost; ``None`` while it is not.
        self.lost: errors.Lost | None = None
        self._over = asyncio.Event()
        self._listeners: list[Callable[[LeaseState], None]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.handle} {self.state}>"

    @property
    def held(self) -> bool:
        """Whether it is held as far as this process can know without asking: it was not given up, no loss was told,
        and the daemon has heard from this client within the heartbeat."""
        return self.state in ("held", "suspect") and self._client.is_heard

    def raise_if_lost(self) -> None:
        """Raises :class:`Lost` when it is."""
        if self.lost is not None:
            raise self.lost

    async def wait_lost(self) -> errors.Lost:
        """Waits until it is lost; for ever where it is given up instead. Safe to cancel."""
        await self._over.wait()
        if self.lost is None:
            await asyncio.Event().wait()
        assert self.lost is not None
        return self.lost

    def on_change(self, listener: Callable[[LeaseState], None]) -> Callable[[], None]:
        """Calls ``listener`` with each new state: ``suspect``, ``held`` again, ``lost``. It runs while the connection
        is read, so it must not block. Returns how to stop that."""
        self._listeners.append(listener)
        if self.state in ("suspect", "lost"):
            listener(self.state)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    async def check(self) -> LeaseCheck:
        """Asks the daemon how it stands."""
        return LeaseCheck.of(await self._client.call("lock.check", {"lease": self.handle}))

    async def release(self) -> None:
        """Gives it up. After :class:`Unavailable` or :class:`UnknownOutcome` the daemon goes on with it by itself; ask
        again to learn what came of it."""
        if self._over.is_set() and self.lost is None:
            return
        self.raise_if_lost()
        self.state = "released"
        try:
            await self._client.call(self._release_method, {"lease": self.handle})
        except errors.Lost as error:
            self._lose(error.reason)
            raise
        self._end()

    def _end(self) -> None:
        self._client._forget(self)
        self._over.set()

    def _change(self, state: LeaseState) -> None:
        self.state = state
        for listener in list(self._listeners):
            try:
                listener(state)
            except Exception as problem:  # a listener's fault must not keep others from being told
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a lease's listener failed", "exception": problem})

    def _told(self, state: str, reason: str) -> None:
        if state == "lost":
            self._lose(reason)
        elif self.state in ("held", "suspect"):
            self._change("suspect" if state == "suspect" else "held")

    def _lose(self, reason: str) -> None:
        if self.lost is None and not self._over.is_set():
            self.lost = errors.lost(f"the {self._what} {self.name}", reason)
            self._end()
            self._change("lost")


class AsyncLock(AsyncLease):
    """A lock that is held. ``fence`` grows with every later holder."""

    _release_method = "lock.release"
    _what = "lock"

    def __init__(self, client: AsyncClient, name: str, result: Mapping[str, Any]) -> None:
        super().__init__(client, name, result)
        self.fence: int = result["fence"]


class AsyncLeadership(AsyncLease):
    """An office that is held. ``fence`` is the term."""

    _release_method = "election.resign"
    _what = "leadership of"

    def __init__(self, client: AsyncClient, name: str, result: Mapping[str, Any]) -> None:
        super().__init__(client, name, result)
        self.fence: int = result["fence"]
        #: The id of the candidature that won.
        self.candidate: str = result.get("candidate", "")
        #: Who asked to take over, having a higher priority; ``None`` while nobody has.
        self.asked: Candidate | None = None
        self._was_asked = asyncio.Event()

    async def proclaim(self, data: str | bytes) -> int:
        """Says something new to whoever asks who leads; returns the revision."""
        return int((await self._client.call("election.proclaim", {"lease": self.handle, **value(data)}))["revision"])

    async def transfer(self, candidate: str | Candidate) -> int:
        """Hands the office to that candidate; returns the new leader's term."""
        id = candidate if isinstance(candidate, str) else candidate.id
        result = await self._client.call("election.transfer", {"lease": self.handle, "candidate": id})
        self.state = "released"
        self._end()
        return int(result["fence"])

    async def wait_asked(self) -> Candidate:
        """Waits until a candidate with a higher priority asks for the office."""
        await self._was_asked.wait()
        assert self.asked is not None
        return self.asked

    async def resign(self) -> None:
        """As :meth:`release`."""
        await self.release()

    def _ask(self, candidate: Mapping[str, Any]) -> None:
        self.asked = Candidate.of(candidate)
        self._was_asked.set()


class AsyncMembership(AsyncLease):
    """A place in a group."""

    _release_method = "member.leave"
    _what = "membership of"

    def __init__(self, client: AsyncClient, name: str, result: Mapping[str, Any]) -> None:
        super().__init__(client, name, result)
        #: The member's id.
        self.id: str = result["id"]
        #: The store's revision of its record.
        self.revision: int = result.get("revision", 0)

    async def update(self, data: str | bytes | None = None, *, address: str | None | Unset = UNSET,
                     zone: str | None | Unset = UNSET, weight: int | None = None,
                     metadata: Mapping[str, str] | None = None, state: str | None = None) -> int:
        """Changes what is given and leaves the rest; ``metadata`` replaces all of it. Returns the revision."""
        change = params(lease=self.handle, weight=weight, metadata=metadata, state=state, **value(data))
        change.update((k, v) for k, v in (("address", address), ("zone", zone)) if not isinstance(v, Unset))
        self.revision = int((await self._client.call("member.update", change))["revision"])
        return self.revision

    async def beat(self) -> None:
        """Says that it is well, for a ``heartbeat:`` check."""
        await self._client.call("member.beat", {"lease": self.handle})

    async def leave(self) -> None:
        """As :meth:`release`."""
        await self.release()


L = TypeVar("L", bound=AsyncLease)


class Acquiring(Generic[L]):
    """What :meth:`AsyncClient.lock` and the like return: ``await`` it, or use it in ``async with``.

    A block's body is cancelled when the lease is lost, and the block raises :class:`Lost`; with
    ``cancel_on_loss=False`` the body runs on, and the block raises afterwards.
    """

    def __init__(self, acquire: Callable[[], Awaitable[L]], cancel_on_loss: bool) -> None:
        self._acquire, self._cancel_on_loss = acquire, cancel_on_loss
        self._interrupted = False

    def __await__(self) -> Generator[Any, None, L]:
        return self._acquire().__await__()

    async def __aenter__(self) -> L:
        self._lease = await self._acquire()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._stop = self._lease.on_change(self._changed)
        return self._lease

    def _changed(self, state: LeaseState) -> None:
        if state == "lost" and self._cancel_on_loss and self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._stop()
        lease = self._lease
        if self._interrupted and self._task is not None:
            if kind is None:
                # The body was over before it came to that: it must not strike what comes after.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass
            ours = self._task.uncancel() <= self._cancelling
            if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
                assert lease.lost is not None
                raise lease.lost from None
        if error is None:
            await lease.release()
            return
        try:
            await lease.release()
        except errors.TenureError:
            pass  # what the body failed with matters more
