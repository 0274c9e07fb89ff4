"""Web search and web fetch of the provider: what requests have, what readers get, and what it costs."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.cli.agents.files import read_definitions
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.agents.conftest import Definer, refused
from tests.e2e.replay.recording import Recording
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Turn, failure_of, read
from tests.support.output_schemas import SCHEMAS
from tests.support.service import format_amount

ROOT = Path(__file__).parents[3]
MODEL = "openai/gpt-4o-mini"
EXA = "sse_2026-08_websearch-exa_server-tool.sse"
SEARCH_FEE = Decimal("0.007")  # of Exa, in the sandbox's list
SEARCH = {"max_uses": 2, "max_results": 3, "max_characters": 400}


def cited(turn: Turn) -> list[session_pb.Citation]:
    """Return the citations in a turn's events."""
    return [page for each in turn.responses for page in each.annotations.citations]


def entry_of(caller: Caller, session_id: str = "talk") -> ModelCall:
    """Return the one entry of a session."""
    (entry,) = caller.service.entries(session_id)
    return entry


async def test_request_offers_the_tools_with_their_options(definer: Definer, caller: Caller) -> None:
    """In the documented form, after the agent's own tools, with a limit of the provider's loop."""
    await definer.apply(
        model=MODEL,
        tools=[{"builtin": "current_time"}],
        web_search={**SEARCH, "engine": "WEB_SEARCH_ENGINE_PERPLEXITY", "excluded_domains": ["spam.example"]},
        web_fetch={"max_content_tokens": 900, "excluded_domains": ["spam.example"]},
    )
    await caller.converse("@sandbox plain", agent="support")
    (request,) = caller.service.requests("talk")

    own, search, fetch = request["tools"]
    assert own["function"]["name"] == "current_time"
    assert search == {
        "type": "openrouter:web_search",
        "parameters": {
            "engine": "perplexity",
            "max_uses": 2,
            "max_results": 3,
            "max_total_results": 6,
            "max_characters": 400,
            "excluded_domains": ["spam.example"],
        },
    }
    assert fetch == {
        "type": "openrouter:web_fetch",
        "parameters": {
            "engine": "openrouter",
            "max_uses": 3,
            "max_content_tokens": 900,
            "blocked_domains": ["spam.example"],
        },
    }
    assert request["stop_server_tools_when"] == [{"type": "step_count_is", "step_count": 5}]


async def test_agent_without_server_tools_offers_none(definer: Definer, caller: Caller) -> None:
    """Nor is there a limit of a loop."""
    await definer.apply(tools=[{"builtin": "current_time"}])
    await caller.converse("hello", agent="support")
    (request,) = caller.service.requests("talk")

    assert [each["type"] for each in request["tools"]] == ["function"]
    assert "stop_server_tools_when" not in request


async def test_citations_come_as_events_and_in_messages(definer: Definer, caller: Caller) -> None:
    """Each once; ListMessages and ReadMessage have those of the answer; a resumed stream has them again."""
    await definer.apply(model=MODEL, web_search={**SEARCH, "allowed_domains": ["*.example.org"]})
    turn = await caller.converse("hello", agent="support")
    again = await read(caller.resume(turn.responses[0].turn_id))

    assert [each.url for each in cited(turn)] == [f"https://example.org/pages/{number}" for number in (1, 2, 3)]
    assert [each.title for each in cited(turn)] == ["Page 1", "Page 2", "Page 3"]
    assert not cited(turn)[0].HasField("end_index")
    assert turn.kinds.index("annotations") < turn.kinds.index("model_call_finished")
    assert again.responses == turn.responses
    question, answer = await caller.messages()
    assert (list(question.citations), list(answer.citations)) == ([], cited(turn))
    stream = caller.stub.ReadMessage(
        pb.ReadMessageRequest(session_id="talk", number=2), metadata=caller.service.metadata, timeout=90.0
    )
    first, *_ = [each async for each in stream]
    assert list(first.message.citations) == cited(turn)


async def test_history_is_sent_again_without_citations(definer: Definer, caller: Caller) -> None:
    """To any model, with and without the tools: what was cited is for readers alone."""
    await definer.apply(model=MODEL, web_search=SEARCH)
    assert cited(await caller.converse("hello", agent="support"))
    await definer.apply(model="anthropic/claude-haiku-4.5")
    second = await caller.converse("and now?", agent="support")
    first, again = caller.service.requests("talk")

    assert second.failure is None
    assert again["model"] == "anthropic/claude-haiku-4.5"
    assert again["messages"][0] == first["messages"][0]
    assert again["messages"][1].keys() == {"role", "content"}
    assert "annotations" not in str(again["messages"])


