"""Messages: stored unchanged, with unique numbers."""

import asyncio
from typing import Any

import pytest
from strands.types.content import Message, Messages

from godoty_service.citations import Citation
from godoty_service.errors import SessionLost
from godoty_service.mongo.client import Database
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.strands_session_manager import MongoSessionManager


@pytest.fixture
async def store(database: Database) -> MessageStore:
    """Return an empty store."""
    await database.collection("messages").ensure(MessageStore.INDEXES)
    return MessageStore(database.collection("messages"))


def conversation(*texts: str) -> Messages:
    """Return alternating messages of the user and the assistant."""
    return [
        Message(role="assistant" if place % 2 else "user", content=[{"text": text}]) for place, text in enumerate(texts)
    ]


async def append(store: MessageStore, number: int, *texts: str, **others: Any) -> None:
    """Insert texts."""
    tenant_id, uid = others.get("tenant_id", "tenant"), others.get("uid", "ses")
    await store.append(tenant_id, uid, number=number, turn_id="turn", messages=conversation(*texts))


async def test_content_is_read_back_unchanged(store: MessageStore) -> None:
    """Keys with a meaning for the database, nesting and NUL are only data; a lone surrogate is replaced."""
    tool_input = {
        "$set": {"a.b": 1},
        "": [None, 1e300, 2**70, "\0", "👩‍🔬"],
        "_id": {"deep": [[[]]]},
        "\ud83d": "half",
    }
    message: Any = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "n", "input": tool_input}}]}
    await store.append("tenant", "ses", number=1, turn_id="turn", messages=[message])

    tool_input["?"] = tool_input.pop("\ud83d")  # no model accepts it
    assert await store.window("tenant", "ses", size=9) == [message]
    (kept,) = await store.newest("tenant", "ses", after=0, limit=9)
    assert (kept.number, kept.role, kept.turn_id, kept.content) == (1, "assistant", "turn", message["content"])


async def test_message_numbers_are_unique(store: MessageStore) -> None:
    """A late writer has lost the session: none of its messages is stored, not even those with free numbers."""
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


async def test_one_of_concurrent_writers_of_number_wins(store: MessageStore) -> None:
    """One message is stored under each number, in any interleaving."""
    results = await asyncio.gather(*(append(store, 1, f"text {n}") for n in range(6)), return_exceptions=True)

    assert sum(result is None for result in results) == 1
    assert len(await store.newest("tenant", "ses", after=0, limit=9)) == 1


async def test_window_is_read_in_batches_up_to_a_size(store: MessageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may have a window of many messages, which may be large; the newest one is there in any case."""
    await append(store, 1, *map(str, range(1, 151)))
    assert [each["content"][0]["text"] for each in await store.window("tenant", "ses", size=140)] == [
        *map(str, range(11, 151))
    ]
    assert len(await store.window("tenant", "ses", size=1000, after=20)) == 130

    monkeypatch.setattr("godoty_service.sessions.messages._WINDOW", 1_000)
    for number in range(3):
        await append(store, 151 + number, "x" * 400)
    assert len(await store.window("tenant", "ses", size=140)) == 2
    await append(store, 154, "x" * 5_000)
    assert len(await store.window("tenant", "ses", size=140)) == 1


async def test_window_has_newest_messages_in_order(store: MessageStore) -> None:
    """The model sees the newest messages, the oldest of them first; pages continue after a number."""
    await append(store, 1, *(f"{number}" for number in range(1, 11)))

    window = await store.window("tenant", "ses", size=3)
    assert [message["content"][0]["text"] for message in window] == ["8", "9", "10"]
    pages = [await _page(store, after=after, limit=4) for after in (0, 4, 8)]
    assert pages == [([1, 2, 3, 4], True), ([5, 6, 7, 8], True), ([9, 10], False)]


async def _page(store: MessageStore, *, after: int, limit: int, most_bytes: int = 10**6) -> tuple[list[int], bool]:
    found, more = await store.page("tenant", "ses", after=after, limit=limit, most_bytes=most_bytes)
    return [each.number for each in found], more


async def test_page_is_bounded_in_bytes(store: MessageStore) -> None:
    """A page has the messages that fit, or one that is larger alone; contents are unchanged, small and large."""
    texts = ["a" * 30_000, "ü" * 20_000, "b", "c" * 200_000, "d", "e" * 99_000]
    await append(store, 1, *texts)

    pages = [await _page(store, after=after, limit=9, most_bytes=100_000) for after in (0, 3, 4, 5)]
    assert pages == [([1, 2, 3], True), ([4], True), ([5, 6], False), ([6], False)]
    found, _ = await store.page("tenant", "ses", after=0, limit=9, most_bytes=10**6)
    loaded = await store.load("tenant", "ses", found)
    assert [each.content[0]["text"] for each in loaded] == texts
    assert [each.size for each in found] == [len(text.encode()) + 14 for text in texts]
    assert [each.inline for each in found] == [False, False, True, False, True, False]


async def test_messages_deleted_after_find_are_omitted(store: MessageStore) -> None:
    """Deleted messages are omitted."""
    await append(store, 1, "a", "b" * 50_000)
    found, _ = await store.page("tenant", "ses", after=0, limit=9, most_bytes=10**6)
    await store.delete("tenant", "ses")

    assert [each.number for each in await store.load("tenant", "ses", found)] == [1]


async def test_deletion_removes_messages_of_one_session(store: MessageStore) -> None:
    """Other sessions retain theirs."""
    await append(store, 1, "a")
    await append(store, 1, "b", uid="other")
    await append(store, 1, "c", tenant_id="else")
    await store.delete("tenant", "ses")

    assert await store.highest("tenant", "ses") == 0
    assert await store.highest("tenant", "other") == 1
    assert await store.highest("else", "ses") == 1


async def test_manager_continues_numbers_and_survives_cancel(store: MessageStore) -> None:
    """Messages that complete a turn are inserted even if the waiting task is cancelled."""
    session: Any = type("Session", (), {"uid": "ses", "tenant_id": "tenant", "state": {}, "state_number": None})()
    manager = MongoSessionManager(
        store, session, turn_id="turn", head=[], messages=conversation("a", "b"), last_number=2
    )
    appending = asyncio.create_task(manager.append(conversation("c", "d"), state={}))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    await manager.flush()

    assert manager.last_number == 4
    assert [each.number for each in await store.newest("tenant", "ses", after=0, limit=9)] == [3, 4]
    assert manager.history == conversation("a", "b", "c", "d")


async def test_citations_are_stored_beside_the_content(store: MessageStore) -> None:
    """By number; readers get them, also of a large message, and no model does; they count as bytes of a page."""
    cited = [Citation(url=f"https://a.example/{number}", title="ü", content="c" * 1000) for number in range(30)]
    messages = conversation("a", "b", "c", "d" * 50_000)
    await store.append("tenant", "ses", number=1, turn_id="turn", messages=messages, citations={2: cited[:1], 4: cited})

    found, _ = await store.page("tenant", "ses", after=0, limit=9, most_bytes=10**6)
    loaded = await store.load("tenant", "ses", found)
    assert [list(each.citations) for each in loaded] == [[], cited[:1], [], cited]
    assert [each.size > 1000 for each in found] == [False, True, False, True]
    assert found[3].size > 50_000 + 30_000
    assert [list(each.citations) for each in await store.newest("tenant", "ses", after=0, limit=9)][3] == cited
    assert await store.window("tenant", "ses", size=9) == messages
