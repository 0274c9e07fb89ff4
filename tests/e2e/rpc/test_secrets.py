"""Secrets do not leak: tests plant them, cause all kinds of failures, and search all output."""

import asyncio
import json
import secrets
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bson import json_util
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start, StartProcess
from tests.support.caller import Caller, failure_of
from tests.support.service import Service, soon

Connect = Callable[[Service], Caller]


def _secret(name: str) -> str:
    return f"{name}{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Planted:
    """What must not leak, each a text that occurs nowhere else."""

    state: str = field(default_factory=lambda: _secret("statesecret"))
    prompt: str = field(default_factory=lambda: _secret("promptsecret"))
    tool: str = field(default_factory=lambda: _secret("toolsecret"))
    fault: str = field(default_factory=lambda: _secret("faultsecret"))
    header: str = field(default_factory=lambda: _secret("headersecret"))
    user: str = field(default_factory=lambda: _secret("usersecret"))
    provider_key: str = field(default_factory=lambda: f"sk-or-v1-{secrets.token_hex(32)}")

    def words(self, *callers: Caller) -> list[str]:
        """Return all of them, and the secret parts of the callers' keys."""
        keys = [each.service.api_key[len("gdt_0123456789abcdef_") :] for each in callers]
        return [self.state, self.prompt, self.tool, self.fault, self.header, self.user, self.provider_key, *keys]


async def live(caller: Caller, planted: Planted) -> list[Any]:
    """Cause successes and failures with the secrets; return what is not part of the conversation."""
    prompt_text = planted.prompt
    await caller.converse(f"the password is {prompt_text}", user=planted.user)
    _plant_state(caller.service, planted.state)
    failing = f'message="your prompt {prompt_text} was refused"'
    for text in (
        f"again {prompt_text}",
        f"@sandbox error-before status=400 {failing}",
        f"@sandbox error-before status=402 {failing}",
        f"@sandbox error-before status=500 times=1 {failing}",
        f"@sandbox error-200 body_status=400 {failing}",
        f"@sandbox error-mid n=2 code=400 {failing}",
        f"@sandbox reset n=900 text={prompt_text}",
        f'@sandbox tool-loop calls=2 tool=calculator input=\'{{"expression":"{planted.tool}"}}\'',
        f'@sandbox tool-loop calls=2 tool=calculator input=\'{{"wrong":"{planted.tool}"}}\'',
        f"@sandbox tool-loop calls=2 tool=calculator input='not JSON {planted.tool}'",
        f'@sandbox tool-loop calls=2 tool=current_time input=\'{{"timezone":"{planted.tool}"}}\'',
        "@sandbox replay file=sse_2025-09_toolcall.sse",
    ):
        await caller.converse(text, limits=turn_pb.TurnLimits(max_model_calls=2))
    call = caller.start(f"@sandbox slow text={prompt_text} first_delay_ms=50")
    await anext(aiter(call))
    call.cancel()
    await asyncio.sleep(0.1)
    results: list[Any] = [await caller.metrics()]
    results += [await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))]
    results[-1].session.ClearField("user")  # the tenant's own text, returned to it alone
    results += await _refusals(caller, planted)
    return results


def _plant_state(service: Service, secret: str) -> None:
    session = service.session("talk")
    assert session is not None
    state = json.dumps({"note": secret, **json.loads(session["state"])})
    service.database["sessions"].update_one({"_id": session["_id"]}, {"$set": {"state": state}})


async def _refusals(caller: Caller, planted: Planted) -> list[Any]:
    """Make calls that fail with a secret in them: a wrong key, an invalid field, an unreadable document."""
    request = pb.ListSessionsRequest()
    wrong = (("authorization", f"Bearer gdt_0123456789abcdef_{planted.header}"), ("x-trace", planted.header))
    results: list[Any] = [await failure_of(caller.stub.ListSessions(request, metadata=wrong))]
    results += [(await caller.converse(f"{planted.prompt}", session_id="bad id", user=planted.user * 20)).failure]
    results += [(await caller.converse("x", model="openai/none", user=planted.user)).failure]
    # A lease of this shape cannot be read, and the fault that it makes quotes it.
    broken = {"_id": planted.fault, "session_id": "broken", "lease": {planted.fault: 1}}
    sessions = caller.service.database["sessions"]
    sessions.insert_one({**(caller.service.session("talk") or {}), **broken})
    results += [await failure_of(caller.metrics("broken"))]
    assert results[-1].reason == "INTERNAL"
    results += [(await caller.converse(planted.prompt, session_id="broken")).failure]
    sessions.delete_one(broken)
    return results


