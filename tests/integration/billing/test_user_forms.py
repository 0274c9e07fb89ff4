"""End users in lists and reports: by name, by reference, and in the form that schema 1 stored."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments
from godoty_service.sessions.store import SessionStore
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.ledger_pages import EntryFilter, LedgerPages
from godoty_service.users.erasures import ErasureOrders
from tests.integration.billing.harness import Server, Tenant, usage_query
from tests.integration.billing.test_usage_pages import MONTH, NOON


@pytest.fixture
def pages(server: Server) -> LedgerPages:
    """Pages of the ledger."""
    return LedgerPages(server.database.collection("ledger"), users=server.users, piece=3)


async def found(pages: LedgerPages, tenant: Tenant, which: EntryFilter) -> list[tuple[str, str | None, str | None]]:
    """Return the matching entries with their end users."""
    entries = [each async for some in pages.pages(tenant.tenant_id, which, size=2) for each in some]
    return [(each.entry_id, each.user, each.user_reference) for each in entries]


async def test_entries_of_both_forms_are_those_of_one_user(server: Server, tenant: Tenant, pages: LedgerPages) -> None:
    """A filter by name or by reference finds both, each with both; a report has one row for them."""
    await tenant.name_users()
    ann, bob = tenant.references["ann"], tenant.references["bob"]
    fields: list[dict[str, str | None]] = [
        {"user": "ann"},
        {"user_reference": ann},
        {"user": "eve"},
        {"user_reference": bob},
        {"user": None},
    ]
    nothing: dict[str, str | None] = {"user": None, "user_reference": None}
    calls = [await tenant.open(NOON + timedelta(hours=hour), **nothing | each) for hour, each in enumerate(fields)]
    ids = [each.call_id for each in calls]
    anns = [(ids[0], "ann", ann), (ids[1], "ann", ann)]

    assert await found(pages, tenant, EntryFilter(user="ann")) == anns
    assert await found(pages, tenant, EntryFilter(user_reference=ann)) == anns
    assert await found(pages, tenant, EntryFilter(user="eve")) == [(ids[2], "eve", None)]
    assert await found(pages, tenant, EntryFilter(user="none")) == []
    assert await found(pages, tenant, EntryFilter()) == [
        *anns,
        (ids[2], "eve", None),
        (ids[3], "bob", bob),
        (ids[4], None, None),
    ]
    page = await pages.page(tenant.tenant_id, EntryFilter(user="ann"), after=None, limit=5)
    assert [each.entry_id for each in page.entries] == ids[:2]
    report = await server.query.run(tenant.tenant_id, usage_query(*MONTH, NamedGroup.USER))
    eve = await server.users.find(tenant.tenant_id, "eve")
    assert {(row.key[0], row.user): row.totals.model_calls for row in report.rows} == {
        ("", ""): 1,
        (ann, "ann"): 2,
        (bob, "bob"): 1,
        (eve, "eve"): 1,
    }


async def test_erased_user_has_a_reference_alone(server: Server, tenant: Tenant, pages: LedgerPages) -> None:
    """From the order on; the totals stay, and the name finds nothing."""
    await tenant.name_users()
    ann = tenant.references["ann"]
    call = await tenant.open(NOON, user=None, user_reference=ann)
    orders = ErasureOrders(server.database.collection("users"))
    before = await server.query.run(tenant.tenant_id, usage_query(*MONTH, NamedGroup.USER))
    await orders.place(tenant.tenant_id, ann, name="ann", request_id="one", owner="server")
    after = await server.query.run(tenant.tenant_id, usage_query(*MONTH, NamedGroup.USER))

    assert [(row.key, row.keys, row.user) for row in before.rows] == [((ann,), ("ann",), "ann")]
    assert [(row.key, row.keys, row.user) for row in after.rows] == [((ann,), (ann,), "")]
    assert before.totals == after.totals
    assert await found(pages, tenant, EntryFilter(user="ann")) == []
    assert await found(pages, tenant, EntryFilter(user_reference=ann)) == [(call.call_id, None, ann)]


async def test_late_entry_of_an_erased_user_makes_no_new_user(server: Server, tenant: Tenant) -> None:
    """A server of schema 1 writes it with the name; it gets the reference that its session has."""
    await tenant.name_users()
    ann = tenant.references["ann"]
    orders = ErasureOrders(server.database.collection("users"))
    await tenant.open(NOON, user=None, user_reference=ann, session_uid="s1")
    order = await orders.place(tenant.tenant_id, ann, name="ann", request_id=None, owner="server")
    assert order is not None
    await orders.finish(order)
    late = await tenant.open(NOON, user="ann", user_reference=None, session_uid="s1")
    assert await server.stored_names.replace() == 1

    (stored,) = [each for each in await tenant.documents() if each["_id"] == late.call_id]
    assert (stored.get("user"), stored["user_reference"]) == (None, ann)
    assert await server.users.find(tenant.tenant_id, "ann") is None


@pytest.mark.parametrize("closed", [True, False])
async def test_call_that_was_read_with_its_name_is_written_without_it(
    server: Server, tenant: Tenant, *, closed: bool
) -> None:
    """By the reconciler, which closes or defers it after the name was replaced."""
    await tenant.name_users()
    call = await tenant.open(NOON, user="ann", user_reference=None)
    await server.stored_names.replace()
    if closed:
        await tenant.close(call, NOON)
    else:
        await tenant.defer(call)

    (stored,) = await tenant.documents()
    assert ("user" in stored, stored["user_reference"]) == (False, tenant.references["ann"])


async def test_adjustment_of_a_call_with_both_forms_has_the_reference_alone(server: Server, tenant: Tenant) -> None:
    """Whether it resolves the call or corrects it."""
    await tenant.name_users()
    ann = tenant.references["ann"]
    replicas = ReplicaHeartbeats(server.database.collection("replicas"), replica_id="one", lease=timedelta(seconds=1))
    updater = SessionTotalsUpdater(
        SessionStore(server.database.collection("sessions"), replicas=replicas), server.ledger
    )
    adjustments = Adjustments(server.ledger, updater)
    calls = [await tenant.open(NOON, user="ann", user_reference=ann, upper_bound=Decimal(1)) for _ in range(2)]
    unresolved = replace(calls[0], state=CallState.UNRESOLVED, settle_time=NOON)
    settled = replace(calls[1], state=CallState.SETTLED, settle_time=NOON, cost=Decimal("0.1"))
    assert [await server.ledger.close(each) for each in (unresolved, settled)] == [True, True]
    order = AdjustmentOrder(
        tenant_id=tenant.tenant_id,
        call_id=settled.call_id,
        amount=Decimal("0.2"),
        is_new_cost=True,
        why="a test",
        by="ann",
        request_id="one",
    )
    made = [
        await adjustments.resolve(unresolved, cost=Decimal("0.1"), why="a test", by="ann"),
        await adjustments.adjust(order),
    ]

    assert [(each.user, each.user_reference) for each in made] == [(None, ann)] * 2


async def test_adjustment_without_a_user_gets_that_of_its_call(server: Server, tenant: Tenant) -> None:
    """A server of schema 1 does not know references; calls without a user, and later adjustments, are no obstacle."""
    await tenant.name_users()
    ann = tenant.references["ann"]
    forms: list[dict[str, str | None]] = [{"user_reference": ann}, {"user_reference": None}]
    calls = [await tenant.open(NOON, **{"user": None} | each) for each in forms]
    calls = [await tenant.close(each, NOON, state=CallState.SETTLED) for each in calls]
    for hour in range(2):
        made = [await tenant.adjust(replace(each, user_reference=None), NOON + timedelta(hours=hour)) for each in calls]
        await server.stored_names.replace()
        stored = {each["_id"]: each.get("user_reference") for each in await tenant.documents()}
        assert [stored[each.entry_id] for each in made] == [ann, None]
        server.stored_names._completed_until = NOON


async def test_name_that_gets_a_reference_during_a_listing_is_found_further(
    server: Server, tenant: Tenant, pages: LedgerPages
) -> None:
    """The entries that remain have the reference by then."""
    ids = [
        (await tenant.open(NOON + timedelta(hours=hour), user="eve", user_reference=None)).call_id for hour in range(4)
    ]
    found: list[str] = []
    async for page in pages.pages(tenant.tenant_id, EntryFilter(user="eve"), size=2):
        found += [each.entry_id for each in page]
        await server.stored_names.replace()

    assert found == ids


@pytest.fixture
def orders(server: Server) -> ErasureOrders:
    """Orders of erasures."""
    return ErasureOrders(server.database.collection("users"))


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_filter_finds_no_entry_of_the_user_who_had_the_name_before(
    server: Server, tenant: Tenant, pages: LedgerPages, orders: ErasureOrders, size: int
) -> None:
    """While that user is being erased, entries have the name alone; however many of them stand between the others."""
    await tenant.name_users()
    old = tenant.references["ann"]
    order = await orders.place(tenant.tenant_id, old, name="ann", request_id=None, owner="server")
    assert order is not None
    times = [NOON + timedelta(minutes=number) for number in range(12)]
    old_form: dict[str, str | None] = {"user": "ann", "user_reference": None, "session_uid": "ses_old"}
    olds = [(await tenant.open(time, **old_form)).call_id for time in times if time.minute % 3]
    assert await found(pages, tenant, EntryFilter(user="ann")) == []
    new = (await server.users._read_or_create(tenant.tenant_id, "ann")).reference
    new_form: dict[str, str | None] = {"user": None, "user_reference": new, "session_uid": "ses_new"}
    calls = [await tenant.open(time, **new_form) for time in times[::3]]
    news = [(each.call_id, "ann", new) for each in calls]
    erased = [(each, None, old) for each in olds]

    async def listed(which: EntryFilter) -> list[tuple[str, str | None, str | None]]:
        entries = [each async for some in pages.pages(tenant.tenant_id, which, size=size) for each in some]
        return [(each.entry_id, each.user, each.user_reference) for each in entries]

    assert await listed(EntryFilter(user="ann")) == news
    assert await listed(EntryFilter(user_reference=new)) == news
    assert await listed(EntryFilter(user_reference=old)) == erased
    assert sorted(await listed(EntryFilter())) == sorted([*news, *erased])
    assert news[0] in await listed(EntryFilter(user="ann", turn_id=calls[0].turn_id))
    page = await pages.page(tenant.tenant_id, EntryFilter(user="ann"), after=None, limit=2)
    assert [each.entry_id for each in page.entries] == [each[0] for each in news[:2]]


async def test_late_entry_of_an_erased_user_is_not_listed_for_a_new_one(
    server: Server, tenant: Tenant, pages: LedgerPages, orders: ErasureOrders
) -> None:
    """A server of schema 1 writes it after the erasure, with the name that a new user has by now."""
    await tenant.name_users()
    old = tenant.references["ann"]
    first = await tenant.open(NOON, user=None, user_reference=old, session_uid="s1")
    order = await orders.place(tenant.tenant_id, old, name="ann", request_id=None, owner="server")
    assert order is not None
    await orders.finish(order)
    new = (await server.users._read_or_create(tenant.tenant_id, "ann")).reference
    late = await tenant.open(NOON + timedelta(hours=1), user="ann", user_reference=None, session_uid="s1")
    own = await tenant.open(NOON + timedelta(hours=2), user=None, user_reference=new, session_uid="s2")

    assert await found(pages, tenant, EntryFilter(user="ann")) == [(own.call_id, "ann", new)]
    assert await found(pages, tenant, EntryFilter(user_reference=new)) == [(own.call_id, "ann", new)]
    assert await found(pages, tenant, EntryFilter()) == [
        (first.call_id, None, old),
        (late.call_id, None, old),
        (own.call_id, "ann", new),
    ]
