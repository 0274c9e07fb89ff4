"""Leases on sessions: one at a time, taken over only from dead servers, and fenced."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import InvalidRequest, SessionBusy, SessionNotFound
from godoty_service.mongo.client import Database
from godoty_service.sessions.session import Claim, HistorySummary, Lease
from godoty_service.sessions.store import DeletionUnfinished, SessionStore

LEASE = timedelta(seconds=3)


@pytest.fixture
async def sessions(database: Database) -> SessionStore:
    """Return the session store of a living server."""
    await database.collection("sessions").ensure(SessionStore.INDEXES)
    return await server(database, "alive")


async def server(database: Database, name: str, *, alive: bool = True) -> SessionStore:
    """Return another server's store of the same sessions."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id=name, lease=LEASE)
    if alive:
        await replicas.heartbeat()
    return SessionStore(database.collection("sessions"), replicas=replicas)


async def acquire(sessions: SessionStore, turn_id: str = "turn", session_id: str = "talk", **others: Any) -> Claim:
    """Acquire a session for a turn."""
    wanted = {"text": f"text of {turn_id}", "model": None, "default_model": "default", "user": None} | others
    tenant_id = wanted.pop("tenant_id", "tenant")
    return await sessions.acquire(tenant_id, session_id, turn_id=turn_id, **wanted)


async def finish(sessions: SessionStore, acquired: Claim, **changes: Any) -> bool:
    """End a turn."""
    session = acquired.session
    wanted: dict[str, Any] = {
        "message_count": 2,
        "state": {"a": 1},
        "summary": None,
        "totals": {"last_number": 1},
        "totals_revision": session.totals_revision,
    }
    return await sessions.finish(session, **(wanted | changes))


async def test_first_acquisition_creates_session(sessions: SessionStore) -> None:
    """It is new, empty, held by the turn, and has the user's text."""
    acquired = await acquire(sessions, user="anna", model="x/y")

    assert acquired.created
    assert acquired.taken_from is None
    session = acquired.session
    assert (session.tenant_id, session.session_id, session.user, session.model) == ("tenant", "talk", "anna", "x/y")
    assert (session.message_count, session.state, session.totals, session.fence) == (0, {}, None, 1)
    assert session.lease == Lease(turn_id="turn", replica_id="alive", text="text of turn", model="x/y", user="anna")
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


async def test_leased_session_is_busy(sessions: SessionStore, database: Database) -> None:
    """While its server lives a lease is valid, for the same server and for others."""
    await acquire(sessions)

    for each in (sessions, await server(database, "other")):
        with pytest.raises(SessionBusy) as caught:
            await acquire(each, "second")
        assert caught.value.retry_after
    assert (await sessions.get("tenant", "talk")).fence == 1


async def test_one_of_concurrent_acquisitions_wins(sessions: SessionStore, database: Database) -> None:
    """Of any number of servers and turns, one acquires the session, and one has created it."""
    servers = [await server(database, f"server{number}") for number in range(4)]
    claims = await asyncio.gather(
        *(acquire(servers[number % 4], f"turn{number}") for number in range(12)), return_exceptions=True
    )

    (won,) = [each for each in claims if isinstance(each, Claim)]
    assert won.created
    assert all(isinstance(each, SessionBusy) for each in claims if each is not won)
    assert (await sessions.get("tenant", "talk")).lease == won.session.lease


async def test_dead_servers_lease_is_taken_over_and_fenced(sessions: SessionStore, database: Database) -> None:
    """A server that is silent for a lease is dead: its lease passes on with the text, and late writes do nothing."""
    dead = await server(database, "dead")
    old = await acquire(dead, "old")
    await asyncio.sleep(LEASE.total_seconds() + 0.1)
    await server(database, "alive")  # sends a heartbeat again

    new = await acquire(sessions, "new")
    assert new.taken_from == Lease(turn_id="old", replica_id="dead", text="text of old")
    assert not new.created
    assert new.session.fence == old.session.fence + 1
    assert not await finish(dead, old, state={"late": True})
    await dead.release(old.session, begun=False)
    await dead.release(old.session, begun=True)
    await dead.delete(old.session)
    assert not await dead.holds(old.session)
    assert await sessions.holds(new.session)
    assert await sessions.get("tenant", "talk") == new.session


