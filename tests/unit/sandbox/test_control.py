from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]


async def test_queued_scenario_answers_next_request_of_its_model_once(ask: Ask, control: httpx.AsyncClient) -> None:
    """A queued scenario answers the next request of its model; a directive takes precedence."""
    spec = {"scenario": "error-before", "params": {"status": 503}, "model": "x-ai/grok-4.5"}
    await control.post("/scenarios", json=spec)

    other = await ask("hi")
    directed = await ask("@sandbox plain", model="x-ai/grok-4.5")
    first = await ask("hi", model="x-ai/grok-4.5")
    second = await ask("hi", model="x-ai/grok-4.5")

    statuses = [response.status_code for response in (other, directed, first, second)]
    assert statuses == [200, 200, 503, 200]


async def test_standing_scenario_answers_until_cleared(ask: Ask, control: httpx.AsyncClient) -> None:
    """A standing default answers every request without a directive."""
    spec = {"directive": "@sandbox error-before status=429", "standing": True}
    await control.post("/scenarios", json=spec)
    standing = [(await ask("hi")).status_code for _ in range(2)]
    await control.request("DELETE", "/scenarios")

    assert standing == [429, 429]
    assert (await ask("hi")).status_code == 200


async def test_request_log_masks_keys(ask: Ask, control: httpx.AsyncClient) -> None:
    """`/_sandbox/requests` has headers and bodies, without the key."""
    await ask("hello", user="ada")
    (logged,) = (await control.get("/requests")).json()["requests"]

    assert logged["headers"]["authorization"] == "Bearer ***"
    assert logged["body"]["user"] == "ada"
    assert (logged["account"], logged["scenario"]) == ("sandbox-a", "default")


async def test_settings_change_at_once_and_reset_restores_defaults(
    ask: Ask, control: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Settings take effect at once; a reset restores the defaults and an empty invoice."""
    await control.post("/settings", json={"usage_chunk": "empty", "model_name": "slug"})
    text = (await ask("hi", model="anthropic/claude-haiku-4.5")).text
    await control.post("/reset")

    assert '"choices":[],"usage"' in text
    assert "claude-4.5-haiku-20251001" in text
    assert sandbox.invoice.lines() == []
    assert (await control.get("/settings")).json()["usage_chunk"] == "repeat"


def _recordings(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name.startswith(("sse", "json", "err"))]


async def test_recording_is_replayed_byte_for_byte(ask: Ask, sandbox: Sandbox, recorded: Path) -> None:
    """`replay` sends a recorded file unchanged, with its status and content type, and bills its recorded cost."""
    for path in _recordings(recorded):
        response = await ask(f"@sandbox replay file={path.name}")
        status = int(path.name[4:7]) if path.name.startswith("err") else 200
        kind = "text/event-stream" if path.suffix == ".sse" else "application/json"
        assert response.content == path.read_bytes()
        assert (response.status_code, response.headers["content-type"].split(";")[0]) == (status, kind)

    assert len(sandbox.invoice.lines()) == 37  # all but the errors and one listing


async def test_replay_rejects_recording_outside_its_folder(ask: Ask) -> None:
    """A path in `file=` is reduced to its file name."""
    assert (await ask("@sandbox replay file=../SOURCES.txt")).status_code == 400
