"""`godoty usage | ledger list | ledger export | prices`: the data of BillingService on the command line."""

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from godoty.v1 import ledger_pb2
from google.protobuf import json_format
from rich.console import Console

from godoty_service.cli import context
from godoty_service.errors import GodotyError
from godoty_service.ledger.states import CallState
from godoty_service.openrouter.api import OpenRouterApi
from godoty_service.pricing.money import format_usd
from godoty_service.usage.ledger_pages import LedgerPages
from tests.integration.billing.caller import keys_of, timestamp
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Tenant
from tests.support.invoking import invoke
from tests.support.service import Service

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
OPTIONS = ("--from", "2026-03-01", "--to", "2026-04-01")

Godoty = Callable[..., Awaitable[str]]


@pytest.fixture
def godoty(service: Service) -> Godoty:
    """Run a command on the shared server's database, beside the test's own loop."""

    async def run(*arguments: str) -> str:
        return await asyncio.to_thread(invoke, service, *arguments)

    return run


def rows_of(printed: str) -> list[list[str]]:
    """Return the cells of a table, without its header."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]


async def _fill(tenant: Tenant) -> None:
    """Insert entries of two end users with references: a server replaces names in the database at any time."""
    await tenant.name_users()
    ann, other = ({"user": None, "user_reference": tenant.references[name]} for name in ("ann", "bob"))
    for day, user in ((0, ann), (0, other), (1, ann)):
        start, model = NOON + timedelta(days=day), f"model/{day}"
        call = await tenant.open(start, session_id="talk", requested_model=model, **user)
        await tenant.close(call, start, state=CallState.SETTLED)
    given_up = await tenant.open(
        NOON, session_id="talk", requested_model="model/0", upper_bound=Decimal("0.5"), **other
    )
    await tenant.close(given_up, NOON, state=CallState.UNRESOLVED)
    await tenant.open(NOON, session_id="other", requested_model="model/0", upper_bound=Decimal("0.25"), **ann)


async def test_usage_prints_the_report_of_get_usage(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling, godoty: Godoty
) -> None:
    """By groups in a zone, in total, and again as of a time."""
    await _fill(served_tenant)
    answer = await connect_billing(service).usage(MARCH[0], MARCH[1], "day", "session", time_zone="Asia/Tokyo")
    options = (*OPTIONS, "--by", "day", "--by", "session", "--zone", "Asia/Tokyo")
    printed = await godoty("usage", service.tenant_id, *options)

    *groups, in_all = rows_of(printed)
    assert [tuple(row[:2]) for row in groups] == keys_of(answer)
    assert [row[2] for row in groups] == [row.totals.cost_usd for row in answer.rows]
    totals, usage = answer.totals, answer.totals.usage
    assert in_all == [
        *("total", "", totals.cost_usd, "5", str(totals.turns)),
        str(usage.input_tokens) if usage.HasField("input_tokens") else "",
        str(usage.output_tokens) if usage.HasField("output_tokens") else "",
        *("1", "1", "0.5"),
    ]
    as_of = printed.splitlines()[-1].removeprefix("as of ").partition(": ")[0]
    late = await served_tenant.close(await served_tenant.open(NOON, session_id="talk"), NOON, state=CallState.SETTLED)
    again = await godoty("usage", service.tenant_id, *options, "--as-of", as_of)
    assert rows_of(again) == [*groups, in_all]
    assert again.splitlines()[-1] == f"became known later: {format_usd(late.cost)} USD"


async def test_usage_without_options_is_of_this_month(service: Service, served_tenant: Tenant, godoty: Godoty) -> None:
    """One sum."""
    await served_tenant.open(datetime.now(UTC))
    await served_tenant.open(datetime.now(UTC) - timedelta(days=40))

    ((_, _, calls, *_),) = rows_of(await godoty("usage", service.tenant_id))
    assert calls == "1"


async def test_usage_as_json_and_csv(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling, godoty: Godoty
) -> None:
    """They have the sums of GetUsage in named columns, exact and without ruling; unknown is null."""
    await _fill(served_tenant)
    answer = await connect_billing(service).usage(MARCH[0], MARCH[1], "day", "model")
    options = (*OPTIONS, "--by", "day", "--by", "model", "--format")
    found = json.loads(await godoty("usage", service.tenant_id, *options, "json"))
    printed = await godoty("usage", service.tenant_id, *options, "csv")
    alone = await godoty("usage", service.tenant_id, *OPTIONS, "--format", "csv")

    sums = [(row.totals.cost_usd, row.totals.model_calls, row.totals.unresolved_calls) for row in answer.rows]
    names = ("cost_usd", "model_calls", "unresolved_calls")
    assert [(row["day"], row["model"]) for row in found["groups"]] == keys_of(answer)
    assert [tuple(row[name] for name in names) for row in found["groups"]] == sums
    assert (found["total"]["cost_usd"], found["total"]["pending_calls"]) == (answer.totals.cost_usd, 1)
    assert (found["total"]["unresolved_bound_usd"], found["known_later_usd"]) == ("0.5", None)
    rows = list(csv.DictReader(_sums(printed)))
    assert [{name: _text(value) for name, value in row.items()} for row in found["groups"]] == rows
    (total,) = csv.DictReader(_sums(alone))
    assert total == {name: _text(value) for name, value in found["total"].items()}
    assert not {*printed} & {*"│┃━┏"}


def _sums(printed: str) -> list[str]:
    """Return the output without the line that goes to standard error."""
    return [line for line in printed.splitlines() if not line.startswith("as of ")]


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)


async def test_ledger_list_as_json_and_csv(service: Service, served_tenant: Tenant, godoty: Godoty) -> None:
    """They have the entries of the table, in named columns."""
    await _fill(served_tenant)
    table = rows_of(await godoty("ledger", "list", service.tenant_id, *OPTIONS))
    found = json.loads(await godoty("ledger", "list", service.tenant_id, *OPTIONS, "--format", "json"))
    printed = await godoty("ledger", "list", service.tenant_id, *OPTIONS, "--format", "csv")

    # Columns that the table does not have.
    more = {"settle_time", "turn_id", "purpose", "agent", "agent_version", "api_key_id", "user_reference"}
    assert [[_text(value) for name, value in each.items() if name not in more] for each in found] == table
    assert more < found[0].keys()
    assert {(each["purpose"], each["agent"] != "") for each in found} == {("agent", True)}
    assert list(csv.DictReader(io.StringIO(printed))) == [
        {name: _text(value) for name, value in each.items()} for each in found
    ]
    assert [each["state"] for each in found].count("pending") == 1
    assert all(isinstance(each["cost_usd"], str | None) for each in found)


async def test_ledger_list_on_a_narrow_terminal_breaks_no_value(
    service: Service, served_tenant: Tenant, godoty: Godoty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns each entry is a block of lines, and each value is on one line."""
    await _fill(served_tenant)
    table = rows_of(await godoty("ledger", "list", service.tenant_id, *OPTIONS))
    report_sums = io.StringIO()
    terminal = Console(
        file=report_sums, force_terminal=True, width=80, highlight=False, soft_wrap=True, color_system=None
    )
    monkeypatch.setattr(context, "out", terminal)
    await godoty("ledger", "list", service.tenant_id, *OPTIONS)

    blocks = [block.splitlines() for block in report_sums.getvalue().strip().split("\n\n")]
    assert [[line.split("  ")[-1].strip() for line in block] for block in blocks] == [
        [cell for cell in row if cell] for row in table
    ]
    assert blocks[0][0].split() == ["entry", table[0][0]]


