import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from godoty_service.sandbox.malformed import ABSENT, MALFORMED
from godoty_service.sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_a_record_is_not_there_at_first(ask: Ask, http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """`/generation` answers 404 for a while after the end, then tells cost and counts."""
    sandbox.settings.generation_delay_ms = 100
    response = await ask("@sandbox plain tokens=10 prompt_tokens=1000", user="ada", session_id="s1")
    generation_id = response.headers["x-generation-id"]

    early = await http.get("/generation", params={"id": generation_id})
    await asyncio.sleep(0.12)
    late = await http.get("/generation", params={"id": generation_id})
    record = late.json()["data"]

    assert early.status_code == 404
    assert '"total_cost":0.000156' in late.text
    assert record["id"] == generation_id
    assert (record["native_tokens_prompt"], record["native_tokens_completion"]) == (1000, 10)
    assert (record["cancelled"], record["streamed"], record["provider_name"]) == (False, True, "OpenAI")
    assert (record["external_user"], record["session_id"]) == ("ada", "s1")


async def test_a_record_belongs_to_the_key_that_made_the_call(ask: Ask, http: httpx.AsyncClient) -> None:
    """Another key's record is 404, however long one waits."""
    response = await ask("@sandbox plain record_ms=0")
    wanted = {"id": response.headers["x-generation-id"]}

    own = await http.get("/generation", params=wanted)
    foreign = await http.get("/generation", params=wanted, headers={"authorization": "Bearer sk-or-other"})

    assert (own.status_code, foreign.status_code) == (200, 404)


async def test_a_record_may_never_come(ask: Ask, http: httpx.AsyncClient) -> None:
    """`record_ms=-1` leaves a call without a record for ever; an unknown id has none either."""
    response = await ask("@sandbox no-cost record_ms=-1")

    for wanted in (response.headers["x-generation-id"], "gen-unknown"):
        assert (await http.get("/generation", params={"id": wanted})).status_code == 404


async def test_a_cancelled_generation_waits_for_its_own_time(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """Cancelled generations have a delay of their own, and say that they were cancelled."""
    sandbox.settings.generation_delay_ms = 0
    sandbox.settings.cancelled_generation_delay_ms = 150
    request = {
        "model": "openai/gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": "@sandbox slow first_delay_ms=0"}],
    }
    async with http.stream("POST", "/chat/completions", json=request) as response:
        wanted = {"id": response.headers["x-generation-id"]}
        running = await http.get("/generation", params=wanted)
    await asyncio.sleep(0.05)
    early = await http.get("/generation", params=wanted)
    await asyncio.sleep(0.15)
    late = await http.get("/generation", params=wanted)

    assert (running.status_code, early.status_code, late.status_code) == (404, 404, 200)
    assert late.json()["data"]["cancelled"] is True


@pytest.mark.parametrize("name", ["settings", "scenarios"])
async def test_wrong_control_input_is_refused(control: httpx.AsyncClient, name: str) -> None:
    """A setting or scenario that does not exist is refused with words."""
    response = await control.post(f"/{name}", json={"nonsense": 1})

    assert response.status_code == 400
    assert "known" in response.json()["error"]


async def test_malformed_record_is_served_for_the_stated_reads_and_then_the_record(
    ask: Ask, http: httpx.AsyncClient
) -> None:
    """`record=NAME record_reads=2` serves the named body twice, and then the record itself."""
    response = await ask("@sandbox plain record_ms=0 record=list record_reads=2")
    wanted = {"id": response.headers["x-generation-id"]}

    bodies = [(await http.get("/generation", params=wanted)).text for _ in range(3)]

    assert bodies[:2] == ["[]", "[]"]
    assert "total_cost" in bodies[2]


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_record_of_each_name_is_served_on_every_read(
    ask: Ask, http: httpx.AsyncClient, name: str
) -> None:
    """Each named body is served with status 200, on the first read as on the second."""
    response = await ask(f"@sandbox plain record_ms=0 record={name}")
    wanted = {"id": response.headers["x-generation-id"]}

    read = [await http.get("/generation", params=wanted) for _ in range(2)]

    assert [(each.status_code, each.content) for each in read] == [(200, MALFORMED[name][0])] * 2


@pytest.mark.parametrize("name", ABSENT)
async def test_upstream_without_records_answers_as_it_would(
    ask: Ask, http: httpx.AsyncClient, sandbox: Sandbox, name: str
) -> None:
    """With `record_endpoint` set, `/generation` answers as an upstream that has no such path."""
    sandbox.settings.record_endpoint = name
    response = await ask("@sandbox plain record_ms=0")

    found = await http.get("/generation", params={"id": response.headers["x-generation-id"]})

    assert (found.status_code, found.content) == ABSENT[name][:2]
