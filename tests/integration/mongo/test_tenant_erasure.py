"""The job that erases deleted tenants: what fails for one tenant does not block the others."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from godoty_service.clock import utc_now
from godoty_service.errors import StorageUnavailable
from godoty_service.mongo.client import Database
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.audit import Actor, ActorKind, AdminChanges
from godoty_service.tenancy.erasure import ErasureStep, TenantErasure
from godoty_service.tenancy.lifecycle import TenantLifecycle
from godoty_service.tenancy.tenants import Tenants

ACTOR = Actor(kind=ActorKind.SYSTEM, id="test")


@pytest.fixture
def tenants(database: Database) -> Tenants:
    """The tenants of an empty database."""
    return Tenants(database.collection(Tenants.COLLECTION))


@pytest.fixture
def lifecycle(database: Database, tenants: Tenants) -> TenantLifecycle:
    """Deletes them."""
    return TenantLifecycle(
        tenants=tenants,
        keys=ApiKeys(database.collection(ApiKeys.COLLECTION)),
        changes=AdminChanges(database.collection(AdminChanges.COLLECTION)),
        clock=utc_now,
    )


def erasure(database: Database, tenants: Tenants, erase: Callable[[str], Awaitable[bool]]) -> TenantErasure:
    """Return a job with one step."""

    async def living(_: object) -> set[str]:
        return set()

    return TenantErasure(
        tenants,
        steps=[ErasureStep(name="step", erase=erase)],
        delay=timedelta(0),
        now=database.now,
        living=living,
        owner="one",
    )


@pytest.mark.parametrize(
    ("failing", "tried", "raises"),
    [([1], 5, False), ([0, 2, 3], 5, False), ([0, 1, 2], 3, True)],
    ids=["one", "not-in-a-row", "in-a-row"],
)
async def test_tenant_whose_operation_times_out_does_not_block_others(
    database: Database, tenants: Tenants, lifecycle: TenantLifecycle, failing: list[int], tried: int, *, raises: bool
) -> None:
    """The job goes on with the next tenant, and ends its run only once three in a row have failed."""
    deleted = [(await tenants.create("Acme")).tenant_id for _ in range(5)]
    for each in deleted:
        await lifecycle.delete(ACTOR, each)
    attempts: list[str] = []

    async def erase(tenant_id: str) -> bool:
        attempts.append(tenant_id)
        if deleted.index(tenant_id) in failing:
            raise StorageUnavailable("a test lets it time out")
        return True

    with pytest.raises(StorageUnavailable) if raises else nullcontext():
        await erasure(database, tenants, erase).run_once()

    assert attempts == deleted[:tried]
    erased = [each for each in deleted if (await tenants.require(each)).erase_time is not None]
    assert erased == [each for number, each in enumerate(deleted[:tried]) if number not in failing]


async def test_tenants_that_wait_do_not_hide_later_ones(database: Database, tenants: Tenants) -> None:
    """However many wait for open calls, also if they were deleted at one time: each run gets to all of them."""
    collection = database.collection(Tenants.COLLECTION)
    await collection.ensure(Tenants.INDEXES)
    times = [datetime(2026, 1, 1 + number // 120, tzinfo=UTC) for number in range(250)]
    deleted = [f"tenant-{number:03}" for number in range(250)]
    await collection.insert_many(
        [
            {"_id": tenant_id, "name": "Acme", "create_time": time, "delete_time": time, "erasure": {"owner": "one"}}
            for tenant_id, time in zip(deleted, times, strict=True)
        ]
    )
    attempts: list[str] = []

    async def erase(tenant_id: str) -> bool:
        attempts.append(tenant_id)
        return tenant_id in (deleted[0], deleted[-1])

    await erasure(database, tenants, erase).run_once()

    assert attempts == deleted
    left = await collection.count({"erasure": {"$exists": True}})
    assert left == 248
