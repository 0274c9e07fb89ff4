"""Cost of a turn in a session of 10,000 messages, compared with one of 10: `python -m bench.long_session`.

Server CPU is the time of its process over blocks of turns, which alternate between the sessions; database operations
are those of MongoDB's profiler, without heartbeats and other background work.
"""

import asyncio
import os
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from godoty_service.ids import new_id
from tests.conftest import server_environment
from tests.e2e.turns.streams import insert_messages
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.service import Service

SIZES = (10, 50, 10_000)  # messages
ROUNDS, TURNS = 12, 25  # blocks of each size, turns in a block
RUNS = 50  # earlier turns of all sessions: the answer has the newest 50 of them
SAY = "@sandbox plain tokens=8 flat=1"
# What runs beside the turns must not run among them.
QUIET = {"GODOTY_RECONCILE_INTERVAL": "600", "GODOTY_TURN_WATCH_INTERVAL": "600"}
OURS = frozenset({"sessions", "messages", "ledger", "turns", "turn_logs"})
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """Cost of a turn in sessions of one size.

    Attributes:
        cpu: Milliseconds of a turn, by block.
        operations: Database operations of a turn, by collection and kind.
    """

    cpu: list[float] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def make_sessions(service: Service, size: int, count: int) -> list[str]:
    """Create sessions of a size, as copies of one that a turn has created."""
    template = service.session("template") or {}
    names = [f"{size}-{number}" for number in range(count)]
    for name in names:
        session = {**template, "_id": new_id("ses"), "session_id": name, "message_count": 0}
        service.database["sessions"].insert_one(session)
        insert_messages(service, name, size)
    return names


async def block(caller: Caller, sessions: list[str]) -> None:
    """Run one turn in each session."""
    for name in sessions:
        await caller.converse(SAY, session_id=name)
    await asyncio.sleep(0.3)  # the logs are written a tick later


async def count(caller: Caller, sessions: list[str]) -> Counter[str]:
    """Count the database operations of a block, per turn."""
    database = caller.service.database
    database.command("profile", 2)
    await block(caller, sessions)
    database.command("profile", 0)
    seen: Counter[str] = Counter()
    for each in database["system.profile"].find({"op": {"$in": ["query", "insert", "update", "remove", "command"]}}):
        collection = each["ns"].partition(".")[2]
        if collection in OURS:
            seen[f"{collection} {'find_and_modify' if 'findAndModify' in each['command'] else each['op']}"] += 1
    database["system.profile"].drop()
    return seen


async def measure(backends: Backends, log: Path) -> dict[int, Measured]:
    """Run all blocks, alternating between the sizes."""
    database = backends.new_database()
    process = ServerProcess(environment=server_environment(backends, database) | QUIET, log=log)
    await process.start()
    pid = process.process.pid if process.process is not None else 0
    measured = {size: Measured() for size in SIZES}
    async with grpc.aio.insecure_channel(process.address) as channel:
        caller = Caller(backends.service(process.address, database), channel)
        for _ in range(RUNS):
            await caller.converse(SAY, session_id="template")
        # A turn adds two messages, so that a short session serves once; the long one hardly grows.
        sessions = {
            size: make_sessions(caller.service, size, (ROUNDS + 2) * TURNS if size < SIZES[-1] else 1) for size in SIZES
        }
        for names in sessions.values():
            names.extend(names * ((ROUNDS + 2) * TURNS - len(names)))
        for turn in range(ROUNDS + 2):
            for size in SIZES[:: 1 if turn % 2 else -1]:
                names = sessions[size][turn * TURNS : (turn + 1) * TURNS]
                before = cpu_seconds(pid)
                if turn == ROUNDS + 1:
                    measured[size].operations = await count(caller, names)
                else:
                    await block(caller, names)
                if 0 < turn <= ROUNDS:  # the first warms up, the last is counted
                    measured[size].cpu.append((cpu_seconds(pid) - before) * 1000 / TURNS)
    await process.stop()
    return measured


def report(measured: dict[int, Measured]) -> str:
    """Return the report as Markdown."""
    base = measured[SIZES[0]]
    lines = [
        f"Turns with one model call, {ROUNDS} blocks of {TURNS} for each size, interleaved; medians, in one run.",
        "",
        "| messages in the session | server CPU a turn | least to most | of one with 10 | database operations a turn |",
        "|---:|---:|---:|---:|---:|",
    ]
    for size, each in measured.items():
        cpu = statistics.median(each.cpu)
        lines.append(
            f"| {size:,} | {cpu:.2f} ms | {min(each.cpu):.2f} to {max(each.cpu):.2f}"
            f" | {cpu / statistics.median(base.cpu):.2f} | {each.operations.total() / TURNS:.2f} |"
        )
    lines += ["", "| operation | " + " | ".join(f"{size:,}" for size in measured) + " |"]
    lines.append("|---|" + "---:|" * len(measured))
    for name in sorted({name for each in measured.values() for name in each.operations}):
        counted = " | ".join(f"{each.operations[name] / TURNS:.2f}" for each in measured.values())
        lines.append(f"| {name} | {counted} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the report."""
    with tempfile.TemporaryDirectory() as folder, Backends(Path(folder), None) as backends:
        backends.sandbox.settings.change({"record_requests": False})
        print(report(asyncio.run(measure(backends, Path(folder) / "server.log"))))


if __name__ == "__main__":
    main()
