"""A dead turn's messages are completed in the database before the next turn of the session."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from strands.types.content import Message

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import SessionLost
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.sessions import history_repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import SessionStore
from godoty_service.turns.history import History, load_history
from tests.integration.mongo.session_stores import LEASE


def user(text: str) -> Message:
    """Return a user message."""
    return Message(role="user", content=[{"text": text}])


def assistant(text: str) -> Message:
    """Return an assistant message."""
    return Message(role="assistant", content=[{"text": text}])


def uses(*ids: str) -> Message:
    """Return an assistant message with tool uses."""
    content: Any = [{"toolUse": {"toolUseId": each, "name": "f", "input": {}}} for each in ids]
    return Message(role="assistant", content=content)


def results(*ids: str) -> Message:
    """Return a message with tool results."""
    content: Any = [
        {"toolResult": {"toolUseId": each, "status": "success", "content": [{"text": "1"}]}} for each in ids
    ]
    return Message(role="user", content=content)


class TakeoverHarness:
    """A session of two messages, and a turn in it whose server has died."""

    def __init__(self, sessions: SessionStore, dead: SessionStore, stored: MessageStore) -> None:
        self.sessions = sessions
        self.dead = dead
        self.messages = stored

    async def acquire(self, by: SessionStore, turn_id: str, text: str) -> Claim:
        """Acquire the session."""
        wanted: dict[str, Any] = {"model": None, "default_model": "a/b", "user": None}
        return await by.acquire("tenant", "talk", turn_id=turn_id, text=text, **wanted)

    async def write(self, claim: Claim, number: int, turn_id: str, *messages: Message) -> None:
        """Insert messages."""
        await self.messages.append("tenant", claim.session.uid, number=number, turn_id=turn_id, messages=messages)

    async def die(self, *messages: Message) -> Claim:
        """Acquire the session for a turn that writes these messages and dies."""
        claim = await self.acquire(self.dead, "dead", "the dead turn's words")
        if messages:
            await self.write(claim, 3, "dead", *messages)
        return claim

    async def take_over(self) -> tuple[Claim, History]:
        """Acquire it for the next turn, and load its history."""
        claim = await self.acquire(self.sessions, "next", "next")
        return claim, await load_history(self.messages, claim, size=40)


@pytest.fixture
async def harness(database: Database) -> TakeoverHarness:
    """Return a session with one finished turn."""
    await database.collection("sessions").ensure(SessionStore.INDEXES)
    await database.collection("messages").ensure(MessageStore.INDEXES)
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="alive", lease=LEASE)
    await replicas.heartbeat()
    never = ReplicaHeartbeats(database.collection("replicas"), replica_id="dead", lease=LEASE)
    made = TakeoverHarness(
        SessionStore(database.collection("sessions"), replicas=replicas),
        SessionStore(database.collection("sessions"), replicas=never),
        MessageStore(database.collection("messages")),
    )
    claim = await made.acquire(made.sessions, "first", "one")
    await made.write(claim, 1, "first", user("one"), assistant("two"))
    ended: dict[str, Any] = {"message_count": 2, "state": {}, "summary": None, "totals": None, "totals_revision": 0}
    assert await made.sessions.finish(claim.session, **ended)
    return made


INTERRUPTED = assistant(history_repair.INTERRUPTED)
LEFT = {
    "nothing": ([], [user("the dead turn's words"), INTERRUPTED]),
    "its words": ([user("the dead turn's words")], [INTERRUPTED]),
    "a tool's result": ([user("w"), uses("a"), results("a")], [INTERRUPTED]),
    "its answer": ([user("w"), assistant("done")], []),
}


@pytest.mark.parametrize(("messages", "missing"), LEFT.values(), ids=LEFT)
async def test_dead_turns_history_is_completed(
    harness: TakeoverHarness, messages: list[Message], missing: list[Message]
) -> None:
    """Its messages are retained, and its history ends with an assistant message, at the next numbers."""
    await harness.die(*messages)
    claim, history = await harness.take_over()

    whole = [user("one"), assistant("two"), *messages, *missing]
    assert history.messages == whole
    assert history.last_number == len(whole)
    stored = await harness.messages.newest("tenant", claim.session.uid, after=0, limit=99)
    assert [(each.number, each.role, each.content) for each in stored] == [
        (number, message["role"], message["content"]) for number, message in enumerate(whole, 1)
    ]
    assert {each.turn_id for each in stored[2:]} == {"dead"}


async def test_tool_uses_of_dead_turn_get_results(harness: TakeoverHarness) -> None:
    """Each tool use without a result gets one with an error, before the last assistant message."""
    await harness.die(user("w"), uses("a", "b"))
    _, history = await harness.take_over()

    tool_results, end = history.messages[-2:]
    assert [block["toolResult"]["toolUseId"] for block in tool_results["content"]] == ["a", "b"]
    assert end == INTERRUPTED


async def test_late_message_of_dead_server_collides(harness: TakeoverHarness) -> None:
    """A server that was not dead finds its number used, and none of its messages is stored."""
    dead = await harness.die()
    _, history = await harness.take_over()
    for late in ([user("the dead turn's words")], [assistant("late")], [uses("a"), results("a")]):
        with pytest.raises(SessionLost):
            await harness.write(dead, 3, "dead", *late)

    stored = await harness.messages.newest("tenant", dead.session.uid, after=0, limit=99)
    assert len(stored) == history.last_number == 4


async def test_turn_that_dies_during_recovery_is_recovered(harness: TakeoverHarness) -> None:
    """The third turn completes what the second did not."""
    await harness.die(user("the dead turn's words"), uses("a"))
    await harness.acquire(harness.dead, "second", "the second turn's words")
    _, history = await harness.take_over()

    texts = [block.get("text") for message in history.messages for block in message["content"]]
    assert "the second turn's words" in texts
    roles = [message["role"] for message in history.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert history.messages[4]["content"][0]["toolResult"]["toolUseId"] == "a"


@pytest.mark.parametrize("late", [(uses("a"),), (uses("a", "b"), results("a", "b")), (assistant("done"),)])
@pytest.mark.parametrize("after", range(1, 4))
async def test_late_message_during_takeover_is_completed(
    harness: TakeoverHarness, monkeypatch: pytest.MonkeyPatch, late: tuple[Message, ...], after: int
) -> None:
    """A late message between any two reads of a takeover leaves no tool use without its result."""
    dead = await harness.die(user("w"))
    claim = await harness.acquire(harness.sessions, "next", "next")
    reads = 0

    def interrupted(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read(*given: Any, **named: Any) -> Any:
            nonlocal reads
            found = await original(*given, **named)
            reads += 1
            if reads == after:
                with suppress(SessionLost):
                    await harness.write(dead, 4, "dead", *late)
            return found

        return read

    for name in ("find", "find_one"):
        monkeypatch.setattr(Collection, name, interrupted(getattr(Collection, name)))
    history = await load_history(harness.messages, claim, size=40)
    stored = await harness.messages.newest("tenant", claim.session.uid, after=0, limit=99)

    assert [(each.role, each.content) for each in stored] == [
        (each["role"], each["content"]) for each in history.messages
    ]
    assert history.last_number == stored[-1].number == len(stored)
    assert history_repair.missing_messages(history.messages) == []
    tool_use_ids = [block["toolUse"]["toolUseId"] for each in stored for block in each.content if "toolUse" in block]
    answered = [block["toolResult"]["toolUseId"] for each in stored for block in each.content if "toolResult" in block]
    assert tool_use_ids == answered