async def test_citations_of_an_interrupted_answer_are_stored_with_its_text(definer: Definer, caller: Caller) -> None:
    """The message has the text until then, and what the stream had cited."""
    await definer.apply(model=MODEL, web_search=SEARCH)
    hold = f"held-{caller.service.tenant_id}"
    stream = caller.start(f"@sandbox default tokens=3 hold_after=1 hold={hold}", agent="support")
    responses = await until_text(stream, "t0")
    await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=responses[0].turn_id))
    await read(stream)

    _, answer = await caller.messages()
    assert [each.title for each in answer.citations] == ["Page 1", "Page 2", "Page 3"]


async def test_citations_of_an_answer_that_is_not_valid_reach_no_reader(definer: Definer, caller: Caller) -> None:
    """By an output schema the second answer is the value; what the first one cited is as gone as its text."""
    await definer.apply(model=MODEL, web_search=SEARCH, output_schema=json.dumps(SCHEMAS["flat"]))
    turn = await caller.converse("@sandbox default wrong=1 uses=1", agent="support")
    first, second = caller.service.entries("talk")

    assert [each.title for each in cited(turn)] == ["Page 1", "Page 2", "Page 3"]
    assert turn.finished.output_json
    assert list((await caller.messages())[-1].citations) == cited(turn)
    assert [each.purpose for each in (first, second)] == [CallPurpose.AGENT, CallPurpose.STRUCTURED_OUTPUT]
    assert [each.tool_fees for each in (first, second)] == [SEARCH_FEE, SEARCH_FEE]
    assert (first.cost or 0) + (second.cost or 0) == caller.service.invoiced("talk")


@pytest.mark.parametrize(
    ("model", "end"), [(MODEL, 5), ("z-ai/glm-5.3", 0)], ids=["as it came", "as the input of a tool"]
)
async def test_citations_of_a_value_have_positions_in_its_text_or_none(
    definer: Definer, caller: Caller, model: str, end: int
) -> None:
    """The provider counted in the text that the model wrote, which readers get only if it was the value as it is."""
    await definer.apply(model=model, web_search=SEARCH, output_schema=json.dumps(SCHEMAS["flat"]))
    turn = await caller.converse("@sandbox default uses=1 cited=5", agent="support")

    assert turn.text == turn.finished.output_json
    assert [each.end_index for each in cited(turn)] == [end] * 3
    assert turn.kinds.index("annotations") < turn.kinds.index("model_call_finished")


async def test_fees_are_in_the_cost_and_reported_apart(definer: Definer, caller: Caller) -> None:
    """Two searches of Exa: in the cost, beside it, in the counters, and on the invoice, to the last digit."""
    await definer.apply(model=MODEL, web_search=SEARCH)
    turn = await caller.converse("@sandbox default uses=2", agent="support")
    (call,) = turn.calls
    entry = entry_of(caller)

    assert entry.tool_fees == 2 * SEARCH_FEE
    assert call.tool_fees_usd == "0.014"
    assert entry.cost is not None
    assert entry.cost > 2 * SEARCH_FEE
    assert entry.usage is not None
    assert (entry.usage.web_search_requests, entry.usage.server_tool_calls) == (2, 2)
    assert entry.cost == caller.service.invoiced("talk")
    metrics = await caller.metrics()
    assert metrics.totals.cost_usd == turn.finished.session_totals.cost_usd == format_amount(entry.cost)


async def test_fees_that_the_provider_does_not_report_are_unknown(definer: Definer, caller: Caller) -> None:
    """As before October 2026: they are in the cost, and the entry does not say how much they are."""
    await definer.apply(model=MODEL, web_search=SEARCH)
    turn = await caller.converse("@sandbox default tool_cost=0", agent="support")

    assert entry_of(caller).tool_fees is None
    assert not turn.calls[0].HasField("tool_fees_usd")
    assert entry_of(caller).cost == caller.service.invoiced("talk")


async def test_fee_of_a_plugin_is_reported_apart(caller: Caller) -> None:
    """The variant `:online` searches without a counter: the pipeline in the answer has the fee."""
    turn = await caller.converse("@sandbox plain", model=f"{MODEL}:online")

    assert turn.calls[0].tool_fees_usd == "0.007"
    assert entry_of(caller).cost == caller.service.invoiced("talk")


