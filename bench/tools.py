"""What tools cost a turn: `python -m bench.tools [--rounds N]`.

A turn that offers tools and calls none: two of the server's, then 20 and 100 of an MCP server beside them. Then turns
with ten tool calls one after the other, of the calculator and of an MCP server's tool; each call is of one model call.

MCP server, sandbox, MongoDB and load generator are processes of their own; CPU is that of the service's process. The
cases alternate, and each round begins with another one: a ratio or a difference is that within a round, of which the
median counts. Every turn is the first of its session.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx2 as httpx
from godoty.v1 import agent_definition_service_pb2 as definition_pb
from godoty.v1 import agent_definition_service_pb2_grpc as definition_stubs
from godoty.v1 import agent_pb2, mcp_server_pb2
from godoty.v1 import agent_service_pb2 as pb
from pydantic import SecretStr

from bench.contenders.contender import MODEL, READY_SECONDS, Contender, python
from bench.contenders.start import Wish, godoty
from bench.generator.plan import Load
from bench.machine import heading
from bench.process import Child, cpu_seconds
from bench.promises import Promise, table
from bench.reports import write
from bench.testbed import DATABASE, PROVIDER_KEY, Testbed, open_testbed
from godoty_service.bootstrap.components import open_components
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.auth import Scope

CALLS = 10  # tool calls of a turn
TWO, TWENTY, HUNDRED = "2 built in", "2 built in, 20 MCP", "2 built in, 100 MCP"
CALCULATOR, MCP = f"{CALLS} calculator calls", f"{CALLS} MCP calls"
_SERVER = "crm"
_AGENTS: Mapping[str, list[str]] = {  # by name: the MCP server's tools that it has beside its own two
    "two": [],
    "twenty": ["record_00*", "record_01*"],
    "hundred": ["record_*"],
    "caller": ["echo"],
}
_OFFERED = Load(streams=4, turns=50, tokens=8)
_CALLED = Load(streams=1, turns=20, tokens=8)
_TAIL = 0.5  # seconds after the last answer in which pending writes count as well
_SETTINGS = {
    "GODOTY_MCP_NETWORKS": "127.0.0.0/8",
    "GODOTY_RECONCILE_INTERVAL": "600",
    "GODOTY_ROLLUP_INTERVAL": "600",
}
_LIMITS = {TWENTY: 1.3, HUNDRED: 1.6}
_MCP_CALL = 4.0  # milliseconds


@dataclass(frozen=True)
class Case:
    """Turns of a kind.

    Attributes:
        agent: The agent.
        text: The text of each turn, which names what the sandbox answers.
        load: How many turns a block has.
    """

    agent: str
    text: str
    load: Load


@dataclass
class Cost:
    """What a turn costs, by block, in milliseconds.

    Attributes:
        cpu: CPU of the server.
        time: From the request to the end of the answer, at the median of the block.
    """

    cpu: list[float] = field(default_factory=list)
    time: list[float] = field(default_factory=list)


def _calls_of(tool: str, arguments: str) -> str:
    return f"@sandbox tool-loop calls={CALLS + 1} tool={tool} tokens={_CALLED.tokens} flat=1 input='{arguments}'"


_PLAIN = f"@sandbox plain tokens={_OFFERED.tokens} flat=1"
CASES: Mapping[str, Case] = {
    TWO: Case("two", _PLAIN, _OFFERED),
    TWENTY: Case("twenty", _PLAIN, _OFFERED),
    HUNDRED: Case("hundred", _PLAIN, _OFFERED),
    CALCULATOR: Case("caller", _calls_of("calculator", '{"expression": "6*7"}'), _CALLED),
    MCP: Case("caller", _calls_of(f"{_SERVER}_echo", '{"text": "42"}'), _CALLED),
}


async def run(rounds: int) -> dict[str, Cost]:
    """Measure all cases."""
    async with open_testbed() as testbed, _mcp_server(testbed) as url:
        contender = await godoty(testbed, Wish(settings=_SETTINGS))
        if contender.child is None:
            raise RuntimeError("the service has no process")
        try:
            await _apply(testbed, contender, url)
            return await _measure(testbed, contender, contender.child, rounds)
        finally:
            await contender.child.stop()


@asynccontextmanager
async def _mcp_server(testbed: Testbed) -> AsyncIterator[str]:
    """Run the MCP server with 100 tools more than its own; yield its URL."""
    child = testbed.child("mcp", python("openrouter_sandbox.mcp", "--listen", "127.0.0.1:0"))
    await child.start()
    try:
        url = (await child.line(READY_SECONDS)).split()[-1]
        async with httpx.AsyncClient() as client:
            control = f"http://{urlsplit(url).netloc}/_sandbox/records"
            (await client.post(control, params={"tools": "100"})).raise_for_status()
        yield url
    finally:
        await child.stop()


async def _apply(testbed: Testbed, contender: Contender, url: str) -> None:
    """Apply the MCP server and the agents, as a tenant does."""
    key = await _agents_key(testbed)
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(f"{contender.target.host}:{contender.target.port}") as channel:
        stub: Any = definition_stubs.AgentDefinitionServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        server = mcp_server_pb2.McpServer(name=_SERVER, url=url)
        await stub.ApplyMcpServer(mcp_server_pb2.ApplyMcpServerRequest(server=server), metadata=metadata)
        for name, allow in _AGENTS.items():
            tools = [agent_pb2.AgentTool(builtin=each) for each in ("calculator", "current_time")]
            if allow:
                tools.append(agent_pb2.AgentTool(mcp=agent_pb2.McpToolset(mcp_server=_SERVER, allow=allow)))
            definition = agent_pb2.AgentDefinition(name=name, tools=tools)
            await stub.ApplyAgent(definition_pb.ApplyAgentRequest(definition=definition), metadata=metadata)


async def _agents_key(testbed: Testbed) -> str:
    """Create a key of the scope agents for the tenant that the load generator's key is of."""
    settings = Settings(
        mongodb_uri=testbed.mongo.uri, mongodb_database=DATABASE, OPENROUTER_API_KEY=SecretStr(PROVIDER_KEY)
    )
    async with open_components(settings) as components:
        principal = await components.tenancy.api_keys.verify(testbed.api_key)
        _, key = await components.tenancy.api_keys.issue(principal.tenant_id, scopes=frozenset({Scope.AGENTS}))
    return key


