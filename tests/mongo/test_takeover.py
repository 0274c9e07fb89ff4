"""What a dead turn left is made whole in the database, before anything else happens in its session."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from strands.types.content import Message

from godoty_service.errors import SessionLost
from godoty_service.mongo import Collection, Database
from godoty_service.sessions import messages, repair, store
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import Sessions
from godoty_service.turns.opening import History, open_history


def user(text: str) -> Message:
    """What the user says."""
    return Message(role="user", content=[{"text": text}])


def assistant(text: str) -> Message:
    """What the assistant says."""
    return Message(role="assistant", content=[{"text": text}])


def uses(*ids: str) -> Message:
    """The assistant asks for tools."""
    content: Any = [{"toolUse": {"toolUseId": each, "name": "f", "input": {}}} for each in ids]
    return Message(role="assistant", content=content)


def results(*ids: str) -> Message:
    """What they gave."""
    content: Any = [
        {"toolResult": {"toolUseId": each, "status": "success", "content": [{"text": "1"}]}} for each in ids
    ]
    return Message(role="user", content=content)


class Scene:
    """A session of two messages, and a turn in it whose server has died."""

    def __init__(self, sessions: Sessions, dead: Sessions, kept: MessageStore) -> None:
        self.sessions = sessions
        self.dead = dead
        self.kept = kept

    async def claim(self, by: Sessions, turn_id: str, text: str) -> Claim:
        """Claim the session."""
        wanted: dict[str, Any] = {"model": None, "default_model": "a/b", "user": None}
        return await by.claim("tenant", "talk", turn_id=turn_id, text=text, **wanted)

    async def write(self, claim: Claim, number: int, turn_id: str, *said: Message) -> None:
        """Keep messages."""
        await self.kept.append("tenant", claim.session.uid, number=number, turn_id=turn_id, messages=said)

    async def die(self, *said: Message) -> Claim:
        """Claim the session for a turn that writes this and dies."""
        claim = await self.claim(self.dead, "dead", "the dead turn's words")
        if said:
            await self.write(claim, 3, "dead", *said)
        return claim

    async def take_over(self) -> tuple[Claim, History]:
        """Claim it for the next turn, and open its history."""
        claim = await self.claim(self.sessions, "next", "next")
        return claim, await open_history(self.kept, claim, size=40)


@pytest.fixture
async def scene(database: Database) -> Scene:
    """A session with one turn that ended well."""
    await database.collection("sessions").ensure(store.INDEXES)
    await database.collection("messages").ensure(messages.INDEXES)
    replicas = Replicas(database.collection("replicas"), replica_id="alive", lease=timedelta(seconds=30))
    await replicas.beat()
    never = Replicas(database.collection("replicas"), replica_id="dead", lease=timedelta(seconds=30))
    made = Scene(
        Sessions(database.collection("sessions"), replicas=replicas),
        Sessions(database.collection("sessions"), replicas=never),
        MessageStore(database.collection("messages")),
    )
    claim = await made.claim(made.sessions, "first", "one")
    await made.write(claim, 1, "first", user("one"), assistant("two"))
    ended: dict[str, Any] = {"message_count": 2, "state": {}, "context": None, "fold": None, "fold_revision": 0}
    assert await made.sessions.finish(claim.session, **ended)
    return made


INTERRUPTED = assistant(repair.INTERRUPTED)
LEFT = {
    "nothing": ([], [user("the dead turn's words"), INTERRUPTED]),
    "its words": ([user("the dead turn's words")], [INTERRUPTED]),
    "a tool's result": ([user("w"), uses("a"), results("a")], [INTERRUPTED]),
    "its answer": ([user("w"), assistant("done")], []),
}


@pytest.mark.parametrize(("said", "missing"), LEFT.values(), ids=LEFT)
async def test_what_a_dead_turn_left_is_closed(scene: Scene, said: list[Message], missing: list[Message]) -> None:
    """Its words are kept, and its history ends with the assistant's: in the database, at the next numbers."""
    await scene.die(*said)
    claim, history = await scene.take_over()

    whole = [user("one"), assistant("two"), *said, *missing]
    assert history.messages == whole
    assert history.last_number == len(whole)
    kept = await scene.kept.newest("tenant", claim.session.uid, after=0, limit=99)
    assert [(each.number, each.role, each.content) for each in kept] == [
        (number, message["role"], message["content"]) for number, message in enumerate(whole, 1)
    ]
    assert {each.turn_id for each in kept[2:]} == {"dead"}


async def test_tools_that_never_answered_are_answered(scene: Scene) -> None:
    """Each tool use without a result gets one that says so, before the assistant's last word."""
    await scene.die(user("w"), uses("a", "b"))
    _, history = await scene.take_over()

    told, end = history.messages[-2:]
    assert [block["toolResult"]["toolUseId"] for block in told["content"]] == ["a", "b"]
    assert end == INTERRUPTED


async def test_what_a_dead_server_writes_late_collides(scene: Scene) -> None:
    """One that was not dead finds its number taken, and nothing of what it says is kept."""
    dead = await scene.die()
    _, history = await scene.take_over()
    for said in ([user("the dead turn's words")], [assistant("late")], [uses("a"), results("a")]):
        with pytest.raises(SessionLost):
            await scene.write(dead, 3, "dead", *said)

    kept = await scene.kept.newest("tenant", dead.session.uid, after=0, limit=99)
    assert len(kept) == history.last_number == 4


async def test_a_turn_that_dies_while_it_closes_another_leaves_both_whole(scene: Scene) -> None:
    """Whoever comes third closes what the second did not come to close."""
    await scene.die(user("the dead turn's words"), uses("a"))
    await scene.claim(scene.dead, "second", "the second turn's words")
    _, history = await scene.take_over()

    texts = [block.get("text") for message in history.messages for block in message["content"]]
    assert "the second turn's words" in texts
    roles = [message["role"] for message in history.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert history.messages[4]["content"][0]["toolResult"]["toolUseId"] == "a"


@pytest.mark.parametrize("late", [(uses("a"),), (uses("a", "b"), results("a", "b")), (assistant("done"),)])
@pytest.mark.parametrize("after", range(1, 4))
async def test_message_that_lands_during_a_takeover_is_closed_as_well(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, late: tuple[Message, ...], after: int
) -> None:
    """A late message between any two reads of a takeover leaves no tool use without its result."""
    dead = await scene.die(user("w"))
    claim = await scene.claim(scene.sessions, "next", "next")
    reads = 0

    def interrupted(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read(*given: Any, **named: Any) -> Any:
            nonlocal reads
            found = await original(*given, **named)
            reads += 1
            if reads == after:
                with suppress(SessionLost):
                    await scene.write(dead, 4, "dead", *late)
            return found

        return read

    for name in ("find", "find_one"):
        monkeypatch.setattr(Collection, name, interrupted(getattr(Collection, name)))
    history = await open_history(scene.kept, claim, size=40)
    kept = await scene.kept.newest("tenant", claim.session.uid, after=0, limit=99)

    assert [(each.role, each.content) for each in kept] == [
        (each["role"], each["content"]) for each in history.messages
    ]
    assert history.last_number == kept[-1].number == len(kept)
    assert repair.closing(history.messages) == []
    asked = [block["toolUse"]["toolUseId"] for each in kept for block in each.content if "toolUse" in block]
    answered = [block["toolResult"]["toolUseId"] for each in kept for block in each.content if "toolResult" in block]
    assert asked == answered
