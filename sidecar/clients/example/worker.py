"""One of the five: counts under the lock, leads once, and is in the group. `run.py` starts it; README.md says what it does."""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python" / "src"))

from tenure_client import AsyncClient  # noqa: E402


def say(event: str, **details: object) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


async def await_everybody(client: AsyncClient, everybody: int) -> None:
    there: set[str] = set()
    async with client.watch_members("fleet") as events:
        async for event in events:
            if event.member is not None:
                there.add(event.member.id)
            elif event.kind == "leave" and event.id is not None:
                there.discard(event.id)
            elif event.kind == "end":
                sys.exit(f"the group cannot be watched: {event.reason}")
            if len(there) == everybody:
                return say("members", ids=sorted(there))


async def count(client: AsyncClient, rounds: int, counter: Path) -> None:
    for _ in range(rounds):
        async with client.lock("fleet.counter", label="python") as lock:
            value = int(counter.read_text()) + 1
            await client.put("fleet.count", str(value), fenced_by=lock)
            counter.write_text(str(value))
            say("count", value=value, fence=lock.fence)


async def lead(client: AsyncClient, name: str) -> None:
    async with client.campaign("fleet.leader", name) as office:
        await client.put("fleet.led-by", name, fenced_by=office)
        leader = (await client.leader("fleet.leader")).leader
        if leader is None or leader.text != name:
            sys.exit(f"elected, and {leader} leads")
        say("leader", term=office.fence)
        await asyncio.sleep(0.2)


async def main(name: str, everybody: int, rounds: int, counter: Path) -> None:
    async with AsyncClient() as client, client.join("fleet", name, "py"):
        await await_everybody(client, everybody)
        await asyncio.gather(count(client, rounds, counter), lead(client, name))
        say("done")
        # A member until the runner has seen all.
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
