"""The invoice equation (A8): whatever goes wrong, the ledger and the provider's invoice agree line by line.

`make test` runs a short storm; `make test-faults` a long one. Both print their seed; GODOTY_TEST_SEED replays it.
"""

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from godoty_service.metering.call import Adjustment, ModelCall
from tests.faults.fire import MOST_SKEW, rage
from tests.faults.stored_times import late_times
from tests.faults.world import open_world
from tests.service.system_clock import SKEW

LONG = os.environ.get("GODOTY_TEST_LONG") == "1"
TURNS, KILLS = (400, 36) if LONG else (60, 4)


async def test_ledger_and_invoice_agree_after_a_storm(
    mongodb_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After cancels, deadlines, disconnects, provider errors, resets, kills and wrong clocks, each line has one entry.

    Settled entries equal their lines, each and in sum; an unresolved one never got the provider's id, its bound covers
    whatever was billed, and it is shown why. The books' own proof finds nothing, neither meanwhile nor afterwards. Each
    adjustment that was ordered is there once. No time is later than the database's, though the servers' clocks are.
    """
    seed = int(os.environ.get("GODOTY_TEST_SEED") or secrets.randbelow(1_000_000))
    async with open_world(
        mongodb_uri=mongodb_uri, name=f"godoty_test_fire_{secrets.token_hex(4)}", directory=tmp_path
    ) as world:
        begun = await world.rooms.database.now()
        servers = [world.server(**{SKEW: str(ahead)}) for ahead in (MOST_SKEW, -MOST_SKEW)]
        for server in servers:
            await server.start()
        try:
            storm = await rage(world, servers, seed, turns=TURNS, kills=KILLS, clients=6)
            await world.settled(within=150)
        finally:
            for server in servers:
                await server.stop()
        books = await world.books()
        entries = [each async for each in world.rooms.ledger.by_session(None)]
        adjustments = [each for each in entries if isinstance(each, Adjustment)]
        latest = await world.rooms.database.now() + timedelta(seconds=1)
        with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
            late = late_times(client[world.rooms.database.name], now=latest)
        early = [each for each in entries if isinstance(each, ModelCall) and each.start_time < begun]
        with capsys.disabled():
            print(  # noqa: T201 - the seed and what came of it
                f"\n[fire] seed {seed}: {sum(storm.outcomes.values())} turns, {storm.kills} kills,"
                f" {storm.policies} policies, {storm.proofs} proofs, {len(storm.orders.amounts)} adjustments,"
                f" {books.calls} calls, {books.settled} settled, {len(books.unresolved)} unresolved: {dict(books.why)},"
                f" {books.lines} lines, ledger {books.cost}, invoice {books.invoiced}, outcomes {dict(storm.outcomes)}"
            )

        assert books.faults == []
        assert storm.alarms == []
        assert storm.orders.faults(adjustments) == []
        assert (late, early) == ([], [])
        assert [call.call_id for call in books.unresolved if call.generation_id is not None] == []
        assert [
            line for log in tmp_path.glob("*.log") for line in log.read_text().splitlines() if "_fault" in line
        ] == []
        assert storm.kills == KILLS
        assert sum(storm.outcomes.values()) >= TURNS
        assert storm.outcomes["OK"] > 0
        assert min(storm.policies, storm.proofs, len(storm.orders.amounts)) > 0
