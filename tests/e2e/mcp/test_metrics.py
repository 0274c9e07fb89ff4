"""Tool calls on the metrics page."""

import json
import re

import httpx

from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start
from tests.e2e.mcp.conftest import SETTINGS, Become, Mcp

_CALLS = re.compile(r'^godoty_tool_calls_total\{kind="(\w+)",outcome="(\w+)"\} (\S+)$', re.MULTILINE)
_DURATIONS = re.compile(r'^godoty_tool_call_duration_seconds_count\{kind="(\w+)"\} (\S+)$', re.MULTILINE)


async def test_tool_calls_are_counted_by_kind_and_outcome(serve: Start, become: Become, mcp: Mcp) -> None:
    """Whosever tool it is, a sub-agent's calls included; no label has the name of a tenant, a server or a tool."""
    port = free_port()
    service = await serve(metrics_listen=f"127.0.0.1:{port}", fetch_hosts="example.com", **SETTINGS)
    tenant = become(service)
    await tenant.serve(mcp.url())
    helper = {"agent": {"agent": "helper", "description": "Helps."}}
    tools = [{"builtin": "calculator"}, {"builtin": "http_fetch"}, {"mcp": {"mcp_server": "crm"}}]
    await tenant.agent(name="helper", tools=[{"builtin": "calculator"}])
    await tenant.agent(tools=[*tools, helper])

    async def call(tool: str, given: str) -> None:
        await tenant.caller.converse(f"@sandbox tool-loop calls=2 tool={tool} input='{given}'", agent="support")

    await call("calculator", '{"expression": "6*7"}')
    await call("calculator", '{"expression": "6/0"}')
    await call("calculator", "no JSON")
    await call("http_fetch", '{"url": "http://127.0.0.1/"}')
    await call("crm_echo", '{"text": "a"}')
    await call("crm_fail", "{}")
    await tenant.serve(mcp.url(), timeout={"seconds": 1})
    await call("crm_hang", '{"hold": "never"}')
    task = "@sandbox tool-loop calls=2 tool=calculator input={}"
    await call("agent_helper", json.dumps({"task": task}))
    await call("agent_helper", '{"task": ""}')

    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert {(kind, outcome): float(count) for kind, outcome, count in _CALLS.findall(page)} == {
        ("built_in", "ok"): 1,
        ("built_in", "error"): 2,
        ("built_in", "refused"): 2,
        ("mcp", "ok"): 1,
        ("mcp", "error"): 1,
        ("mcp", "timeout"): 1,
        ("agent", "ok"): 1,
        ("agent", "refused"): 1,
    }
    counts = {kind: float(count) for kind, count in _DURATIONS.findall(page)}
    assert counts == {"built_in": 5, "mcp": 3, "agent": 2}
