"""What is Python's own: blocks, cancellation, interrupts, blocked loops; and what only a scripted daemon shows."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import tempfile
import threading
import time
import unittest
import unittest.mock
from typing import Any

import tenure_client
from tenure_client import AsyncClient, Client, ConnectError, Invalid, Lost, Timeout, default_socket
from tests.daemon import HERE, PATIENCE, Daemon


class Blocks(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.close)

    def break_hold(self, name: str) -> None:
        with Client(self.daemon.socket) as admin:
            holder = admin.lock_get(name).holder
            assert holder is not None
            admin.lock_break(name, holder.fence)

    def test_a_with_block_releases_whatever_happens(self) -> None:
        with Client(self.daemon.socket) as client:
            with self.assertRaises(KeyError), client.lock("blocks.a") as lock:
                self.assertTrue(lock.held and lock.check().held)
                raise KeyError
            self.assertEqual(lock.state, "released")
            self.assertFalse(lock.held)
            lock.release()
            self.assertIsNone(client.lock_get("blocks.a").holder)

    def test_a_with_block_that_lost_its_lock_says_so(self) -> None:
        with Client(self.daemon.socket) as client:
            with self.assertRaises(Lost) as caught, client.lock("blocks.b") as lock:
                states: list[str] = []
                lock.on_change(states.append)
                self.break_hold("blocks.b")
                self.assertIsNotNone(lock.wait_lost(PATIENCE))
                self.assertFalse(lock.held)
                with self.assertRaises(Lost):
                    lock.raise_if_lost()
            self.assertEqual((caught.exception.reason, states), ("broken", ["lost"]))

    def test_a_started_call_is_cancelled_and_holds_nothing(self) -> None:
        with Client(self.daemon.socket) as client, Client(self.daemon.socket) as other:
            with other.lock("blocks.c"):
                waits = client.submit(client.lock, "blocks.c")
                while not other.lock_get("blocks.c").waiters:
                    time.sleep(0.002)
                self.assertTrue(waits.cancel())
                while other.lock_get("blocks.c").waiters:
                    time.sleep(0.002)
            self.assertIsNone(other.lock_get("blocks.c").holder)
            with self.assertRaises(TypeError):
                client.submit(print)  # type: ignore[arg-type]

    def test_what_waits_ends_with_the_client(self) -> None:
        client = Client(self.daemon.socket).connect()
        office = client.campaign("blocks.e")
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                office.wait_asked()
            except tenure_client.TenureError as error:
                failed.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        client.close()
        thread.join(PATIENCE)
        self.assertEqual((thread.is_alive(), len(failed)), (False, 1))
        client.close()
        self.assertTrue(client.is_closed)
        with self.assertRaises(tenure_client.Unavailable):
            client.ping()

    def test_nothing_is_left_of_a_client_that_was_closed(self) -> None:
        def left() -> tuple[int, int]:
            return threading.active_count(), len(os.listdir("/proc/self/fd"))

        before, own = left(), Daemon()
        try:
            for ends in ("close", "daemon"):
                with Client(own.socket) as client, client.lock("left.a"):
                    client.observe("left.e")
                    client.watch(prefix="")
                    waits = client.submit(client.lock, "left.a")
                    if ends == "daemon":
                        own.close()
                        self.assertTrue(client.wait_closed(PATIENCE))
                        with self.assertRaises(tenure_client.Unavailable):
                            waits.result(PATIENCE)
                        break
        except Lost as lost:
            self.assertEqual(lost.reason, "disconnected")
        finally:
            own.close()
        self.assertEqual(left(), before)

    def test_the_examples_of_the_readme_work(self) -> None:
        readme = (HERE.parents[1] / "README.md").read_text()
        example, asynchronous = (part.split("```")[0] for part in readme.split("```python\n")[1:3])
        terms: list[int] = []

        async def work(term: int) -> None:
            terms.append(term)

        with unittest.mock.patch.dict(os.environ, {"TENURE_SOCKET": self.daemon.socket}):
            exec(compile(asynchronous, "README.md", "exec"), {"work": work})
        self.assertEqual(len(terms), 1)
        with unittest.mock.patch.dict(os.environ, {"TENURE_SOCKET": self.daemon.socket}), Client(self.daemon.socket) as client:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(example, "README.md", "exec"), {})
            self.assertRegex(said.getvalue(), r"token \d+")
            entry = client.get("report")
            assert entry is not None
            self.assertEqual((entry.text, client.lock_get("nightly").holder), ("done", None))

    def test_nobody_listening_is_said_with_the_remedy(self) -> None:
        with self.assertRaises(ConnectError) as caught:
            Client("/nonexistent/s.sock").connect()
        self.assertIn("start tenured", str(caught.exception))

    def test_the_socket_is_found_as_the_protocol_says(self) -> None:
        before = {name: os.environ.pop(name, None) for name in ("TENURE_SOCKET", "XDG_RUNTIME_DIR")}
        try:
            self.assertEqual(default_socket(), "/run/tenure/tenured.sock")
            os.environ["XDG_RUNTIME_DIR"] = "/run/user/7"
            self.assertEqual(default_socket(), "/run/user/7/tenure/tenured.sock")
            os.environ["TENURE_SOCKET"] = "/x"
            self.assertEqual(default_socket(), "/x")
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


class Tasks(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.daemon = await asyncio.to_thread(Daemon)
        self.addCleanup(self.daemon.close)

    async def test_a_block_whose_lock_is_lost_is_cancelled_and_raises_lost(self) -> None:
        async with AsyncClient(self.daemon.socket) as client:
            with self.assertRaises(Lost) as caught:
                async with client.lock("tasks.a") as lock:
                    await client.lock_break("tasks.a", lock.fence)
                    await asyncio.sleep(PATIENCE)
            self.assertEqual(caught.exception.reason, "broken")
            task = asyncio.current_task()
            assert task is not None
            self.assertEqual(task.cancelling(), 0)
            await asyncio.sleep(0)

    async def test_a_block_that_ends_as_its_lock_is_lost_leaves_no_cancellation_behind(self) -> None:
        async with AsyncClient(self.daemon.socket) as client:
            with self.assertRaises(Lost):
                async with client.lock("tasks.b") as lock:
                    lock._lose("broken")
            await asyncio.sleep(0)

    async def test_a_block_that_is_cancelled_from_outside_releases(self) -> None:
        async with AsyncClient(self.daemon.socket) as client:
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.05), client.lock("tasks.c"):
                    await asyncio.sleep(PATIENCE)
            self.assertIsNone((await client.lock_get("tasks.c")).holder)

    async def test_a_blocked_loop_loses_what_it_holds(self) -> None:
        async with AsyncClient(self.daemon.socket, heartbeat=0.3) as client, AsyncClient(self.daemon.socket) as other:
            lock = await client.lock("tasks.d")
            waits = await asyncio.to_thread(Client(self.daemon.socket).connect)
            granted = waits.submit(waits.lock, "tasks.d")
            # The whole loop stands still, with the task that pings.
            later = granted.result(PATIENCE)
            self.assertFalse(lock.held)
            self.assertGreater(later.fence, lock.fence)
            lost = await asyncio.wait_for(lock.wait_lost(), PATIENCE)
            self.assertIn(lost.reason, ("client_silent", "daemon_silent"))
            await asyncio.to_thread(waits.close)
            await other.ping()

    async def test_a_daemon_that_says_nothing_ends_the_connection(self) -> None:
        import signal
        async with AsyncClient(self.daemon.socket, heartbeat=0.6) as client:
            lock = await client.lock("tasks.e")
            self.daemon.signal(signal.SIGSTOP)
            lost = await asyncio.wait_for(lock.wait_lost(), PATIENCE)
            self.assertEqual(lost.reason, "daemon_silent")
            self.assertTrue(client.is_closed)


    async def test_nothing_is_left_of_a_client_that_was_closed(self) -> None:
        tasks, files = asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
        async with AsyncClient(self.daemon.socket) as client:
            lock = await client.lock("tasks.f")
            watch = await client.watch(prefix="")
            waits = asyncio.create_task(client.lock("tasks.f").__aenter__())
            while client.in_flight == 0:
                await asyncio.sleep(0)
            await client.close()
            with self.assertRaises(tenure_client.Unavailable):
                await waits
            self.assertEqual((await lock.wait_lost()).reason, "closed")
            self.assertEqual([event.reason async for event in watch][-1:], ["closed"])
        self.assertEqual((asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))), (tasks, files))


class Script:
    """A daemon that plays a part: each connection is handed to ``play`` with a reader of messages and a sender."""

    def __init__(self, play: Any) -> None:
        self.play, self.directory = play, tempfile.TemporaryDirectory()
        self.socket = os.path.join(self.directory.name, "s")
        self.failed: BaseException | None = None
        self.finished = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def heard() -> Any:
            while True:
                message = json.loads(await reader.readline())
                if message["method"] == "hello":
                    said({"id": message["id"], "result": {"protocol": 1, "later": {"x": 1}, "limits": {"later": 1}}})
                elif message["method"] != "ping":
                    return message

        def said(*messages: Any) -> None:
            writer.write(b"".join(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages))

        try:
            await self.play(heard, said)
        except BaseException as error:
            self.failed = error
        self.finished.set()
        await reader.read()
        writer.close()

    async def __aenter__(self) -> Script:
        self.server = await asyncio.start_unix_server(self._serve, self.socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self.finished.wait(), PATIENCE)
        self.server.close()
        self.directory.cleanup()
        if self.failed is not None:
            raise self.failed


class Scripted(unittest.IsolatedAsyncioTestCase):
    async def test_a_lease_that_is_lost_in_the_same_breath_is_told_and_later_members_are_ignored(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            said({"id": asked["id"], "result": {"lease": "l_1", "fence": 9_007_199_254_740_991, "later": [1]}, "later": 1},
                 {"method": "later", "params": {"x": 1}},
                 {"method": "lease", "params": {"lease": "l_1", "state": "lost", "reason": "later_reason", "later": 2}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            lock = await client.lock("x")
            self.assertEqual(lock.fence, 2**53 - 1)
            self.assertEqual((await asyncio.wait_for(lock.wait_lost(), PATIENCE)).reason, "later_reason")

    async def test_a_lease_that_comes_after_its_wait_was_cancelled_goes_back(self) -> None:
        cancelled = asyncio.Event()

        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            cancelled.set()
            cancel = await heard()
            assert (cancel["method"], cancel["params"], "id" in cancel) == ("cancel", {"id": asked["id"]}, False), cancel
            said({"id": asked["id"], "result": {"lease": "l_5", "fence": 5}})
            release = await heard()
            assert (release["method"], release["params"]) == ("lock.release", {"lease": "l_5"}), release
            said({"id": release["id"], "result": {}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            waits = asyncio.create_task(client.lock("x").__aenter__())
            await cancelled.wait()
            waits.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waits
            await asyncio.wait_for(script.finished.wait(), PATIENCE)

    async def test_a_lease_that_is_in_doubt_is_told_and_told_to_be_kept(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            notices = [{"method": "lease", "params": {"lease": "l_1", "state": state}} for state in ("suspect", "restored")]
            said({"id": asked["id"], "result": {"lease": "l_1", "fence": 1}})
            said(*notices, {"id": (await heard())["id"], "result": {}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            states: list[str] = []
            lock = await client.lock("x")
            lock.on_change(states.append)
            await client.call("status")
            self.assertEqual((lock.state, states), ("held", ["suspect", "held"]))

    async def test_a_gap_is_handed_on_and_the_watch_knows_where_to_go_on(self) -> None:
        def event(kind: str, **more: Any) -> Any:
            return {"method": "event", "params": {"subscription": "w_1", "kind": kind, **more}}

        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            assert asked["params"] == {"prefix": ""}, asked
            said({"id": asked["id"], "result": {"subscription": "w_1"}}, event("put", key="k", value="x", revision=5),
                 event("gap", resume_revision=9), event("delete", key="k", revision=12), event("gap"), event("end", reason="slow_reader"))

        async with Script(play) as script, AsyncClient(script.socket) as client:
            watch = await client.watch(prefix="")
            told: list[Any] = [watch.resume_revision]
            async for event_told in watch:
                told += [event_told.kind, watch.resume_revision]
            self.assertEqual(told, [None, "put", 6, "gap", 9, "delete", 13, "gap", 13, "end", 13])

    async def test_what_is_no_message_ends_the_connection(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            await heard()
            said({"method": "goaway", "params": {"deadline_ms": "x"}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            writes = asyncio.create_task(client.put("k", "x"))
            with self.assertRaises(tenure_client.UnknownOutcome):
                await asyncio.wait_for(writes, PATIENCE)
            self.assertTrue(client.is_closed)

    async def test_errors_of_a_later_version_are_still_errors(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            said({"id": asked["id"], "error": {"code": 77, "message": "m", "data": {"kind": "newer", "retryable": True}}})
            asked = await heard()
            said({"id": asked["id"], "error": {"code": -32603, "message": "m"}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            with self.assertRaises(tenure_client.TenureError) as caught:
                await client.status()
            self.assertEqual((caught.exception.kind, caught.exception.retryable, caught.exception.code), ("newer", True, 77))
            with self.assertRaises(tenure_client.TenureError) as caught:
                await client.status()
            self.assertEqual((caught.exception.kind, caught.exception.retryable), ("internal", False))

    async def test_a_long_line_in_pieces_is_one_line(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            said({"id": asked["id"], "result": {"entry": {"key": "k", "value": "é" * 1_000_000, "revision": 1}}})

        async with Script(play) as script, AsyncClient(script.socket) as client:
            entry = await client.get("k")
            assert entry is not None
            self.assertEqual(entry.text, "é" * 1_000_000)

    async def test_leaving_is_told(self) -> None:
        async def play(heard: Any, said: Any) -> None:
            asked = await heard()
            said({"method": "goaway", "params": {"deadline_ms": 70}}, {"id": asked["id"], "result": {}})

        async with Script(play) as script:
            client = AsyncClient(script.socket)
            told: list[int] = []

            def leaving(deadline: int) -> None:
                told.append(deadline)
                raise KeyError

            client.on_goaway = leaving
            faults: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
            async with client:
                # What is wrong with a listener is reported, and ends nothing.
                await client.call("status")
            self.assertEqual((client.goaway_ms, told, [type(fault) for fault in faults]), (70, [70], [KeyError]))


class Wrong(unittest.TestCase):
    def test_names(self) -> None:
        self.assertTrue(issubclass(ConnectError, tenure_client.Unavailable))
        for error in (Invalid, Timeout, Lost):
            self.assertTrue(issubclass(error, tenure_client.TenureError))
        self.assertEqual(sorted(tenure_client.__all__), sorted(set(tenure_client.__all__)))
        for name in tenure_client.__all__:
            self.assertTrue(hasattr(tenure_client, name), name)
