import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from openrouter_sandbox.billing.malformed import ABSENT, MALFORMED
from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_record_is_served_after_its_delay(ask: Ask, http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """`/generation` returns 404 until the delay has passed, then cost and token counts."""
    sandbox.settings.generation_delay_ms = 3_000
    response = await ask("@sandbox plain tokens=10 prompt_tokens=1000", user="ada", session_id="s1")
    generation_id = response.headers["x-generation-id"]

    early = await http.get("/generation", params={"id": generation_id})
    await asyncio.sleep(3.1)
    late = await http.get("/generation", params={"id": generation_id})
    record = late.json()["data"]

    assert early.status_code == 404
    assert '"total_cost":0.000156' in late.text
    assert record["id"] == generation_id
    assert (record["native_tokens_prompt"], record["native_tokens_completion"]) == (1000, 10)
    assert (record["cancelled"], record["streamed"], record["provider_name"]) == (False, True, "OpenAI")
    assert (record["external_user"], record["session_id"]) == ("ada", "s1")


async def test_record_is_visible_to_its_own_key_only(ask: Ask, http: httpx.AsyncClient) -> None:
    """Another key gets 404 for the record, also after the delay."""
    response = await ask("@sandbox plain record_ms=0")
    params = {"id": response.headers["x-generation-id"]}

    own = await http.get("/generation", params=params)
    foreign = await http.get("/generation", params=params, headers={"authorization": "Bearer sk-or-other"})

    assert (own.status_code, foreign.status_code) == (200, 404)


async def test_negative_delay_serves_no_record(ask: Ask, http: httpx.AsyncClient) -> None:
    """With `record_ms=-1` a call never has a record; an unknown id has none either."""
    response = await ask("@sandbox no-cost record_ms=-1")

    for params in (response.headers["x-generation-id"], "gen-unknown"):
        assert (await http.get("/generation", params={"id": params})).status_code == 404


async def test_cancelled_generation_has_separate_delay(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """The record of a cancelled generation has its own delay and says `cancelled`."""
    sandbox.settings.generation_delay_ms = 0
    sandbox.settings.cancelled_generation_delay_ms = 3_000
    request = {
        "model": "openai/gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": "@sandbox slow first_delay_ms=0"}],
    }
    async with http.stream("POST", "/chat/completions", json=request) as response:
        params = {"id": response.headers["x-generation-id"]}
        running = await http.get("/generation", params=params)
    while sandbox.connections.open:
        await asyncio.sleep(0.01)
    early = await http.get("/generation", params=params)
    await asyncio.sleep(3.1)
    late = await http.get("/generation", params=params)

    assert (running.status_code, early.status_code, late.status_code) == (404, 404, 200)
    assert late.json()["data"]["cancelled"] is True


@pytest.mark.parametrize("name", ["settings", "scenarios"])
async def test_unknown_setting_or_scenario_gets_400(control: httpx.AsyncClient, name: str) -> None:
    """The error for an unknown setting or scenario lists the known names."""
    response = await control.post(f"/{name}", json={"nonsense": 1})

    assert response.status_code == 400
    assert "known" in response.json()["error"]


async def test_malformed_record_is_served_for_number_of_reads(ask: Ask, http: httpx.AsyncClient) -> None:
    """`record=NAME record_reads=2` serves the named body twice, and then the record itself."""
    response = await ask("@sandbox plain record_ms=0 record=list record_reads=2")
    params = {"id": response.headers["x-generation-id"]}

    bodies = [(await http.get("/generation", params=params)).text for _ in range(3)]

    assert bodies[:2] == ["[]", "[]"]
    assert "total_cost" in bodies[2]


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_record_is_served_on_every_read(ask: Ask, http: httpx.AsyncClient, name: str) -> None:
    """Each named body is served with status 200, on the first and on the second read."""
    response = await ask(f"@sandbox plain record_ms=0 record={name}")
    params = {"id": response.headers["x-generation-id"]}

    read = [await http.get("/generation", params=params) for _ in range(2)]

    assert [(each.status_code, each.content) for each in read] == [(200, MALFORMED[name][0])] * 2


@pytest.mark.parametrize("name", ABSENT)
async def test_record_endpoint_emulates_upstream_without_records(
    ask: Ask, http: httpx.AsyncClient, sandbox: Sandbox, name: str
) -> None:
    """With `record_endpoint` set, `/generation` responds like an upstream without that path."""
    sandbox.settings.record_endpoint = name
    response = await ask("@sandbox plain record_ms=0")

    found = await http.get("/generation", params={"id": response.headers["x-generation-id"]})

    assert (found.status_code, found.content) == ABSENT[name][:2]
