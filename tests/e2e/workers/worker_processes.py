"""A supervisor with two workers that serve no clients: `python -m tests.e2e.workers.worker_processes BEHAVIOUR`.

It prints a line for each step of a worker: "listens PID", "serves PID", "drained PID".
"""

import asyncio
import os
import signal
import sys
import time

from godoty_service.cluster import supervisor
from godoty_service.cluster.supervisor import Supervisor
from godoty_service.cluster.worker import Worker
from godoty_service.telemetry.logs import configure_logs

supervisor._FIRST_DELAY = 0.02
WRONG = "GODOTY_SOMETHING is wrong"

behaviour = sys.argv[1]
ended: list[int] = []  # workers that had ended when this one was started


def report(step: str) -> None:
    os.write(1, f"{step} {os.getpid()}\n".encode())


async def serve(worker: Worker, *, draining: float) -> None:
    report("listens")
    await worker.wait_for_peers()
    report("serves")
    await worker.wait_for_stop()
    await asyncio.sleep(draining)
    report("drained")


def work(worker: Worker) -> None:
    second = len(supervised._children) == 1
    draining = 60.0 if behaviour == "stubborn" else 3.0 if second else 0.0
    if behaviour == "late" and second:
        time.sleep(0.3)
    if (behaviour == "wrong" and second) or (behaviour == "barren" and ended):
        raise ValueError(WRONG)
    if behaviour == "crashing" and second:
        os.abort()
    asyncio.run(serve(worker, draining=draining))


signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a caller under nohup ignores it, and its processes with it
configure_logs()
supervised = Supervisor(count=2, work=work, on_end=ended.append)
try:
    supervised.run()
except ChildProcessError as error:
    sys.exit(f"failed: {error}")
