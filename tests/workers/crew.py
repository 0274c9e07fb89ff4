"""A supervisor with two workers that serve nobody, as a process of its own: `crew.py BEHAVIOUR`.

It prints what its workers do, a line each: "listens PID", "serves PID", "drained PID".
"""

import asyncio
import os
import sys
import time

from godoty_service.telemetry.logs import configure_logs
from godoty_service.workers import supervisor
from godoty_service.workers.supervisor import Supervisor
from godoty_service.workers.worker import Worker

supervisor._FIRST_DELAY = 0.02
WRONG = "GODOTY_SOMETHING is wrong"

behaviour = sys.argv[1]
ended: list[int] = []  # workers that have ended, when this one was started


def say(what: str) -> None:
    os.write(1, f"{what} {os.getpid()}\n".encode())


async def serve(worker: Worker, *, draining: float) -> None:
    say("listens")
    await worker.meet()
    say("serves")
    await worker.dismissed()
    await asyncio.sleep(draining)
    say("drained")


def work(worker: Worker) -> None:
    second = len(crew._children) == 1
    draining = 60.0 if behaviour == "stubborn" else 0.2 if second else 0.0
    if behaviour == "late" and second:
        time.sleep(0.3)
    if (behaviour == "wrong" and second) or (behaviour == "barren" and ended):
        raise ValueError(WRONG)
    if behaviour == "crashing" and second:
        os.abort()
    asyncio.run(serve(worker, draining=draining))


configure_logs()
crew = Supervisor(count=2, work=work, on_end=ended.append)
try:
    crew.run()
except ChildProcessError as error:
    sys.exit(f"failed: {error}")
