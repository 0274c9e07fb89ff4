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
from godoty.v1 import session_pb2 as session_pb

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.states import CallState
from godoty_service.server import Running, running
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.e2e.turns.lossy import Loss, LossyDriver
from tests.faults.invoice_comparison import differences
from tests.support.backends import ME, Backends
from tests.support.caller import Caller, Turn
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import Service, eventually, soon

LEASE = 30.0  # no server loses it here
ATTEMPTS, FEWER = 10, 3  # runs in which the first write of a kind, or a later one, may be lost
ACCOUNT = "sandbox-lossy"
# Two model calls with a tool between them: every kind of write of a turn.
SCRIPT = "@sandbox tool-loop calls=2 tool=calculator"
BRIEF = "go on"  # one call: a takeover is over before it
WORDS = "words of the dead turn"
SECRET = "swordfish"
POLICY = Policy(concurrent_turns=1, budgets=(Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=True),))
# The errors that a caller may see of the database's failure; the errors that may persist for a moment afterwards.
FAILED = {"STORAGE_UNAVAILABLE", "SESSION_LOST"}
BUSY = {"SESSION_BUSY", "TOO_MANY_TURNS"}

Case = Callable[[str, Callable[[], None]], Awaitable[str]]  # takes the session, and the function that arms the driver


class LossHarness:
    """A server in the test's loop whose driver fails one write, and a tenant with a budget and a turn limit."""

    def __init__(self, lossy: LossyDriver, server: Running, caller: Caller) -> None:
        self._lossy = lossy
        self._server = server
        self.caller = caller

    @property
    def service(self) -> Service:
        """The tenant."""
        return self.caller.service

    async def each_write(self, case: Case, kinds: set[str], *, loss: Loss) -> dict[str, str]:
        """Run a case once with all its writes, then for each of them and for each given kind, followed by a turn.

        Returns:
            By session, the write that was lost and the caller's error.
        """
        await self._run(case, "whole", self._lossy.arm)
        writes = {(kind, at) for kind, count in self._lossy.seen.items() for at in range(1, count + 1)}
        found: dict[str, str] = {}
        for kind, at in sorted(writes | {(kind, 1) for kind in kinds}):
            found |= await self._lose(case, kind, at, loss=loss)
        return found

    async def _lose(self, case: Case, kind: str, at: int, *, loss: Loss) -> dict[str, str]:
        """Run a case until it has lost a write: how many of a kind a run has depends on the times of its batches."""
        for attempt in range(ATTEMPTS if at == 1 else FEWER):
            session_id = f"{kind}-{at}-{attempt}"
            outcome = await self._run(case, session_id, partial(self._lossy.arm, kind, at, loss=loss))
            lost = self._lossy.failed
            self._lossy.arm()
            await self.next_turn(session_id, outcome)
            if await self._lossy.wait_applied():
                await self.next_turn(session_id, outcome)
            if lost:
                return {session_id: outcome}
        return {}  # the first run had more writes of this kind

    async def _run(self, case: Case, session_id: str, arm: Callable[[], None]) -> str:
        outcome = await case(session_id, arm)
        await soon(lambda: self._server.turns.running == 0)
        return outcome

    async def next_turn(self, session_id: str, outcome: str) -> Turn:
        """Run a turn, which must succeed soon: the server lives, so a session that stays locked is never released."""
        turns: list[Turn] = []

        async def served() -> bool:
            turns.append(await self.caller.converse("and now?", session_id=session_id))
            failure = turns[-1].failure
            assert failure is None or failure.reason in BUSY, (session_id, outcome, failure)
            return failure is None

        try:
            await eventually(served)
        except AssertionError as error:
            raise AssertionError(f"{session_id}: {turns[-1].failure}") from error
        return turns[-1]

    async def assert_paid(self) -> None:
        """Check that the invoice and the settled entries agree line by line, nothing is open, and `verify` is clean.

        An entry that is inserted late, after its turn has abandoned it, was never sent: it is void, not unresolved.
        """
        entries = self.service.database["ledger"]
        await soon(lambda: entries.count_documents({"state": "pending"}) == 0)
        sandbox = self.service.backends.sandbox
        lines = self.service.backends.ask(lambda: sandbox.invoice.lines(key=ACCOUNT))
        settled = list(entries.find({"state": CallState.SETTLED.value}))
        assert list(entries.find({"state": "unresolved"})) == []
        assert sorted((each["generation_id"], each["cost"].to_decimal()) for each in settled) == sorted(
            (each.generation_id, each.cost) for each in lines
        )
        settings = self.service.backends.settings(self.service.database.name)
        async with open_components(settings, indexes=False) as components:
            await eventually(partial(_verified, components))  # a sweep repairs the effects of a lost write


