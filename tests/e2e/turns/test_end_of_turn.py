"""Once a turn's last event is readable, nothing that the turn held delays the next one, or stays in memory."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from godoty_service.bootstrap.components import open_components
from godoty_service.sessions.store import SessionStore
from godoty_service.tenancy.policies import Policy, PolicyChange
from godoty_service.tenancy.turn_limits import TurnLimiter
from godoty_service.turns.event_log.log import EventLog
from tests.conftest import Start
from tests.support.backends import ME
from tests.support.caller import Caller
from tests.support.service import Service, soon

FAST = "@sandbox plain tokens=1 flat=1"
SLOWLY = 0.1  # seconds that a release takes


@pytest.mark.parametrize("text", [FAST, "@sandbox tool-loop calls=3 tool=calculator"])
async def test_ended_turn_is_freed_without_garbage_collection(
    serve: Start, connect: Callable[[Service], Caller], text: str
) -> None:
    """The parts of an ended turn refer to one another no longer: its log is freed though no collection runs."""
    caller = connect(await serve(turn_log_interval=0.01))
    gc.collect()
    gc.disable()

    def present() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) is EventLog}  # `isinstance` asks dead proxies

    others = present()  # of other servers in this process
    try:
        assert (await caller.converse(text)).finished
        await soon(lambda: caller.service.database["turn_logs"].count_documents({"ended": True}))
        await soon(lambda: not present() - others)
    finally:
        gc.enable()


async def test_concurrency_limit_is_released_before_end_is_readable(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns that begin when the previous one has ended, with or without error, never exceed the concurrency limit."""
    let_out = TurnLimiter._try_release

    async def let_out_slowly(limiter: TurnLimiter, *given: Any) -> None:
        await asyncio.sleep(SLOWLY)
        await let_out(limiter, *given)

    monkeypatch.setattr(TurnLimiter, "_try_release", let_out_slowly)
    caller = connect(await serve())
    await limit(caller.service, Policy(concurrent_turns=1))
    for number in range(3):
        assert (await caller.converse(FAST, session_id=f"well-{number}")).failure is None
        failed = await caller.converse("@sandbox error status=400", session_id=f"ill-{number}")
        assert failed.failure is not None
        assert failed.failure.reason != "TOO_MANY_TURNS"


async def test_session_is_released_before_end_is_readable(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns of one session that begin when the previous one has ended are never SESSION_BUSY."""
    finish = SessionStore.finish

    async def finish_slowly(sessions: SessionStore, *given: Any, **named: Any) -> bool:
        await asyncio.sleep(SLOWLY)
        return await finish(sessions, *given, **named)

    monkeypatch.setattr(SessionStore, "finish", finish_slowly)
    caller = connect(await serve())
    for number in range(8):
        assert (await caller.converse(f"{FAST} {number}")).failure is None


async def limit(service: Service, policy: Policy) -> None:
    """Set a tenant's policy."""
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        await components.administration.update_policy(ME, service.tenant_id, PolicyChange(policy=policy))
