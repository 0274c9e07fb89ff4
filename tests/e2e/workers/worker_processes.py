"""A supervisor with two workers that serve no clients: `python -m tests.e2e.workers.worker_processes BEHAVIOUR`.

It prints a line for each step of a worker: "listens PID", "serves PID", "drained PID". What takes a worker long
ends when the standard input is closed.
"""

import asyncio
import os
import signal
import sys

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


def wait_for_end_of_input() -> None:
    while os.read(0, 1):
        pass


async def serve(worker: Worker, *, slowly: bool) -> None:
    report("listens")
    await worker.wait_for_peers()
    report("serves")
    await worker.wait_for_stop()
    if slowly:
        await asyncio.to_thread(wait_for_end_of_input)
    report("drained")


def work(worker: Worker) -> None:
    second = len(supervised._children) == 1
    if behaviour == "late" and second:
        wait_for_end_of_input()
    if (behaviour == "wrong" and second) or (behaviour == "barren" and ended):
        raise ValueError(WRONG)
    if behaviour == "crashing" and second:
        os.abort()
    asyncio.run(serve(worker, slowly=second or behaviour == "stubborn"))


signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a caller under nohup ignores it, and its processes with it
configure_logs()
supervised = Supervisor(count=2, work=work, on_end=ended.append)
try:
    supervised.run()
except ChildProcessError as error:
    sys.exit(f"failed: {error}")
