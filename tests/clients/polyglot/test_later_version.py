"""The examples in other languages skip events and enum values of a later version of the contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.clients.later_version import TOTALS, later_turn
from tests.clients.polyglot.examples import run
from tests.clients.polyglot.test_examples import EXAMPLES

if TYPE_CHECKING:
    from tests.clients.conftest import StandIn


@pytest.mark.parametrize(("folder", "command"), EXAMPLES)
async def test_unknown_events_and_values_are_skipped(folder: str, command: tuple[str, ...], stand_in: StandIn) -> None:
    """The conversation ends well, with the known text and the totals."""
    stand_in.script, stand_in.totals = later_turn, TOTALS
    code, out = await run(folder, *command, GODOTY_LISTEN=stand_in.target, GODOTY_API_KEY=stand_in.api_key)

    assert code == 0, out
    assert out.count("known words") == 2
    assert re.findall(r"^session_totals: cost_usd=(\S+) turns=(\d+)$", out, re.MULTILINE) == [("0.25", "2")] * 2
