"""The driver of the shared vectors: pure matching, the steps, and one way into each of the two clients."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import itertools
import re
import signal
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Callable

from tenure_client import AsyncClient, AsyncLease, AsyncSubscription, Check, Client, Lease, Subscription, TenureError
from tests.daemon import PATIENCE, Daemon

Json = Any
_numbers = itertools.count(1)


def differs(pattern: Json, found: Json, where: str = "it") -> str | None:
    """Why ``found`` does not match, or ``None``."""
    if isinstance(pattern, dict):
        for operator, operand in pattern.items():
            if operator == "$any":
                if found is None:
                    return f"{where} is missing"
            elif operator == "$gt":
                if not isinstance(found, (int, float)) or isinstance(found, bool) or not found > operand:
                    return f"{where} is {found!r} and not greater than {operand!r}"
            elif operator == "$len":
                if not isinstance(found, list) or len(found) != operand:
                    return f"{where} is {found!r} and has not {operand} elements"
            elif operator == "$has":
                if not isinstance(found, list) or all(differs(operand, one) for one in found):
                    return f"{where} is {found!r} and has no {operand!r}"
            elif not isinstance(found, dict):
                return f"{where} is {found!r} and no object"
            elif why := differs(operand, found.get(operator), f"{where}.{operator}"):
                return why
        return None
    if isinstance(pattern, list):
        if not isinstance(found, list) or len(found) != len(pattern):
            return f"{where} is {found!r} and not {pattern!r}"
        return next((why for i, one in enumerate(pattern) if (why := differs(one, found[i], f"{where}.{i}"))), None)
    return None if pattern == found and isinstance(pattern, bool) == isinstance(found, bool) else (
        f"{where} is {found!r} and not {pattern!r}")


def dump(thing: Any) -> Json:
    """What a client returned, as it was on the wire."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        found = {f.name: dump(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.name != "raw"}
        if isinstance(thing.__dict__.get("value"), bytes):
            found.update(value_json(thing.value))
        return found
    if isinstance(thing, (list, tuple)):
        return [dump(one) for one in thing]
    if isinstance(thing, (Lease, AsyncLease)):
        names = ("fence", "candidate", "id", "revision", "waited_ms", "remaining_ms", "lease_ms")
        return {"lease": thing.handle, **{name: getattr(thing, name) for name in names if hasattr(thing, name)}}
    return None if isinstance(thing, bytes) else thing


def value_json(value: bytes) -> Json:
    try:
        return {"value": value.decode(), "value_b64": None}
    except UnicodeDecodeError:
        return {"value": None, "value_b64": base64.b64encode(value).decode()}


def error_json(error: TenureError) -> Json:
    return {**error.data, "kind": error.kind, "retryable": error.retryable, "code": error.code, "message": error.message}