async def test_search_of_the_models_provider_is_charged(definer: Definer, caller: Caller) -> None:
    """Its fee is in the model's price list, so that the catalogue's price has it, too."""
    await definer.apply(model="openai/gpt-5.2", web_search={"engine": "WEB_SEARCH_ENGINE_NATIVE"})
    await caller.converse("@sandbox default", agent="support")
    entry = entry_of(caller)

    assert entry.usage is not None
    assert (entry.usage.web_search_requests, entry.usage.server_tool_calls) == (1, None)
    assert entry.cost == entry.catalogue_cost == caller.service.invoiced("talk")
    assert (entry.tool_fees, entry.upper_bound) == (None, None)


async def test_recorded_search_is_charged_exactly(definer: Definer, caller: Caller) -> None:
    """An answer of August 2026: its cost has a fee that nothing in it states, and its pages are cited."""
    recording = Recording(EXA)
    await definer.apply(model="deepseek/deepseek-chat", web_search={})
    turn = await caller.converse(f"@sandbox replay file={EXA}", agent="support")
    entry = entry_of(caller)

    assert recording.cost is not None
    assert (entry.cost, entry.tool_fees) == (recording.cost, None)
    assert entry.cost == Decimal("0.0076509169000000005")
    assert [(each.url, each.title) for each in cited(turn)] == recording.cited
    assert len(cited(turn)) == 5
    assert all(len(each.content) <= 1000 for each in cited(turn))
    assert caller.service.invoiced("talk") == recording.cost


async def test_example_researches_under_a_limit(definer: Definer, caller: Caller) -> None:
    """The published definition, as `godoty agent apply` sends it: cited pages, and fees within `max_cost_usd`."""
    (definition,) = read_definitions(ROOT / "examples" / "agents" / "researcher.yaml")
    await definer.call("ApplyAgent", definition=definition)
    turn = await caller.converse("What is new?", agent="researcher", model=MODEL, limits={"max_cost_usd": "1"})

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert len(cited(turn)) == 4
    assert entry_of(caller).tool_fees == SEARCH_FEE
    assert entry_of(caller).cost == caller.service.invoiced("talk")


@pytest.mark.parametrize("limits", [{"max_cost_usd": "5"}, {}])
async def test_tool_without_a_bound_is_refused_under_a_hard_limit(
    definer: Definer, caller: Caller, limits: dict[str, str]
) -> None:
    """Before anything is sent, with the tool in the error; without such a limit it is allowed."""
    await definer.apply(model=MODEL, web_search={"engine": "WEB_SEARCH_ENGINE_AUTO"}, web_fetch={})
    turn = await caller.converse("@sandbox plain", agent="support", limits=limits)

    if not limits:
        assert turn.failure is None
        return
    failure = refused(turn)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COST_UNBOUNDED")
    assert failure.metadata == {"model": MODEL, "server_tools": "openrouter:web_search with the engine auto"}
    assert "The cost of openrouter:web_search with the engine auto has no finite bound" in failure.text
    assert caller.service.session("talk") is None


async def test_bound_covers_the_greediest_run(definer: Definer, caller: Caller) -> None:
    """A model that calls all that it may, at once, with the largest results, costs at most the bound of its call."""
    await definer.apply(model=MODEL, web_search=SEARCH, web_fetch={"max_uses": 2, "max_content_tokens": 300})
    directive = "@sandbox plain uses=9 together=1 result_tokens=300 tokens=20"
    turn = await caller.converse(directive, agent="support", limits={"max_cost_usd": "1"})
    entry = entry_of(caller)

    assert turn.failure is None
    assert entry.cost is not None
    assert entry.upper_bound is not None
    assert 2 * SEARCH_FEE < entry.cost <= entry.upper_bound <= Decimal(1)
    assert entry.usage is not None
    assert (entry.usage.web_search_requests, entry.usage.server_tool_calls) == (2, 4)
    assert entry.cost == caller.service.invoiced("talk")


async def test_limit_that_does_not_cover_the_fees_refuses_the_call(definer: Definer, caller: Caller) -> None:
    """The least answer would fit, its searches do not."""
    await definer.apply(model=MODEL, web_search=SEARCH)
    failure = refused(await caller.converse("@sandbox plain", agent="support", limits={"max_cost_usd": "0.014"}))

    assert failure.reason == "MAX_COST_TOO_LOW"
    assert Decimal(failure.metadata["needed_usd"]) > 2 * SEARCH_FEE
    assert caller.service.session("talk") is None


