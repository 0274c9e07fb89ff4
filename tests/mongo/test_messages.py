"""Messages: kept as they were, under numbers that nobody shares."""

import asyncio
from typing import Any

import pytest
from strands.types.content import Message, Messages

from godoty_service.errors import SessionLost
from godoty_service.mongo import Database
from godoty_service.sessions import messages
from godoty_service.sessions.manager import MongoSessionManager
from godoty_service.sessions.messages import MessageStore


@pytest.fixture
async def store(database: Database) -> MessageStore:
    """An empty store."""
    await database.collection("messages").ensure(messages.INDEXES)
    return MessageStore(database.collection("messages"))


def said(*texts: str) -> Messages:
    """Messages of the user and the assistant in turns."""
    return [
        Message(role="assistant" if place % 2 else "user", content=[{"text": text}]) for place, text in enumerate(texts)
    ]


async def append(store: MessageStore, number: int, *texts: str, **others: Any) -> None:
    """Keep texts."""
    tenant_id, uid = others.get("tenant_id", "tenant"), others.get("uid", "ses")
    await store.append(tenant_id, uid, number=number, turn_id="turn", messages=said(*texts))


async def test_content_comes_back_as_it_was(store: MessageStore) -> None:
    """Keys that mean something to the database, nesting and NUL are only data; half a pair of surrogates is none."""
    tool_input = {"$set": {"a.b": 1}, "": [None, 1e300, 2**70, "\0", "👩‍🔬"], "_id": {"deep": [[[]]]}, "\ud83d": "half"}
    message: Any = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "n", "input": tool_input}}]}
    await store.append("tenant", "ses", number=1, turn_id="turn", messages=[message])

    tool_input["?"] = tool_input.pop("\ud83d")  # no model takes it
    assert await store.window("tenant", "ses", size=9) == [message]
    (kept,) = await store.newest("tenant", "ses", after=0, limit=9)
    assert (kept.number, kept.role, kept.turn_id, kept.content) == (1, "assistant", "turn", message["content"])


async def test_a_number_is_taken_once(store: MessageStore) -> None:
    """Who comes late has lost the session: nothing of his is kept, not even what would still fit before it."""
    await append(store, 1, "a", "b")

    for number in (1, 2):
        with pytest.raises(SessionLost):
            await append(store, number, "late")
    with pytest.raises(SessionLost):
        await append(store, 2, "late", "later")
    assert await store.highest("tenant", "ses") == 2
    await append(store, 1, "elsewhere", uid="other")
    await append(store, 1, "else", tenant_id="else")
    assert await store.highest("tenant", "other") == 1


async def test_of_two_who_write_the_same_number_one_wins(store: MessageStore) -> None:
    """However they race, one message stands under each number."""
    results = await asyncio.gather(*(append(store, 1, f"text {n}") for n in range(6)), return_exceptions=True)

    assert sum(result is None for result in results) == 1
    assert len(await store.newest("tenant", "ses", after=0, limit=9)) == 1


async def test_the_window_is_the_newest_messages_in_order(store: MessageStore) -> None:
    """The model sees the last so many, the oldest of them first; pages go on from a number."""
    await append(store, 1, *(f"{number}" for number in range(1, 11)))

    window = await store.window("tenant", "ses", size=3)
    assert [message["content"][0]["text"] for message in window] == ["8", "9", "10"]
    pages = [await _page(store, after=after, limit=4) for after in (0, 4, 8)]
    assert pages == [([1, 2, 3, 4], True), ([5, 6, 7, 8], True), ([9, 10], False)]


async def _page(store: MessageStore, *, after: int, limit: int, most_bytes: int = 10**6) -> tuple[list[int], bool]:
    found, more = await store.page("tenant", "ses", after=after, limit=limit, most_bytes=most_bytes)
    return [each.number for each in found], more


async def test_page_ends_when_its_messages_have_so_many_bytes(store: MessageStore) -> None:
    """A page holds what fits, and one message that is larger alone; contents come as they were, small and large."""
    texts = ["a" * 30_000, "ü" * 20_000, "b", "c" * 200_000, "d", "e" * 99_000]
    await append(store, 1, *texts)

    pages = [await _page(store, after=after, limit=9, most_bytes=100_000) for after in (0, 3, 4, 5)]
    assert pages == [([1, 2, 3], True), ([4], True), ([5, 6], False), ([6], False)]
    found, _ = await store.page("tenant", "ses", after=0, limit=9, most_bytes=10**6)
    loaded = await store.load("tenant", "ses", found)
    assert [each.content[0]["text"] for each in loaded] == texts
    assert [each.size for each in found] == [len(text.encode()) + 14 for text in texts]
    assert [each.inline for each in found] == [False, False, True, False, True, False]


async def test_deletion_between_finding_and_loading_leaves_messages_out(store: MessageStore) -> None:
    """What is gone is not shown."""
    await append(store, 1, "a", "b" * 50_000)
    found, _ = await store.page("tenant", "ses", after=0, limit=9, most_bytes=10**6)
    await store.delete("tenant", "ses")

    assert [each.number for each in await store.load("tenant", "ses", found)] == [1]


async def test_a_deletion_takes_one_sessions_messages(store: MessageStore) -> None:
    """Others keep theirs."""
    await append(store, 1, "a")
    await append(store, 1, "b", uid="other")
    await append(store, 1, "c", tenant_id="else")
    await store.delete("tenant", "ses")

    assert await store.highest("tenant", "ses") == 0
    assert await store.highest("tenant", "other") == 1
    assert await store.highest("else", "ses") == 1


async def test_the_manager_numbers_on_and_survives_a_cancel(store: MessageStore) -> None:
    """Messages that close a turn land although whoever waits for them is cancelled."""
    session: Any = type("Claimed", (), {"uid": "ses", "tenant_id": "tenant"})()
    manager = MongoSessionManager(store, session, turn_id="turn", head=[], messages=said("a", "b"), last_number=2)
    closing = asyncio.create_task(manager.append(said("c", "d")))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await manager.flush()

    assert manager.last_number == 4
    assert [each.number for each in await store.newest("tenant", "ses", after=0, limit=9)] == [3, 4]
    assert manager.history == said("a", "b", "c", "d")
