"""The loss of any single database write, or of its answer, locks no session and miscounts no call."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import grpc
import pytest
from bson import encode
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.bootstrap import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import CallState
from godoty_service.server import Running, running
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.e2e.turns.lossy import Loss, LossyDriver
from tests.e2e.turns.streams import until
from tests.faults.invoice_comparison import differences
from tests.support.caller import Caller, Turn
from tests.support.environment import ME, Surroundings
from tests.support.history import assert_whole, assert_whole_upstream
from tests.support.service import Service

LEASE = 6.0
ACCOUNT = "sandbox-lossy"
# Two model calls with a tool between them: every kind of write of a turn.
SCRIPT = "@sandbox tool-loop calls=2 tool=calculator"
WORDS = "words of the dead turn"
SECRET = "swordfish"
POLICY = Policy(concurrent_turns=1, budgets=(Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=True),))
# The errors that a caller may see of the database's failure; the errors that may persist for a moment afterwards.
FAILED = {"STORAGE_UNAVAILABLE", "SESSION_LOST"}
BUSY = {"SESSION_BUSY", "TOO_MANY_TURNS"}

Case = Callable[[str, Callable[[], None]], Awaitable[str]]  # takes the session, and the function that arms the driver


class World:
    """A server in the test's loop whose driver fails one write, and a tenant with a budget and a turn limit."""

    def __init__(self, lossy: LossyDriver, server: Running, caller: Caller) -> None:
        self._lossy = lossy
        self._server = server
        self.caller = caller

    @property
    def service(self) -> Service:
        """The tenant."""
        return self.caller.service

    async def each_write(self, case: Case, *, loss: Loss) -> dict[str, str]:
        """Run a case once with all its writes, then once for each of them, followed by a turn.

        Returns:
            By session, the write that was lost and the caller's error.
        """
        await self._run(case, "whole", self._lossy.arm)
        writes = [(kind, at) for kind, count in sorted(self._lossy.seen.items()) for at in range(1, count + 1)]
        found: dict[str, str] = {}
        for kind, at in writes:
            session_id = f"{kind}-{at}"
            outcome = await self._run(case, session_id, partial(self._lossy.arm, kind, at, loss=loss))
            if self._lossy.failed:  # else this run had fewer writes of log chunks
                found[session_id] = outcome
            self._lossy.arm()
            await self.next_turn(session_id, outcome)
            await self._lossy.landed()
            await self.next_turn(session_id, outcome)
        return found

    async def _run(self, case: Case, session_id: str, arm: Callable[[], None]) -> str:
        outcome = await case(session_id, arm)
        await until(lambda: self._server.turns.running == 0)
        return outcome

    async def next_turn(self, session_id: str, outcome: str) -> Turn:
        """Run a turn, which must succeed within the lease's time."""
        turns: list[Turn] = []

        async def served() -> bool:
            turns.append(await self.caller.converse("and now?", session_id=session_id, timeout=LEASE))
            failure = turns[-1].failure
            assert failure is None or failure.reason in BUSY, (session_id, outcome, failure)
            return failure is None

        try:
            await until(served, within=LEASE)
        except AssertionError as error:
            raise AssertionError(f"{session_id}: {turns[-1].failure}") from error
        return turns[-1]

    async def assert_paid(self) -> None:
        """Check that the invoice and the settled entries agree line by line, nothing is open, and `verify` is clean.

        An entry that is inserted late, after its turn has abandoned it, was never sent: it is void, not unresolved.
        """
        entries = self.service.database["ledger"]
        await until(lambda: entries.count_documents({"state": "pending"}) == 0, within=15)
        sandbox = self.service.surroundings.sandbox
        lines = self.service.surroundings.ask(lambda: sandbox.invoice.lines(key=ACCOUNT))
        settled = list(entries.find({"state": CallState.SETTLED.value}))
        assert list(entries.find({"state": "unresolved"})) == []
        assert sorted((each["generation_id"], each["cost"].to_decimal()) for each in settled) == sorted(
            (each.generation_id, each.cost) for each in lines
        )
        await until(self._verified, within=15)  # a sweep repairs the effects of a lost write

    async def _verified(self) -> bool:
        """Verify ledger, sessions, budgets and roll-ups, as `godoty ledger verify` does."""
        settings = self.service.surroundings.settings(self.service.database.name)
        async with open_components(settings, indexes=False) as components:
            self.differences = [each async for each in differences(components)]
        return not self.differences


