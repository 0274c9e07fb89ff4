"""Documents of sessions: what a turn stores, what stays, and how they are listed."""

import asyncio
from datetime import timedelta

import pytest

from godoty_service.errors import InvalidRequest, SessionBusy, SessionNotFound
from godoty_service.mongo.client import Database
from godoty_service.sessions.session import HistorySummary, Lease
from godoty_service.sessions.store import SessionStore
from tests.integration.mongo.session_stores import acquire, finish


async def test_first_acquisition_creates_session(sessions: SessionStore) -> None:
    """It is new, empty, held by the turn, and has the user's text."""
    acquired = await acquire(sessions, user="anna", model="x/y")

    assert acquired.created
    assert acquired.taken_from is None
    session = acquired.session
    assert (session.tenant_id, session.session_id, session.model) == ("tenant", "talk", "x/y")
    assert (session.user_reference, session.user) == ("user_of_anna", None)
    assert (session.message_count, session.state, session.totals, session.fence) == (0, {}, None, 1)
    assert session.lease == Lease(
        turn_id="turn", replica_id="alive", text="text of turn", model="x/y", user_reference="user_of_anna"
    )
    assert await sessions.get("tenant", "talk") == session


async def test_finished_turn_releases_session(sessions: SessionStore) -> None:
    """State, totals and message count are stored; the next acquisition has a higher fence and creates nothing."""
    first = await acquire(sessions)
    assert await finish(sessions, first, state={"deep": [1, {"$set": "x"}]})

    second = await acquire(sessions, "second")
    assert not second.created
    assert second.session.uid == first.session.uid
    assert (second.session.state, second.session.message_count) == ({"deep": [1, {"$set": "x"}]}, 2)
    assert (second.session.totals, second.session.totals_revision) == (
        {"last_number": 1},
        first.session.totals_revision + 1,
    )
    assert second.session.fence == first.session.fence + 1


async def test_summary_is_stored_with_session(sessions: SessionStore) -> None:
    """A summary is stored with the session, and read back unchanged."""
    context = HistorySummary(head=[{"role": "user", "content": [{"text": "sum"}], "$x": {"a.b": 1}}], after=7)
    assert await finish(sessions, await acquire(sessions), summary=context)

    assert (await acquire(sessions, "second")).session.summary == context


async def test_first_end_user_is_retained(sessions: SessionStore) -> None:
    """Another one is refused, leased or not; a turn without an end user is accepted."""
    await finish(sessions, await acquire(sessions))
    await finish(sessions, await acquire(sessions, user="anna"))

    with pytest.raises(InvalidRequest):
        await acquire(sessions, user="berta")
    leased = await acquire(sessions)
    assert leased.session.user_reference == "user_of_anna"
    with pytest.raises(InvalidRequest):
        await acquire(sessions, user="berta")
    with pytest.raises(SessionBusy):
        await acquire(sessions, user="anna")


async def test_last_requested_model_is_retained(sessions: SessionStore) -> None:
    """The default is the model of a new session; a given model is retained; none changes nothing."""
    models = []
    for model in (None, "a/b", None, "c/d", None):
        acquired = await acquire(sessions, model=model)
        models.append(acquired.session.model)
        await finish(sessions, acquired)

    assert models == ["default", "a/b", "a/b", "c/d", "c/d"]


async def test_new_session_equals_upserted_one(sessions: SessionStore, database: Database) -> None:
    """Except for its id and its times; if one with its id exists nevertheless, that one is acquired."""
    made = await acquire(sessions, "turn", "made", user="anna", model="x/y")
    new = await acquire(sessions, "turn", "new", user="anna", model="x/y", new=True)
    assert new.created
    assert new.session.fence == made.session.fence == 1
    documents = [await database.collection("sessions").find_one({"session_id": name}) for name in ("made", "new")]
    ours, theirs = ({**(each or {}), "_id": "", "session_id": ""} for each in documents)
    for time in ("create_time", "update_time"):
        assert abs(ours.pop(time) - theirs.pop(time)) < timedelta(seconds=60)
    assert ours == theirs
    assert (await sessions.get("tenant", "new")).lease == new.session.lease

    with pytest.raises(SessionBusy):
        await acquire(sessions, "another", "new", new=True)
    assert await finish(sessions, new)
    again = await acquire(sessions, "another", "new", new=True)
    assert (again.created, again.session.uid) == (False, new.session.uid)