async def _measure(testbed: Testbed, contender: Contender, child: Child, rounds: int) -> dict[str, Cost]:
    costs, names = {name: Cost() for name in CASES}, list(CASES)
    for name in names:  # caches are filled, and the tools are listed
        await _block(testbed, contender, child, replace(CASES[name], load=replace(CASES[name].load, turns=5)))
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            cpu, took = await _block(testbed, contender, child, CASES[name])
            costs[name].cpu.append(cpu)
            costs[name].time.append(took)
    return costs


async def _block(testbed: Testbed, contender: Contender, child: Child, case: Case) -> tuple[float, float]:
    """Run a block of turns; return the CPU and the time of a turn in milliseconds.

    Raises:
        RuntimeError: An answer was not the expected one.
    """
    body = pb.ConverseRequest(text=case.text, model=MODEL, agent=case.agent).SerializeToString()
    before = cpu_seconds(child.pid)
    seen = await testbed.run_plan(replace(contender.target, body=body), case.load)
    await asyncio.sleep(_TAIL)
    if seen["failed"]:
        raise RuntimeError(f"{case.agent}: {seen['faults']}")
    turns = case.load.streams * case.load.turns
    return (cpu_seconds(child.pid) - before) * 1000 / turns, statistics.median(seen["whole"]) * 1000


def promises(costs: Mapping[str, Cost]) -> Iterable[Promise]:
    """What tools may cost: CPU of the service, as in the other promises of cost."""
    for name, limit in _LIMITS.items():
        ratio = _median(large / small for large, small in zip(costs[name].cpu, costs[TWO].cpu, strict=True))
        yield Promise("tools", f"CPU of a turn that offers {name} tools, of that with {TWO}", limit, ratio)
    what = "CPU that an MCP call adds to a turn, beside a calculator call"
    yield Promise("tools", what, _MCP_CALL, added(costs, "cpu"), "ms")


def added(costs: Mapping[str, Cost], what: str) -> float:
    """Return the milliseconds that an MCP call takes more than a calculator call."""
    pairs = zip(getattr(costs[MCP], what), getattr(costs[CALCULATOR], what), strict=True)
    return _median((mcp - calculator) / CALLS for mcp, calculator in pairs)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def report(costs: Mapping[str, Cost], command: str, before: tuple[float, ...]) -> str:
    """Return the report as Markdown."""
    lines = ["| a turn with | CPU, ms | time, ms |", "|---|---:|---:|"]
    lines += [f"| {name} | {_median(each.cpu):.2f} | {_median(each.time):.2f} |" for name, each in costs.items()]
    note = (
        "An MCP call has its share of the turn's connection to the server. It also waits for the server's own work: at "
        f"the caller it takes {added(costs, 'time'):.2f} ms more than a calculator call. Four streams where no tool is "
        "called, one where tools are. Schemas and descriptions of the offered MCP tools have some 700 bytes each."
    )
    opening = ["## Tools", heading(command, before, versions_of={})]
    return "\n\n".join([*opening, table(list(promises(costs))), "\n".join(lines), note]) + "\n"


def main() -> int:
    """Measure and print; exit status 1: a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each case")
    parser.add_argument("--write", action="store_true", help="write the results into docs/benchmarks")
    options, before = parser.parse_args(), os.getloadavg()
    costs = asyncio.run(run(options.rounds))
    text = report(costs, " ".join(["python -m bench.tools", *sys.argv[1:]]), before)
    print(text)
    if options.write:
        write("tools", text, raw={name: asdict(cost) for name, cost in costs.items()})
    return 0 if all(promise.kept for promise in promises(costs)) else 1


if __name__ == "__main__":
    sys.exit(main())