async def test_ledger_list_prints_entries(service: Service, served_tenant: Tenant, godoty: Godoty) -> None:
    """Oldest first, up to the limit, and only those that match."""
    await _fill(served_tenant)
    everything = rows_of(await godoty("ledger", "list", service.tenant_id, *OPTIONS))
    two = await godoty("ledger", "list", service.tenant_id, "--limit", "2")
    pending = rows_of(await godoty("ledger", "list", service.tenant_id, "--state", "pending"))
    by_model = rows_of(await godoty("ledger", "list", service.tenant_id, "--model", "model/0", "--session", "talk"))
    turn, key = next((call.turn_id, call.api_key_id or "none") for call in served_tenant.calls.values())
    by_turn = rows_of(await godoty("ledger", "list", service.tenant_id, "--turn", turn, "--user", "ann", "--key", key))
    as_of = rows_of(await godoty("ledger", "list", service.tenant_id, "--as-of", "2026-01-01"))

    in_order = sorted((each["start_time"], each["number"], each["_id"]) for each in await served_tenant.documents())
    assert [row[0] for row in everything] == [entry_id for _, _, entry_id in in_order]
    assert rows_of(two) == everything[:2]
    assert two.splitlines()[-1].startswith("there are more")
    ((call_id, started, context, _, state, model, _, cost, bound, user, _),) = pending
    assert (started, context, state, model) == ("2026-03-10T12:00:00.000+00:00", "other", "pending", "model/0")
    assert (call_id in served_tenant.calls, cost, bound, user) == (True, "", "0.25", "ann")
    assert {row[4] for row in by_model} <= {"settled", "unresolved"}
    matching = [
        each
        for each in served_tenant.calls.values()
        if (each.turn_id, each.user_reference, each.api_key_id) == (turn, served_tenant.references["ann"], key)
    ]
    assert [row[0] for row in by_turn] == [each.call_id for each in matching]
    assert as_of == [], "all entries were inserted later"


