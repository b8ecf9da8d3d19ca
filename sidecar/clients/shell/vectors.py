#!/usr/bin/env python3
"""Runs those of the shared vectors that one command after the other can show, through `tenure.sh`, against a real daemon.

What a case holds across steps, waits for or subscribes to needs a connection, which a shell does not have: `test.sh` shows these
with `tenure lock` and the like. Python reads the cases here, as no shell does. `$TENURED`, `$TENURE` as in `test.sh`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "python"), str(HERE.parent / "python" / "src")]

from tenure_client import TenureError, errors  # noqa: E402
from tests.daemon import VECTORS, Daemon  # noqa: E402
from tests.vectors import Run, Way  # noqa: E402

#: What the command exits with for an error of that kind, by its own help.
EXITS = {"not_found": 1, "invalid_params": 64, "invalid_request": 64, "method_not_found": 64, "unsupported": 64, "conflict": 73,
         "timeout": 75, "denied": 77, "not_held": 79, "lost": 79}
HOLDS = {"lock.acquire", "election.campaign", "member.join"}
#: Fewer would mean that this tests next to nothing.
LEAST = 12


class Shell(Way):
    """Stands in for a client: each call is a shell of its own."""

    def open(self, socket: str, **options: Any) -> Shell:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        self.environment["TENURE_SOCKET"] = socket
        self.environment.setdefault("TENURE", str(HERE.parents[2] / "target" / "debug" / "tenure"))
        return self

    def start(self, method: Any, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(method(*args, **options))
        except TenureError as error:
            future.set_exception(error)
        return future

    def sh(self, script: str, *arguments: str) -> str:
        done = subprocess.run(["sh", "-c", f". {HERE}/tenure.sh; {script}", "sh", *arguments], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            said = re.fullmatch(r"tenure: (\w+) \(code (-?\d+)\): (.*?)(?:; (\{.*\}))?\n", done.stderr, re.DOTALL)
            assert said is not None, f"{script} {arguments} said {done.stderr!r}"
            kind, code, message, data = said.groups()
            assert done.returncode == EXITS.get(kind, 125), f"exit {done.returncode} for {kind}"
            raise errors.from_wire({"code": int(code), "message": message, "data": {**json.loads(data or "{}"), "kind": kind}})
        return done.stdout

    def call(self, method: str, params: Any) -> Any:
        return json.loads(self.sh('tenure_call "$@"', method, json.dumps(params)))


class ShellRun(Run):
    def start(self, client: Any, on: str, step: Any, params: Any) -> Future[Any]:
        if step["call"] == "kv.keys" and not step.get("raw") and "after" not in params:
            return self.way.start(lambda: {"keys": client.sh('tenure_keys "$@"', params.get("prefix", "")).splitlines()})
        return self.way.start(client.call, step["call"], params)


def suits(case: Any) -> bool:
    """Whether no step needs what an earlier one holds."""
    ends_at_once = {"denied", "invalid_params"}

    def alone(step: Any) -> bool:
        return "call" in step and "as" not in step and not any(name.endswith("lease") for name in step.get("params", {})) and (
            step["call"] not in HOLDS or "--policy" in case.get("daemon", ()) or step.get("error", {}).get("kind") in ends_at_once)

    return "clients" not in case and all("compare" in step or alone(step) for step in case["steps"])


def main() -> int:
    passed, failed, shared = 0, 0, Daemon()
    try:
        for path in sorted(VECTORS.glob("*.json")):
            for case in filter(suits, json.loads(path.read_text())["cases"]):
                for step in case["steps"]:
                    # The command tells kinds and not what may be sent again.
                    step.get("error", {}).pop("retryable", None)
                flags = [flag.replace("${vectors}", str(VECTORS)) for flag in case.get("daemon", ())]
                daemon = Daemon(*flags) if flags else shared
                try:
                    ShellRun(Shell(), daemon, case).run()
                    passed += 1
                except AssertionError as problem:
                    failed += 1
                    print(f"FAILED: {path.stem}: {case['name']}: {problem}", file=sys.stderr)
                finally:
                    if daemon is not shared:
                        daemon.close()
    finally:
        shared.close()
    print(f"{passed} shared cases passed, {failed} failed")
    return 0 if not failed and passed >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
