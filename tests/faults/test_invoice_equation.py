"""The invoice equation (A8): under any faults, the ledger and the provider's invoice agree line by line.

`make test` runs a short fault load, `make faults` a long one. Both print their seed; GODOTY_TEST_SEED replays it.
"""

import os
import random
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from godoty_service.ledger.entries import Adjustment, ModelCall
from tests.faults.cluster import open_cluster
from tests.faults.conclusion import conclude
from tests.faults.fault_load import MAX_SKEW, LoadResult, run_fault_load, set_first_budget
from tests.faults.invoice_comparison import InvoiceComparison
from tests.faults.load_client import LoadClient, TurnCounts
from tests.faults.stored_times import late_times
from tests.faults.webhook_receipts import WEBHOOK_ENVIRONMENT, WEBHOOK_SETTINGS, WebhookReceipts
from tests.support.receiver import Receiver
from tests.support.system_clock import SKEW

LONG = os.environ.get("GODOTY_TEST_LONG") == "1"
TURNS, KILLS = (400, 36) if LONG else (48, 4)


async def test_ledger_and_invoice_agree_after_fault_load(
    mongodb_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After cancels, deadlines, disconnects, provider errors, resets, kills and clock skew, each line has one entry.

    Settled entries equal their lines, each and in sum; an unresolved entry never had the provider's id, its bound
    covers the charge, and its reason is known. Verification finds nothing, during the load and after it. Each
    requested adjustment exists once. No stored time is later than the database's, although the servers' clocks are.

    The turns are of agents with approvals, client tools and two levels of sub-agents, too; some are begun by StartTurn,
    answered by DecideAction, answered twice or never, and forked. Each of their sessions can be continued in the end.
    Webhooks report each end of a turn and each unresolved call at least once, under one id, and nothing else.
    """
    seed = int(os.environ.get("GODOTY_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"[faults] GODOTY_TEST_SEED={seed}")  # noqa: T201 - pytest shows it if the load fails
    name = f"godoty_test_faults_{secrets.token_hex(4)}"
    async with (
        Receiver() as receiver,
        open_cluster(mongodb_uri=mongodb_uri, name=name, directory=tmp_path, **WEBHOOK_SETTINGS) as cluster,
    ):
        start_time = await cluster.components.database.now()
        tenants = [(cluster.tenant_id, cluster.api_key), await cluster.another_tenant()]
        receipts = WebhookReceipts(receiver)
        for tenant_id, _ in tenants:
            await receipts.subscribe(cluster.components, tenant_id)
        await set_first_budget(cluster)
        environment = {**WEBHOOK_ENVIRONMENT, "GODOTY_ACTION_INTERVAL": "0.2"}
        servers = [cluster.server(**{SKEW: str(ahead)}, **environment) for ahead in (MAX_SKEW, -MAX_SKEW)]
        for server in servers:
            await server.start()
        try:
            result = await run_fault_load(cluster, servers, seed, tenants=tenants, turns=TURNS, kills=KILLS, clients=6)
            for tenant_id, key in tenants:
                client = LoadClient(servers, key, TurnCounts(), random.Random(seed))
                result.findings += await conclude(cluster.components, client, tenant_id)
            await cluster.settled(within=240)
            result.findings += await receipts.mismatches(cluster)
        finally:
            for server in servers:
                await server.stop()
        comparison = await cluster.compare_with_invoice()
        entries = [each async for each in cluster.components.accounting.ledger.by_session(None)]
        adjustments = [each for each in entries if isinstance(each, Adjustment)]
        latest = await cluster.components.database.now() + timedelta(seconds=1)
        with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client_of_times:
            late = late_times(client_of_times[cluster.components.database.name], now=latest)
        early = [each for each in entries if isinstance(each, ModelCall) and each.start_time < start_time]
        with capsys.disabled():
            summary = f"{_summary(result, comparison)}, {receipts.number} webhook requests"
            print(f"\n[faults] seed {seed}: {summary}")  # noqa: T201 - the seed replays the load

        assert comparison.faults == []
        assert result.findings == []
        assert result.requested.mismatches(adjustments) == []
        assert (late, early) == ([], [])
        assert [call.call_id for call in comparison.unresolved if call.generation_id is not None] == []
        assert [
            line for log in tmp_path.glob("*.log") for line in log.read_text().splitlines() if "_fault" in line
        ] == []
        assert result.kills == KILLS
        assert sum(result.counts.outcomes.values()) >= TURNS
        assert result.counts.outcomes["OK"] > 0
        assert result.is_complete
        assert min(result.counts.asked, result.counts.follow_ups.total(), receipts.number) > 0


def _summary(result: LoadResult, comparison: InvoiceComparison) -> str:
    counts = result.counts
    return (
        f"{sum(counts.outcomes.values())} turns, {result.kills} kills, {result.policies} policies,"
        f" {result.verifications} verifications, {len(result.requested.amounts)} adjustments,"
        f" {comparison.calls} calls, {comparison.settled} settled,"
        f" {len(comparison.unresolved)} unresolved: {dict(comparison.reasons)}, {comparison.lines} lines,"
        f" ledger {comparison.cost}, invoice {comparison.invoiced}, outcomes {dict(counts.outcomes)},"
        f" {counts.asked} asked, followed by {dict(counts.follow_ups)}"
    )