class Way:
    """A way into a client: how to start a call of its own methods, and how to read a subscription."""

    def open(self, socket: str, **options: Any) -> Any:
        raise NotImplementedError

    def start(self, method: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        raise NotImplementedError

    def run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.start(method, *args, **options).result(PATIENCE)

    def next(self, subscription: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


class BlockingWay(Way):
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(16)

    def open(self, socket: str, **options: Any) -> Client:
        return Client(socket, **options).connect()

    def start(self, method: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        client = getattr(method, "__self__", None)
        if isinstance(client, Client) and method.__name__ in ("lock", "campaign", "join", "put", "get", "call", "create"):
            return client.submit(method, *args, **options)
        return self._pool.submit(method, *args, **options)

    def next(self, subscription: Subscription) -> Any:
        return subscription.next(PATIENCE)

    def close(self) -> None:
        self._pool.shutdown()


class AsyncWay(Way):
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def open(self, socket: str, **options: Any) -> AsyncClient:
        return self.run(AsyncClient(socket, **options).connect)

    def start(self, method: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        async def work() -> Any:
            return await method(*args, **options)

        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def next(self, subscription: AsyncSubscription) -> Any:
        return self.run(asyncio.wait_for, subscription.next(), PATIENCE)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Run:
    """One case."""

    def __init__(self, way: Way, daemon: Daemon, case: Json) -> None:
        self.way, self.daemon, self.case = way, daemon, case
        self.variables: dict[str, Json] = {"case": f"v{next(_numbers)}", "x400": "x" * 400, "x800": "x" * 800, "x1024": "x" * 1024, "x2048": "x" * 2048}
        self.clients: dict[str, Any] = {}
        self.leases: dict[tuple[str, str], Any] = {}
        self.started: dict[str, tuple[str, Future[Any]]] = {}
        self.subscriptions: dict[str, Any] = {}
        self.readers: dict[Future[Any], Callable[[Any], Json]] = {}

    def run(self) -> None:
        try:
            for number, step in enumerate(self.case["steps"]):
                try:
                    self.step(step)
                except Exception as problem:
                    raise AssertionError(f"step {number} {step}: {problem!r}") from problem
        finally:
            for client in self.clients.values():
                self.way.run(client.close)

    def filled(self, thing: Json) -> Json:
        if isinstance(thing, dict):
            return {k: self.filled(v) for k, v in thing.items()}
        if isinstance(thing, list):
            return [self.filled(one) for one in thing]
        if isinstance(thing, str):
            if re.fullmatch(r"\$\w+", thing):
                return self.variables[thing[1:]]
            return re.sub(r"\$\{(\w+)\}", lambda found: str(self.variables[found[1]]), thing)
        return thing

    def save(self, step: Json, found: Json) -> None:
        for name, path in step.get("save", {}).items():
            part = found
            for key in path.split("."):
                part = part[int(key)] if isinstance(part, list) else part[key]
            self.variables[name] = part

    def client(self, name: str) -> Any:
        if name not in self.clients:
            given = self.case.get("clients", {}).get(name, {})
            options: dict[str, Any] = {}
            if "heartbeat_ms" in given:
                options["heartbeat"] = given["heartbeat_ms"] and given["heartbeat_ms"] / 1000
            if given.get("ping") is False:
                options["manual_ping"] = True
            if "events" in given:
                options["events"] = given["events"]
            self.clients[name] = self.way.open(self.daemon.socket, **options)
        return self.clients[name]

    def step(self, step: Json) -> None:
        on = step.get("on", "a")
        if "call" in step:
            self.call(step, on)
        elif "in_flight" in step:
            client = self.client(on)
            until(lambda: client.in_flight >= step["in_flight"])
        elif "await" in step:
            self.finish(step, *self.started[step["await"]])
        elif "cancel" in step:
            self.started[step["cancel"]][1].cancel()
        elif "subscribe" in step:
            client, p = self.client(on), self.filled(step["params"])
            subscribe = {"lock.observe": lambda: client.observe_lock(p["name"]),
                         "election.observe": lambda: client.observe(p["name"]),
                         "member.watch": lambda: client.watch_members(p["group"]),
                         "kv.watch": lambda: client.watch(**p)}[step["subscribe"]]
            self.subscriptions[step["as"]] = self.way.run(subscribe)
        elif "event" in step:
            pattern = self.filled(step["match"])
            while True:
                event = self.way.next(self.subscriptions[step["event"]])
                assert event is not None, "no event came"
                found = dump(event)
                why = differs(pattern, found)
                if why is None:
                    return self.save(step, found)
                assert not step.get("next") and found["kind"] != "end", why
        elif "unsubscribe" in step:
            subscription = self.subscriptions[step["unsubscribe"]]
            self.way.run(subscription.close)
            assert self.way.next(subscription) is None
        elif "state" in step:
            lease = self.leases[on, self.filled(step["lease"])]
            until(lambda: lease.lost is not None)
            assert lease.lost.reason == step["reason"], lease.lost.reason
            assert lease.state == "lost" and not lease.held
        elif "asked" in step:
            lease = self.leases[on, self.filled(step["asked"])]
            until(lambda: lease.asked is not None)
            if why := differs(self.filled(step["match"]), dump(lease.asked)):
                raise AssertionError(why)
        elif "resume" in step:
            self.save(step, {"revision": self.subscriptions[step["resume"]].resume_revision})
        elif "leaving" in step:
            client = self.client(step["leaving"])
            until(lambda: client.goaway_ms is not None)
            assert client.goaway_ms > 0
        elif "close" in step:
            self.way.run(self.client(step["close"]).close)
        elif "closed" in step:
            client = self.client(step["closed"])
            until(lambda: client.is_closed)
        elif "daemon" in step:
            self.daemon.signal({"stop": signal.SIGSTOP, "kill": signal.SIGKILL, "term": signal.SIGTERM}[step["daemon"]])
        elif "compare" in step:
            left, operator, right = self.filled(step["compare"])
            assert {"<": left < right, "=": left == right, "!=": left != right}[operator], f"{left} {operator} {right}"
        else:
            raise AssertionError("unknown step")

    def call(self, step: Json, on: str) -> None:
        client, params = self.client(on), self.filled(step.get("params", {}))
        if "as" in step:
            self.started[step["as"]] = (on, self.start(client, on, step, params))
            return
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.finish(step, on, self.start(client, on, step, params))
            except AssertionError:
                if not step.get("eventually") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def start(self, client: Any, on: str, step: Json, params: Json) -> Future[Any]:
        typed = None if step.get("raw") else typed_call(client, lambda handle: self.leases.get((on, handle)), step["call"], params)
        if typed is None:
            return self.way.start(client.call, step["call"], params)
        (method, args, options), read = typed
        future: Future[Any] = self.way.start(method, *args, **options)
        self.readers[future] = read
        return future

    def finish(self, step: Json, on: str, future: Future[Any]) -> None:
        if step.get("cancelled"):
            try:
                found = future.result(PATIENCE)
            except CancelledError:
                return
            if step["cancelled"] == "or held":
                return self.way.run(found.release)
            raise AssertionError(f"it was not cancelled and came to {found!r}")
        try:
            result = future.result(PATIENCE)
        except TenureError as error:
            found, expected = error_json(error), step.get("error")
            assert expected is not None, f"it failed with {found}"
        else:
            if isinstance(result, (Lease, AsyncLease)):
                self.leases[on, result.handle] = result
            found, expected = self.readers.pop(future, dump)(result), step.get("result", {})
            assert "error" not in step, f"it came to {found}"
        if why := differs(self.filled(expected), found):
            raise AssertionError(why)
        self.save(step, found)


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def typed_call(client: Any, lease: Callable[[str], Any], method: str, p: Json) -> Any:
    """The typed method for these parameters, its arguments, and how to read what it returns; or ``None``."""
    p = dict(p)
    held = lease(p["lease"]) if isinstance(p.get("lease"), str) else None
    fenced = lease(p["fence_lease"]) if "fence_lease" in p else None
    if ("lease" in p and held is None) or ("fence_lease" in p and fenced is None):
        return None

    def seconds(*names: str) -> Json:
        return {name: p[f"{name}_ms"] / 1000 for name in names if f"{name}_ms" in p}

    def some(*names: str) -> Json:
        return {name: p[name] for name in names if name in p}

    data = base64.b64decode(p["value_b64"]) if "value_b64" in p else p.get("value")
    revision, same, plain = (lambda n: {"revision": n}), dump, (lambda result: result)
    write = {**seconds("ttl"), **some("bucket", "lock", "election", "fence"), **({"fenced_by": fenced} if fenced else {})}
    calls: dict[str, Callable[[], Any]] = {
        "ping": lambda: ((client.ping, (), {}), lambda _: {}),
        "status": lambda: ((client.status, (), {}), same),
        "rpc.discover": lambda: ((client.discover, (), {}), plain),
        "lock.acquire": lambda: ((client.lock, (p["name"],), {**seconds("wait", "lease"), **some("label")}), same),
        "lock.release": lambda: ((held.release, (), {}), lambda _: {}),
        "lock.check": lambda: ((held.check, (), {}), same),
        "lock.get": lambda: ((client.lock_get, (p["name"],), {}), same),
        "lock.list": lambda: ((client.lock_list, (p.get("prefix"),), {}), lambda found: {"locks": dump(found)}),
        "lock.break": lambda: ((client.lock_break, (p["name"], p["fence"]), {}), lambda _: {}),
        "election.campaign": lambda: ((client.campaign, (p["name"], data), {
            **seconds("wait", "lease", "min_tenure"), **some("label", "priority")}), same),
        "election.proclaim": lambda: ((held.proclaim, (data,), {}), revision),
        "election.resign": lambda: ((held.resign, (), {}), lambda _: {}),
        "election.transfer": lambda: ((held.transfer, (p["candidate"],), {}), lambda n: {"fence": n}),
        "election.leader": lambda: ((client.leader, (p["name"],), {}), same),
        "election.candidates": lambda: ((client.candidates, (p["name"],), {}), lambda found: {"candidates": dump(found)}),
        "member.join": lambda: ((client.join, (p["group"], p.get("id"), data), {
            **seconds("lease", "leave_when_critical"), **some("address", "zone", "weight", "metadata", "state", "label"),
            **({"checks": [Check(**check) for check in p["checks"]]} if "checks" in p else {})}), same),
        "member.update": lambda: ((held.update, (data,), some("address", "zone", "weight", "metadata", "state")), revision),
        "member.beat": lambda: ((held.beat, (), {}), lambda _: {}),
        "member.leave": lambda: ((held.leave, (), {}), lambda _: {}),
        "election.list": lambda: ((client.election_list, (p.get("prefix"),), {}), lambda found: {"elections": dump(found)}),
        "member.groups": lambda: ((client.groups, (p.get("prefix"),), {}), lambda found: {"groups": dump(found)}),
        "member.list": lambda: ((client.member_list, (p["group"], p.get("after")), {}), same),
        "kv.get": lambda: ((client.get, (p["key"],), some("revision", "bucket")), lambda entry: {"entry": dump(entry)}),
        "kv.put": lambda: ((client.put, (p["key"], data), write), revision),
        "kv.create": lambda: ((client.create, (p["key"], data), write), revision),
        "kv.update": lambda: ((client.update, (p["key"], data, p["revision"]), write), revision),
        "kv.delete": lambda: ((client.delete, (p["key"],), {**write, **some("revision")}), revision),
        "kv.purge": lambda: ((client.purge, (p["key"],), {**write, **some("revision")}), revision),
        "kv.keys": lambda: ((client.key_page, (p.get("prefix"), p.get("after")), some("bucket")), same)
        if "after" in p else ((client.keys, (p.get("prefix"),), some("bucket")), lambda found: {"keys": dump(found)}),
        "kv.history": lambda: ((client.history, (p["key"],), some("bucket")), lambda found: {"entries": dump(found)}),
    }
    return None if method == "hello" else calls[method]()
