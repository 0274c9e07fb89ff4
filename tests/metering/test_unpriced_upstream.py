"""Upstreams without a price list (llama.cpp, vLLM, LiteLLM) are served; what they cost is unknown until it is said."""

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

from godoty_service.clock import utc_now
from godoty_service.metering.call import CallState, CostSource
from godoty_service.metering.reconciler import Outcome
from godoty_service.sandbox.server import Sandbox
from godoty_service.sandbox.settings import SandboxSettings
from tests.conftest import Start, StartProcess, server_environment
from tests.faults.world import ServerProcess
from tests.metering.bookkeeper import calls
from tests.metering.conftest import NEVER, Bookkeep, Godoty
from tests.service.caller import Caller
from tests.service.invoking import invoke
from tests.service.service import Service
from tests.service.surroundings import Surroundings

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
    return tmp_path / "prices.toml"


def priced(path: Path, *, models: str = "openai/*", prompt: str, completion: str = "0", since: str = TODAY) -> Path:
    """Write a price file of one table."""
    path.write_text(
        f'[[prices]]\nmodels = "{models}"\nfrom = {since}\nprompt = "{prompt}"\ncompletion = "{completion}"\n'
    )
    return path


async def printed(service: Service, upstream: Sandbox, *arguments: str, **environment: str) -> str:
    """Run a command against the same upstream; returns what it printed."""
    named = {"GODOTY_OPENROUTER_BASE_URL": upstream.base_url} | environment
    return await asyncio.to_thread(invoke, service, *arguments, **named)


@pytest.mark.parametrize("listing", ["unpriced", "missing"])
async def test_model_of_an_upstream_without_prices_is_served(
    serve: Start, connect: Connect, upstream: Sandbox, listing: str
) -> None:
    """The turn is answered, its tokens are known, its cost is not: the call is open, never free."""
    upstream.settings.listing = listing
    service = await serve(openrouter_base_url=upstream.base_url)
    turn = await connect(service).converse(NO_COST, model=MODEL)

    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    totals = turn.finished.turn_totals
    assert (totals.pending_calls, totals.cost_usd) == (1, "0")
    (entry,) = service.entries("talk")
    assert (entry.cost, entry.catalogue_cost, entry.upper_bound) == (None, None, None)
    assert (entry.usage and entry.usage.input_tokens, entry.served_model) == (100, MODEL)


async def test_model_that_the_upstream_does_not_list_is_refused(
    serve: Start, connect: Connect, upstream: Sandbox
) -> None:
    """A list of names is a list of names; without any list, the upstream itself decides."""
    caller = connect(await serve(openrouter_base_url=upstream.base_url))
    turn = await caller.converse("hi", model="nobody/has-this")

    assert turn.failure is not None
    assert turn.failure.reason == "UNKNOWN_MODEL"


async def test_cost_that_the_upstream_states_is_the_charge(serve: Start, connect: Connect, upstream: Sandbox) -> None:
    """A gateway may list no prices and bill all the same."""
    service = await serve(openrouter_base_url=upstream.base_url)
    await connect(service).converse("hi", model=MODEL)

    (entry,) = service.entries("talk")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)


@pytest.mark.parametrize("listing", ["unpriced", "missing"])
@pytest.mark.parametrize("prices", [("0.0000002", "0.0000006", "0.000026"), ("0", "0", "0")], ids=["paid", "free"])
async def test_price_file_settles_calls_in_their_turn(
    serve: Start, connect: Connect, upstream: Sandbox, *, price_file: Path, listing: str, prices: tuple[str, str, str]
) -> None:
    """As a catalogue price, with its evidence; "0" says that a model is free, and then 0 is the cost."""
    (prompt, completion, cost), upstream.settings.listing = prices, listing
    path = priced(price_file, prompt=prompt, completion=completion)
    service = await serve(openrouter_base_url=upstream.base_url, price_file=path)
    turn = await connect(service).converse(NO_COST, model=MODEL)

    assert turn.finished.turn_totals.cost_usd == cost
    (entry,) = service.entries("talk")
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.CATALOGUE, Decimal(cost))
    assert entry.upper_bound is None  # without a limit of output tokens there is no bound
    (call,) = turn.calls
    assert (call.unit_prices.input_usd, call.unit_prices.output_usd) == (prompt, completion)
    assert len(call.unit_prices.catalogue_hash) == 64


async def test_hard_budget_refuses_a_model_without_a_price(
    serve: Start, connect: Connect, upstream: Sandbox, price_file: Path
) -> None:
    """COST_UNBOUNDED as for any unknown price; with the operator's price and an output limit the call is made."""
    limits = pb.TurnLimits(max_cost_usd="1", max_output_tokens=50)
    refused = connect(await serve(openrouter_base_url=upstream.base_url))
    turn = await refused.converse(NO_COST, model=MODEL, limits=limits)
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COST_UNBOUNDED")

    path = priced(price_file, prompt="0.0000002", completion="0.0000006")
    service = await serve(openrouter_base_url=upstream.base_url, price_file=path)
    turn = await connect(service).converse(NO_COST, model=MODEL, limits=limits)

    assert turn.finished.turn_totals.cost_usd == "0.000026"
    (entry,) = service.entries("talk")
    assert entry.upper_bound is not None
    assert entry.upper_bound >= Decimal("0.000026")


