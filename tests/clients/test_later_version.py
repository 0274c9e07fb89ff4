"""The Python clients skip events and enum values of a later version of the contract."""

from __future__ import annotations

import asyncio
import subprocess
from decimal import Decimal
from typing import TYPE_CHECKING

from godoty import StopReason, TextDelta, ToolCallFinished, ToolCallStarted, TurnFinished, TurnStarted

from tests.clients.later_version import later_turn
from tests.support.service import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.conftest import FakeAgentService
    from tests.clients.kinds import Driver


async def test_the_library_skips_unknown_events(
    fake_service: FakeAgentService, connect_to: Callable[..., Driver]
) -> None:
    """Known ones arrive; unknown values in them are unspecified."""
    fake_service.script = later_turn
    driver = connect_to(fake_service.target, fake_service.api_key)
    turn = driver.client.converse("hi", session="demo")
    events = await driver.all(turn)

    kinds = [TurnStarted, ToolCallStarted, ToolCallFinished, TextDelta, TextDelta, TurnFinished]
    assert [type(each) for each in events] == kinds
    assert [event.sequence for event in events] == [2, 4, 6, 8, 10, 12]
    assert turn.text == "known words"
    assert turn.stop_reason is StopReason.UNSPECIFIED
    assert (turn.session_totals.cost_usd, turn.session_totals.turns) == (Decimal("0.25"), 2)


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
    out, err = await asyncio.wait_for(process.communicate(), timeout=PATIENCE)

    assert (process.returncode, err) == (0, b"")
    assert "known words" in out.decode()
    assert "[calculator] {} \N{RIGHTWARDS ARROW} ok in" in out.decode()
    assert "session: $0.25, 2 turns" in out.decode()
    assert "stopped" not in out.decode()
