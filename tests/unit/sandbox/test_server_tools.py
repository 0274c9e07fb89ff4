"""The emulator's server tools: the loop within a request, its bill by hand, and requests that it refuses."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]
Chunks = Callable[[httpx.Response], list[dict[str, Any]]]


def search(**parameters: Any) -> dict[str, Any]:
    """Return an offer of the web search."""
    return {"type": "openrouter:web_search", "parameters": {"engine": "exa", **parameters}}


async def test_prices_are_listed(http: httpx.AsyncClient) -> None:
    """By tool and engine; those that a model's provider bills have none."""
    tools = {each["id"]: each for each in (await http.get("/tools")).json()["data"]}
    engines = {each["id"]: each for each in tools["openrouter:web_search"]["engines"]}

    assert engines["exa"]["pricing"] == [{"unit": "request", "price": "0.007", "mode": None, "max_units_per_call": 1}]
    assert (engines["native"]["pricing"], engines["native"]["pricing_source"]) == ([], "provider")


async def test_loop_is_billed_answer_by_answer(ask: Ask, chunks: Chunks, sandbox: Sandbox) -> None:
    """Two searches of two results: three answers, each with the request, the calls and the results before it."""
    tools = [search(max_uses=2, max_results=2)]
    directive = "@sandbox plain tokens=10 result_tokens=100 uses"
    request = chunks(await ask(f"{directive}=0", tools=tools))[-1]["usage"]["prompt_tokens"]
    found = chunks(await ask(f"{directive}=3", tools=tools))
    usage = found[-1]["usage"]

    carried = [20 + 200, 2 * (20 + 200), 2 * (20 + 200) + 20 + 20]  # the third call is refused
    prompt, completion = 4 * request + sum(carried), 3 * 20 + 10
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
    assert usage["server_tool_use_details"] == {
        "web_search_requests": 2,
        "tool_calls_requested": 3,
        "tool_calls_executed": 2,
    }
    assert usage["cost_details"]["server_tool_cost"] == Decimal("0.014")
    cost = prompt * Decimal("0.00000015") + completion * Decimal("0.0000006") + Decimal("0.014")
    assert usage["cost"] == cost == sandbox.invoice.lines()[-1].cost
    pages = [each["choices"][0]["delta"]["annotations"] for each in found if "annotations" in str(each)]
    assert len(pages) == 4


async def test_limit_of_steps_ends_the_loop(ask: Ask, chunks: Chunks) -> None:
    """One step of calls, and one answer more."""
    stop = [{"type": "step_count_is", "step_count": 1}]
    for directive, calls in (("uses=5", 1), ("uses=5 together=1", 5)):
        answer = await ask(f"@sandbox plain {directive}", tools=[search()], stop_server_tools_when=stop)
        assert chunks(answer)[-1]["usage"]["server_tool_use_details"]["tool_calls_requested"] == calls


async def test_results_are_bounded_over_all_searches(ask: Ask, chunks: Chunks) -> None:
    """By `max_total_results`."""
    tools = [search(max_results=3, max_total_results=4)]
    found = chunks(await ask("@sandbox plain uses=3", tools=tools))

    assert sum("annotations" in str(each) for each in found) == 4


async def test_unstreamed_answer_has_annotations(ask: Ask) -> None:
    """In its message."""
    body = (await ask("@sandbox plain uses=1", tools=[search(max_results=1)], stream=False)).json()

    (page,) = body["choices"][0]["message"]["annotations"]
    assert page["url_citation"]["url"] == "https://example.com/pages/1"


async def test_metadata_comes_if_asked_for(ask: Ask, chunks: Chunks, http: httpx.AsyncClient) -> None:
    """With the fee of a plugin's search, which no counter shows."""
    assert "openrouter_metadata" not in chunks(await ask("@sandbox plain", plugins=[{"id": "web"}]))[-1]
    http.headers["x-openrouter-metadata"] = "enabled"
    last = chunks(await ask("@sandbox plain", plugins=[{"id": "web"}]))[-1]

    stages = last["openrouter_metadata"]["pipeline"]
    assert [each["cost_usd"] for each in stages if "cost_usd" in each] == [Decimal("0.007")]


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "openrouter:unknown"}]},
        {"tools": [search(engine="unknown")]},
        {"tools": [search(limit=3)]},
        {"tools": [search(max_uses="3")]},
        {"tools": [search(allowed_domains=["a.example"], excluded_domains=["b.example"])]},
        {"tools": [search()], "stop_server_tools_when": {}},
        {"tools": [search()], "stop_server_tools_when": []},
        {"tools": [search()], "stop_server_tools_when": [{"type": "step_count_is"}]},
        {"tools": [search()], "stop_server_tools_when": [{"type": "steps", "step_count": 1}]},
    ],
)
async def test_undocumented_request_is_refused(ask: Ask, body: dict[str, Any]) -> None:
    """With status 400."""
    assert (await ask("@sandbox plain", **body)).status_code == 400
