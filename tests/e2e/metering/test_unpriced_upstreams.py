"""Upstreams without a price list (llama.cpp, vLLM, LiteLLM) are served; their cost is unknown until it is stated."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import model_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.clock import utc_now
from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from openrouter_sandbox.server import Sandbox
from openrouter_sandbox.settings import SandboxSettings
from tests.conftest import Start, StartProcess, server_environment
from tests.e2e.metering.conftest import NEVER, Godoty, StartHarness
from tests.e2e.metering.reconciler_harness import calls
from tests.faults.cluster import ServerProcess, logged
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.invoking import invoke
from tests.support.service import Service

Connect = Callable[[Service], Caller]
NO_COST = "@sandbox no-cost prompt_tokens=100 tokens=10"
MODEL = "openai/gpt-4o-mini"
TODAY = datetime.now(UTC).date().isoformat()


@pytest.fixture
async def upstream() -> AsyncIterator[Sandbox]:
    """An upstream that lists models without prices, and keeps no generation records."""
    async with Sandbox(settings=SandboxSettings(listing="unpriced", record_endpoint="openai")) as sandbox:
        yield sandbox


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    """A path for a price file."""
    return tmp_path / "prices.toml"


def write(path: Path, *, models: str = "openai/*", prompt: str, completion: str = "0", since: str = TODAY) -> Path:
    """Write a price file of one table."""
    path.write_text(
        f'[[prices]]\nmodels = "{models}"\nfrom = {since}\nprompt = "{prompt}"\ncompletion = "{completion}"\n'
    )
    return path


async def printed(service: Service, upstream: Sandbox, *arguments: str) -> str:
    """Run a command against the same upstream; return what it printed."""
    return await asyncio.to_thread(invoke, service, *arguments, GODOTY_OPENROUTER_BASE_URL=upstream.base_url)


@pytest.mark.parametrize("listing", ["unpriced", "missing"])
async def test_model_of_an_upstream_without_prices_is_served(
    serve: Start, connect: Connect, upstream: Sandbox, listing: str
) -> None:
    """The turn is answered, its tokens are known, its cost is not: the call is open, never free."""
    upstream.settings.listing = listing
    service = await serve(openrouter_base_url=upstream.base_url)
    turn = await connect(service).converse(NO_COST, model=MODEL)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    totals = turn.finished.turn_totals
    assert (totals.pending_calls, totals.cost_usd) == (1, "0")
    (entry,) = service.entries("talk")
    assert (entry.cost, entry.catalogue_cost, entry.upper_bound) == (None, None, None)
    assert (entry.usage and entry.usage.input_tokens, entry.served_model) == (100, MODEL)


async def test_upstream_is_served_although_another_one_was_used_before(
    serve: Start, connect: Connect, upstream: Sandbox
) -> None:
    """The catalogue of the base URL before is in the database, and has no such model."""
    before = await serve()
    upstream.settings.listing = "missing"
    service = await serve(database=before.database.name, openrouter_base_url=upstream.base_url)
    turn = await connect(service).converse("hi", model="my/own")

    assert turn.failure is not None
    assert turn.failure.reason == "MODEL_UNAVAILABLE"  # the upstream's own answer, not UNKNOWN_MODEL


async def test_model_that_the_upstream_does_not_list_is_refused(
    serve: Start, connect: Connect, upstream: Sandbox
) -> None:
    """Only without any list does the upstream itself decide."""
    caller = connect(await serve(openrouter_base_url=upstream.base_url))
    turn = await caller.converse("hi", model="unknown/nothing")

    assert turn.failure is not None
    assert turn.failure.reason == "UNKNOWN_MODEL"


async def test_cost_that_the_upstream_states_is_the_charge(serve: Start, connect: Connect, upstream: Sandbox) -> None:
    """A gateway may bill although it lists no prices."""
    service = await serve(openrouter_base_url=upstream.base_url)
    await connect(service).converse("hi", model=MODEL)

    (entry,) = service.entries("talk")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)


@pytest.mark.parametrize("listing", ["unpriced", "missing"])
@pytest.mark.parametrize("prices", [("0.0000002", "0.0000006", "0.000026"), ("0", "0", "0")], ids=["paid", "free"])
async def test_price_file_settles_calls_in_their_turn(
    serve: Start, connect: Connect, upstream: Sandbox, *, price_file: Path, listing: str, prices: tuple[str, str, str]
) -> None:
    """As a price of the catalogue, with its evidence; "0" states that a model is free, and then the cost is 0."""
    (prompt, completion, cost), upstream.settings.listing = prices, listing
    path = write(price_file, prompt=prompt, completion=completion)
    service = await serve(openrouter_base_url=upstream.base_url, price_file=path)
    turn = await connect(service).converse(NO_COST, model=MODEL)

    assert turn.finished.turn_totals.cost_usd == cost
    (entry,) = service.entries("talk")
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.CATALOGUE, Decimal(cost))
    assert entry.upper_bound is None  # there is no bound without a limit of output tokens
    (call,) = turn.calls
    assert (call.unit_prices.input_usd, call.unit_prices.output_usd) == (prompt, completion)
    assert len(call.unit_prices.catalogue_hash) == 64


async def test_hard_limit_refuses_a_model_without_a_price(
    serve: Start, connect: Connect, upstream: Sandbox, price_file: Path
) -> None:
    """COST_UNBOUNDED as for any unknown price; with the operator's price and an output limit the call is made."""
    limits = turn_pb.TurnLimits(max_cost_usd="1", max_output_tokens=50)
    refused = connect(await serve(openrouter_base_url=upstream.base_url))
    turn = await refused.converse(NO_COST, model=MODEL, limits=limits)
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COST_UNBOUNDED")

    path = write(price_file, prompt="0.0000002", completion="0.0000006")
    service = await serve(openrouter_base_url=upstream.base_url, price_file=path)
    turn = await connect(service).converse(NO_COST, model=MODEL, limits=limits)

    assert turn.finished.turn_totals.cost_usd == "0.000026"
    (entry,) = service.entries("talk")
    assert entry.upper_bound is not None
    assert entry.upper_bound >= Decimal("0.000026")


