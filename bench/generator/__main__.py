"""`python -m bench.generator`: reads plans and writes measurements, both as lines of JSON."""

import asyncio
import gc
import json
import sys
import time
from itertools import repeat

from bench.generator.exchange import Exchange
from bench.generator.http1 import Http1Connection
from bench.generator.http2 import Http2Connection
from bench.generator.measures import Measures
from bench.generator.plan import Load, Target, from_line
from openrouter_sandbox.parent_death import watch_parent

Connection = Http1Connection | Http2Connection
Answered = list[tuple[Exchange, str | None]]


async def _connect(target: Target, load: Load) -> list[Connection]:
    """Open the connections of the streams, one after the other."""
    shared = load.streams_per_connection if target.wire == "grpc" else 1
    kind = Http2Connection if target.wire == "grpc" else Http1Connection
    loop, opened = asyncio.get_running_loop(), []
    for _ in repeat(None, -(-load.streams // shared)):
        _, protocol = await loop.create_connection(lambda: kind(target), target.host, target.port)
        opened.append(protocol)
    return [opened[number // shared] for number in range(load.streams)]


async def _stream(number: int, connection: Connection, target: Target, load: Load, answered: Answered) -> None:
    """Send the requests one after the other."""
    await asyncio.sleep(load.ramp * number / load.streams)
    loop = asyncio.get_running_loop()
    for turn in range(load.turns):
        exchange = Exchange(loop.create_future())
        body = target.body.replace(b"PROMPT_ID", b"%d-%d-%d" % (time.time_ns(), number, turn))
        answered.append((exchange, "not answered in time"))
        place = len(answered) - 1
        answered[place] = (exchange, await connection.ask(body, exchange))


async def _run(target: Target, load: Load) -> Measures:
    """Run a plan, and compute the measurements afterwards."""
    answered: Answered = []
    connections = await _connect(target, load)
    begun, cpu = time.perf_counter(), time.process_time()
    tasks = [
        asyncio.create_task(_stream(number, connection, target, load, answered))
        for number, connection in enumerate(connections)
    ]
    await asyncio.wait(tasks, timeout=load.timeout)
    measures = Measures(elapsed=time.perf_counter() - begun, cpu=time.process_time() - cpu)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in set(connections):
        connection.close()
    for exchange, fault in answered:
        measures.add(target, load, exchange, fault)
    measures.failed += load.streams * load.turns - len(answered)  # those never asked
    return measures


def main() -> None:
    """Run plans until the end of the input."""
    watch_parent()
    gc.disable()  # a collection in the middle of a load would hold tokens
    for line in sys.stdin:
        measures = asyncio.run(_run(*from_line(line)))
        sys.stdout.write(json.dumps(measures.as_dict()) + "\n")
        sys.stdout.flush()
        del measures
        gc.collect()


if __name__ == "__main__":
    main()