async def test_concurrent_ends_have_separate_results(sessions: SessionStore) -> None:
    """Each result is its own: not written if the totals were written meanwhile, nor after the lease is lost."""
    claims = [await acquire(sessions, f"turn{number}", f"talk{number}") for number in range(8)]
    await sessions.mark_totals_stale("tenant", claims[2].session.uid)
    await sessions.release(claims[5].session, begun=True)
    taken = await acquire(sessions, "thief", "talk5")
    results = await asyncio.gather(*(finish(sessions, each) for each in claims))

    assert results == [True, True, False, True, True, False, True, True]
    assert (await sessions.get("tenant", "talk5")).lease == taken.session.lease
    assert (await sessions.get("tenant", "talk2")).lease == claims[2].session.lease


async def test_tenants_have_separate_sessions(sessions: SessionStore) -> None:
    """The same id of two tenants is two sessions, and each tenant finds only its own."""
    mine, theirs = await acquire(sessions), await acquire(sessions, tenant_id="else")

    assert theirs.created
    assert mine.session.uid != theirs.session.uid
    with pytest.raises(SessionNotFound):
        await sessions.get("third", "talk")
    assert [each.uid for each in await sessions.lists.page("tenant", user=None, after=None, limit=9)] == [
        mine.session.uid
    ]
    assert await sessions.read_totals("else", mine.session.uid) is None
    assert not await sessions.replace_totals("else", mine.session.uid, totals={}, revision=0)


async def test_totals_are_replaced_only_at_their_revision(sessions: SessionStore) -> None:
    """Of two concurrent updates one wins; the turn's own end detects totals that were written meanwhile."""
    acquired = await acquire(sessions)
    uid = acquired.session.uid
    await sessions.mark_totals_stale("tenant", uid)
    assert (await sessions.get("tenant", "talk")).totals_stale

    assert await sessions.replace_totals("tenant", uid, totals={"last_number": 4}, revision=1)
    assert not await sessions.replace_totals("tenant", uid, totals={"last_number": 5}, revision=1)
    assert not await finish(sessions, acquired)
    assert await sessions.read_totals("tenant", uid) == ({"last_number": 4}, 2)
    assert await finish(sessions, acquired, totals_revision=2)
    session = await sessions.get("tenant", "talk")
    assert (session.totals_stale, session.lease, session.totals_revision) == (False, None, 3)


async def test_pages_are_ordered_by_last_use(sessions: SessionStore) -> None:
    """Each session once, even if several were used in the same millisecond."""
    for number in range(7):
        acquired = await acquire(sessions, session_id=f"s{number}", user="even" if number % 2 == 0 else "odd")
        await finish(sessions, acquired)
    await sessions._sessions.update_many(
        {"session_id": {"$in": ["s1", "s2", "s3"]}}, [{"$set": {"update_time": {"$add": ["$$NOW", 1000]}}}]
    )

    seen, after = [], None
    while page := await sessions.lists.page("tenant", user=None, after=after, limit=2):
        seen += [each.session_id for each in page]
        after = page[-1].update_time, page[-1].uid
    assert sorted(seen) == [f"s{number}" for number in range(7)]
    assert sorted(seen[:3]) == ["s1", "s2", "s3"]
    assert seen[3:] == ["s6", "s5", "s4", "s0"]
    odd = await sessions.lists.page("tenant", user="odd", user_reference="user_of_odd", after=None, limit=9)
    assert [each.session_id for each in odd] == ["s3", "s1", "s5"]
