"""Spans of agents that call others: each agent's span is below that of the tool call, with what it has cost."""

from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from godoty_service.pricing.money import format_usd
from tests.conftest import Start
from tests.e2e.agents.trees import CHAIN, HOLD, SUMMARY, chain, path_at, reaching, summarizing
from tests.e2e.turns.streams import cancel
from tests.support.caller import Caller, read
from tests.support.service import soon


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Collects the spans of the test's server."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    return InMemorySpanExporter()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the finished spans of a name."""
    return [each for each in exporter.get_finished_spans() if each.name == name]


def values(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


async def test_span_of_each_agent_has_what_it_and_those_below_have_cost(
    serve: Start, connect: Any, define: Any, exporter: InMemorySpanExporter
) -> None:
    """Summaries included; each call of the tree has a span, and each span says whose turn it is."""
    caller: Caller = connect(await serve(span_exporter=exporter))
    await chain(define(caller), history=SUMMARY)
    text = summarizing()
    for name in reversed(CHAIN[1:]):
        text = summarizing(name, text)
    turn = await caller.converse(text, agent="coordinator")
    await soon(lambda: named(exporter, "invoke_agent coordinator"))

    entries = caller.service.entries("talk")
    calls = {values(each)["godoty.call.id"]: values(each) for each in named(exporter, "chat")}
    costs = {each.call_id: format_usd(each.cost) for each in entries}
    assert {call_id: each["godoty.cost_usd"] for call_id, each in calls.items()} == costs
    for depth, name in enumerate(CHAIN):
        (span,) = named(exporter, f"invoke_agent {name}")
        below = [each for each in entries if (each.agent_path or "").startswith(path_at(depth))]
        assert Decimal(values(span)["godoty.cost_usd"]) == sum(each.cost or 0 for each in below)
        assert values(span)["godoty.model_calls"] == len(below) == 4 * (len(CHAIN) - depth)
        tokens = [each.usage.output_tokens or 0 for each in below if each.usage is not None]
        assert values(span)["gen_ai.usage.output_tokens"] == sum(tokens)
        assert values(span)["godoty.turn.id"] == turn.responses[0].turn_id
        if depth:
            (tool,) = named(exporter, f"execute_tool agent_{name}")
            assert (span.parent and span.parent.span_id) == (tool.context and tool.context.span_id)
    assert len({each.context.trace_id for each in named(exporter, "chat") if each.context}) == 1


async def test_spans_of_cancelled_agents_are_exported(
    serve: Start, connect: Any, define: Any, exporter: InMemorySpanExporter
) -> None:
    """The call that was running is pending on its span, its cycle's, and on those of the agents above."""
    caller: Caller = connect(await serve(span_exporter=exporter))
    await chain(define(caller))
    stream = caller.start(reaching(2, HOLD), agent="coordinator")
    await soon(lambda: [each for each in caller.service.entries("talk") if each.generation_id][2:])
    await cancel(caller, (await anext(aiter(stream))).turn_id)
    await read(stream)
    await soon(lambda: named(exporter, "invoke_agent coordinator"))

    running = caller.service.entries("talk")[2]
    (call,) = [values(each) for each in named(exporter, "chat") if values(each)["godoty.call.id"] == running.call_id]
    assert (call["godoty.call.state"], "godoty.cost_usd" in call) == ("pending", False)
    cycles = [values(each).get("godoty.call.id") for each in named(exporter, "execute_event_loop_cycle")]
    assert sorted(map(str, cycles)) == sorted(each.call_id for each in caller.service.entries("talk"))
    for name, number in (("checker", 1), ("researcher", 2), ("coordinator", 3)):
        (span,) = named(exporter, f"invoke_agent {name}")
        assert (values(span)["godoty.model_calls"], values(span)["godoty.open_calls"]) == (number, 1)