async def seen_by(other_tenant: Caller) -> list[Any]:
    """Return all that another tenant can read."""
    calls = [
        other_tenant.metrics(),
        other_tenant.messages(),
        other_tenant.call("GetSession", pb.GetSessionRequest(session_id="talk")),
        other_tenant.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk")),
    ]
    turn = await other_tenant.converse("list everything", session_id="mine")
    return [
        *[await failure_of(call) for call in calls],
        turn,
        await other_tenant.call("ListSessions", pb.ListSessionsRequest()),
    ]


def assert_kept_where_they_belong(service: Service, planted: Planted) -> None:
    """Check that the database has hashes of keys, and the ledger no text of a conversation."""
    dump = {
        name: "".join(json_util.dumps(each) for each in service.database[name].find())
        for name in service.database.list_collection_names()
    }
    secret = service.api_key[len("gdt_0123456789abcdef_") :]
    assert found([planted.provider_key, secret, planted.header], "".join(dump.values())) == []
    assert found([planted.prompt, planted.tool, planted.state, planted.fault], dump["ledger"]) == []


def found(words: list[str], text: str) -> list[str]:
    """Return the secrets in a text."""
    return [word for word in words if word in text]


async def test_no_secret_leaks_from_its_conversation(
    serve_process: StartProcess, connect: Connect, tmp_path: Path
) -> None:
    """Prompts, tool inputs, agent state and keys are in no log line, metric, error or other RPC's response.

    The log is taken at DEBUG, over provider errors that echo the prompt, tools that fail, faults and a stop.
    """
    planted, metrics = Planted(), f"127.0.0.1:{free_port()}"
    process, service = await serve_process(
        OPENROUTER_API_KEY=planted.provider_key, GODOTY_METRICS_LISTEN=metrics, GODOTY_LOG_LEVEL="DEBUG"
    )
    caller, other_tenant = connect(service), connect(service.another_tenant())
    words = planted.words(caller, other_tenant)

    results = await live(caller, planted)
    assert found(words, repr(results)) == []
    assert found(words, repr(await seen_by(other_tenant))) == []
    page = await asyncio.to_thread(_read, f"http://{metrics}/metrics")
    assert "godoty_" in page
    assert found([*words, caller.service.tenant_id], page) == []
    own = repr(await caller.messages())
    assert found(words, own) == [planted.prompt, planted.tool]
    session = service.session("talk")
    assert session is not None
    assert planted.state in session["state"]
    assert found([planted.state, planted.user], repr(service.requests("talk"))) == []
    assert_kept_where_they_belong(service, planted)
    await process.stop()
    log = process.log.read_text()
    assert log.count('"event": "turn_ended"') > 10
    assert '"event": "call_fault"' in log
    assert found(words, log) == []


async def test_no_secret_is_in_a_span(serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans have names, times, models and tokens, and no text of a conversation, key or state."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
    planted, exporter = Planted(), InMemorySpanExporter()
    service = await serve(span_exporter=exporter, OPENROUTER_API_KEY=planted.provider_key)
    caller, other_tenant = connect(service), connect(service.another_tenant())

    await live(caller, planted)
    await seen_by(other_tenant)
    await soon(lambda: any("execute_tool" in span.name for span in exporter.get_finished_spans()))  # in batches
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "godoty.v1.AgentService/Converse" in spans
    assert '"chat"' in spans
    assert found(planted.words(caller, other_tenant), spans) == []


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=180) as response:  # noqa: S310 - a page of ours
        return str(response.read().decode())
