"""Claims on sessions: one at a time, taken over from the dead only, and fenced."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.errors import InvalidRequest, SessionBusy, SessionNotFound
from godoty_service.mongo import Database
from godoty_service.sessions import store
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.session import Claim, Context, Lease
from godoty_service.sessions.store import DeletionUnfinished, Sessions

LEASE = timedelta(seconds=3)


@pytest.fixture
async def sessions(database: Database) -> Sessions:
    """Sessions of a server that lives."""
    await database.collection("sessions").ensure(store.INDEXES)
    return await server(database, "alive")


async def server(database: Database, name: str, *, beats: bool = True) -> Sessions:
    """Another server's view of the same sessions."""
    replicas = Replicas(database.collection("replicas"), replica_id=name, lease=LEASE)
    if beats:
        await replicas.beat()
    return Sessions(database.collection("sessions"), replicas=replicas)


async def claim(sessions: Sessions, turn_id: str = "turn", session_id: str = "talk", **others: Any) -> Claim:
    """Claim a session for a turn."""
    wanted = {"text": f"text of {turn_id}", "model": None, "default_model": "default", "user": None} | others
    tenant_id = wanted.pop("tenant_id", "tenant")
    return await sessions.claim(tenant_id, session_id, turn_id=turn_id, **wanted)


async def finish(sessions: Sessions, claimed: Claim, **changes: Any) -> bool:
    """End a turn."""
    session = claimed.session
    wanted: dict[str, Any] = {
        "message_count": 2,
        "state": {"a": 1},
        "context": None,
        "fold": {"through": 1},
        "fold_revision": session.fold_revision,
    }
    return await sessions.finish(session, **(wanted | changes))


async def test_the_first_claim_makes_the_session(sessions: Sessions) -> None:
    """It is new, empty, held by the turn, and has the user's words."""
    claimed = await claim(sessions, user="anna", model="x/y")

    assert claimed.created
    assert claimed.taken_from is None
    session = claimed.session
    assert (session.tenant_id, session.session_id, session.user, session.model) == ("tenant", "talk", "anna", "x/y")
    assert (session.message_count, session.state, session.fold, session.fence) == (0, {}, None, 1)
    assert session.lease == Lease(turn_id="turn", replica_id="alive", text="text of turn", model="x/y", user="anna")
    assert await sessions.get("tenant", "talk") == session


async def test_a_finished_turn_leaves_the_session_to_the_next(sessions: Sessions) -> None:
    """State, fold and number of messages are kept; the next claim has a higher fence and makes nothing."""
    first = await claim(sessions)
    assert await finish(sessions, first, state={"deep": [1, {"$set": "x"}]})

    second = await claim(sessions, "second")
    assert not second.created
    assert second.session.uid == first.session.uid
    assert (second.session.state, second.session.message_count) == ({"deep": [1, {"$set": "x"}]}, 2)
    assert (second.session.fold, second.session.fold_revision) == ({"through": 1}, first.session.fold_revision + 1)
    assert second.session.fence == first.session.fence + 1


async def test_a_held_session_is_busy(sessions: Sessions, database: Database) -> None:
    """While its server lives a claim holds, for the same server and for others."""
    await claim(sessions)

    for each in (sessions, await server(database, "other")):
        with pytest.raises(SessionBusy) as caught:
            await claim(each, "second")
        assert caught.value.retry_after
    assert (await sessions.get("tenant", "talk")).fence == 1


async def test_of_claims_at_once_one_wins(sessions: Sessions, database: Database) -> None:
    """However many servers and turns meet, one has the session, and one made it."""
    servers = [await server(database, f"server{number}") for number in range(4)]
    claims = await asyncio.gather(
        *(claim(servers[number % 4], f"turn{number}") for number in range(12)), return_exceptions=True
    )

    (won,) = [each for each in claims if isinstance(each, Claim)]
    assert won.created
    assert all(isinstance(each, SessionBusy) for each in claims if each is not won)
    assert (await sessions.get("tenant", "talk")).lease == won.session.lease


async def test_a_dead_servers_claim_is_taken_over_and_fenced_off(sessions: Sessions, database: Database) -> None:
    """Silent for a lease is dead: the claim passes on with the turn's words, and its late writes change nothing."""
    dead = await server(database, "dead")
    old = await claim(dead, "old")
    await asyncio.sleep(LEASE.total_seconds() + 0.1)
    await server(database, "alive")  # beats again

    new = await claim(sessions, "new")
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


