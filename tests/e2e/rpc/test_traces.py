"""A trace has the usage and cost of its model calls, as the ledger has them."""

import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from godoty_service.ledger.entries import ModelCall
from godoty_service.pricing.money import format_usd
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start
from tests.e2e.answers.gateway import chunk, gateway, stream
from tests.support.caller import Caller
from tests.support.service import Service, soon
from tests.support.waiting import settled

Connect = Callable[[Service], Caller]
_MILLISECOND = timedelta(milliseconds=1)
CYCLE, CALL, AGENT = "execute_event_loop_cycle", "chat", "invoke_agent assistant"


class Collector:
    """A span collector, and a caller of the server that exports to it."""

    def __init__(self, caller: Caller, exporter: InMemorySpanExporter) -> None:
        self.caller = caller
        self._exporter = exporter

    async def spans(self, name: str, count: int) -> list[dict[str, Any]]:
        """Wait for `count` spans of a name; return their attributes in the order of their starts."""
        found = await soon(lambda: [each for each in self._named(name) if len(self._named(name)) >= count])
        assert len(found) == count
        return [dict(each.attributes or {}) for each in sorted(found, key=lambda each: each.start_time or 0)]

    def entries(self, session_id: str = "talk") -> list[ModelCall]:
        """Return the session's ledger entries."""
        return self.caller.service.entries(session_id)

    def _named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
