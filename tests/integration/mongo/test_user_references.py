"""References of end users: one for a name, whichever server asks, and none of an erased user is used again."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from godoty_service.errors import InvalidRequest, SessionBusy
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Document
from godoty_service.sessions.codec import new_session_document
from godoty_service.sessions.end_users import acquire_for_user
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.session import Claim, SessionAgent
from godoty_service.sessions.store import SessionStore
from godoty_service.users.erasures import ErasureOrder, ErasureOrders
from godoty_service.users.references import FRESH, EndUser, UserReferences
from godoty_service.users.stored_names import StoredNames


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


class Server:
    """The references of one server, with a clock of its own."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.users = UserReferences(database.collection("users"), tick=self.clock)
        self.orders = ErasureOrders(database.collection("users"))

    async def erase(self, name: str = "ada") -> ErasureOrder:
        """Order the erasure of a user."""
        reference = await self.users.find("tenant", name)
        assert reference is not None
        order = await self.orders.place("tenant", reference, name=name, request_id=None, owner="one")
        assert order is not None
        return order


@pytest.fixture
async def one(database: Database) -> Server:
    """A server."""
    await database.collection("users").ensure(UserReferences.INDEXES)
    return Server(database)


@pytest.fixture
def two(database: Database, one: Server) -> Server:
    """Another one on the same database."""
    return Server(database)


async def test_servers_that_meet_a_user_at_once_agree(one: Server, two: Server) -> None:
    """A reference is random; the names of two tenants have two."""
    both = [each.users.of_name("tenant", "ada") for each in (one, two, one, two)]
    found = {each.reference for each in await asyncio.gather(*both)}
    other = (await one.users.of_name("else", "ada")).reference

    assert len(found) == 1
    assert all(re.fullmatch("user_[0-9a-f]{28}", each) for each in found)
    assert other not in found
    stored = await two.users.of_names("tenant", ["ada", "bob", "eve"])
    assert stored["ada"] in found
    assert len(set(stored.values())) == 3
    assert await one.users.names("tenant", [*stored.values(), None, ""]) == {name: key for key, name in stored.items()}
    assert await one.users.names("else", stored.values()) == {}


async def test_erased_user_who_comes_back_is_a_new_one(one: Server, two: Server) -> None:
    """Also at a server that has the reference in its cache, once it has read which users were erased."""
    first = await one.users.of_name("tenant", "ada")
    assert (await two.users.of_name("tenant", "ada")).reference == first.reference
    order = await one.erase()
    await two.users.poll()
    second = await two.users.of_name("tenant", "ada")

    assert order.reference == first.reference != second.reference
    assert await two.users.names("tenant", [first.reference, second.reference]) == {second.reference: "ada"}
    await one.orders.finish(order)
    assert (await one.users.of_names("tenant", ["ada"]))["ada"] == second.reference
    done = await one.orders.get(order)
    assert done is not None
    assert (done.name, done.owner, done.end_time is not None) == (None, None, True)
    assert await one.orders.owners() == set()


async def test_name_that_is_being_erased_belongs_to_the_erased_user(one: Server) -> None:
    """Stored data with the name is older than the erasure, also once new users have the name, who are erased too."""
    first = await one.users.of_name("tenant", "ada")
    order = await one.erase()
    assert await one.users.of_names("tenant", ["ada"]) == {"ada": first.reference}

    for _ in range(2):
        await one.users.poll()
        new = await one.users.of_name("tenant", "ada")
        assert new.reference != first.reference
        entries = [{"user_reference": first.reference}, {"user_reference": new.reference}]
        await one.users.fill_names("tenant", entries)
        assert [each["user"] for each in entries] == [None, "ada"]
        assert await one.users.owners("tenant", ["ada"]) == {"ada": first.reference}
        for reference in (first.reference, new.reference):
            assert await one.users.stored_name("tenant", reference) == "ada"
        assert await one.users.of_names("tenant", ["ada", "bob"]) == {
            "ada": first.reference,
            "bob": await one.users.find("tenant", "bob"),
        }
        last = await one.erase()
    await one.orders.finish(order)
    assert await one.users.stored_name("tenant", first.reference) is None
    assert await one.users.of_names("tenant", ["ada"]) != {"ada": first.reference}
    await one.orders.finish(last)