async def test_a_server_that_says_it_is_gone_is_not_waited_for(sessions: Sessions, database: Database) -> None:
    """After an orderly stop what was left is taken over at once."""
    replicas = Replicas(database.collection("replicas"), replica_id="leaving", lease=timedelta(hours=1))
    await replicas.beat()
    await claim(Sessions(database.collection("sessions"), replicas=replicas), "old")
    await replicas.stop()

    assert (await claim(sessions, "new")).taken_from is not None


async def test_of_many_who_take_over_one_wins(sessions: Sessions, database: Database) -> None:
    """Two servers that find the same dead claim do not both get it."""
    await claim(await server(database, "dead", beats=False), "old")
    servers = [await server(database, f"server{number}") for number in range(4)]

    claims = await asyncio.gather(*(claim(each, "new") for each in servers), return_exceptions=True)
    (won,) = [each for each in claims if isinstance(each, Claim)]
    assert won.taken_from is not None
    assert all(isinstance(each, SessionBusy) for each in claims if each is not won)


async def test_released_turn_that_had_begun_is_closed_by_the_next(sessions: Sessions) -> None:
    """Its words go to the next claim, as a dead turn's do; a claim that is given back before it begins keeps them."""
    old = await claim(sessions, "old")
    await sessions.release(old.session, begun=True)
    second = await claim(sessions, "second")
    await sessions.release(second.session, begun=False)

    third = await claim(sessions, "third")
    assert third.taken_from is not None
    assert (third.taken_from.turn_id, third.taken_from.text) == ("old", "text of old")
    await sessions.release(third.session, begun=True)
    fourth = await claim(sessions, "fourth")
    assert fourth.taken_from is not None
    assert [each.turn_id for each in (*fourth.taken_from.before, fourth.taken_from)] == ["old", "third"]


async def test_release_after_the_end_of_a_turn_changes_nothing(sessions: Sessions) -> None:
    """A release whose turn has ended, and whose session another turn holds by now, finds nothing to release."""
    first = await claim(sessions)
    assert await finish(sessions, first)
    await sessions.release(first.session, begun=True)
    assert (await sessions.get("tenant", "talk")).lease is None
    second = await claim(sessions, "second")
    for begun in (True, False):
        await sessions.release(first.session, begun=begun)

    assert await sessions.get("tenant", "talk") == second.session


async def test_held_sessions_are_those_of_this_server(sessions: Sessions, database: Database) -> None:
    """Leases of other servers, and those of the holders that are named, are left out."""
    await claim(await server(database, "other"), "theirs", "theirs")
    for name in ("one", "two", "three"):
        await claim(sessions, f"turn-{name}", name)
    await finish(sessions, await claim(sessions, "ended", "ended"))

    assert {each.session_id for each in await sessions.held(but=["turn-two", "unknown"])} == {"one", "three"}


async def test_what_stands_for_the_oldest_messages_is_kept(sessions: Sessions) -> None:
    """A summary is kept with the session, and comes back as it was."""
    context = Context(head=[{"role": "user", "content": [{"text": "sum"}], "$x": {"a.b": 1}}], after=7)
    assert await finish(sessions, await claim(sessions), context=context)

    assert (await claim(sessions, "second")).session.context == context


async def test_released_session_is_as_it_was(sessions: Sessions) -> None:
    """A claim under which nothing was written leaves nothing to close, and no session that it made itself."""
    await sessions.release((await claim(sessions)).session, begun=False)
    with pytest.raises(SessionNotFound):
        await sessions.get("tenant", "talk")
    assert await finish(sessions, await claim(sessions))
    await sessions.release((await claim(sessions, "second")).session, begun=False)

    third = await claim(sessions, "third")
    assert third.taken_from is None
    assert not third.created


async def test_the_end_user_is_the_first_one_who_was_named(sessions: Sessions) -> None:
    """Another one is refused, held or not; a turn that names none is anybody's."""
    await finish(sessions, await claim(sessions))
    await finish(sessions, await claim(sessions, user="anna"))

    with pytest.raises(InvalidRequest):
        await claim(sessions, user="berta")
    held = await claim(sessions)
    assert held.session.user == "anna"
    with pytest.raises(InvalidRequest):
        await claim(sessions, user="berta")
    with pytest.raises(SessionBusy):
        await claim(sessions, user="anna")


