"""Servers whose system clock is wrong store times of the database's clock."""

import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.conftest import Start, StartProcess, server_environment
from tests.e2e.clocks.conftest import health
from tests.e2e.metering.conftest import Godoty
from tests.faults.cluster import ServerProcess, logged
from tests.faults.stored_times import late_expiries, late_times
from tests.integration.billing.caller import BillingCaller
from tests.support.backends import ME, Backends
from tests.support.caller import Caller
from tests.support.service import Service, eventually, soon
from tests.support.system_clock import SKEW

Connect = Callable[[Service], Caller]
MONTH, DAY, TEN_MINUTES = timedelta(days=31), timedelta(days=1), timedelta(minutes=10)
BUSY = {"GODOTY_ROLLUP_INTERVAL": "0.1", "GODOTY_KEY_USE_INTERVAL": "0.1"}
HEALTH = {-MONTH: "NOT_SERVING", TEN_MINUTES: "SERVING"}  # with a tolerance of eleven minutes


def skewed(by: timedelta) -> dict[str, str]:
    """The environment of a server whose clock is ahead."""
    return {SKEW: str(by.total_seconds())}


@pytest.fixture(scope="module")
def process_ahead(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server whose clock is a month ahead, and its database."""
    database = backends.new_database()
    environment = server_environment(backends, database) | BUSY | skewed(MONTH)
    environment["GODOTY_METRICS_LISTEN"] = "127.0.0.1:0"
    process = ServerProcess(environment=environment, log=tmp_path_factory.mktemp("ahead") / "server.log")
    try:
        backends.run(process.start())
        yield process, database
    finally:
        backends.run(process.stop())
        backends.mongo.drop_database(database)


@pytest.fixture
def ahead(backends: Backends, process_ahead: tuple[ServerProcess, str]) -> Service:
    """A new tenant of a server whose clock is a month ahead."""
    process, database = process_ahead
    return backends.service(process.address, database)


@pytest.mark.parametrize("by", HEALTH)
async def test_server_with_wrong_clock_stores_times_of_the_database(
    serve_process: StartProcess, connect: Connect, by: timedelta
) -> None:
    """Sessions, messages, turns, entries, prices, roll-ups and heartbeats have the database's time."""
    begun = datetime.now(UTC)
    _, service = await serve_process(**skewed(by), **BUSY, GODOTY_CLOCK_TOLERANCE="660")

    assert await health(service.target) == HEALTH[by]
    await _assert_times_of_the_database(connect(service), begun)


async def test_server_a_month_ahead_stores_times_of_the_database(ahead: Service, connect: Connect) -> None:
    """As one that is behind, or a little ahead."""
    await _assert_times_of_the_database(connect(ahead), datetime.now(UTC))


async def _assert_times_of_the_database(caller: Caller, begun: datetime) -> None:
    """Run turns, and check all times in the database."""
    service = caller.service
    await caller.converse("hello")
    await caller.converse("@sandbox tool-loop calls=2")
    states = service.database["usage_rollup_state"]
    await soon(lambda: states.find_one({"_id": service.tenant_id, "last_batch": {"$gt": 0}}))
    keys = service.database["api_keys"]
    await soon(lambda: keys.find_one({"_id": service.key_id, "last_use_time": {"$ne": None}}))

    now = datetime.now(UTC) + timedelta(seconds=1)
    assert late_times(service.database, now=now) == []
    assert late_expiries(service.database, until=now + timedelta(hours=26)) == []
    entries = service.entries("talk")
    assert all(begun - timedelta(seconds=1) < each.start_time for each in entries)
    assert [each.start_time for each in entries] == sorted(each.start_time for each in entries)
    session = service.session("talk") or {}
    assert begun - timedelta(seconds=1) < session["update_time"] < now
    turn = service.database["turns"].find_one({"tenant_id": service.tenant_id}) or {}
    assert turn["expire_time"] > begun + timedelta(hours=24) - timedelta(seconds=1)


async def test_clock_beyond_tolerance_makes_health_not_serving_and_turns_still_run(
    process_ahead: tuple[ServerProcess, str], ahead: Service, connect: Connect
) -> None:
    """The server logs its offset, counts it, and is NOT_SERVING; a turn still runs."""
    log = process_ahead[0].log.read_bytes()
    (serving,) = logged(log, "serving")

    assert await health(ahead.target) == "NOT_SERVING"
    assert await health(ahead.target, "godoty.v1.AgentService") == "NOT_SERVING"
    assert (await connect(ahead).converse("hello")).finished.turn_totals.model_calls == 1
    address = f"http://127.0.0.1:{serving['metrics_port']}/metrics"
    page = urllib.request.urlopen(address, timeout=60).read().decode()  # noqa: ASYNC210 - a test may block its own loop
    figures = {line.split()[0]: float(line.split()[1]) for line in page.splitlines() if line.startswith("godoty_clock")}
    assert abs(figures["godoty_clock_offset_seconds"] - MONTH.total_seconds()) < 5
    assert figures["godoty_clock_out_of_tolerance_total"] >= 1
    assert [*logged(log, "clock_out_of_tolerance")]


async def test_call_of_a_server_a_month_ahead_leaves_the_budget_readable(
    serve: Start, ahead: Service, connect: Connect
) -> None:
    """After it, a server with a correct clock counts the month's spending and permits the next call."""
    right = await serve(database=ahead.database.name)
    async with open_components(ahead.backends.settings(ahead.database.name), indexes=False) as components:
        hard = Budget(window=BudgetWindow.MONTH, limit=Decimal(100), hard=True)
        await components.administration.update_policy(ME, ahead.tenant_id, PolicyChange(policy=Policy(budgets=(hard,))))
        await connect(ahead).converse("hello")
        spent = (await connect(ahead.at(right.target)).converse("hello")).finished.session_totals.cost_usd

        async def is_counted() -> bool:
            """A call of a server that did not know the budget yet is counted with the opening balance."""
            (status,) = await components.budgets.service.status(ahead.tenant_id)
            return status.spent == Decimal(spent) > 0

        await eventually(is_counted, within=120)


async def test_settlement_by_a_server_a_month_ahead_leaves_usage_live(
    serve: Start, ahead: Service, connect: Connect, issue: Callable[..., str]
) -> None:
    """`as_of` stays the database's time, and a later call is in the next answer."""
    right = await serve(database=ahead.database.name)
    caller = connect(ahead.at(right.target))
    biller = BillingCaller(ahead, caller.channel, issue(ahead, scopes=frozenset({Scope.BILLING})))
    start, end = datetime.now(UTC) - DAY, datetime.now(UTC) + 2 * DAY
    await connect(ahead).converse("hello")
    first = await biller.usage(start, end)
    await caller.converse("hello")
    second = await biller.usage(start, end)

    times = [each.as_of.ToDatetime(tzinfo=UTC) for each in (first, second)]
    assert times[0] <= times[1] < datetime.now(UTC) + timedelta(seconds=1)
    assert [each.totals.model_calls for each in (first, second)] == [1, 2]


async def test_api_key_expires_by_the_time_of_the_database(
    ahead: Service, connect: Connect, issue: Callable[..., str]
) -> None:
    """A key that expires in ten minutes is valid on a server whose clock is a month ahead."""
    key = issue(ahead, scopes=frozenset({Scope.CONVERSE}), expire_time=datetime.now(UTC) + TEN_MINUTES)

    assert (await connect(ahead.with_key(key)).converse("hello")).finished.turn_totals.model_calls == 1


async def test_command_on_a_machine_with_a_wrong_clock_stores_times_of_the_database(
    service: Service, godoty: Godoty
) -> None:
    """A key for one day expires a day from now, and the audit record has the database's time."""
    said = await godoty(service, "key", "create", service.tenant_id, "--days", "1", **skewed(MONTH))

    assert said.status == 0, said.err
    key = service.database["api_keys"].find_one({"tenant_id": service.tenant_id}, sort=[("create_time", -1)]) or {}
    left = key["expire_time"].replace(tzinfo=UTC) - datetime.now(UTC)
    assert DAY - timedelta(minutes=1) < left <= DAY + timedelta(seconds=1)
    change = service.database["admin_changes"].find_one({"tenant_id": service.tenant_id}) or {}
    made = int(change["_id"].partition("_")[2][:12], 16) / 1000
    assert abs(made - datetime.now(UTC).timestamp()) < 60
    assert abs((change["time"].replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()) < 60
