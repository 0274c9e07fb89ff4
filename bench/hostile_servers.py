"""Time for which one answer of a hostile MCP server blocks the event loop: `python -m bench.hostile_servers`.

The sandbox's MCP server runs as a process; here its tools are called as turns call them, on asyncio's event loop, whose
callbacks are measured by the CPU time of their thread. It prints the longest callback of each kind of answer, of three
tries, the time of the call, and by how much the memory of this process has grown at its peak; the exit status is 1 if a
callback is above 50 ms.
"""

import asyncio
import ipaddress
import json
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.contenders.contender import clean_environment, python
from bench.hostile_callbacks import LIMIT, Worst, measured
from bench.process import Child
from godoty_service.agents.mcp.links import ServerLinks
from godoty_service.agents.mcp.server import Credentials, McpServer
from godoty_service.agents.mcp.tool_list import ListedTool
from godoty_service.agents.mcp.tools import MCP, McpTool, TurnConnections
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.pool import Network
from godoty_service.telemetry.logs import configure_logs
from openrouter_sandbox.mcp.faults import KINDS

_TRIES = 3
_MAX_BYTES = 1024 * 1024
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("echo", {"text": "a"}),
    ("echo", {"text": "x" * 900_000}),
    ("progress", {"steps": 2_000}),
    *(("nonsense", {"kind": kind}) for kind in KINDS),
    ("nonsense", {"kind": "items", "number": 49_000}),
    ("nonsense", {"kind": "items", "number": 2_400}),
    ("many", {"kind": "blocks", "number": 16_000}),
    ("many", {"kind": "blocks", "number": 800}),
    ("many", {"kind": "requests", "number": 10_000}),
    ("many", {"kind": "notifications", "number": 10_000}),
    ("flood", {"megabytes": 100}),
    ("flood", {"megabytes": 100, "kind": "application/json"}),
    ("crumble", {}),
    ("die", {}),
)


async def _call(turn: TurnConnections, server: McpServer, name: str, arguments: dict[str, Any]) -> str:
    """Call a tool; return the beginning of its result."""
    listed = ListedTool(name=name, offered_name=name, description="", schema={}, schema_bytes=0)
    use: Any = {"toolUseId": "t1", "name": name, "input": arguments}
    result: Any = None
    async for event in McpTool(server, listed).stream(use, {MCP: turn}):
        result = event
    return str(result.tool_result["content"][0]["text"])[:70].replace("\n", " ")


def _peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _measure(links: ServerLinks, url: str, worst: Worst) -> bool:
    good = True
    now = datetime.now(UTC)
    names = {"tenant_id": "bench", "name": "crm", "prefix": "crm"}
    server = McpServer(**names, url=url, timeout=timedelta(seconds=10), create_time=now, update_time=now)
    turn = TurnConnections(links, max_bytes=_MAX_BYTES)
    await _call(turn, server, "echo", {"text": "warm"})
    print(f"{'answer':50} {'worst ms':>9} {'call ms':>9} {'peak MB':>8}  result")
    for name, arguments in CALLS:
        slowest = took = 0.0
        before, text = _peak(), ""
        for _ in range(_TRIES):
            worst.take()
            begun = time.perf_counter()
            text = await _call(turn, server, name, arguments)
            took = time.perf_counter() - begun
            await asyncio.sleep(0)
            slowest = max(slowest, worst.take())
        good = good and slowest <= LIMIT
        shown = f"{name} {json.dumps(arguments)[:40]}"
        print(f"{shown:50} {slowest * 1000:9.1f} {took * 1000:9.1f} {_peak() - before:8.1f}  {text}", flush=True)
    turn.close()
    return good


async def _run() -> bool:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = python("openrouter_sandbox.mcp", "--listen", "127.0.0.1:0")
        sandbox = Child(command, log=directory / "sandbox.log", environment=clean_environment())
        await sandbox.start()
        stack.push_async_callback(sandbox.stop)
        url = (await sandbox.line(30)).split()[-1]
        rules = AddressRules([ipaddress.ip_network("127.0.0.0/8")])
        network = Network(rules=rules)
        links = ServerLinks(network, unseal=lambda _: Credentials())
        stack.push_async_callback(links.aclose)
        return await _measure(links, url, stack.enter_context(measured()))


def main() -> None:
    """Measure and print."""
    configure_logs(level="CRITICAL")
    sys.exit(0 if asyncio.run(_run()) else 1)


if __name__ == "__main__":
    main()