async def test_price_that_is_stated_later_settles_calls_since_its_time(
    serve: Start, connect: Connect, start_harness: StartHarness, upstream: Sandbox, price_file: Path
) -> None:
    """A call is open until the operator states its price; the price of a later time is not its price."""
    settings: dict[str, Any] = {"openrouter_base_url": upstream.base_url, "reconcile_interval": NEVER}
    caller = connect(await serve(**settings))
    await caller.converse(NO_COST, model=MODEL)
    future = (utc_now() + timedelta(days=1)).isoformat(timespec="seconds")
    for minutes, since, outcome in ((1, future, Outcome.POSTPONED), (2, TODAY, Outcome.SETTLED)):
        path = write(price_file, prompt="0.0000002", completion="0.0000006", since=since)
        harness = await start_harness(caller.service, **settings, price_file=path)
        harness.ahead = timedelta(minutes=minutes)  # the first try postponed the call by less

        assert (await harness.reconciler.tick())[outcome] == 1

    (call,) = calls(caller)
    assert (call.cost, call.cost_source) == (Decimal("0.000026"), CostSource.CATALOGUE)
    assert call.evidence is not None
    assert call.evidence.prices.prompt == Decimal("0.0000002")


async def test_open_call_keeps_the_price_of_its_start(
    serve: Start, connect: Connect, start_harness: StartHarness, upstream: Sandbox, price_file: Path
) -> None:
    """A file that was changed since does not price a call that was open before."""
    settings: dict[str, Any] = {"openrouter_base_url": upstream.base_url, "reconcile_interval": NEVER}
    path = write(price_file, prompt="0.0000002", completion="0.0000006")
    caller = connect(await serve(**settings, generation_records="kept", price_file=path))
    await caller.converse(NO_COST, model=MODEL)
    (call,) = calls(caller)
    assert call.state is CallState.PENDING

    path = write(price_file, prompt="7")
    harness = await start_harness(caller.service, **settings, generation_records="none", price_file=path)
    harness.ahead = timedelta(minutes=1)
    assert (await harness.reconciler.tick())[Outcome.SETTLED] == 1

    (settled,) = calls(caller)
    assert settled.cost == Decimal("0.000026")
    assert settled.evidence is not None
    assert call.evidence is not None
    assert settled.evidence.catalogue_hash == call.evidence.catalogue_hash


