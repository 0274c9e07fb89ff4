"""Leases on sessions: one at a time, taken over only from dead servers, and fenced."""

import asyncio
from datetime import timedelta

import pytest

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import InvalidRequest, SessionBusy, SessionNotFound
from godoty_service.mongo.client import Database
from godoty_service.sessions.session import Claim, Lease
from godoty_service.sessions.store import DeletionUnfinished, SessionStore
from tests.integration.mongo.session_stores import LEASE, acquire, finish, lapse, session_store


async def test_leased_session_is_busy(sessions: SessionStore, database: Database) -> None:
    """While its server lives a lease is valid, for the same server and for others."""
    await acquire(sessions)

    for each in (sessions, await session_store(database, "other")):
        with pytest.raises(SessionBusy) as caught:
            await acquire(each, "second")
        assert caught.value.retry_after
    assert (await sessions.get("tenant", "talk")).fence == 1


async def test_one_of_concurrent_acquisitions_wins(sessions: SessionStore, database: Database) -> None:
    """Of any number of servers and turns, one acquires the session, and one has created it."""
    servers = [await session_store(database, f"server{number}") for number in range(4)]
    claims = await asyncio.gather(
        *(acquire(servers[number % 4], f"turn{number}") for number in range(12)), return_exceptions=True
    )

    (won,) = [each for each in claims if isinstance(each, Claim)]
    assert won.created
    assert all(isinstance(each, SessionBusy) for each in claims if each is not won)
    assert (await sessions.get("tenant", "talk")).lease == won.session.lease


async def test_dead_servers_lease_is_taken_over_and_fenced(sessions: SessionStore, database: Database) -> None:
    """A server that is silent for a lease is dead: its lease passes on with the text, and late writes do nothing."""
    dead = await session_store(database, "dead")
    old = await acquire(dead, "old")
    await lapse(dead._replicas)

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
    await acquire(await session_store(database, "dead", alive=False), "old")
    servers = [await session_store(database, f"server{number}") for number in range(4)]

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
    await acquire(await session_store(database, "other"), "theirs", "theirs")
    for name in ("one", "two", "three"):
        await acquire(sessions, f"turn-{name}", name)
    await finish(sessions, await acquire(sessions, "ended", "ended"))

    assert {each.session_id for each in await sessions.leased(excluding=["turn-two", "unknown"])} == {"one", "three"}


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


async def test_undone_acquisition_changes_no_model_or_user(sessions: SessionStore) -> None:
    """Neither while it is held nor after its release, also if it is released by the stored session."""
    await finish(sessions, await acquire(sessions, model="a/b"))
    before = await sessions.get("tenant", "talk")
    wanted = (await acquire(sessions, "second", model="c/d", user="anna")).session
    assert (wanted.model, wanted.user_reference) == ("c/d", "user_of_anna")
    leased = await sessions.get("tenant", "talk")
    assert (leased.model, leased.user_reference, leased.update_time) == ("a/b", None, before.update_time)
    (left,) = await sessions.leased(excluding=[])
    await sessions.release(left, begun=False)

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user_reference, after.update_time) == ("a/b", None, before.update_time)
    assert (await acquire(sessions, "third", user="berta")).session.user_reference == "user_of_berta"


async def test_takeover_uses_model_and_user_of_dead_turn(sessions: SessionStore, database: Database) -> None:
    """Its text remains in the session: no other end user's turn follows, and the model is the one it requested."""
    await finish(sessions, await acquire(sessions, model="a/b"))
    await acquire(await session_store(database, "dead", alive=False), "old", model="c/d", user="anna")
    with pytest.raises(InvalidRequest):
        await acquire(sessions, "theirs", user="berta")
    for _ in range(2):  # an undone takeover changes nothing
        taken = await acquire(sessions, "new")
        assert (taken.session.model, taken.session.user_reference) == ("c/d", "user_of_anna")
        await sessions.release(taken.session, begun=False)
    assert await finish(sessions, await acquire(sessions, "last", model="e/f"))

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user_reference) == ("e/f", "user_of_anna")


async def test_deletion_acquires_session(sessions: SessionStore, database: Database) -> None:
    """A deletion holds the session; it gets none that is held or that was acquired since it was read."""
    acquired = await acquire(sessions)
    with pytest.raises(SessionBusy):
        await sessions.acquire_for_deletion(await sessions.get("tenant", "talk"), deletion_id="del")
    await finish(sessions, acquired)
    stale = await sessions.get("tenant", "talk")
    leased = await sessions.acquire_for_deletion(stale, deletion_id="del")
    for read in (leased, stale):  # its answer was lost, and it was applied before the next try had read, or after
        assert await sessions.acquire_for_deletion(read, deletion_id="del") == leased
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
    await acquire(await session_store(database, "dead", alive=False), "lost")
    dying = await session_store(database, "dying")
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
    await lapse(replicas["first"])
    await replicas["second"].heartbeat()

    assert not replicas["first"].lease_valid(0)
    assert await replicas["first"].alive(["first", "second"]) == {"second"}
    await replicas["first"].heartbeat()
    assert await replicas["first"].alive(["first", "second"]) == {"first", "second"}


@pytest.mark.parametrize(("stored", "alive"), [(True, {"first"}), (False, set())])
async def test_servers_with_different_leases_agree_on_who_is_alive(
    database: Database, *, stored: bool, alive: set[str]
) -> None:
    """A server is dead after the lease that it has stored, or after the reader's if it has stored none."""
    first = ReplicaHeartbeats(database.collection("replicas"), replica_id="first", lease=LEASE)
    second = ReplicaHeartbeats(database.collection("replicas"), replica_id="second", lease=timedelta(seconds=1))
    await first.heartbeat()
    earlier = {"heartbeat_time": {"$subtract": ["$heartbeat_time", 60_000]}}
    assert await database.collection("replicas").update_one({"_id": "first"}, [{"$set": earlier}])
    if not stored:
        await database.collection("replicas").update_one({"_id": "first"}, {"$unset": {"lease_ms": ""}})

    assert first.lease_valid(0)
    assert await second.alive(["first"]) == alive
    assert (await second.lease_left("first") > 0) == stored
    assert await first.alive(["first"]) == {"first"}


async def test_lapsed_heartbeat_invalidates_leases(database: Database) -> None:
    """A server that was silent for a lease may have lost them, even after a new heartbeat; new leases are valid."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="slow", lease=LEASE)
    await replicas.heartbeat()
    before = replicas.epoch
    await lapse(replicas)
    await replicas.heartbeat()

    assert not replicas.lease_valid(before)
    assert replicas.lease_valid(replicas.epoch)
