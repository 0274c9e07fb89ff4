from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from godoty_service.sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_queued_scenarios_answer_once_and_by_model(ask: Ask, control: httpx.AsyncClient) -> None:
    """A queued scenario answers the next request of its model; a directive goes before it."""
    wish = {"scenario": "error-before", "params": {"status": 503}, "model": "x-ai/grok-4.5"}
    await control.post("/scenarios", json=wish)

    other = await ask("hi")
    directed = await ask("@sandbox plain", model="x-ai/grok-4.5")
    first = await ask("hi", model="x-ai/grok-4.5")
    second = await ask("hi", model="x-ai/grok-4.5")

    statuses = [response.status_code for response in (other, directed, first, second)]
    assert statuses == [200, 200, 503, 200]


async def test_a_standing_scenario_answers_until_it_is_cleared(ask: Ask, control: httpx.AsyncClient) -> None:
    """A standing default answers every request without a directive."""
    wish = {"directive": "@sandbox error-before status=429", "standing": True}
    await control.post("/scenarios", json=wish)
    standing = [(await ask("hi")).status_code for _ in range(2)]
    await control.request("DELETE", "/scenarios")

    assert standing == [429, 429]
    assert (await ask("hi")).status_code == 200


async def test_requests_are_kept_with_their_key_masked(ask: Ask, control: httpx.AsyncClient) -> None:
    """`/_sandbox/requests` has headers and bodies; the key is not among them."""
    await ask("hello", user="ada")
    (kept,) = (await control.get("/requests")).json()["requests"]

    assert kept["headers"]["authorization"] == "Bearer ***"
    assert kept["body"]["user"] == "ada"
    assert (kept["account"], kept["scenario"]) == ("sandbox-a", "default")


async def test_settings_change_and_reset(ask: Ask, control: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """Settings take effect at once; a reset brings back defaults and an empty invoice."""
    await control.post("/settings", json={"usage_chunk": "empty", "model_name": "slug"})
    text = (await ask("hi", model="anthropic/claude-haiku-4.5")).text
    await control.post("/reset")

    assert '"choices":[],"usage"' in text
    assert "claude-4.5-haiku-20251001" in text
    assert sandbox.invoice.lines() == []
    assert (await control.get("/settings")).json()["usage_chunk"] == "repeat"


def _recordings(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name.startswith(("sse", "json", "err"))]


async def test_every_recording_is_replayed_byte_for_byte(ask: Ask, sandbox: Sandbox, recorded: Path) -> None:
    """`replay` sends a recorded file as it is, with its status and type, and bills its own cost."""
    for path in _recordings(recorded):
        response = await ask(f"@sandbox replay file={path.name}")
        status = int(path.name[4:7]) if path.name.startswith("err") else 200
        kind = "text/event-stream" if path.suffix == ".sse" else "application/json"
        assert response.content == path.read_bytes()
        assert (response.status_code, response.headers["content-type"].split(";")[0]) == (status, kind)

    assert len(sandbox.invoice.lines()) == 37  # all but the errors and one listing


async def test_a_recording_outside_the_folder_is_out_of_reach(ask: Ask) -> None:
    """A path in `file=` is read as a bare name."""
    assert (await ask("@sandbox replay file=../SOURCES.txt")).status_code == 400