async def test_ledger_export_writes_one_line_for_each_entry(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling, godoty: Godoty
) -> None:
    """The messages of ExportLedger as JSON, and `as_of` on standard error first."""
    await _fill(served_tenant)
    as_of, *lines = (await godoty("ledger", "export", service.tenant_id, *OPTIONS)).splitlines()
    start, end = (timestamp(each) for each in MARCH)
    exported = [
        entry
        for page in await connect_billing(service).export(start_time=start, end_time=end)
        for entry in page.entries
    ]

    assert [json_format.Parse(line, ledger_pb2.LedgerEntry()) for line in lines] == exported
    assert len(lines) == 5
    assert as_of.startswith("as of 20")
    assert all(isinstance(json.loads(line)["call"].get("cost_usd", ""), str) for line in lines)


async def test_export_has_one_page_in_memory(
    service: Service, served_tenant: Tenant, godoty: Godoty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any number of entries: each page is written before the next is read."""
    await served_tenant.settled([NOON] * 1100, rolled_up=True)
    written, when_read = 0, []
    page, to_json = LedgerPages._find, json_format.MessageToJson

    async def read(*args: Any, **others: Any) -> Any:
        when_read.append(written)
        return await page(*args, **others)

    def write(*args: Any, **others: Any) -> str:
        nonlocal written
        written += 1
        return to_json(*args, **others)

    monkeypatch.setattr(LedgerPages, "_find", read)
    monkeypatch.setattr(json_format, "MessageToJson", write)
    await godoty("ledger", "export", service.tenant_id)
    await served_tenant.database.collection("ledger").delete_many({"tenant_id": served_tenant.tenant_id})

    assert (when_read, written) == ([0, 500, 1000], 1100)


async def test_prices_shows_the_catalogue_and_prices_of_a_model(service: Service, godoty: Godoty) -> None:
    """The catalogue of the running server: its hash, its age, and exact prices by token."""
    (kept,) = service.database["catalogues"].find()
    printed = await godoty("prices", "openai/gpt-4o-mini")

    first, second, third, *_ = printed.splitlines()
    assert first == f"catalogue  {kept['_id']}"
    assert second.startswith(f"first seen {kept['fetch_time']:%Y-%m-%dT%H:%M:%S}")
    assert int(third.removeprefix("models     ")) > 300
    prices = {name: price for name, _, price in rows_of(printed)}
    assert (prices["prompt"], prices["completion"]) == ("0.00000015", "0.0000006")
    assert "│" not in await godoty("prices")


async def test_accept_stores_a_listing_that_servers_reject(
    service: Service, godoty: Godoty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command replaces the catalogue in force; without it, the same listing is rejected."""

    async def models(_: OpenRouterApi) -> bytes:
        return b'{"data": [{"id": "only/one", "pricing": {"prompt": "0.1", "completion": "0.1"}}]}'

    monkeypatch.setattr(OpenRouterApi, "models", models)
    before = await godoty("prices")
    accepted = await godoty("prices", "only/one", "--accept")
    after = await godoty("prices")
    service.database["catalogues"].delete_one({"_id": after.splitlines()[0].split()[1]})  # the others' server goes on

    assert int(before.splitlines()[2].removeprefix("models     ")) > 300
    assert after.splitlines()[2] == accepted.splitlines()[2] == "models     1"
    assert await godoty("prices") != after


async def test_prices_shows_unknown_prices_as_unknown(service: Service, godoty: Godoty) -> None:
    """A router's price depends on its choice, so there is no number."""
    ((name, _, price), *_) = rows_of(await godoty("prices", "openrouter/auto"))

    assert (name, price) == ("prompt", "unknown")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usage", "tnt_none"), "There is no tenant tnt_none"),
        (("ledger", "list", "tnt_none"), "There is no tenant tnt_none"),
        (("ledger", "export", "tnt_none"), "There is no tenant tnt_none"),
        (("usage", "TENANT", "--zone", "Europe/Bonn"), "--zone Europe/Bonn: must be"),
        (("usage", "TENANT", "--from", "yesterday"), "yesterday: must be a time such as"),
        (("usage", "TENANT", "--from", "2026-03-02", "--to", "2026-03-01"), "end_time: must be after start_time"),
        (("usage", "TENANT", "--by", "day", "--by", "hour"), "group_by: must name at most one of hour, day and month"),
        (("ledger", "export", "TENANT", "--from", "2026-13-01"), "2026-13-01: must be a time"),
        (("prices", "openai/gpt-99"), "the catalogue has no model openai/gpt-99"),
    ],
)
async def test_invalid_option_is_refused_with_the_error_of_the_service(
    service: Service, godoty: Godoty, arguments: tuple[str, ...], said: str
) -> None:
    """One sentence that says what is wrong."""
    with pytest.raises((GodotyError, ValueError)) as caught:
        await godoty(*(service.tenant_id if each == "TENANT" else each for each in arguments))

    assert said in str(caught.value)