async def collector(serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """Return a collector of the spans of a new server."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    exporter = InMemorySpanExporter()
    return Collector(connect(await serve(span_exporter=exporter)), exporter)


async def test_span_of_a_model_call_matches_its_entry(collector: Collector) -> None:
    """Tenant, session, turn, call, models, provider, tokens, cost and its source; so does its cycle."""
    await collector.caller.converse("@sandbox cached cached_tokens=50 prompt_tokens=200")

    (entry,) = collector.entries()
    assert entry.usage is not None
    assert entry.usage.cache_read_tokens == 50
    for name in (CALL, CYCLE):
        (span,) = await collector.spans(name, 1)
        expected = {
            "godoty.tenant.id": entry.tenant_id,
            "godoty.session.id": "talk",
            "gen_ai.conversation.id": "talk",
            "godoty.turn.id": entry.turn_id,
            "godoty.call.id": entry.call_id,
            "godoty.call.state": "settled",
            "godoty.model_calls": 1,
            "godoty.cost_usd": format_usd(entry.cost),
            "godoty.cost_source": "billed",
            "gen_ai.request.model": entry.requested_model,
            "gen_ai.response.model": entry.served_model,
            "gen_ai.response.id": entry.generation_id,
            "gen_ai.provider.name": entry.provider,
            "gen_ai.usage.input_tokens": 200,
            "gen_ai.usage.output_tokens": entry.usage.output_tokens,
            "gen_ai.usage.total_tokens": entry.usage.total_tokens,
            "gen_ai.usage.cache_read.input_tokens": 50,
            "gen_ai.usage.cache_read_input_tokens": 50,
        }
        assert expected == {key: span.get(key) for key in expected}


async def test_measured_times_of_a_model_call_are_on_its_span(collector: Collector) -> None:
    """The duration and the time to first token, in whole milliseconds, never 0."""
    begun = time.monotonic()
    await collector.caller.converse("@sandbox slow tokens=3 first_delay_ms=60 delay_ms=60")
    turn_duration = timedelta(seconds=time.monotonic() - begun)

    (span,) = await collector.spans(CALL, 1)
    (entry,) = collector.entries()
    duration, first = span["gen_ai.server.request.duration"], span["gen_ai.server.time_to_first_token"]
    assert isinstance(duration, int)
    assert isinstance(first, int)
    assert 120 <= duration <= turn_duration / _MILLISECOND
    assert 60 <= first <= turn_duration / _MILLISECOND  # the SDK counts from before the call's entry is inserted
    assert span["gen_ai.response.time_to_first_chunk"] == (entry.time_to_first_token or _MILLISECOND).total_seconds()


async def test_span_of_the_agent_has_the_sums_of_its_cycles(collector: Collector) -> None:
    """A turn of three calls: each cycle has its own figures, the agent's span their sums."""
    await collector.caller.converse('@sandbox tool-loop calls=3 tool=calculator input=\'{"expression":"1+1"}\'')

    entries = collector.entries()
    assert len(entries) == 3
    cycles, (agent,) = await collector.spans(CYCLE, 3), await collector.spans(AGENT, 1)
    assert [each["godoty.call.id"] for each in cycles] == [entry.call_id for entry in entries]
    assert [each["godoty.cost_usd"] for each in cycles] == [format_usd(entry.cost) for entry in entries]
    assert Decimal(agent["godoty.cost_usd"]) == sum(entry.cost or 0 for entry in entries)
    assert agent["godoty.model_calls"] == 3
    used = [entry.usage for entry in entries if entry.usage is not None]
    assert agent["gen_ai.usage.input_tokens"] == sum(each.input_tokens or 0 for each in used)


async def test_retries_are_counted_on_the_span_of_their_call(collector: Collector) -> None:
    """Strands makes one span of all attempts: it names each, and has the values of the last."""
    await collector.caller.converse("@sandbox error-before status=503 times=1")

    first, second = collector.entries()
    (span,) = await collector.spans(CALL, 1)
    assert list(span["godoty.call.ids"]) == [first.call_id, second.call_id]
    assert (span["godoty.call.id"], span["godoty.call.attempt"]) == (second.call_id, 2)
    assert (span["godoty.model_calls"], span["godoty.cost_usd"]) == (2, format_usd(second.cost))


async def test_unknown_figures_are_absent_not_zero(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without usage: no tokens and no cost on any span, and the call counts as pending."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    exporter = InMemorySpanExporter()
    async with gateway(stream(chunk({"content": "hi"}), chunk({}, "stop"))) as upstream:
        collector = Collector(connect(await serve(span_exporter=exporter, openrouter_base_url=upstream.url)), exporter)
        turn = await collector.caller.converse("hi")

        assert turn.text == "hi"
        (entry,) = collector.entries()
        assert entry.usage is None
        for name in (CALL, CYCLE, AGENT):
            (span,) = await collector.spans(name, 1)
            assert [key for key in span if key.startswith("gen_ai.usage.")] == [], name
            assert "godoty.cost_usd" not in span
            assert span["godoty.open_calls"] == 1


async def test_counters_that_the_provider_did_not_report_are_absent(collector: Collector) -> None:
    """Without cache counters there are none on the spans; 0 if the provider reported 0."""
    await collector.caller.converse("@sandbox plain")

    (entry,) = collector.entries()
    assert entry.usage is not None
    for name in (CALL, CYCLE, AGENT):
        (span,) = await collector.spans(name, 1)
        assert span.get("gen_ai.usage.cache_read.input_tokens") == entry.usage.cache_read_tokens, name
        assert span.get("gen_ai.usage.cache_creation.input_tokens") == entry.usage.cache_write_tokens, name


async def test_failed_call_has_its_error_and_its_cost_on_its_span(collector: Collector) -> None:
    """A refused call is free, and its span has that cost."""
    turn = await collector.caller.converse("@sandbox error-before status=400")

    assert turn.failure is not None
    (entry,) = collector.entries()
    (span,) = await collector.spans(CALL, 1)
    assert (span["godoty.call.id"], span["error.type"]) == (entry.call_id, "provider_rejected_request")
    assert span["godoty.cost_usd"] == "0"


async def test_spans_of_cancelled_calls_are_exported(collector: Collector) -> None:
    """Strands does not end them: they end with the turn, and name the call whose cost is pending."""
    call = collector.caller.start("@sandbox slow tokens=50 delay_ms=50 hold_after=10")
    async for response in call:
        if response.HasField("text_delta"):
            break
    call.cancel()

    (span,) = await collector.spans(CALL, 1)
    (cycle,) = await collector.spans(CYCLE, 1)
    await settled(collector.caller)
    (entry,) = collector.entries()
    assert span["godoty.call.id"] == cycle["godoty.call.id"] == entry.call_id
    assert (span["godoty.call.state"], span["godoty.open_calls"]) == ("pending", 1)
    assert "godoty.cost_usd" not in span


async def test_summary_has_a_span_of_its_own(serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for which Strands makes no span is in the trace with its cost, and in the sums of the agent's span."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    exporter = InMemorySpanExporter()
    service = await serve(span_exporter=exporter, history_messages=4, history_summary=True)
    collector = Collector(connect(service), exporter)
    for _ in range(3):
        await collector.caller.converse("hi")

    entries = collector.entries()
    spans = await collector.spans(CALL, len(entries))
    assert len(entries) > 3
    assert [each["godoty.call.id"] for each in spans] == [entry.call_id for entry in entries]
    agents = await collector.spans(AGENT, 3)
    assert sum(each["godoty.model_calls"] for each in agents) == len(entries)
    assert sum(Decimal(each["godoty.cost_usd"]) for each in agents) == sum(entry.cost or 0 for entry in entries)


async def test_durations_by_provider_are_on_the_metrics_page(serve: Start, connect: Connect) -> None:
    """Model calls and cycles of the agent's loop; a failed call counts as well."""
    port = free_port()
    service = await serve(metrics_listen=f"127.0.0.1:{port}")
    caller = connect(service)
    await caller.converse('@sandbox tool-loop calls=2 tool=calculator input=\'{"expression":"1+1"}\'')
    await caller.converse("@sandbox error-before status=400")

    provider = service.entries("talk")[0].provider
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert f'godoty_model_call_duration_seconds_count{{provider="{provider}"}} 2.0' in page
    assert 'godoty_model_call_duration_seconds_count{provider="unknown"} 1.0' in page
    assert f'godoty_agent_cycle_duration_seconds_count{{provider="{provider}"}} 2.0' in page
