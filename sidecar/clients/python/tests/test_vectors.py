"""The shared vectors, through both clients."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tenure_client import Client
from tests.daemon import VECTORS, Daemon
from tests.vectors import AsyncWay, BlockingWay, Run, Way


class _Vectors(unittest.TestCase):
    way: type[Way]
    _way: Way
    _daemon: Daemon

    @classmethod
    def setUpClass(cls) -> None:
        cls._way, cls._daemon = cls.way(), Daemon()
        with Client(cls._daemon.socket) as client:
            cls.capabilities = client.hello.capabilities

    @classmethod
    def tearDownClass(cls) -> None:
        cls._way.close()
        cls._daemon.close()

    def run_case(self, case: Any) -> None:
        for method in case.get("needs", ()):
            if method not in self.capabilities:
                self.skipTest(f"{case['name']}: this daemon does not serve {method}")
        if "daemon" not in case:
            return Run(self._way, self._daemon, case).run()
        own = Daemon(*(flag.replace("${vectors}", str(VECTORS)) for flag in case["daemon"]))
        try:
            Run(self._way, own, case).run()
        finally:
            own.close()


def _add(cls: type[_Vectors]) -> None:
    for path in sorted(VECTORS.glob("*.json")):
        for number, case in enumerate(json.loads(path.read_text())["cases"]):
            def test(self: _Vectors, case: Any = case) -> None:
                self.run_case(case)
            test.__doc__ = f"{path.stem}: {case['name']}"
            setattr(cls, f"test_{path.stem}_{number:02}", test)


class BlockingVectors(_Vectors):
    way = BlockingWay

    def test_every_method_of_the_daemon_is_in_some_case(self) -> None:
        steps = [step for path in VECTORS.glob("*.json") for case in json.loads(path.read_text())["cases"] for step in case["steps"]]
        called = {step[how] for step in steps for how in ("call", "subscribe") if how in step and not step.get("raw")}
        with Client(self._daemon.socket) as client:
            served = {method["name"] for method in client.discover()["methods"]}
        # These are what the drivers' own `cancel` and `unsubscribe` send.
        self.assertEqual(served - called - {"cancel", "subscription.cancel"}, set())


class AsyncVectors(_Vectors):
    way = AsyncWay


_add(BlockingVectors)
_add(AsyncVectors)
