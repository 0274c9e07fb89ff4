"""The drift metric: the difference of bills to the catalogue's prices by model, also for reconciled calls."""

import asyncio
from decimal import Decimal

import httpx
import pytest

from openrouter_sandbox.mongodb.mongod import free_port
from tests.e2e.metering.conftest import StartCaller
from tests.e2e.metering.reconciler_harness import closed

MODEL = "openai/gpt-4o-mini"


async def _drift(port: int, direction: str) -> float:
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    wanted = f'godoty_price_drift_usd_total{{direction="{direction}",model="{MODEL}"}} '
    return sum(float(line.removeprefix(wanted)) for line in page.splitlines() if line.startswith(wanted))


async def test_drift_counts_bills_above_the_catalogue(start_caller: StartCaller) -> None:
    """A bill at the catalogue's price adds nothing; a fee does, reported by the stream or by the record."""
    port = free_port()
    caller = await start_caller(metrics_listen=f"127.0.0.1:{port}")

    await caller.converse("hello")
    assert await _drift(port, "over") == 0
    await caller.converse("@sandbox plain fee=0.002")
    assert await _drift(port, "over") == pytest.approx(0.002)
    await caller.converse("@sandbox no-cost fee=0.003 record_ms=100")
    entry = await closed(caller)

    assert entry.cost is not None
    assert entry.catalogue_cost is not None
    assert entry.cost - entry.catalogue_cost == Decimal("0.003")
    while await _drift(port, "over") != pytest.approx(0.005):  # it is counted once its entry is written
        await asyncio.sleep(0.05)
    assert await _drift(port, "under") == 0


async def test_drift_counts_bills_below_the_catalogue(start_caller: StartCaller) -> None:
    """A bill of 0 for tokens that have a price is drift, too: the tenant's own provider key paid."""
    port = free_port()
    caller = await start_caller(metrics_listen=f"127.0.0.1:{port}")

    await caller.converse("@sandbox byok")

    (entry,) = caller.service.entries("talk")
    assert entry.cost == 0
    assert entry.catalogue_cost
    assert await _drift(port, "under") == pytest.approx(float(entry.catalogue_cost))
