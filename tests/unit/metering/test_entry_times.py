from datetime import UTC, datetime, timedelta
from typing import Any

from godoty_service.ledger.entry_times import EntryTimes

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
MONTH = timedelta(days=31)
MINUTE = timedelta(minutes=1)


def call(start: datetime, settle: datetime | None = None, **others: Any) -> dict[str, Any]:
    """An entry as the ledger stores it."""
    settled = {} if settle is None else {"settle_time": settle}
    return {"_id": "call_1", "kind": "call", "owner": "replica_1", "start_time": start, **settled, **others}


def times(*known: dict[str, Any]) -> EntryTimes:
    """The evidence of some calls."""
    found = EntryTimes(now=NOW, limit=NOW + MINUTE)
    found.learn(known)
    return found


def generation(time: datetime) -> str:
    return f"gen-{int(time.timestamp())}-abcdefghijklmnopqrst"


def test_call_within_the_limit_is_not_repaired() -> None:
    """A deviation of a few seconds is tolerated."""
    assert times().of_call(call(NOW + MINUTE, NOW + MINUTE)) is None


def test_generation_id_dates_the_start_and_shifts_the_settlement() -> None:
    """The provider's clock outranks all other evidence."""
    true = NOW - timedelta(days=3)
    found = times().of_call(call(true + MONTH, true + MONTH + 2 * MINUTE, generation_id=generation(true)))

    assert found is not None
    assert found.times == {"start_time": true, "settle_time": true + 2 * MINUTE}
    assert set(found.evidence.values()) == {"generation_id"}
    assert found.starts == {true, true + MONTH}


def test_call_without_id_is_shifted_by_the_offset_of_its_server() -> None:
    """Another call of the same server shows how far its clock was ahead; a call of another server does not."""
    true = NOW - timedelta(hours=1)
    known = call(true + MONTH, generation_id=generation(true))
    found = times(known).of_call(call(true + MONTH + MINUTE))
    other = times(known | {"owner": "replica_2"}).of_call(call(true + MONTH + MINUTE))

    assert found is not None
    assert (found.times, found.evidence) == ({"start_time": true + MINUTE}, {"start_time": "server_offset"})
    assert other is not None
    assert (other.times, other.evidence) == ({"start_time": NOW}, {"start_time": "repair_time"})


def test_settlement_alone_is_dated_by_rollups_then_duration_then_repair() -> None:
    """The best evidence is used."""
    start = NOW - timedelta(hours=2)
    wrong = call(start, NOW + MONTH)
    by_rollups = times().of_call(wrong | {"final_from": NOW - MINUTE, "duration": 1_000_000})
    by_duration = times().of_call(wrong | {"duration": 1_000_000})
    by_repair = times().of_call(wrong | {"final_from": NOW + MONTH})

    assert [each.times["settle_time"] if each else None for each in (by_rollups, by_duration, by_repair)] == [
        NOW - MINUTE,
        start + timedelta(seconds=1),
        NOW,
    ]


def test_start_is_not_after_a_correct_settlement_time() -> None:
    """A server with a correct clock settled the call."""
    found = times().of_call(call(NOW + MONTH, NOW - MINUTE))

    assert found is not None
    assert found.times == {"start_time": NOW - MINUTE}


def test_adjustment_gets_the_repaired_start_of_its_call() -> None:
    """Its start is the call's new start, and its own time that of the repair."""
    true = NOW - MINUTE
    about = call(true + MONTH, generation_id=generation(true))
    adjustment = {
        "_id": "adj_1",
        "kind": "adjustment",
        "start_time": about["start_time"],
        "call_time": about["start_time"],
        "time": NOW + MONTH,
    }
    found = times().of_adjustment(adjustment, about)

    assert found is not None
    assert found.times == {"start_time": true, "call_time": true, "time": NOW}


def test_generation_id_of_the_future_is_no_evidence() -> None:
    """It would be as wrong as the entry."""
    found = times().of_call(call(NOW + MONTH, generation_id=generation(NOW + MONTH)))

    assert found is not None
    assert found.evidence == {"start_time": "repair_time"}
