"""References of end users: one for a name, whichever server asks, and none of an erased user is used again."""

import asyncio
import re

import pytest

from godoty_service.mongo.client import Database
from godoty_service.sessions.end_users import acquire_for_user
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import SessionStore
from godoty_service.users.erasures import ErasureOrder, ErasureOrders
from godoty_service.users.references import FRESH, EndUser, UserReferences


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
    assert await one.orders.unfinished() == []


async def test_name_that_is_being_erased_belongs_to_the_erased_user(one: Server) -> None:
    """Stored data with the name is older than the erasure, also once new users have the name, who are erased too."""
    first = await one.users.of_name("tenant", "ada")
    order = await one.erase()
    assert await one.users.of_names("tenant", ["ada"]) == {"ada": first.reference}

    for _ in range(2):
        await one.users.poll()
        new = await one.users.of_name("tenant", "ada")
        assert new.reference != first.reference
        entries = [{"user": "ada"}, {"user_reference": new.reference}]
        await one.users.fill_names("tenant", entries)
        assert entries[0] == {"user": "ada", "user_reference": first.reference}
        assert entries[1] == {"user": "ada", "user_reference": new.reference}
        assert await one.users.of_names("tenant", ["ada", "bob"]) == {
            "ada": first.reference,
            "bob": await one.users.find("tenant", "bob"),
        }
        last = await one.erase()
    await one.orders.finish(order)
    assert await one.users.of_names("tenant", ["ada"]) != {"ada": first.reference}
    await one.orders.finish(last)


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
