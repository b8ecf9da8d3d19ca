"""A ``tenured`` for tests, and where the shared vectors are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tenure_client import Client, Lost, Unavailable

HERE = Path(__file__).resolve()
VECTORS = HERE.parents[2] / "vectors"
#: Longer than anything here takes on a busy machine.
PATIENCE = 30.0


def tenured() -> str:
    """``$TENURED``, else what was built in this repository."""
    built = HERE.parents[4] / "target" / "debug" / "tenured"
    found = os.environ.get("TENURED") or str(built)
    if not os.access(found, os.X_OK):
        raise RuntimeError(f"there is no {found}; build it with `cargo build -p tenure-sidecar`, or name it in $TENURED")
    return found


class Daemon:
    """Started, settled, and killed when closed."""

    def __init__(self, *flags: str) -> None:
        self._directory = tempfile.mkdtemp(prefix="tenure-py-")
        self.socket = os.path.join(self._directory, "s.sock")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TENURE")}
        self._process = subprocess.Popen(
            [tenured(), "--store", "memory:", "--lease", "30s", "--log", "error", "--socket", self.socket, *flags],
            env=environment, stdin=subprocess.DEVNULL)
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        """Waits until it listens, and has it make its first grant, for which a new bucket waits one lease."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Client(self.socket) as client:
                    lock = client.lock("settle", lease=0.5)
                    with contextlib.suppress(Lost):  # which does not matter any more
                        lock.release()
                    return
            except Unavailable:  # not there yet, or too slow for a lease that short
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()
        if number == signal.SIGSTOP:
            # It takes each thread a moment to notice.
            while any(" T" not in path.read_text().rpartition(")")[2][:3] for path in
                      Path(f"/proc/{self._process.pid}/task").glob("*/stat")):
                time.sleep(0.001)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
