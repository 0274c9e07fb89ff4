"""Secrets of MCP servers: they reach their server alone, also if it repeats them."""

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openrouter_sandbox.mcp.app import SECRET
from openrouter_sandbox.mcp.leaks import LEAKY, WAYS
from tests.conftest import Start
from tests.e2e.mcp.conftest import SETTINGS, Become, Mcp, Tenant, output
from tests.support.caller import failure_of
from tests.support.service import soon, stored_bytes

HEADERS = [{"name": "X-Api-Key", "secret": SECRET}]
HALF = "first-half-of-it"
REPEATED = (f"{HALF}-second-half-of-it", f'{HALF}"second\\half-of-it')  # JSON writes the other one otherwise


async def test_no_secret_of_a_server_is_anywhere(
    serve: Start, become: Become, mcp: Mcp, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in a log line, a span, an answer, the database, nor in what the model or another server gets."""
    spans = InMemorySpanExporter()
    tenant = become(
        await serve(span_exporter=spans, log_level="DEBUG", trace_content=True, log_content=True, **SETTINGS)
    )
    shown: list[Any] = []
    for name, path in (("crm", "/secret"), ("a", f"/redirect?to={mcp.url('/legacy')}"), ("b", "/nothing")):
        shown.append(await tenant.serve(mcp.url(path), name=name, headers=HEADERS, prefix="crm"))
        shown.append(await tenant.call("CheckMcpServer", mcp_server=name))
        await tenant.agent(name)
        for tool in ("echo", "nonsense", "die"):
            arguments = '{"text": "a"}' if tool == "echo" else '{"kind": "broken"}'
            shown += (await tenant.use(tool, arguments, session_id=f"{name}-{tool}")).responses
    service = tenant.caller.service
    shown.append(await failure_of(tenant.serve("https://evil.example/", headers=[{"name": "X-Api-Key"}])))
    shown += [service.requests(f"{name}-{tool}") for name in ("crm", "a", "b") for tool in ("echo", "nonsense", "die")]
    await soon(lambda: any("execute_tool" in span.name for span in spans.get_finished_spans()))  # in batches
    exported = [span.to_json() for span in spans.get_finished_spans()]

    for texts in (shown, exported, capfd.readouterr()):
        assert SECRET not in str(texts)
    assert SECRET.encode() not in stored_bytes(service)


@pytest.mark.parametrize("secret", REPEATED)
@pytest.mark.parametrize("way", WAYS)
async def test_secret_that_a_server_repeats_is_masked(tenant: Tenant, mcp: Mcp, way: str, secret: str) -> None:
    """In results, errors, progress and structured values, for the model and for readers; also where a text is cut."""
    headers = [{"name": "X-Api-Key", "secret": secret}]
    await tenant.serve(mcp.url(LEAKY), headers=headers, output_bytes=256 if way == "cut" else None)
    await tenant.agent("crm")
    turn = await tenant.use("leak", f'{{"way": "{way}"}}')

    assert any(each["headers"].get("x-api-key") == secret for each in mcp.ask(lambda sandbox: sandbox.state.requests))
    reported = [each.tool_progress.message for each in turn.responses if each.HasField("tool_progress")]
    assert "[secret" in "".join([output(turn)[1], *reported])
    service = tenant.caller.service
    stored = stored_bytes(service, tenant_id=service.tenant_id)
    for text in (str(turn.responses), str(service.requests("talk")), stored.decode("latin-1")):
        assert HALF not in text


async def test_secret_in_a_list_of_tools_is_masked(tenant: Tenant, mcp: Mcp) -> None:
    """In descriptions and schemas, for the model, and in the answer of CheckMcpServer."""
    await tenant.serve(mcp.url(LEAKY), headers=HEADERS)
    await tenant.agent("crm")
    check = await tenant.call("CheckMcpServer", mcp_server="crm")
    await tenant.use("echo", '{"text": "a"}')

    (listed,) = [each for each in check.tools if each.name == "leak"]
    (offered,) = [each["function"] for each in tenant.offered() if each["function"]["name"] == "crm_leak"]
    for text in (listed.description, listed.input_schema_json, offered["description"], str(offered["parameters"])):
        assert "x-api-key: [secret]" in text
    assert SECRET not in f"{check} {tenant.caller.service.requests('talk')}"