async def test_the_model_is_the_one_that_was_asked_last(sessions: Sessions) -> None:
    """The default makes a session; a named model stays; none changes nothing."""
    models = []
    for model in (None, "a/b", None, "c/d", None):
        claimed = await claim(sessions, model=model)
        models.append(claimed.session.model)
        await finish(sessions, claimed)

    assert models == ["default", "a/b", "a/b", "c/d", "c/d"]


async def test_claim_that_ends_without_a_turn_changes_no_model_and_no_user(sessions: Sessions) -> None:
    """Neither while it is held nor after its release, also one that is released by what the database has of it."""
    await finish(sessions, await claim(sessions, model="a/b"))
    before = await sessions.get("tenant", "talk")
    wanted = (await claim(sessions, "second", model="c/d", user="anna")).session
    assert (wanted.model, wanted.user) == ("c/d", "anna")
    held = await sessions.get("tenant", "talk")
    assert (held.model, held.user, held.update_time) == ("a/b", None, before.update_time)
    (left,) = await sessions.held(but=[])
    await sessions.release(left, begun=False)

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user, after.update_time) == ("a/b", None, before.update_time)
    assert (await claim(sessions, "third", user="berta")).session.user == "berta"


async def test_model_and_user_of_a_dead_turn_count_for_the_turn_that_takes_over(
    sessions: Sessions, database: Database
) -> None:
    """Its words stay in the session: no other end user's turn follows, and the model is the one it asked."""
    await finish(sessions, await claim(sessions, model="a/b"))
    await claim(await server(database, "dead", beats=False), "old", model="c/d", user="anna")
    with pytest.raises(InvalidRequest):
        await claim(sessions, "theirs", user="berta")
    for _ in range(2):  # a takeover that is given back leaves all as it was
        taken = await claim(sessions, "new")
        assert (taken.session.model, taken.session.user) == ("c/d", "anna")
        await sessions.release(taken.session, begun=False)
    assert await finish(sessions, await claim(sessions, "last", model="e/f"))

    after = await sessions.get("tenant", "talk")
    assert (after.model, after.user) == ("e/f", "anna")


async def test_a_new_session_is_like_one_that_a_claim_makes(sessions: Sessions, database: Database) -> None:
    """But for its id and its times; where there is one of its name all the same, that one is claimed."""
    made = await claim(sessions, "turn", "made", user="anna", model="x/y")
    new = await claim(sessions, "turn", "new", user="anna", model="x/y", new=True)
    assert new.created
    assert new.session.fence == made.session.fence == 1
    documents = [await database.collection("sessions").find_one({"session_id": name}) for name in ("made", "new")]
    ours, theirs = ({**(each or {}), "_id": "", "session_id": ""} for each in documents)
    for time in ("create_time", "update_time"):
        assert abs(ours.pop(time) - theirs.pop(time)) < timedelta(seconds=60)
    assert ours == theirs
    assert (await sessions.get("tenant", "new")).lease == new.session.lease

    with pytest.raises(SessionBusy):
        await claim(sessions, "another", "new", new=True)
    assert await finish(sessions, new)
    again = await claim(sessions, "another", "new", new=True)
    assert (again.created, again.session.uid) == (False, new.session.uid)


async def test_ends_that_come_together(sessions: Sessions) -> None:
    """Each is told for itself whether it was written: not where its fold was written meanwhile, nor after its claim."""
    claims = [await claim(sessions, f"turn{number}", f"talk{number}") for number in range(8)]
    await sessions.mark_unfolded("tenant", claims[2].session.uid)
    await sessions.release(claims[5].session, begun=True)
    taken = await claim(sessions, "thief", "talk5")
    told = await asyncio.gather(*(finish(sessions, each) for each in claims))

    assert told == [True, True, False, True, True, False, True, True]
    assert (await sessions.get("tenant", "talk5")).lease == taken.session.lease
    assert (await sessions.get("tenant", "talk2")).lease == claims[2].session.lease


async def test_tenants_do_not_meet(sessions: Sessions) -> None:
    """The same id of two tenants is two sessions, and each finds his own only."""
    mine, theirs = await claim(sessions), await claim(sessions, tenant_id="else")

    assert theirs.created
    assert mine.session.uid != theirs.session.uid
    with pytest.raises(SessionNotFound):
        await sessions.get("third", "talk")
    assert [each.uid for each in await sessions.page("tenant", user=None, after=None, limit=9)] == [mine.session.uid]
    assert await sessions.read_fold("else", mine.session.uid) is None
    assert not await sessions.replace_fold("else", mine.session.uid, fold={}, revision=0)


