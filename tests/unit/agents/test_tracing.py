import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from strands import Agent, tool
from strands.models import Model
from strands.telemetry import tracer as strands_tracer

from godoty_service.telemetry.strands_tracing import install_tracer
from godoty_service.telemetry.traces import Tracing, open_tracing

METHOD = "/godoty.v1.AgentService/Converse"


class ScriptedModel(Model):
    """A model that calls a tool that fails, then one with broken input, then fails itself; every text has SECRET."""

    def __init__(self) -> None:
        self.calls = 0

    def update_config(self, **_: Any) -> None:
        """Accept no configuration."""

    def get_config(self) -> dict[str, Any]:
        """Return the model's name."""
        return {"model_id": "vendor/model"}

    async def structured_output(self, *_: Any, **__: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """Raise: it is never called."""
        raise NotImplementedError
        yield

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Yield the next scene."""
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError("provider quotes SECRET")
        broken = '{"text": "SECRET' + ('"}' if self.calls == 1 else "")
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {"toolUse": {"name": "fail", "toolUseId": f"t{self.calls}"}}}}
        yield {"contentBlockDelta": {"delta": {"toolUse": {"input": broken}}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "tool_use"}}


@tool
async def fail(text: str) -> str:
    """Fail.

    Args:
        text: What to fail with.
    """
    raise RuntimeError(f"tool quotes {text}")


@pytest.fixture(autouse=True)
def _own_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore Strands' tracer afterwards."""
    monkeypatch.setattr(strands_tracer, "_tracer_instance", None)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(params=["", "gen_ai_latest_experimental,gen_ai_span_attributes_only,gen_ai_tool_definitions"])
def _conventions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", request.param)


async def run_turn(tracing: Tracing, *, content: bool) -> None:
    install_tracer(provider=tracing.provider, content=content)
    with tracing.server_span(METHOD, []) as call, suppress(Exception):
        agent = Agent(model=ScriptedModel(), tools=[fail], system_prompt="SECRET", callback_handler=None)
        call.set_code(0)
        await agent.invoke_async("SECRET")
    tracing.close(10)


@pytest.mark.usefixtures("_conventions")
async def test_spans_have_no_content_of_turn(exporter: InMemorySpanExporter) -> None:
    """Prompts, answers, tool data and error texts are not exported, under any conventions that Strands is set to."""
    tracing = open_tracing(enabled=True, exporter=exporter)
    await run_turn(tracing, content=False)

    spans = exporter.get_finished_spans()
    assert {"chat", "execute_tool fail", "execute_event_loop_cycle"} <= {span.name for span in spans}
    assert "SECRET" not in "".join(span.to_json() for span in spans)


async def test_exporter_removes_content_of_strands_tracer(exporter: InMemorySpanExporter) -> None:
    """Content that Strands adds nevertheless is removed by the exporter."""
    tracing = open_tracing(enabled=True, exporter=exporter)
    await run_turn(tracing, content=True)

    assert "SECRET" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_content_is_traced_when_allowed(exporter: InMemorySpanExporter) -> None:
    """With `trace_content` the spans have the conversation."""
    tracing = open_tracing(enabled=True, trace_content=True, exporter=exporter)
    await run_turn(tracing, content=True)

    assert "SECRET" in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_strands_spans_are_children_of_call_span(exporter: InMemorySpanExporter) -> None:
    """The agent's span is a child of the call's, and all are in one trace."""
    tracing = open_tracing(enabled=True, exporter=exporter)
    await run_turn(tracing, content=False)

    spans = {span.name: span for span in exporter.get_finished_spans()}
    agent, server = spans["invoke_agent Strands Agents"], spans["godoty.v1.AgentService/Converse"]
    assert agent.parent is not None
    assert server.context is not None
    assert server.context.span_id == agent.parent.span_id
    assert {server.context.trace_id} == {span.context.trace_id for span in spans.values() if span.context}


async def test_window_is_not_serialized_without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tracing, Strands does not serialize the window to JSON before each model call."""
    serialised: list[Any] = []

    def serialize(value: Any) -> str:
        serialised.append(value)
        return ""

    monkeypatch.setattr(strands_tracer, "serialize", serialize)
    await run_turn(open_tracing(enabled=False), content=False)

    # The rest is small: the tools' names, and a tool's own input and output.
    assert [{"text": "SECRET"}] not in serialised
    assert not [value for value in serialised if "toolUse" in str(value)]


async def test_strands_log_names_the_tool_and_hides_its_input(caplog: pytest.LogCaptureFixture) -> None:
    """The record that the log filter cleans is still the one that Strands writes."""
    with caplog.at_level(logging.WARNING, logger="strands"):
        await run_turn(open_tracing(enabled=False), content=False)

    (record,) = [r for r in caplog.records if "raw_input=<%s>" in str(r.msg)]
    assert record.args is not None
    assert "SECRET" in str(record.args)