async def test_orders_of_living_servers_do_not_hide_those_of_dead_ones(one: Server) -> None:
    """However many there are; those that this server has taken over already are left out."""
    for number in range(60):
        user = await one.users.of_name("tenant", f"ada {number}")
        owner = "living" if number < 30 else "dead"
        assert await one.orders.place("tenant", user.reference, name=user.name, request_id=None, owner=owner)

    assert await one.orders.owners() == {"living", "dead"}
    taken: set[str] = set()
    while found := await one.orders.unfinished(owners={"dead"}, excluding=taken):
        assert {each.owner for each in found} == {"dead"}
        taken |= {each.reference for each in found}
    assert len(taken) == 30


@pytest.mark.parametrize("polled", [False, True])
async def test_fresh_reference_is_confirmed_without_a_read(one: Server, two: Server, *, polled: bool) -> None:
    """For a moment after its read, or after the last read of erasures; then the name is read again."""
    user = await two.users.of_name("tenant", "ada")
    two.clock.seconds += FRESH + 100
    if polled:
        await two.users.poll()
        await one.erase()
        assert await two.users.confirm("tenant", user)  # the erasure waits for that
        two.clock.seconds += FRESH
    else:
        assert await two.users.confirm("tenant", user)
        two.clock.seconds += FRESH + 1
        await one.erase()

    assert not await two.users.confirm("tenant", user)
    assert (await two.users.of_name("tenant", "ada")).reference != user.reference


async def test_session_is_not_given_to_an_erased_user(one: Server, two: Server, sessions: SessionStore) -> None:
    """A server that did not read the erasure in time undoes the acquisition, and acquires for the new user."""
    leases, attempts = LeaseHolders(sessions), list[EndUser | None]()
    old = await two.users.of_name("tenant", "ada")
    two.clock.seconds += FRESH + 1
    await one.erase()

    async def attempt(user: EndUser | None) -> Claim:
        attempts.append(user)
        return await leases.acquire(
            "tenant", "talk", turn_id="turn", text="hi", model=None, default_model="a/b", user=user
        )

    with leases.holder("turn"):
        claim = await acquire_for_user(two.users, leases, "tenant", "ada", attempt)
        leases.begin("turn")

    new = await one.users.find("tenant", "ada")
    assert [each and each.reference for each in attempts] == [old.reference, new]
    assert (claim.session.user_reference, claim.created) == (new, True)
    assert (await sessions.get("tenant", "talk")).user_reference == new


async def test_tenant_is_forgotten(one: Server) -> None:
    """With the names of those users who are being erased; those of others remain."""
    for tenant_id in ("tenant", "else"):
        for name in ("ada", "bob"):
            await one.users.of_name(tenant_id, name)
    await one.erase()
    await one.users.forget_tenant("tenant")

    left = await one.users._users.find({})
    assert sorted((each["tenant_id"], each["name"]) for each in left) == [("else", "ada"), ("else", "bob")]


class Turns:
    """Turns of one server that name the user ada, in a session that exists already."""

    def __init__(self, server: Server, sessions: SessionStore, database: Database) -> None:
        self.server = server
        self.leases = LeaseHolders(sessions)
        self.names = StoredNames(database, server.users, old_servers=_none, owner="one")
        self._sessions = database.collection("sessions")

    async def insert(self, **fields: Any) -> None:
        """Insert the session."""
        document = new_session_document(
            model="a/b", agent=SessionAgent(), user=None, user_reference=None, time=datetime.now(UTC)
        )
        ids = {"_id": "ses", "tenant_id": "tenant", "session_id": "talk", "lease": None, "fence": 1}
        await self._sessions.insert_one({**document, **ids, **fields})

    async def stored(self) -> Document:
        """Return the session."""
        return await self._sessions.find_one({"_id": "ses"}) or {}

    async def begin(self) -> Claim:
        """Acquire the session for a turn."""

        async def attempt(user: EndUser | None) -> Claim:
            return await self.leases.acquire(
                "tenant", "talk", turn_id="turn", text="hi", model=None, default_model="a/b", user=user
            )

        with self.leases.holder("turn"):
            return await acquire_for_user(self.server.users, self.leases, "tenant", "ada", attempt)


async def _none() -> list[str]:
    """Return the servers of schema 1 that run."""
    return []


@pytest.fixture
def turns(one: Server, sessions: SessionStore, database: Database) -> Turns:
    """Turns of a server."""
    return Turns(one, sessions, database)


