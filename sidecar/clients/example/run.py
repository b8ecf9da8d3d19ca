#!/usr/bin/env python3
"""Five processes, five languages: one lock, one leader, one group.

Starts a tenured and a worker in each language. Every worker joins a group and waits until it sees all five there, counts
in one shared file under one lock, with a fenced write each time, and leads one election once. Then this checks that
nobody's count was lost, that fencing tokens and terms only grew, that all saw all, and that everybody led.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent
sys.path.insert(0, str(CLIENTS / "python" / "src"))

from tenure_client import Client, Lost, Unavailable  # noqa: E402

#: Each language's toolchain, as commands that must be there.
LANGUAGES = {"python": [], "node": ["node", "npm"], "go": ["go"], "java": ["java", "javac", "mvn"], "sh": ["sh"]}


@dataclass
class Worker:
    """What one worker has said so far."""

    name: str
    process: subprocess.Popen[str]
    members: list[str] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)
    term: int | None = None
    done: bool = False

    def hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == "members":
                self.members = said["ids"]
            elif said["event"] == "count":
                self.counts.append((said["value"], said["fence"]))
            elif said["event"] == "leader":
                self.term = said["term"]
            elif said["event"] == "done":
                self.done = True

    def row(self) -> list[str]:
        state = "done" if self.done else "counting" if self.counts else "waiting" if not self.members else "ready"
        if self.process.poll() is not None and self.process.returncode != 0:
            state = f"exit {self.process.returncode}"
        last, fence = self.counts[-1] if self.counts else ("", "")
        return [self.name, str(self.process.pid), str(len(self.members) or ""), str(len(self.counts)), str(last), str(fence),
                str(self.term or ""), state]


class Table:
    """A table that is drawn over itself on a terminal, and printed once elsewhere."""

    HEAD = ["language", "pid", "sees", "counted", "last", "token", "term", "state"]

    def __init__(self) -> None:
        self.live, self.drawn = sys.stdout.isatty(), 0

    def draw(self, workers: list[Worker], last: bool = False) -> None:
        if not self.live and not last:
            return
        rows = [self.HEAD, *(worker.row() for worker in workers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        up = f"\x1b[{self.drawn}A" if self.live and self.drawn else ""
        end = "\x1b[K\n" if self.live else "\n"
        print(up + "".join(line + end for line in lines), end="", flush=True)
        self.drawn = len(lines)


def find(variable: str, name: str) -> str:
    path = os.environ.get(variable) or str(CLIENTS.parents[1] / "target" / "debug" / name)
    if not os.access(path, os.X_OK):
        sys.exit(f"there is no {path}; build it with `cargo build -p tenure-sidecar`, or name it in ${variable}")
    return path


def build(languages: list[str], directory: Path) -> dict[str, list[str]]:
    """Builds what has to be built; the command of each worker."""

    def run(what: str, *command: str, cwd: Path) -> None:
        print(f"building {what}", file=sys.stderr)
        done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")

    commands = {"python": [sys.executable, str(HERE / "worker.py")], "sh": ["sh", str(HERE / "worker.sh")]}
    if "node" in languages:
        typescript = CLIENTS / "typescript"
        if not (typescript / "node_modules").is_dir():
            run("node's compiler", "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", cwd=typescript)
        run("node's client", "node", "node_modules/typescript/bin/tsc", cwd=typescript)
        commands["node"] = ["node", str(HERE / "worker.mjs")]
    if "go" in languages:
        run("go", "go", "build", "-o", str(directory / "worker"), ".", cwd=HERE / "go")
        commands["go"] = [str(directory / "worker")]
    if "java" in languages:
        java, listed = CLIENTS / "java", directory / "classpath"
        run("java's client", "mvn", "-B", "-q", "compile", "dependency:build-classpath", "-DincludeScope=runtime",
            f"-Dmdep.outputFile={listed}", cwd=java)
        classes = f"{java / 'target' / 'classes'}:{listed.read_text().strip()}"
        run("java", "javac", "-d", str(directory), "-cp", classes, str(HERE / "Worker.java"), cwd=HERE)
        # Small and quick to start: it is here to count to ten.
        commands["java"] = ["java", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", f"{directory}:{classes}", "Worker"]
    return commands


def serve(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A tenured that listens, on a bucket that grants at once."""
    socket = str(directory / "s.sock")
    daemon = subprocess.Popen([find("TENURED", "tenured"), "--store", "memory:", "--lease", "30s", "--log", "warn", "--socket", socket],
                              stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        try:
            with Client(socket) as client:
                lock = client.lock("settle", lease=0.5)
                with contextlib.suppress(Lost):  # which does not matter any more
                    lock.release()
                return daemon, socket
        except Unavailable:  # not there yet, or too slow for a lease that short
            if daemon.poll() is not None or time.monotonic() > deadline:
                daemon.kill()
                raise
            time.sleep(0.01)


def check(workers: list[Worker], rounds: int, total: int, stored: str, led: list[str]) -> list[str]:
    """What is wrong; nothing, if all is well."""
    names, wrong = sorted(worker.name for worker in workers), []
    expected = rounds * len(workers)
    if total != expected or stored != str(expected):
        wrong.append(f"the file says {total} and the store {stored}, and {expected} were counted")
    counts = sorted(count for worker in workers for count in worker.counts)
    if [value for value, _ in counts] != list(range(1, expected + 1)):
        wrong.append("some number was counted twice, or never")
    if any(before[1] >= after[1] for before, after in zip(counts, counts[1:])):
        wrong.append("a later count had no higher fencing token")
    for worker in workers:
        if sorted(worker.members) != names:
            wrong.append(f"{worker.name} saw {worker.members}")
        if worker.process.returncode != 0:
            wrong.append(f"{worker.name} ended with {worker.process.returncode}")
    terms = [worker.term for worker in workers]
    if None in terms or len(set(terms)) != len(workers):
        wrong.append(f"not everybody led in a term of their own: {terms}")
    else:
        order = iter([worker.name for worker in sorted(workers, key=lambda worker: worker.term or 0)])
        # An observer is told states, so it may miss one that was short; it is told none out of order.
        if not led or not all(name in order for name in led):
            wrong.append(f"an observer saw {led} lead, and terms say otherwise")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="how often each counts [default: 10]")
    parser.add_argument("--languages", default=",".join(LANGUAGES), metavar="A,B",
                        help="who takes part [default: %(default)s]")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="give up after that [default: 120]")
    parser.epilog = "$TENURED and $TENURE name the daemon and the command; what was built in this repository unless told."
    options = parser.parse_args()
    languages = [language for language in options.languages.split(",") if language]
    if options.rounds < 1 or not languages or not set(languages) <= set(LANGUAGES):
        parser.error(f"--rounds is at least 1, --languages some of {', '.join(LANGUAGES)}")
    missing = [f"{tool} (for {language})" for language in languages for tool in LANGUAGES[language] if not shutil.which(tool)]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}; leave such languages out of --languages")

    directory = Path(tempfile.mkdtemp(prefix="tenure-five-"))
    workers: list[Worker] = []
    daemon = None
    try:
        commands = build(languages, directory)
        daemon, socket = serve(directory)
        counter = directory / "counter"
        counter.write_text("0")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE")}
        environment |= {"TENURE_SOCKET": socket, "TENURE": find("TENURE", "tenure")}
        led: list[str] = []
        with Client(socket) as client, client.observe("fleet.leader") as leaders:
            for name in languages:
                arguments = [name, str(len(languages)), str(options.rounds), str(counter)]
                process = subprocess.Popen([*commands[name], *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           env=environment, text=True)
                workers.append(Worker(name, process))
            listeners = [threading.Thread(target=worker.hear, daemon=True) for worker in workers]
            for listener in listeners:
                listener.start()
            table, deadline = Table(), time.monotonic() + options.timeout
            while not all(worker.done for worker in workers):
                while event := leaders.next(0.05):
                    if event.leader is not None and event.leader.text not in led[-1:]:
                        led.append(event.leader.text)
                table.draw(workers)
                failed = [worker.name for worker in workers if worker.process.poll()]
                if failed or time.monotonic() > deadline:
                    table.draw(workers, last=True)
                    sys.exit(f"{', '.join(failed)} failed" if failed else "it took too long")
            stored = client.get("fleet.count")
            for worker in workers:
                assert worker.process.stdin is not None
                worker.process.stdin.close()
            for worker, listener in zip(workers, listeners):
                worker.process.wait(options.timeout)
                listener.join()
            table.draw(workers, last=True)
            wrong = check(workers, options.rounds, int(counter.read_text()), stored.text if stored else "nothing", led)
            if left := client.members("fleet"):
                wrong.append(f"still in the group: {[member.id for member in left]}")
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
        if daemon is not None:
            daemon.terminate()
            daemon.wait()
        shutil.rmtree(directory, ignore_errors=True)
    if wrong:
        print(*(f"WRONG: {one}" for one in wrong), sep="\n")
        return 1
    order = [worker.name for worker in sorted(workers, key=lambda worker: worker.term or 0)]
    print(f"{len(workers)} processes counted to {options.rounds * len(workers)}, and led in this order: {', '.join(order)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