async def _verified(components: Components) -> bool:
    """Verify ledger, sessions, budgets and roll-ups, as `godoty ledger verify` does."""
    return not [each async for each in differences(components)]


@pytest.fixture
async def harness(
    backends: Backends,
    connect: Callable[[Service], Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[LossHarness]:
    """Yield a server whose driver can lose a write."""
    backends.ask(backends.sandbox.invoice.clear)
    name = backends.empty_database()
    settings: dict[str, Any] = {
        "lease": LEASE,
        "heartbeat": 0.3,
        "turn_log_interval": 0.05,
        "OPENROUTER_API_KEY": ACCOUNT,
    }
    async with running(backends.settings(name, **settings)) as server:
        service = backends.service(server.address, name)
        async with open_components(backends.settings(name), indexes=False) as components:
            await components.administration.update_policy(ME, service.tenant_id, PolicyChange(policy=POLICY))
        yield LossHarness(LossyDriver(monkeypatch), server, connect(service))


TURN_WRITES = {
    *("turns.insert_one", "sessions.find_one_and_update", "turn_limits.update_one", "budgets.find_one_and_update"),
    *("ledger.insert_one", "ledger.update_one", "ledger.bulk_write", "messages.insert_one", "sessions.update_one"),
}
DELETION_WRITES = {
    *("sessions.find_one_and_update", "turn_logs.delete_many", "turns.delete_many"),
    *("messages.delete_many", "sessions.delete_one"),
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
async def test_lost_write_of_a_turn_does_not_lock_its_session(harness: LossHarness, *, loss: Loss) -> None:
    """After the loss of any write of a turn, the next turn works, and each call is counted once."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        arm()
        return outcome_of(await harness.caller.converse(SCRIPT, session_id=session_id))

    found = await harness.each_write(case, TURN_WRITES, loss=loss)

    assert {each.split("-")[0] for each in found} >= TURN_WRITES
    for session_id in found:
        await assert_good_history(harness, session_id)
    await harness.assert_paid()


@HOW
@pytest.mark.parametrize("has_messages", [False, True], ids=["silent", "in a tool"])
async def test_lost_write_of_a_takeover_does_not_lock_its_session(
    harness: LossHarness, *, loss: Loss, has_messages: bool
) -> None:
    """After the loss of any write of a turn that takes a session over: the next turn works, and no message is lost."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        await harness.caller.converse("hello", session_id=session_id)
        await soon(lambda: create_dead_turn(harness.service, session_id, has_messages=has_messages))
        arm()
        return outcome_of(await harness.caller.converse(BRIEF, session_id=session_id))

    found = await harness.each_write(case, TURN_WRITES, loss=loss)

    assert {each.split("-")[0] for each in found} >= TURN_WRITES
    for session_id in found:
        messages = await assert_good_history(harness, session_id)
        words = [block.text for each in messages for block in each.content if block.HasField("text")]
        assert words.count(WORDS) == 1, (session_id, words)
    await harness.assert_paid()


@HOW
async def test_lost_write_of_a_deletion_does_not_lock_its_session(harness: LossHarness, *, loss: Loss) -> None:
    """After the loss of any write of a deletion: it completes, and the id can be used for a new session."""

    async def case(session_id: str, arm: Callable[[], None]) -> str:
        await harness.caller.converse(SECRET, session_id=session_id)
        arm()
        with suppress(grpc.RpcError):
            await harness.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
        await soon(lambda: harness.service.session(session_id) is None)
        return "deleted"

    found = await harness.each_write(case, DELETION_WRITES, loss=loss)

    assert {each.split("-")[0] for each in found} >= DELETION_WRITES
    for session_id in found:
        await assert_good_history(harness, session_id)
    for name in ("sessions", "messages", "turns", "turn_logs"):
        assert not [each for each in harness.service.database[name].find() if SECRET.encode() in encode(each)], name
    await harness.assert_paid()


async def assert_good_history(harness: LossHarness, session_id: str) -> list[session_pb.Message]:
    """Check a session's messages, as they are stored and as the provider received them last."""
    messages = await harness.caller.messages(session_id)
    try:
        assert_valid_history(messages)
        assert_valid_request(harness.service.requests(session_id)[-1]["messages"])
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
