"""What is told through a connection, for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Generator, Mapping, Self

from . import errors
from .model import Event

#: What is told of keys, each with the revision of its write.
_WRITES = frozenset(("put", "delete", "purge", "expire"))

if TYPE_CHECKING:
    from .aio import AsyncClient


class AsyncSubscription:
    """The events of one subscription: an async iterator that ends after an ``end`` event."""

    def __init__(self, client: AsyncClient, result: Mapping[str, Any], room: int, resume_revision: int | None) -> None:
        self._client = client
        self.handle: str = result["subscription"]
        #: Of a watch of keys: where to go on after what was taken from here, as the ``from_revision`` of the next one.
        #: ``None`` while nothing was told.
        self.resume_revision = resume_revision
        self._events: deque[Event] = deque()
        self._room = room
        self._filled = asyncio.Event()
        self._over = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> Event | None:
        """The next event; ``None`` when there will be none. Safe to cancel: no event is lost."""
        while not self._events:
            if self._over:
                return None
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        if event.kind in _WRITES and event.revision is not None:
            self.resume_revision = event.revision + 1
        elif event.kind == "gap" and event.resume_revision is not None:
            self.resume_revision = event.resume_revision
        return event

    async def close(self) -> None:
        """Ends it; no event comes after that."""
        self._events.clear()
        if self._over:
            return
        self._stop()
        try:
            await self._client.call("subscription.cancel", {"subscription": self.handle})
        except (errors.NotFound, errors.Unavailable):
            pass  # it has ended already

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _stop(self) -> None:
        self._over = True
        self._client._forget(self)
        self._filled.set()

    def _happened(self, event: Mapping[str, Any]) -> None:
        if self._over:
            return
        if len(self._events) >= self._room:
            self._client._post("subscription.cancel", {"subscription": self.handle})
            event = {"kind": "end", "reason": "slow_reader"}
        self._events.append(Event.of(event))
        if event.get("kind") == "end":
            self._stop()
        self._filled.set()


class Subscribing:
    """What :meth:`AsyncClient.observe` and the like return: ``await`` it, or use it in ``async with``."""

    def __init__(self, subscribe: Callable[[], Awaitable[AsyncSubscription]]) -> None:
        self._subscribe = subscribe

    def __await__(self) -> Generator[Any, None, AsyncSubscription]:
        return self._subscribe().__await__()

    async def __aenter__(self) -> AsyncSubscription:
        self._subscription = await self._subscribe()
        return self._subscription

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.close()