async def test_stopped_servers_lease_is_taken_over_at_once(sessions: SessionStore, database: Database) -> None:
    """After an orderly stop its sessions are taken over at once."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="leaving", lease=timedelta(hours=1))
    await replicas.heartbeat()
    await acquire(SessionStore(database.collection("sessions"), replicas=replicas), "old")
    await replicas.stop()

    assert (await acquire(sessions, "new")).taken_from is not None


async def test_one_of_concurrent_takeovers_wins(sessions: SessionStore, database: Database) -> None:
    """Of two servers that find the same dead lease only one takes it over."""
    await acquire(await server(database, "dead", alive=False), "old")
    servers = [await server(database, f"server{number}") for number in range(4)]

    claims = await asyncio.gather(*(acquire(each, "new") for each in servers), return_exceptions=True)
    (won,) = [each for each in claims if isinstance(each, Claim)]
    assert won.taken_from is not None
    assert all(isinstance(each, SessionBusy) for each in claims if each is not won)


async def test_released_begun_turn_is_taken_over_by_next(sessions: SessionStore) -> None:
    """The next acquisition gets its text, as from a dead turn; one that is undone before it begins retains it."""
    old = await acquire(sessions, "old")
    await sessions.release(old.session, begun=True)
    second = await acquire(sessions, "second")
    await sessions.release(second.session, begun=False)

    third = await acquire(sessions, "third")
    assert third.taken_from is not None
    assert (third.taken_from.turn_id, third.taken_from.text) == ("old", "text of old")
    await sessions.release(third.session, begun=True)
    fourth = await acquire(sessions, "fourth")
    assert fourth.taken_from is not None
    assert [each.turn_id for each in (*fourth.taken_from.predecessors, fourth.taken_from)] == ["old", "third"]


async def test_release_after_the_end_of_a_turn_changes_nothing(sessions: SessionStore) -> None:
    """A release whose turn has ended, and whose session another turn holds by now, releases nothing."""
    first = await acquire(sessions)
    assert await finish(sessions, first)
    await sessions.release(first.session, begun=True)
    assert (await sessions.get("tenant", "talk")).lease is None
    second = await acquire(sessions, "second")
    for begun in (True, False):
        await sessions.release(first.session, begun=begun)

    assert await sessions.get("tenant", "talk") == second.session


async def test_leased_sessions_are_those_of_this_server(sessions: SessionStore, database: Database) -> None:
    """Leases of other servers and of the given holders are excluded."""
    await acquire(await server(database, "other"), "theirs", "theirs")
    for name in ("one", "two", "three"):
        await acquire(sessions, f"turn-{name}", name)
    await finish(sessions, await acquire(sessions, "ended", "ended"))

    assert {each.session_id for each in await sessions.leased(excluding=["turn-two", "unknown"])} == {"one", "three"}


async def test_summary_is_stored_with_session(sessions: SessionStore) -> None:
    """A summary is stored with the session, and read back unchanged."""
    context = HistorySummary(head=[{"role": "user", "content": [{"text": "sum"}], "$x": {"a.b": 1}}], after=7)
    assert await finish(sessions, await acquire(sessions), summary=context)

    assert (await acquire(sessions, "second")).session.summary == context


async def test_undone_acquisition_restores_session(sessions: SessionStore) -> None:
    """A lease under which nothing was written leaves nothing to complete, and no session that it created."""
    await sessions.release((await acquire(sessions)).session, begun=False)
    with pytest.raises(SessionNotFound):
        await sessions.get("tenant", "talk")
    assert await finish(sessions, await acquire(sessions))
    await sessions.release((await acquire(sessions, "second")).session, begun=False)

    third = await acquire(sessions, "third")
    assert third.taken_from is None
    assert not third.created


async def test_first_end_user_is_retained(sessions: SessionStore) -> None:
    """Another one is refused, leased or not; a turn without an end user is accepted."""
    await finish(sessions, await acquire(sessions))
    await finish(sessions, await acquire(sessions, user="anna"))

    with pytest.raises(InvalidRequest):
        await acquire(sessions, user="berta")
    leased = await acquire(sessions)
    assert leased.session.user == "anna"
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


async def test_undone_acquisition_changes_no_model_or_user(sessions: SessionStore) -> None:
    """Neither while it is held nor after its release, also if it is released by the stored session."""
    await finish(sessions, await acquire(sessions, model="a/b"))
    before = await sessions.get("tenant", "talk")
    wanted = (await acquire(sessions, "second", model="c/d", user="anna")).session
    assert (wanted.model, wanted.user) == ("c/d", "anna")
    leased = await sessions.get("tenant", "talk")
    assert (leased.model, leased.user, leased.update_time) == ("a/b", None, before.update_time)
    (left,) = await sessions.leased(excluding=[])
    await sessions.release(left, begun=False)

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user, after.update_time) == ("a/b", None, before.update_time)
    assert (await acquire(sessions, "third", user="berta")).session.user == "berta"


async def test_takeover_uses_model_and_user_of_dead_turn(sessions: SessionStore, database: Database) -> None:
    """Its text remains in the session: no other end user's turn follows, and the model is the one it requested."""
    await finish(sessions, await acquire(sessions, model="a/b"))
    await acquire(await server(database, "dead", alive=False), "old", model="c/d", user="anna")
    with pytest.raises(InvalidRequest):
        await acquire(sessions, "theirs", user="berta")
    for _ in range(2):  # an undone takeover changes nothing
        taken = await acquire(sessions, "new")
        assert (taken.session.model, taken.session.user) == ("c/d", "anna")
        await sessions.release(taken.session, begun=False)
    assert await finish(sessions, await acquire(sessions, "last", model="e/f"))

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user) == ("e/f", "anna")


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
    assert [each.uid for each in await sessions.page("tenant", user=None, after=None, limit=9)] == [mine.session.uid]
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
    while page := await sessions.page("tenant", user=None, after=after, limit=2):
        seen += [each.session_id for each in page]
        after = page[-1].update_time, page[-1].uid
    assert sorted(seen) == [f"s{number}" for number in range(7)]
    assert sorted(seen[:3]) == ["s1", "s2", "s3"]
    assert seen[3:] == ["s6", "s5", "s4", "s0"]
    odd = await sessions.page("tenant", user="odd", after=None, limit=9)
    assert [each.session_id for each in odd] == ["s3", "s1", "s5"]


