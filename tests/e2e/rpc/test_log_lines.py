"""The log lines of a turn, for people and for programs."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import StartProcess
from tests.support.caller import Caller
from tests.support.service import Service

FREE = "z-ai/glm-5.2:free"  # its tokens cost nothing


@pytest.mark.parametrize(
    ("directive", "cost"), [("plain fee=0.00000015", "0.00000015"), ("plain fee=0E-10", "0"), ("no-cost", "0")]
)
async def test_cost_is_logged_in_plain_notation(
    serve_process: StartProcess, connect: Callable[[Service], Caller], directive: str, cost: str
) -> None:
    """As in the API: no exponent and no trailing zeros, however small."""
    process, service = await serve_process()
    turn = await connect(service).converse(f"@sandbox {directive}", model=FREE)
    await process.stop()

    lines = process.log.read_text().splitlines()
    (ended,) = [json.loads(line) for line in lines if '"event": "turn_ended"' in line]
    assert ended["cost_usd"] == turn.finished.turn_totals.cost_usd == cost
