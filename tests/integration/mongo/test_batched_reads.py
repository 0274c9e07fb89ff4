"""Batched reads of sessions: concurrent reads share one query; known totals are used only while they are complete."""

import asyncio
from typing import Any

import pytest

from godoty_service.errors import SessionNotFound, StorageUnavailable
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import SessionStore
from tests.integration.mongo.session_stores import acquire, finish, session_store

AT_ONCE = 20


@pytest.fixture
async def sessions(database: Database) -> SessionStore:
    """Return a store with two sessions of a tenant and one of another; all have totals, none a lease."""
    found = await session_store(database, "alive")
    for tenant_id, session_id in (("tenant", "talk"), ("tenant", "chat"), ("else", "talk")):
        acquired = await acquire(found, tenant_id=tenant_id, session_id=session_id)
        await finish(found, acquired, totals={"of": f"{tenant_id}/{session_id}"})
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the list of the database's queries from now on."""
    queries: list[dict[str, Any]] = []
    original = Collection.find

    async def find(collection: Collection, query: dict[str, Any], **named: Any) -> Any:
        queries.append(query)
        return await original(collection, query, **named)

    monkeypatch.setattr(Collection, "find", find)
    return queries


def version(session: Session) -> tuple[str, int]:
    """Return the version that a reader of a session has."""
    return session.uid, session.totals_revision


async def test_concurrent_reads_share_next_query(sessions: SessionStore, reads: list[dict[str, Any]]) -> None:
    """Each reader gets its own tenant's session, or the error that there is none."""
    keys = [("tenant", "talk"), ("tenant", "chat"), ("else", "talk"), ("else", "chat")] * AT_ONCE
    found = await asyncio.gather(*(sessions.get_summary(*each) for each in keys), return_exceptions=True)

    for (tenant_id, session_id), each in zip(keys, found, strict=True):
        if (tenant_id, session_id) == ("else", "chat"):
            assert isinstance(each, SessionNotFound)
        else:
            assert isinstance(each, tuple)
            assert each[0].totals == {"of": f"{tenant_id}/{session_id}"}
    assert len(reads) <= 5  # the first alone, the others by fifty, each tenant's separately
    assert all(isinstance(query["tenant_id"], str) for query in reads)


async def test_known_totals_are_not_read_again(sessions: SessionStore) -> None:
    """Not while they are complete; the tenant is part of the key."""
    session, unchanged = await sessions.get_summary("tenant", "talk")
    assert not unchanged
    other, _ = await sessions.get_summary("else", "talk")

    again, unchanged = await sessions.get_summary("tenant", "talk", known=version(session))
    assert (again.totals, unchanged) == (None, True)
    assert (again.uid, again.update_time) == (session.uid, session.update_time)
    for known in (version(other), (session.uid, session.totals_revision - 1)):
        again, unchanged = await sessions.get_summary("tenant", "talk", known=known)
        assert (again.totals, unchanged) == (session.totals, False)


async def test_incomplete_known_totals_are_read(sessions: SessionStore) -> None:
    """A running turn, an announced entry, new totals, and another session with the same id."""
    session, _ = await sessions.get_summary("tenant", "talk")
    known = version(session)

    async def changed() -> bool:
        again, unchanged = await sessions.get_summary("tenant", "talk", known=known)
        assert unchanged or again.totals is not None
        return not unchanged

    acquired = await acquire(sessions)
    assert await changed()
    await sessions.release(acquired.session, begun=False)
    assert not await changed()  # the turn cost nothing

    await sessions.mark_totals_stale("tenant", session.uid)
    assert await changed()
    assert await sessions.replace_totals("tenant", session.uid, totals={"of": "more"}, revision=known[1] + 1)
    assert await changed()

    acquired = await acquire(sessions)
    await sessions.delete(acquired.session)
    await finish(sessions, await acquire(sessions), totals={"of": "new"})
    assert await changed()


async def test_failed_read_affects_only_its_tenant(sessions: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next read works."""
    original = Collection.find
    failing = True

    async def find(collection: Collection, query: dict[str, Any], **named: Any) -> Any:
        if failing and query["tenant_id"] == "else":
            raise StorageUnavailable("It is away.")
        return await original(collection, query, **named)

    monkeypatch.setattr(Collection, "find", find)
    keys = [("tenant", "talk"), ("else", "talk"), ("tenant", "chat"), ("else", "talk")]
    found = await asyncio.gather(*(sessions.get_summary(*each) for each in keys), return_exceptions=True)

    assert [isinstance(each, StorageUnavailable) for each in found] == [False, True, False, True]
    failing = False
    assert (await sessions.get_summary("else", "talk"))[0].totals == {"of": "else/talk"}


async def test_readers_of_different_versions_share_query(sessions: SessionStore) -> None:
    """No reader gets another reader's answer that its totals are current."""
    session, _ = await sessions.get_summary("tenant", "talk")
    other, _ = await sessions.get_summary("tenant", "chat")
    old = (session.uid, session.totals_revision - 1)
    keys = [("talk", version(session)), ("talk", None), ("chat", version(other)), ("talk", old)] * AT_ONCE
    found = await asyncio.gather(*(sessions.get_summary("tenant", name, known=known) for name, known in keys))

    for (name, known), (each, unchanged) in zip(keys, found, strict=True):
        assert each.session_id == name
        assert unchanged == (each.totals is None)
        assert not unchanged or known == version(each)
    assert any(unchanged for _, unchanged in found)
