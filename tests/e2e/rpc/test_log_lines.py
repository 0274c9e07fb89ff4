"""The log lines of a turn, for people and for programs."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import StartProcess
from tests.support.caller import Caller, failure_of
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


async def test_error_has_the_request_id_of_the_log(
    serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """By RequestInfo an operator finds the lines of a call that failed; each call has an id of its own."""
    process, service = await serve_process()
    caller = connect(service)
    await caller.converse("hello")
    broken = {"_id": "ses_broken", "session_id": "broken", "lease": {"shape": 1}}  # such a lease cannot be read
    service.database["sessions"].insert_one({**(service.session("talk") or {}), **broken})
    failures = [await failure_of(caller.metrics("broken")) for _ in range(2)]
    await process.stop()

    lines = [json.loads(line) for line in process.log.read_text().splitlines() if '"call_fault"' in line]
    assert [each["request_id"] for each in lines] == [each.request_id for each in failures]
    assert [each.metadata["request_id"] for each in failures] == [each.request_id for each in failures]
    assert len({each.request_id for each in failures}) == 2
