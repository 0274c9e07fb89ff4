import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from openrouter_sandbox.models.catalogue import Catalogue
from openrouter_sandbox.models.pricing import Counts, charge
from openrouter_sandbox.replay import Recording
from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]
Chunks = Callable[[httpx.Response], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("model", "directive", "cost"),
    [
        # 1000 x 0.00000015 + 10 x 0.0000006
        ("openai/gpt-4o-mini", "plain", "0.000156"),
        # 600 x 0.00000015 + 400 x 0.000000075 + 10 x 0.0000006
        ("openai/gpt-4o-mini", "cached cached_tokens=400", "0.000126"),
        # 500 x 0.000001 + 200 x 0.0000001 + 300 x 0.00000125 + 10 x 0.000005
        ("anthropic/claude-haiku-4.5", "cached cached_tokens=200 write_tokens=300", "0.000945"),
        # Gemini bills cache writes in addition to the prompt:
        # 400 x 0.0000003 + 600 x 0.00000003 + 600 x 0.0000000833333333333333 + 10 x 0.0000025
        ("google/gemini-2.5-flash", "cached cached_tokens=600 write_tokens=600", "0.00021299999999999998"),
        # Azure's price is 1.1 of the list price: 1000 x 0.000000165 + 10 x 0.00000066
        ("openai/gpt-4o-mini", "plain provider=azure", "0.0001716"),
        # 1000 x 0.00000175 + 10 x 0.000014 + 2 searches x 0.01
        ("openai/gpt-5.2", "websearch searches=2", "0.02189"),
        # no native search: 1000 x 0.00000015 + 10 x 0.0000006 + 0.007
        ("openai/gpt-4o-mini:online", "plain", "0.007156"),
        # a fee without a counter: + 0.002
        ("openai/gpt-4o-mini", "plain fee=0.002", "0.002156"),
        # at 200,000 prompt tokens the base prices: 200000 x 0.000003 + 10 x 0.000015
        ("anthropic/claude-sonnet-4.5", "plain prompt_tokens=200000", "0.60015"),
        # above it the override: 200001 x 0.000006 + 10 x 0.0000225
        ("anthropic/claude-sonnet-4.5", "plain prompt_tokens=200001", "1.200231"),
        ("z-ai/glm-5.2:free", "plain", "0"),
    ],
)
async def test_cost_equals_manual_computation(
    ask: Ask, chunks: Chunks, sandbox: Sandbox, *, model: str, directive: str, cost: str
) -> None:
    """The response and the invoice have the same exact cost, the one computed by hand."""
    scenario = directive if "prompt_tokens" in directive else f"{directive} prompt_tokens=1000"
    usage = chunks(await ask(f"@sandbox {scenario} tokens=10", model=model))[-1]["usage"]

    assert Decimal(usage["cost"]) == Decimal(cost)
    assert [line.cost for line in sandbox.invoice.lines()] == [Decimal(cost)]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("json_2026-03_anthropic-cache_0.json", "anthropic/claude-sonnet-4.6"),
        ("json_2026-03_anthropic-cache_1.json", "anthropic/claude-sonnet-4.6"),
        ("sse_2026-08_promptcache_gpt-4o-mini_0.sse", "openai/gpt-4o-mini"),
        ("sse_2026-08_promptcache_gpt-4o-mini_1.sse", "openai/gpt-4o-mini"),
        ("sse_2026_thinking_claude-haiku.sse", "anthropic/claude-haiku-4.5"),
        ("sse_2026-08_reasoning_gpt-5.2.sse", "openai/gpt-5.2"),
    ],
)
def test_prices_equal_recorded_costs(recorded: Path, name: str, model: str) -> None:
    """The cost computed from the listing equals the recorded cost to the last decimal."""
    usage = [body["usage"] for body in Recording.read(recorded, name).bodies if "usage" in body][-1]
    details = usage["prompt_tokens_details"]
    counts = Counts(
        prompt=usage["prompt_tokens"],
        completion=usage["completion_tokens"],
        cached=details["cached_tokens"],
        written=details["cache_write_tokens"],
    )
    found = Catalogue().find(model)

    assert found is not None
    assert charge(found.pricing, counts, datetime(2026, 8, 22, tzinfo=UTC)).total == Decimal(usage["cost"])


