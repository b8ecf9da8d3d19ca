"""The thread behind the blocking client, and what is held and told through it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future
from typing import Any, Callable, Coroutine, Generic, Iterator, Mapping, Self, TypeVar

from . import errors
from ._leases import UNSET, AsyncLeadership, AsyncLease, AsyncLock, AsyncMembership, LeaseState, Unset
from ._subscriptions import AsyncSubscription
from .model import Candidate, Event, LeaseCheck

T = TypeVar("T")
A = TypeVar("A", bound=AsyncLease)


class Thread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tenure-client", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        return self._loop.is_closed()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise errors.closed("the request") from None

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        future = self.start(work)
        try:
            return future.result(timeout)
        except CancelledError:
            raise errors.closed("the request") from None
        except BaseException:
            # An interrupt, or the timeout: nobody is left who could take the answer.
            if not future.cancel() and future.exception() is None and isinstance(lease := future.result(), Lease):
                self.start(lease._lease.release())
            raise

    def stop(self) -> None:
        async def finish() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if not self._loop.is_closed():
            self.start(finish()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Lease(Generic[A]):
    """Something held through a connection: a lock, a leadership or a membership. A ``with`` block gives it up at its
    end, and raises :class:`Lost` where it was lost meanwhile."""

    def __init__(self, thread: Thread, lease: A) -> None:
        self._thread, self._lease = thread, lease
        #: Set when it is lost.
        self.lost_event = threading.Event()
        lease.on_change(lambda state: self.lost_event.set() if state == "lost" else None)

    def __repr__(self) -> str:
        return repr(self._lease).replace("<Async", "<", 1)

    @property
    def name(self) -> str:
        """The lock's, the election's or the group's name."""
        return self._lease.name

    @property
    def handle(self) -> str:
        """The handle on this connection."""
        return self._lease.handle

    @property
    def waited_ms(self) -> int:
        """How long the request waited."""
        return self._lease.waited_ms

    @property
    def remaining_ms(self) -> int:
        """How long it was valid, when it was granted, without another renewal."""
        return self._lease.remaining_ms

    @property
    def lease_ms(self) -> int:
        """How long a crash of the daemon would keep it."""
        return self._lease.lease_ms

    @property
    def state(self) -> LeaseState:
        """``held``, ``suspect``, ``lost`` or ``released``."""
        return self._lease.state

    @property
    def held(self) -> bool:
        """Whether it is held as far as this process can know without asking: it was not given up, no loss was told,
        and the daemon has heard from this client within the heartbeat."""
        return self._lease.held

    @property
    def lost(self) -> errors.Lost | None:
        """Why it is lost; ``None`` while it is not."""
        return self._lease.lost

    def raise_if_lost(self) -> None:
        """Raises :class:`Lost` when it is: call it where work under a lock comes to a point of no return."""
        self._lease.raise_if_lost()

    def wait_lost(self, timeout: float | None = None) -> errors.Lost | None:
        """Waits until it is lost, or for ``timeout`` seconds and returns ``None``."""
        return self._lease.lost if self.lost_event.wait(timeout) else None

    def on_change(self, listener: Callable[[LeaseState], None]) -> None:
        """Calls ``listener`` with each new state, on the connection's thread: it must not block, nor call the client."""

        async def add() -> None:
            self._lease.on_change(listener)

        self._thread.run(add())

    def check(self) -> LeaseCheck:
        """Asks the daemon how it stands."""
        return self._thread.run(self._lease.check())

    def release(self) -> None:
        """Gives it up. After :class:`Unavailable` or :class:`UnknownOutcome` the daemon goes on with it by itself; ask
        again to learn what came of it."""
        self._thread.run(self._lease.release())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except errors.TenureError:
            if kind is None:
                raise


class Lock(Lease[AsyncLock]):
    """A lock that is held. ``fence`` grows with every later holder."""

    @property
    def fence(self) -> int:
        """The fencing token."""
        return self._lease.fence


class Office(Lease[AsyncLeadership]):
    """An office that is held. ``fence`` is the term."""

    @property
    def fence(self) -> int:
        """The term, which is the fencing token."""
        return self._lease.fence

    @property
    def candidate(self) -> str:
        """The id of the candidature that won."""
        return self._lease.candidate

    @property
    def asked(self) -> Candidate | None:
        """Who asked to take over, having a higher priority."""
        return self._lease.asked

    def wait_asked(self, timeout: float | None = None) -> Candidate | None:
        """Waits until a candidate with a higher priority asks for the office, or for ``timeout`` seconds."""
        try:
            return self._thread.run(self._lease.wait_asked(), timeout)
        except TimeoutError:
            return None

    def proclaim(self, data: str | bytes) -> int:
        """Says something new to whoever asks who leads; returns the revision."""
        return self._thread.run(self._lease.proclaim(data))

    def transfer(self, candidate: str | Candidate) -> int:
        """Hands the office to that candidate; returns the new leader's term."""
        return self._thread.run(self._lease.transfer(candidate))

    def resign(self) -> None:
        """As :meth:`release`."""
        self.release()


class Membership(Lease[AsyncMembership]):
    """A place in a group."""

    @property
    def id(self) -> str:
        """The member's id."""
        return self._lease.id

    @property
    def revision(self) -> int:
        """The store's revision of its record."""
        return self._lease.revision

    def update(self, data: str | bytes | None = None, *, address: str | None | Unset = UNSET,
               zone: str | None | Unset = UNSET, weight: int | None = None, metadata: Mapping[str, str] | None = None,
               state: str | None = None) -> int:
        """Changes what is given and leaves the rest; ``metadata`` replaces all of it. Returns the revision."""
        return self._thread.run(self._lease.update(data, address=address, zone=zone, weight=weight, metadata=metadata,
                                                   state=state))

    def beat(self) -> None:
        """Says that it is well, for a ``heartbeat:`` check."""
        self._thread.run(self._lease.beat())

    def leave(self) -> None:
        """As :meth:`release`."""
        self.release()


class Subscription:
    """The events of one subscription: an iterator that ends after an ``end`` event."""

    def __init__(self, thread: Thread, subscription: AsyncSubscription) -> None:
        self._thread, self._subscription = thread, subscription

    @property
    def handle(self) -> str:
        """The handle on this connection."""
        return self._subscription.handle

    @property
    def resume_revision(self) -> int | None:
        """Of a watch of keys: where to go on after what was taken from here, as the ``from_revision`` of the next one.
        ``None`` while nothing was told."""
        return self._subscription.resume_revision

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; ``None`` when there will be none, or none came in ``timeout`` seconds."""
        try:
            return self._thread.run(asyncio.wait_for(self._subscription.next(), timeout))
        except TimeoutError:
            return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next()) is not None:
            yield event

    def close(self) -> None:
        """Ends it; no event comes after that."""
        self._thread.run(self._subscription.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