_DEAD = {"turn_id": "turn_1", "replica_id": "", "text": "hi", "model": None, "user": None}
_NAMED_SESSIONS: dict[str, dict[str, Any]] = {
    "session": {"user": "ada"},
    "lease": {"lease": {**_DEAD, "user": "ada"}},
    "predecessor": {"lease": {**_DEAD, "predecessors": [_DEAD, {**_DEAD, "user": "ada"}]}},
}


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize("named", _NAMED_SESSIONS)
async def test_session_with_the_name_of_an_erased_user_is_not_given_to_the_new_one(
    one: Server, turns: Turns, named: str, *, claimed: bool
) -> None:
    """Neither after the order nor if an old server wrote it since: the turn retries until it is deleted."""
    first = await one.users.of_name("tenant", "ada")
    if claimed:
        await turns.insert(**_NAMED_SESSIONS[named])
        await turns.names.claim_sessions("tenant", "ada", first.reference)
    order = await one.erase()
    await one.users.poll()
    if not claimed:
        await turns.insert(**_NAMED_SESSIONS[named])
    before = await turns.stored()
    with pytest.raises(SessionBusy) as refused:
        await turns.begin()

    assert refused.value.retry_after
    after = await turns.stored()
    assert {name: after[name] for name in after if name != "fence"} | {"lease": 0} == {
        name: before[name] for name in before if name != "fence"
    } | {"lease": 0}
    assert (after["lease"] or {}).get("user") == (before["lease"] or {}).get("user")
    (found,) = await turns.leases._sessions.lists.of_user(
        "tenant", user="ada", user_reference=first.reference, limit=20
    )
    assert found.uid == "ses"
    await turns._sessions.delete_one({"_id": "ses"})
    await one.orders.finish(order)
    assert (await turns.begin()).session.user_reference == await one.users.find("tenant", "ada")


async def test_session_of_a_user_who_is_not_erased_stays_refused(one: Server, turns: Turns) -> None:
    """For a turn of another user, in both forms; its own user's turn continues it."""
    other = await one.users.of_name("tenant", "bob")
    await turns.insert(user="bob")
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await turns.begin()
        await turns.names.claim_sessions("tenant", "bob", other.reference)
    assert (await turns.stored())["user_reference"] == other.reference

    await turns._sessions.update_one({"_id": "ses"}, {"$set": {"user": "ada"}, "$unset": {"user_reference": ""}})
    assert (await turns.begin()).session.user_reference == await one.users.find("tenant", "ada")


async def test_interrupted_deletion_of_a_dead_turns_session_is_found(sessions: SessionStore, turns: Turns) -> None:
    """The user stands in a predecessor of the deletion's lease alone, in either form."""
    lease = {"turn_id": "del_1", "replica_id": "", "text": ""}
    for form in ({"user": "ada"}, {"user": "ada", "user_reference": "user_1"}, {"user_reference": "user_1"}):
        await turns.insert(lease={**lease, "predecessors": [{**_DEAD, **form}]})
        found = await sessions.lists.of_user("tenant", user="ada", user_reference="user_1", limit=20)
        assert [each.uid for each in found] == ["ses"]
        assert await sessions.lists.of_user("tenant", user="bob", user_reference="user_2", limit=20) == []
        await turns._sessions.delete_one({"_id": "ses"})


async def test_sessions_of_a_new_user_do_not_hide_those_of_the_erased_one(sessions: SessionStore, turns: Turns) -> None:
    """While old servers run, leases of a new user of the name have it, too: they take no place among those found."""
    for number in range(2):
        held = {"turn_id": "turn_2", "replica_id": "", "text": "hi", "user": "ada", "user_reference": "user_new"}
        await turns.insert(_id=f"new_{number}", session_id=f"new_{number}", lease=held)
    await turns.insert(lease={**_DEAD, "user": "ada"})
    found = await sessions.lists.of_user("tenant", user="ada", user_reference="user_1", limit=1)
    assert [each.uid for each in found] == ["ses"]


async def test_sessions_of_an_erased_user_are_not_listed_by_name(sessions: SessionStore, turns: Turns) -> None:
    """Until they are deleted they may have the name beside the reference; a name without reference finds it alone."""
    await turns.insert(user="ada", user_reference="user_old")
    await turns.insert(_id="named", session_id="named", user="ada")
    listed = [
        await sessions.lists.page("tenant", user="ada", user_reference=reference, after=None, limit=20)
        for reference in (None, "user_new", "user_old")
    ]

    assert [sorted(each.uid for each in found) for found in listed] == [["named"], ["named"], ["named", "ses"]]