@pytest.mark.parametrize(("hour", "price"), [(23, "0.5"), (3, "0.5"), (12, "1")])
def test_time_override_wraps_midnight(hour: int, price: str) -> None:
    """`utc_start` 2200 to `utc_end` 400 applies at 23:00 and at 03:00, not at noon."""
    override = {"utc_start": 2200, "utc_end": 400, "prompt": "0.5"}
    pricing = {"prompt": "1", "completion": "0", "overrides": [override]}

    total = charge(pricing, Counts(prompt=1), datetime(2026, 8, 22, hour, tzinfo=UTC)).total

    assert total == Decimal(price)


async def test_byok_cost_is_zero_and_upstream_cost_is_price(ask: Ask, chunks: Chunks, sandbox: Sandbox) -> None:
    """Under BYOK the cost is 0 and the upstream cost is the price."""
    usage = chunks(await ask("@sandbox byok tokens=10 prompt_tokens=1000"))[-1]["usage"]
    line = sandbox.invoice.lines()[0]

    assert usage["is_byok"] is True
    assert (usage["cost"], usage["cost_details"]["upstream_inference_cost"]) == (0, Decimal("0.000156"))
    assert (line.cost, line.upstream_cost) == (Decimal(0), Decimal("0.000156"))


async def test_no_cost_omits_cost_from_stream_only(ask: Ask, chunks: Chunks, sandbox: Sandbox) -> None:
    """`no-cost` sends usage without cost; the invoice has the cost."""
    usage = chunks(await ask("@sandbox no-cost tokens=10 prompt_tokens=1000"))[-1]["usage"]

    assert "cost" not in usage
    assert sandbox.invoice.total() == Decimal("0.000156")


async def test_usage_counts_tool_searches_and_not_plugin_searches(ask: Ask, chunks: Chunks) -> None:
    """A server tool's searches are counted in the usage; a plugin's searches cost their fee without a counter."""
    tool = chunks(await ask("@sandbox websearch searches=2"))[-1]["usage"]
    plugin = chunks(await ask("hi", plugins=[{"id": "web"}]))[-1]["usage"]

    assert tool["server_tool_use_details"] == {"web_search_requests": 2}
    assert "server_tool_use_details" not in plugin
    assert plugin["cost"] > Decimal("0.007")


async def test_prompt_tokens_are_quarter_of_bytes(ask: Ask, chunks: Chunks) -> None:
    """Prompt tokens are a quarter of the bytes of messages and tools, rounded up."""
    messages = [{"role": "user", "content": "é" * 100}]
    usage = chunks(await ask("", messages=messages))[-1]["usage"]
    size = len(json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode())

    assert usage["prompt_tokens"] == -(-size // 4)


async def test_invoice_filters_lines_and_sums_exactly(ask: Ask, control: httpx.AsyncClient) -> None:
    """`/_sandbox/invoice` filters by key, user and session; the total is a decimal string."""
    await ask("@sandbox plain tokens=10 prompt_tokens=1000", user="ada", session_id="s1")
    await ask("@sandbox plain tokens=10 prompt_tokens=1000", user="bob", session_id="s2")
    every = (await control.get("/invoice?key=sandbox-a")).json()
    one = (await control.get("/invoice?user=ada&session=s1")).json()

    assert every["total"] == "0.000312"
    assert [(line["user"], line["session_id"], line["cost"]) for line in one["lines"]] == [("ada", "s1", "0.000156")]
    assert (await control.get("/invoice?key=sandbox-b")).json() == {"lines": [], "total": "0"}


async def test_key_and_credits_return_usage_of_account(ask: Ask, http: httpx.AsyncClient) -> None:
    """`/key` and `/credits` have the account's total."""
    await ask("@sandbox plain tokens=10 prompt_tokens=1000")

    assert '"usage":0.000156' in (await http.get("/key")).text
    assert '"total_usage":0.000156' in (await http.get("/credits")).text
