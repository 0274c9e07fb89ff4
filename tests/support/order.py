"""The order of the tests: the slowest files first, spread over the workers of pytest-xdist."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest

# By file, the seconds of all its tests, where each takes some: at the end no other worker could take them over.
_SLOWEST = {
    "e2e/turns/test_lost_answers.py": 104,
    "e2e/rpc/test_lost_connection.py": 91,
    "e2e/workers/test_supervisor.py": 81,
    "integration/migrations/test_stored_names.py": 77,
    "e2e/metering/test_write_failures.py": 68,
    "e2e/tenants/test_deletion.py": 62,
    "unit/test_metrics_page.py": 62,
    "e2e/rpc/test_two_checkouts.py": 55,
    "e2e/turns/test_meanwhile.py": 54,
    "e2e/admin/test_isolation.py": 53,
    "e2e/metering/test_failover.py": 47,
    "e2e/metering/test_reconciliation.py": 43,
    "e2e/admin/test_erase_user.py": 42,
    "integration/migrations/test_killed_migration.py": 40,
    "faults/test_invoice_equation.py": 38,
    "e2e/rpc/test_dev.py": 36,
    "e2e/metering/test_malformed_records.py": 36,
    "e2e/turns/test_vanished_client.py": 35,
    "e2e/turns/test_operations.py": 35,
    "e2e/turns/test_cancel_turn.py": 33,
    "e2e/metering/test_late_entries.py": 32,
    "integration/migrations/test_old_databases.py": 31,
    "e2e/tenants/test_suspension.py": 31,
    "e2e/turns/test_paused_server.py": 29,
    "e2e/metering/test_reconcilers.py": 29,
    "e2e/attachments/test_memory.py": 27,
    "e2e/answers/test_next_request.py": 26,
    "e2e/metering/test_call_adjustments.py": 22,
    "e2e/rpc/test_other_servers.py": 22,
    "e2e/turns/test_heartbeats.py": 21,
    "e2e/metering/test_record_timeouts.py": 21,
    "e2e/rpc/test_secrets.py": 20,
    "e2e/admin/test_refused_turns.py": 19,
    "e2e/metering/test_calls_closed_elsewhere.py": 19,
    "e2e/rpc/test_frozen_database.py": 17,
    "e2e/metering/test_verification.py": 16,
    "e2e/turns/test_drain.py": 16,
    "e2e/turns/test_interrupted_answers.py": 14,
    "e2e/workers/test_workers.py": 14,
    "e2e/turns/test_database_stall.py": 13,
    "unit/sandbox/test_mongod.py": 11,
    "unit/test_packages.py": 11,
    "e2e/agents/test_search_budgets.py": 9,
    "e2e/upgrades/test_side_by_side.py": 9,
}
_TESTS = Path(__file__).parents[1]


def ordered(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return tests so that each worker begins with slow ones, of whole files, and ends with quick ones.

    With `--dist worksteal` each worker gets an equal number of consecutive tests first.
    """
    files = {name: list(group) for name, group in groupby(sorted(items, key=_file), key=_file)}
    slow = sorted(_SLOWEST.keys() & files.keys(), key=lambda name: (-_SLOWEST[name], name))
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    seconds = [0] * workers
    for name in slow:
        least = seconds.index(min(seconds))
        seconds[least] += _SLOWEST[name]
        shares[least] += files[name]
    quick = [each for each in items if _file(each) not in _SLOWEST]
    found: list[pytest.Item] = []
    for number, share in enumerate(shares):
        wanted = max(0, (len(items) - len(found)) // (workers - number) - len(share))
        found += [*share, *quick[:wanted]]
        quick = quick[wanted:]
    return [*found, *quick]


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).as_posix() if item.path.is_relative_to(_TESTS) else ""
