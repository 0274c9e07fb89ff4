"""The invoice equation (A8): under any faults, the ledger and the provider's invoice agree line by line.

`make test` runs a short fault load, `make faults` a long one. Both print their seed; GODOTY_TEST_SEED replays it.
"""

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from godoty_service.ledger.entries import Adjustment, ModelCall
from tests.faults.cluster import open_cluster
from tests.faults.fault_load import MAX_SKEW, LoadResult, run_fault_load
from tests.faults.invoice_comparison import InvoiceComparison
from tests.faults.stored_times import late_times
from tests.support.system_clock import SKEW

LONG = os.environ.get("GODOTY_TEST_LONG") == "1"
TURNS, KILLS = (400, 36) if LONG else (60, 4)


async def test_ledger_and_invoice_agree_after_fault_load(
    mongodb_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After cancels, deadlines, disconnects, provider errors, resets, kills and clock skew, each line has one entry.

    Settled entries equal their lines, each and in sum; an unresolved entry never had the provider's id, its bound
    covers the charge, and its reason is known. Verification finds nothing, during the load and after it. Each
    requested adjustment exists once. No stored time is later than the database's, although the servers' clocks are.
    """
    seed = int(os.environ.get("GODOTY_TEST_SEED") or secrets.randbelow(1_000_000))
    async with open_cluster(
        mongodb_uri=mongodb_uri, name=f"godoty_test_faults_{secrets.token_hex(4)}", directory=tmp_path
    ) as cluster:
        start_time = await cluster.components.database.now()
        servers = [cluster.server(**{SKEW: str(ahead)}) for ahead in (MAX_SKEW, -MAX_SKEW)]
        for server in servers:
            await server.start()
        try:
            result = await run_fault_load(cluster, servers, seed, turns=TURNS, kills=KILLS, clients=6)
            await cluster.settled(within=150)
        finally:
            for server in servers:
                await server.stop()
        comparison = await cluster.compare_with_invoice()
        entries = [each async for each in cluster.components.accounting.ledger.by_session(None)]
        adjustments = [each for each in entries if isinstance(each, Adjustment)]
        latest = await cluster.components.database.now() + timedelta(seconds=1)
        with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
            late = late_times(client[cluster.components.database.name], now=latest)
        early = [each for each in entries if isinstance(each, ModelCall) and each.start_time < start_time]
        with capsys.disabled():
            print(f"\n[faults] seed {seed}: {_summary(result, comparison)}")  # noqa: T201 - the seed replays the load

        assert comparison.faults == []
        assert result.findings == []
        assert result.requested.mismatches(adjustments) == []
        assert (late, early) == ([], [])
        assert [call.call_id for call in comparison.unresolved if call.generation_id is not None] == []
        assert [
            line for log in tmp_path.glob("*.log") for line in log.read_text().splitlines() if "_fault" in line
        ] == []
        assert result.kills == KILLS
        assert sum(result.outcomes.values()) >= TURNS
        assert result.outcomes["OK"] > 0
        assert min(result.policies, result.verifications, len(result.requested.amounts)) > 0


def _summary(result: LoadResult, comparison: InvoiceComparison) -> str:
    return (
        f"{sum(result.outcomes.values())} turns, {result.kills} kills, {result.policies} policies,"
        f" {result.verifications} verifications, {len(result.requested.amounts)} adjustments,"
        f" {comparison.calls} calls, {comparison.settled} settled,"
        f" {len(comparison.unresolved)} unresolved: {dict(comparison.reasons)}, {comparison.lines} lines,"
        f" ledger {comparison.cost}, invoice {comparison.invoiced}, outcomes {dict(result.outcomes)}"
    )