async def test_a_fold_is_replaced_only_at_its_revision(sessions: Sessions) -> None:
    """Of two who fold at once one wins; the turn's own end notices a fold that was written meanwhile."""
    claimed = await claim(sessions)
    uid = claimed.session.uid
    await sessions.mark_unfolded("tenant", uid)
    assert (await sessions.get("tenant", "talk")).unfolded

    assert await sessions.replace_fold("tenant", uid, fold={"through": 4}, revision=1)
    assert not await sessions.replace_fold("tenant", uid, fold={"through": 5}, revision=1)
    assert not await finish(sessions, claimed)
    assert await sessions.read_fold("tenant", uid) == ({"through": 4}, 2)
    assert await finish(sessions, claimed, fold_revision=2)
    session = await sessions.get("tenant", "talk")
    assert (session.unfolded, session.lease, session.fold_revision) == (False, None, 3)


async def test_pages_go_from_the_last_used_to_the_first(sessions: Sessions) -> None:
    """Each session once, also where several were used in the same millisecond."""
    for number in range(7):
        claimed = await claim(sessions, session_id=f"s{number}", user="even" if number % 2 == 0 else "odd")
        await finish(sessions, claimed)
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


async def test_deletion_claims_a_session_as_a_turn_would(sessions: Sessions, database: Database) -> None:
    """A deletion holds the session; it gets none that is held or that changed hands since it was read."""
    claimed = await claim(sessions)
    with pytest.raises(SessionBusy):
        await sessions.claim_existing(await sessions.get("tenant", "talk"), deletion_id="del")
    await finish(sessions, claimed)
    stale = await sessions.get("tenant", "talk")
    held = await sessions.claim_existing(stale, deletion_id="del")
    assert await sessions.claim_existing(held, deletion_id="del") == held  # its answer was lost
    with pytest.raises(SessionBusy):
        await claim(sessions, "turn")
    with pytest.raises(SessionBusy):
        await sessions.claim_existing(stale, deletion_id="del2")
    await sessions.delete(held)

    with pytest.raises(SessionNotFound):
        await sessions.get("tenant", "talk")
    assert (await claim(sessions)).created


async def test_deletion_that_was_left_is_finished_first(sessions: Sessions, database: Database) -> None:
    """No turn gets the session of a dead server's deletion; another deletion does, and knows the dead turns before."""
    await claim(await server(database, "dead", beats=False), "lost")
    dying = await server(database, "dying")
    await dying.claim_existing(await sessions.get("tenant", "talk"), deletion_id="del")
    with pytest.raises(SessionBusy) as refused:
        await claim(sessions, "turn")
    assert not isinstance(refused.value, DeletionUnfinished)
    await dying.release(await sessions.get("tenant", "talk"), begun=False)

    with pytest.raises(DeletionUnfinished) as left:
        await claim(sessions, "turn", user="anybody")
    held = await sessions.claim_existing(left.value.session, deletion_id="del2")
    assert held.lease is not None
    assert held.lease.deletes
    assert [each.turn_id for each in held.lease.before] == ["lost"]


async def test_the_living_are_told_from_the_dead_by_the_databases_clock(database: Database) -> None:
    """A heartbeat counts for a lease; who never beat is dead; who beats lives again."""
    replicas = {
        name: Replicas(database.collection("replicas"), replica_id=name, lease=LEASE) for name in ("first", "second")
    }
    await replicas["first"].beat()
    assert await replicas["second"].living(["first", "second", "third"]) == {"first"}
    assert replicas["first"].holds(0)
    await asyncio.sleep(LEASE.total_seconds() + 0.1)
    await replicas["second"].beat()

    assert not replicas["first"].holds(0)
    assert await replicas["first"].living(["first", "second"]) == {"second"}
    await replicas["first"].beat()
    assert await replicas["first"].living(["first", "second"]) == {"first", "second"}


async def test_a_lease_does_not_survive_a_lapse_of_the_heartbeat(database: Database) -> None:
    """Who was silent for a lease may have lost what he held, also when he beats again: what he claims then is good."""
    replicas = Replicas(database.collection("replicas"), replica_id="slow", lease=timedelta(seconds=0.2))
    await replicas.beat()
    before = replicas.epoch
    await asyncio.sleep(0.3)
    await replicas.beat()

    assert not replicas.holds(before)
    assert replicas.holds(replicas.epoch)
