"""Looks at sessions: together they are one read, and what the asker knows is told only while it is all there is."""

import asyncio
from typing import Any

import pytest

from godoty_service.errors import SessionNotFound, StorageUnavailable
from godoty_service.mongo import Collection, Database
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import Sessions
from tests.mongo.test_sessions import claim, finish, server

AT_ONCE = 20


@pytest.fixture
async def sessions(database: Database) -> Sessions:
    """Sessions, two of a tenant and one of another with the same id; all are folded and free."""
    found = await server(database, "alive")
    for tenant_id, session_id in (("tenant", "talk"), ("tenant", "chat"), ("else", "talk")):
        claimed = await claim(found, tenant_id=tenant_id, session_id=session_id)
        await finish(found, claimed, fold={"of": f"{tenant_id}/{session_id}"})
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The queries of the database, from now on."""
    queries: list[dict[str, Any]] = []
    original = Collection.find

    async def find(collection: Collection, query: dict[str, Any], **named: Any) -> Any:
        queries.append(query)
        return await original(collection, query, **named)

    monkeypatch.setattr(Collection, "find", find)
    return queries


def version(session: Session) -> tuple[str, int]:
    """What somebody who has read a session knows."""
    return session.uid, session.fold_revision


async def test_who_looks_while_a_read_is_on_its_way_shares_the_next(
    sessions: Sessions, reads: list[dict[str, Any]]
) -> None:
    """Each gets his own tenant's session, or is told that there is none."""
    asked = [("tenant", "talk"), ("tenant", "chat"), ("else", "talk"), ("else", "chat")] * AT_ONCE
    found = await asyncio.gather(*(sessions.look(*each) for each in asked), return_exceptions=True)

    for (tenant_id, session_id), each in zip(asked, found, strict=True):
        if (tenant_id, session_id) == ("else", "chat"):
            assert isinstance(each, SessionNotFound)
        else:
            assert isinstance(each, tuple)
            assert each[0].fold == {"of": f"{tenant_id}/{session_id}"}
    assert len(reads) <= 5  # the first alone, the others by fifty, each tenant's by themselves
    assert all(isinstance(query["tenant_id"], str) for query in reads)


async def test_what_is_known_is_not_read_again(sessions: Sessions) -> None:
    """Not while it is all that the session has cost; whose session it is makes a difference, too."""
    session, unchanged = await sessions.look("tenant", "talk")
    assert not unchanged
    other, _ = await sessions.look("else", "talk")

    again, unchanged = await sessions.look("tenant", "talk", known=version(session))
    assert (again.fold, unchanged) == (None, True)
    assert (again.uid, again.update_time) == (session.uid, session.update_time)
    for known in (version(other), (session.uid, session.fold_revision - 1)):
        again, unchanged = await sessions.look("tenant", "talk", known=known)
        assert (again.fold, unchanged) == (session.fold, False)


async def test_what_is_known_may_not_be_all(sessions: Sessions) -> None:
    """A turn that runs, an entry that is announced, a new fold, and another session of the same name."""
    session, _ = await sessions.look("tenant", "talk")
    known = version(session)

    async def changed() -> bool:
        again, unchanged = await sessions.look("tenant", "talk", known=known)
        assert unchanged or again.fold is not None
        return not unchanged

    claimed = await claim(sessions)
    assert await changed()
    await sessions.release(claimed.session, begun=False)
    assert not await changed()  # the turn cost nothing

    await sessions.mark_unfolded("tenant", session.uid)
    assert await changed()
    assert await sessions.replace_fold("tenant", session.uid, fold={"of": "more"}, revision=known[1] + 1)
    assert await changed()

    claimed = await claim(sessions)
    await sessions.delete(claimed.session)
    await finish(sessions, await claim(sessions), fold={"of": "new"})
    assert await changed()


async def test_a_read_that_fails_fails_for_its_tenant_alone(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is made as ever."""
    original = Collection.find
    failing = True

    async def find(collection: Collection, query: dict[str, Any], **named: Any) -> Any:
        if failing and query["tenant_id"] == "else":
            raise StorageUnavailable("It is away.")
        return await original(collection, query, **named)

    monkeypatch.setattr(Collection, "find", find)
    asked = [("tenant", "talk"), ("else", "talk"), ("tenant", "chat"), ("else", "talk")]
    found = await asyncio.gather(*(sessions.look(*each) for each in asked), return_exceptions=True)

    assert [isinstance(each, StorageUnavailable) for each in found] == [False, True, False, True]
    failing = False
    assert (await sessions.look("else", "talk"))[0].fold == {"of": "else/talk"}


async def test_who_knows_and_who_does_not_may_look_together(sessions: Sessions) -> None:
    """Nobody is told that something is as he knows it because somebody else knows it."""
    session, _ = await sessions.look("tenant", "talk")
    other, _ = await sessions.look("tenant", "chat")
    old = (session.uid, session.fold_revision - 1)
    asked = [("talk", version(session)), ("talk", None), ("chat", version(other)), ("talk", old)] * AT_ONCE
    found = await asyncio.gather(*(sessions.look("tenant", name, known=known) for name, known in asked))

    for (name, known), (each, unchanged) in zip(asked, found, strict=True):
        assert each.session_id == name
        assert unchanged == (each.fold is None)
        assert not unchanged or known == version(each)
    assert any(unchanged for _, unchanged in found)
