"""The examples in other languages skip events and enum values of a later version of the contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.clients.later_version import TOTALS, later_turn
from tests.clients.polyglot.programs import Language, run

if TYPE_CHECKING:
    from tests.clients.conftest import FakeAgentService


async def test_unknown_events_and_values_are_skipped(language: Language, fake_service: FakeAgentService) -> None:
    """The conversation ends well, with the known text and the totals."""
    fake_service.script, fake_service.totals = later_turn, TOTALS
    code, out = await run(
        language.folder,
        *language.command("converse"),
        GODOTY_LISTEN=fake_service.target,
        GODOTY_API_KEY=fake_service.api_key,
    )

    assert code == 0, out
    assert out.count("known words") == 2
    assert re.findall(r"^session_totals: cost_usd=(\S+) turns=(\d+)$", out, re.MULTILINE) == [("0.25", "2")] * 2