async def test_deletion_acquires_session(sessions: SessionStore, database: Database) -> None:
    """A deletion holds the session; it gets none that is held or that was acquired since it was read."""
    acquired = await acquire(sessions)
    with pytest.raises(SessionBusy):
        await sessions.acquire_for_deletion(await sessions.get("tenant", "talk"), deletion_id="del")
    await finish(sessions, acquired)
    stale = await sessions.get("tenant", "talk")
    leased = await sessions.acquire_for_deletion(stale, deletion_id="del")
    assert await sessions.acquire_for_deletion(leased, deletion_id="del") == leased  # its answer was lost
    with pytest.raises(SessionBusy):
        await acquire(sessions, "turn")
    with pytest.raises(SessionBusy):
        await sessions.acquire_for_deletion(stale, deletion_id="del2")
    await sessions.delete(leased)

    with pytest.raises(SessionNotFound):
        await sessions.get("tenant", "talk")
    assert (await acquire(sessions)).created


async def test_unfinished_deletion_is_finished_first(sessions: SessionStore, database: Database) -> None:
    """No turn gets the session of a dead server's deletion; another deletion does, with the dead turns before it."""
    await acquire(await server(database, "dead", alive=False), "lost")
    dying = await server(database, "dying")
    await dying.acquire_for_deletion(await sessions.get("tenant", "talk"), deletion_id="del")
    with pytest.raises(SessionBusy) as refused:
        await acquire(sessions, "turn")
    assert not isinstance(refused.value, DeletionUnfinished)
    await dying.release(await sessions.get("tenant", "talk"), begun=False)

    with pytest.raises(DeletionUnfinished) as left:
        await acquire(sessions, "turn", user="eve")
    leased = await sessions.acquire_for_deletion(left.value.session, deletion_id="del2")
    assert leased.lease is not None
    assert leased.lease.deletes
    assert [each.turn_id for each in leased.lease.predecessors] == ["lost"]


async def test_heartbeats_are_valid_by_database_clock(database: Database) -> None:
    """A heartbeat is valid for a lease; a server without one is dead; one that sends it again is alive."""
    replicas = {
        name: ReplicaHeartbeats(database.collection("replicas"), replica_id=name, lease=LEASE)
        for name in ("first", "second")
    }
    await replicas["first"].heartbeat()
    assert await replicas["second"].alive(["first", "second", "third"]) == {"first"}
    assert replicas["first"].lease_valid(0)
    await asyncio.sleep(LEASE.total_seconds() + 0.1)
    await replicas["second"].heartbeat()

    assert not replicas["first"].lease_valid(0)
    assert await replicas["first"].alive(["first", "second"]) == {"second"}
    await replicas["first"].heartbeat()
    assert await replicas["first"].alive(["first", "second"]) == {"first", "second"}


async def test_lapsed_heartbeat_invalidates_leases(database: Database) -> None:
    """A server that was silent for a lease may have lost them, even after a new heartbeat; new leases are valid."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="slow", lease=timedelta(seconds=0.2))
    await replicas.heartbeat()
    before = replicas.epoch
    await asyncio.sleep(0.3)
    await replicas.heartbeat()

    assert not replicas.lease_valid(before)
    assert replicas.lease_valid(replicas.epoch)
