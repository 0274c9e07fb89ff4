"""Once a turn's last event is readable, nothing that the turn held is in the way of the next one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from godoty_service.rooms import open_rooms
from godoty_service.tenancy.gates import Gates
from godoty_service.tenancy.policy import Policy
from tests.conftest import Start
from tests.service.caller import Caller
from tests.service.service import Service

FAST = "@sandbox plain tokens=1 flat=1"
SLOWLY = 0.1  # seconds that the database takes to let a turn out


async def test_tenant_with_one_turn_at_a_time_takes_the_next_at_once(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns that begin when the one before has ended, well or not, are never too many at the same time."""
    let_out = Gates._let_out

    async def let_out_slowly(gates: Gates, *given: Any) -> None:
        await asyncio.sleep(SLOWLY)
        await let_out(gates, *given)

    monkeypatch.setattr(Gates, "_let_out", let_out_slowly)
    caller = connect(await serve())
    await limit(caller.service, Policy(concurrent_turns=1))
    for number in range(4):
        assert (await caller.converse(FAST, session_id=f"well-{number}")).failure is None
        failed = await caller.converse("@sandbox error status=400", session_id=f"ill-{number}")
        assert failed.failure is not None
        assert failed.failure.reason != "TOO_MANY_TURNS"


async def test_session_takes_the_next_turn_at_once(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """Turns of one session that begin when the one before has ended are never SESSION_BUSY."""
    caller = connect(await serve())
    for number in range(50):
        assert (await caller.converse(f"{FAST} {number}")).failure is None


async def limit(service: Service, policy: Policy) -> None:
    """Set a tenant's policy."""
    async with open_rooms(service.surroundings.settings(service.database.name), indexes=False) as rooms:
        await rooms.administration.set_policy("test", service.tenant_id, policy)