async def test_list_of_models_has_the_operators_prices(
    serve: Start, connect: Connect, upstream: Sandbox, price_file: Path
) -> None:
    """Of the models that the file prices; an upstream without a list has no catalogue."""
    path = write(price_file, models=MODEL, prompt="0.0000002")
    listed = connect(await serve(openrouter_base_url=upstream.base_url, price_file=path))
    upstream.settings.listing = "missing"
    unlisted = connect(await serve(openrouter_base_url=upstream.base_url, price_file=path))
    request = pb.ListModelsRequest(page_size=500)
    priced, missing = [await each.call("ListModels", request) for each in (listed, unlisted)]

    prices = {each.model_id: each.prices for each in priced.models}
    assert prices[MODEL].input_usd == "0.0000002"
    assert not prices["openai/gpt-4o"].HasField("input_usd")
    assert priced.catalogue_state == model_pb2.CATALOGUE_STATE_CURRENT
    assert (missing.catalogue_state, list(missing.models)) == (model_pb2.CATALOGUE_STATE_MISSING, [])


async def test_state_of_the_catalogue_is_logged_at_the_start_and_printed(
    serve_process: StartProcess, upstream: Sandbox, price_file: Path
) -> None:
    """How many models there are, how many have prices, and how many patterns the price file has."""
    path = write(price_file, prompt="0.0000002")
    process, service = await serve_process(GODOTY_OPENROUTER_BASE_URL=upstream.base_url, GODOTY_PRICE_FILE=str(path))
    shown = await printed(service, upstream, "prices", MODEL)
    unpriced = await printed(service, upstream, "prices", "anthropic/claude-haiku-4.5")
    await printed(service, upstream, "tenant", "policy", "set", service.tenant_id, "--model", MODEL)
    await process.stop()

    lines = list(logged(process.log.read_bytes(), "catalogue"))
    assert [(line["listing"], line["priced_models"], line["price_rules"]) for line in lines] == [("unpriced", 0, 1)]
    assert lines[0]["models"] > 100
    assert "models without prices" in shown
    assert shown.splitlines()[2:4] == [f"models     {lines[0]['models']}", "priced     0"]
    assert "1 model patterns" in shown
    assert "0.0000002" in shown
    assert "the cost of its calls is unknown" in unpriced


async def test_upstream_without_any_listing_is_reported_as_such(
    serve_process: StartProcess, connect: Connect, upstream: Sandbox
) -> None:
    """A request, a policy and a filter may name any model then; the upstream refuses those that it does not have."""
    upstream.settings.listing = "missing"
    process, service = await serve_process(GODOTY_OPENROUTER_BASE_URL=upstream.base_url)
    turn = await connect(service).converse(NO_COST, model="unknown/nothing")
    shown = await printed(service, upstream, "prices")
    await printed(service, upstream, "tenant", "policy", "set", service.tenant_id, "--model", "my/own")
    found = await printed(
        service, upstream, "ledger", "list", service.tenant_id, "--model", "unknown/nothing", "--format", "json"
    )
    await process.stop()

    assert turn.failure is not None
    assert turn.failure.reason == "MODEL_UNAVAILABLE"
    assert [line["listing"] for line in logged(process.log.read_bytes(), "catalogue")] == ["missing"]
    assert "the upstream lists no models" in shown
    assert len(json.loads(found)) == 1


async def test_wrong_price_file_stops_the_start_with_one_line(
    backends: Backends, price_file: Path, tmp_path: Path
) -> None:
    """No server prices calls by half a file."""
    environment = server_environment(backends, backends.new_database())
    path = write(price_file, prompt="cheap")
    process = ServerProcess(environment=environment | {"GODOTY_PRICE_FILE": str(path)}, log=tmp_path / "server.log")

    with pytest.raises(RuntimeError, match="the server exited"):
        await process.start()

    (line,) = [line for line in process.log.read_text().splitlines() if line.strip()]
    assert line.startswith(f"godoty: GODOTY_PRICE_FILE {path}: prices[1].prompt: must be US dollars")


async def test_wrong_price_file_is_found_by_the_check_of_the_settings(
    godoty: Godoty, service: Service, price_file: Path
) -> None:
    """`godoty config check` reports what would keep a server from starting."""
    result = await godoty(service, "config", "check", GODOTY_PRICE_FILE=str(write(price_file, prompt="cheap")))

    assert result.status == 1
    assert f"GODOTY_PRICE_FILE {price_file}: prices[1].prompt: must be US dollars" in result.err