async def test_hard_budget_is_never_exceeded_by_searches(
    caller: Caller, other_tenant: Caller, restricted: Any, define: Callable[[Caller], Definer]
) -> None:
    """Twenty turns at once on a budget for four: each searches as much as it may; together they do not overspend."""
    await define(other_tenant).apply(model=MODEL, web_search=SEARCH)
    directive = "@sandbox plain uses=9 together=1 result_tokens=400 tokens=20"
    limits = {"max_output_tokens": 400}
    first = await other_tenant.converse(directive, agent="support", limits={**limits, "max_cost_usd": "1"})
    assert first.failure is None
    bound = entry_of(other_tenant).upper_bound
    assert bound is not None
    budget = Budget(window=BudgetWindow.TOTAL, limit=4 * bound, hard=True)
    await restricted(budgets=(budget,))
    await define(caller).apply(model=MODEL, web_search=SEARCH)
    names = [f"s{number}" for number in range(20)]
    turns = await asyncio.gather(
        *(caller.converse(directive, session_id=name, agent="support", limits=limits) for name in names)
    )

    entries = [each for name in names for each in caller.service.entries(name)]
    charged = [each for each in entries if each.state is CallState.SETTLED]
    spent = sum((each.cost or Decimal(0) for each in charged), Decimal(0))
    invoiced = sum((caller.service.invoiced(each.session_id) for each in charged), Decimal(0))
    assert {turn.failure.reason for turn in turns if turn.failure is not None} <= {"BUDGET_SPENT", "BUDGET_RESERVED"}
    assert len(charged) == sum(turn.failure is None for turn in turns) >= 4
    assert spent == invoiced <= budget.limit
    assert all(each.cost is not None and each.cost <= (each.upper_bound or 0) for each in charged)
    assert sum(each.tool_fees or Decimal(0) for each in charged) == 2 * SEARCH_FEE * len(charged)


async def test_policy_restricts_server_tools(restricted: Any, define: Any) -> None:
    """By their names; an agent that was applied before is refused, not run without its tool."""
    caller = await restricted(allowed_tools=("openrouter:web_search",))
    definer: Definer = define(caller)
    failure = await failure_of(definer.apply(web_search={}, web_fetch={}))
    assert (failure.reason, failure.metadata) == (
        "TOOL_NOT_ALLOWED",
        {"agent": "support", "tool": "openrouter:web_fetch"},
    )
    await definer.apply(web_search={})
    assert (await caller.converse("hello", agent="support")).failure is None


async def test_sub_agent_searches_on_the_turns_purse(definer: Definer, caller: Caller) -> None:
    """Its entry has the fees; its citations are in no event, as its text is in none."""
    await definer.apply("finder", model=MODEL, web_search=SEARCH)
    await definer.apply(model=MODEL, tools=[{"agent": {"agent": "finder", "description": "Finds facts."}}])
    turn = await caller.converse(
        '@sandbox tool-loop calls=2 tool=agent_finder input=\'{"task":"find"}\'',
        agent="support",
        limits={"max_cost_usd": "1"},
    )
    entries = {each.agent: each for each in caller.service.entries("talk") if each.agent_path}

    assert turn.failure is None
    assert cited(turn) == []
    assert entries["finder"].tool_fees == SEARCH_FEE
    assert turn.finished.turn_totals.cost_usd == format_amount(caller.service.invoiced("talk"))


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"web_search": {"engine": 99}}, "web_search.engine"),
        ({"web_search": {"max_uses": 0}}, "web_search.max_uses"),
        ({"web_search": {"max_uses": 11}}, "web_search.max_uses"),
        ({"web_search": {"max_results": 21}}, "web_search.max_results"),
        ({"web_search": {"max_characters": 99}}, "web_search.max_characters"),
        ({"web_search": {"allowed_domains": ["https://a.example"]}}, "web_search.allowed_domains"),
        ({"web_search": {"allowed_domains": ["a.example"] * 21}}, "web_search.allowed_domains"),
        (
            {"web_search": {"allowed_domains": ["a.example"], "excluded_domains": ["b.example"]}},
            "web_search.excluded_domains",
        ),
        ({"web_fetch": {"engine": 99}}, "web_fetch.engine"),
        ({"web_fetch": {"max_content_tokens": 100_001}}, "web_fetch.max_content_tokens"),
        ({"web_fetch": {"excluded_domains": ["a"]}}, "web_fetch.excluded_domains"),
    ],
)
async def test_options_are_checked(definer: Definer, tool: dict[str, Any], field: str) -> None:
    """Each by its own rule; the error names the field."""
    failure = await failure_of(definer.apply(**tool))

    assert (failure.code, list(failure.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [f"definition.{field}"])
