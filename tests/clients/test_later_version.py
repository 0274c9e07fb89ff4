"""The Python clients skip events and enum values of a later version of the contract."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from godoty import GodotyClient

from tests.clients.later_version import LATER, TOTALS, later_turn

if TYPE_CHECKING:
    from tests.clients.conftest import FakeAgentService


async def test_the_library_yields_unknown_events_without_a_kind(fake_service: FakeAgentService) -> None:
    """Their oneof is unset, so that a `match` or a `WhichOneof` passes over them; unknown values are numbers."""
    fake_service.script = later_turn
    async with GodotyClient(fake_service.target, fake_service.api_key) as client:
        events = [event async for event in client.converse("hi", session_id="demo")]

    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count(None) == 6
    assert [event.sequence for event in events] == list(range(1, 13))
    assert "".join(event.text_delta.text for event in events) == "known words"
    assert events[-1].turn_finished.stop_reason == LATER
    assert events[-1].turn_finished.session_totals == TOTALS


async def test_the_chat_shows_what_it_knows(
    fake_service: FakeAgentService, chat_command: list[str], chat_environment: dict[str, str]
) -> None:
    """The answer, the tool and the cost; nothing is said of the rest."""
    fake_service.script = later_turn
    process = await asyncio.create_subprocess_exec(
        *chat_command,
        *("--once", "hi"),
        env=chat_environment | {"GODOTY_LISTEN": fake_service.target, "GODOTY_API_KEY": fake_service.api_key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout=30)

    assert (process.returncode, err) == (0, b"")
    assert "known words" in out.decode()
    assert "[calculator] {} \N{RIGHTWARDS ARROW} ok in" in out.decode()
    assert "session: $0.25, 2 turns" in out.decode()
    assert "stopped" not in out.decode()