@pytest.fixture
async def world(
    surroundings: Surroundings,
    new_database: str,
    connect: Callable[[Service], Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """Yield a server with a short lease."""
    surroundings.ask(surroundings.sandbox.invoice.clear)
    settings: dict[str, Any] = {
        "lease": LEASE,
        "heartbeat": 0.3,
        "turn_log_interval": 0.05,
        "OPENROUTER_API_KEY": ACCOUNT,
    }
    async with running(surroundings.settings(new_database, **settings)) as server:
        service = surroundings.service(server.address, new_database)
        async with open_components(surroundings.settings(new_database), indexes=False) as components:
            await components.administration.update_policy(ME, service.tenant_id, PolicyChange(policy=POLICY))
        yield World(LossyDriver(monkeypatch), server, connect(service))


TURN_WRITES = {
    *("turns.insert_one", "sessions.find_one_and_update", "turn_limits.update_one", "budgets.find_one_and_update"),
    *("ledger.insert_one", "ledger.update_one", "ledger.bulk_write", "messages.insert_one", "sessions.update_one"),
}
HOW = pytest.mark.parametrize("loss", ["answer", "write", "late"])


def outcome_of(turn: Turn) -> str:
    """Return how a turn ended for its caller."""
    if turn.failure is None:
        return "finished"
    assert turn.failure.reason in FAILED, turn.failure
    assert turn.failure.retry_after
    return turn.failure.reason


@HOW
async def test_lost_write_of_a_turn_does_not_lock_its_session(world: World, *, loss: Loss) -> None:
    """After the loss of any write of a turn, the next turn works within the lease, and each call is counted once."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        arm()
        return outcome_of(await world.caller.converse(SCRIPT, session_id=session_id))

    found = await world.each_write(case, loss=loss)

    assert {each.split("-")[0] for each in found} >= TURN_WRITES
    for session_id in found:
        await assert_good_history(world, session_id)
    await world.assert_paid()


@HOW
@pytest.mark.parametrize("has_messages", [False, True], ids=["silent", "in a tool"])
async def test_lost_write_of_a_takeover_does_not_lock_its_session(
    world: World, *, loss: Loss, has_messages: bool
) -> None:
    """After the loss of any write of a turn that takes a session over: the next turn works, and no message is lost."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        await world.caller.converse("hello", session_id=session_id)
        await until(lambda: create_dead_turn(world.service, session_id, has_messages=has_messages))
        arm()
        return outcome_of(await world.caller.converse(SCRIPT, session_id=session_id))

    found = await world.each_write(case, loss=loss)

    assert {each.split("-")[0] for each in found} >= TURN_WRITES
    for session_id in found:
        messages = await assert_good_history(world, session_id)
        words = [block.text for each in messages for block in each.content if block.HasField("text")]
        assert words.count(WORDS) == 1, (session_id, words)
    await world.assert_paid()


@HOW
async def test_lost_write_of_a_deletion_does_not_lock_its_session(world: World, *, loss: Loss) -> None:
    """After the loss of any write of a deletion: it completes, and the id can be used for a new session."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        await world.caller.converse(SECRET, session_id=session_id)
        arm()
        with suppress(grpc.RpcError):
            await world.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
        await until(lambda: world.service.session(session_id) is None, within=LEASE)
        return "deleted"

    found = await world.each_write(case, loss=loss)

    assert {each.split("-")[0] for each in found} >= {
        *("sessions.find_one_and_update", "turn_logs.delete_many", "turns.delete_many"),
        *("messages.delete_many", "sessions.delete_one"),
    }
    for session_id in found:
        await assert_good_history(world, session_id)
    for name in ("sessions", "messages", "turns", "turn_logs"):
        assert not [each for each in world.service.database[name].find() if SECRET.encode() in encode(each)], name
    await world.assert_paid()


async def assert_good_history(world: World, session_id: str) -> list[pb.Message]:
    """Check a session's messages, as they are stored and as the provider received them last."""
    messages = await world.caller.messages(session_id)
    try:
        assert_whole(messages)
        assert_whole_upstream(world.service.requests(session_id)[-1]["messages"])
    except AssertionError as error:
        raise AssertionError(session_id) from error
    return messages


def create_dead_turn(service: Service, session_id: str, *, has_messages: bool) -> bool:
    """Put a free session in the state of a server that dies in a turn; return False if it is not free yet.

    Args:
        service: The tenant.
        session_id: The session.
        has_messages: The turn has written the user's text and a tool use.
    """
    turn_id = f"turn_dead_{session_id}"
    lease = {"turn_id": turn_id, "replica_id": "replica_dead", "text": WORDS}
    session = service.database["sessions"].find_one_and_update(
        {"tenant_id": service.tenant_id, "session_id": session_id, "lease": None},
        {"$set": {"lease": lease}, "$inc": {"fence": 1}},
    )
    if session is None:
        return False
    known = {"_id": turn_id, "tenant_id": service.tenant_id, "session_id": session_id, "replica_id": "replica_dead"}
    expire_time = datetime.now(UTC) + timedelta(hours=1)
    service.database["turns"].insert_one(known | {"fingerprint": "", "cancel": False, "expire_time": expire_time})
    tool_use = {"toolUseId": "t1", "name": "calculator", "input": {"expression": "1"}}
    contents = (("user", {"text": WORDS}), ("assistant", {"toolUse": tool_use})) if has_messages else ()
    for number, (role, block) in enumerate(contents, session["message_count"] + 1):
        service.database["messages"].insert_one(
            {
                "tenant_id": service.tenant_id,
                "session_uid": session["_id"],
                "number": number,
                "turn_id": turn_id,
                "role": role,
                "content": json.dumps([block]),
                "create_time": datetime.now(UTC),
            }
        )
    return True