async def test_price_that_is_said_later_settles_calls_since_its_time(
    serve: Start, connect: Connect, bookkeep: Bookkeep, upstream: Sandbox, price_file: Path
) -> None:
    """A call is open until the operator says its price; one that started before the price holds stays unknown."""
    named: dict[str, Any] = {"openrouter_base_url": upstream.base_url, "reconcile_interval": NEVER}
    caller = connect(await serve(**named))
    await caller.converse(NO_COST, model=MODEL)
    future = (utc_now() + timedelta(days=1)).isoformat(timespec="seconds")
    for minutes, since, outcome in ((1, future, Outcome.POSTPONED), (2, TODAY, Outcome.SETTLED)):
        path = priced(price_file, prompt="0.0000002", completion="0.0000006", since=since)
        keeper = await bookkeep(caller.service, **named, price_file=path)
        keeper.ahead = timedelta(minutes=minutes)  # a look that came before has postponed it by less

        assert (await keeper.reconciler.tick())[outcome] == 1

    (call,) = calls(caller)
    assert (call.cost, call.cost_source) == (Decimal("0.000026"), CostSource.CATALOGUE)
    assert call.evidence is not None
    assert call.evidence.prices.prompt == Decimal("0.0000002")


async def test_past_call_keeps_the_price_that_held_at_its_start(
    serve: Start, connect: Connect, bookkeep: Bookkeep, upstream: Sandbox, price_file: Path
) -> None:
    """A file that was changed since does not price what was left open before."""
    named: dict[str, Any] = {"openrouter_base_url": upstream.base_url, "reconcile_interval": NEVER}
    path = priced(price_file, prompt="0.0000002", completion="0.0000006")
    caller = connect(await serve(**named, generation_records="kept", price_file=path))
    await caller.converse(NO_COST, model=MODEL)
    (call,) = calls(caller)
    assert call.state is CallState.PENDING

    path = priced(price_file, prompt="7")
    keeper = await bookkeep(caller.service, **named, generation_records="none", price_file=path)
    keeper.ahead = timedelta(minutes=1)
    assert (await keeper.reconciler.tick())[Outcome.SETTLED] == 1

    (settled,) = calls(caller)
    assert settled.cost == Decimal("0.000026")
    assert settled.evidence is not None
    assert call.evidence is not None
    assert settled.evidence.catalogue_hash == call.evidence.catalogue_hash


async def test_state_of_the_catalogue_is_told_at_the_start_and_by_the_command(
    serve_process: StartProcess, upstream: Sandbox, price_file: Path
) -> None:
    """How many models there are, how many have prices, and how many patterns the price file has."""
    path = priced(price_file, prompt="0.0000002")
    process, service = await serve_process(GODOTY_OPENROUTER_BASE_URL=upstream.base_url, GODOTY_PRICE_FILE=str(path))
    shown = await printed(service, upstream, "prices", MODEL)
    await printed(service, upstream, "tenant", "policy", "set", service.tenant_id, "--model", MODEL)
    await process.stop()

    lines = [json.loads(line) for line in process.log.read_text().splitlines() if '"event": "catalogue"' in line]
    assert [(line["listing"], line["priced_models"], line["price_rules"]) for line in lines] == [("unpriced", 0, 1)]
    assert lines[0]["models"] > 100
    assert "models without prices" in shown
    assert shown.splitlines()[2:4] == [f"models     {lines[0]['models']}", "priced     0"]
    assert "1 model patterns" in shown
    assert "0.0000002" in shown


async def test_upstream_without_any_listing_is_told_as_such(
    serve_process: StartProcess, connect: Connect, upstream: Sandbox
) -> None:
    """Any model may be named then, in a policy too; the upstream refuses those that it does not have."""
    upstream.settings.listing = "missing"
    process, service = await serve_process(GODOTY_OPENROUTER_BASE_URL=upstream.base_url)
    turn = await connect(service).converse(NO_COST, model="nobody/has-this")
    shown = await printed(service, upstream, "prices")
    await printed(service, upstream, "tenant", "policy", "set", service.tenant_id, "--model", "my/own")
    await process.stop()

    assert turn.failure is not None
    assert turn.failure.reason == "MODEL_UNAVAILABLE"
    assert '"listing": "missing"' in process.log.read_text()
    assert "the upstream lists no models" in shown


async def test_wrong_price_file_stops_the_start_with_one_line(
    surroundings: Surroundings, price_file: Path, tmp_path: Path
) -> None:
    """No server prices calls by half a file."""
    environment = server_environment(surroundings, surroundings.new_database())
    path = priced(price_file, prompt="cheap")
    process = ServerProcess(environment=environment | {"GODOTY_PRICE_FILE": str(path)}, log=tmp_path / "server.log")

    with pytest.raises(RuntimeError, match="the server ended"):
        await process.start()

    lines = [line for line in process.log.read_text().splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith(f"godoty: GODOTY_PRICE_FILE {path}: prices[1].prompt: must be US dollars")


async def test_wrong_price_file_is_found_by_the_check_of_the_settings(
    godoty: Godoty, service: Service, price_file: Path
) -> None:
    """`godoty config check` says of it what the start would say."""
    said = await godoty(service, "config", "check", GODOTY_PRICE_FILE=str(priced(price_file, prompt="cheap")))

    assert said.status == 1
    assert f"GODOTY_PRICE_FILE {price_file}: prices[1].prompt: must be US dollars" in said.err
