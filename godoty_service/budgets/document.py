"""The fields of a tenant's budget document, and the expressions that update them.

since   When tracking starts: calls that started earlier are included in `before`, later ones in `spent`. `UNKNOWN`
        until the policy is set.
latest  Until `since` is set, the latest time of the calls that were settled (their start), and of the adjustments.
stated  Whether `before`, the opening balance, is final.
first   By window, the key of the earliest day, month or total that is tracked; earlier ones are pruned.
before  By window and key, the charges of the calls before `since`, as summed from the ledger.
spent   By window and key, the charges of later calls, added one by one.
open    The reservation of each open call: its upper bound, its windows, the database's time of the write, and the
        server that makes the call.
alerted By window, key and limit, the share of the last alert.
correction  A `revision`, and the `adjustment_id` that is being applied (see `corrections.py`).

Several days and months are tracked side by side, so that an entry with a wrong time does not affect other windows.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import BudgetCalendar
from godoty_service.budgets.charges import OpeningBalance, Reservation
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money

UNKNOWN = datetime(9999, 1, 1, tzinfo=UTC)
MAX_WINDOWS = 40  # days or months that are tracked
_ZERO = Decimal128("0")
_PARTS = ("before", "spent")
Keys = Mapping[BudgetWindow, str]


def first_keys(balance: OpeningBalance) -> Document:
    """Encode the earliest windows of an opening balance."""
    return {window.value: key for window, key in balance.first.items()}


def spent_by_window(balance: OpeningBalance) -> Document:
    """Encode the charges of an opening balance, by window and key."""
    return {
        window.value: {key: Decimal128(amount) for key, amount in sums.items()}
        for window, sums in balance.spent.items()
    }


def empty_windows() -> Document:
    """Return an empty value of `spent` or `alerted`."""
    return {window.value: {} for window in BudgetWindow}


def reservations(calls: Iterable[Reservation], calendar: BudgetCalendar) -> Document:
    """Express the reservations of calls in the windows of their start; `made` is the time of the write."""
    return {
        each.call_id: {
            "bound": Decimal128(each.bound),
            "time": each.time,
            "made": "$$NOW",
            "owner": {"$literal": each.owner},
            **{window.value: key for window, key in calendar.keys(each.time).items()},
        }
        for each in calls
    }


def fits(window: BudgetWindow, keys: Keys, call: Reservation, limit: Decimal) -> Document:
    """Express that a call fits into a budget; it does not fit into a pruned day or month.

    What it has reserved already does not count twice: an opening balance may include a call that was just inserted.
    """
    counted = {"$gte": [keys[window], f"$first.{window.value}"]}
    total = {"$add": [_used(window, keys[window], without=call.call_id), Decimal128(call.bound)]}
    return {"$and": [counted, {"$lte": [total, Decimal128(limit)]}]}


def _used(window: BudgetWindow, key: str, *, without: str) -> Document:
    parts = [{"$ifNull": [f"${part}.{window.value}.{key}", _ZERO]} for part in _PARTS]
    counts = {"$and": [{"$eq": [f"$$each.v.{window.value}", key]}, {"$ne": ["$$each.k", without]}]}
    bound = {"$cond": [counts, "$$each.v.bound", _ZERO]}
    return {"$add": [*parts, {"$sum": {"$map": {"input": {"$objectToArray": "$open"}, "as": "each", "in": bound}}}]}


def settlement(reservation: str, keys: Keys, amount: Decimal) -> Document:
    """Express the charges after a reserved call settles, in `before` or `spent` depending on its start."""
    early = {"$lt": [f"{reservation}.time", "$since"]}
    late = {"$not": [early]}
    return {**_plus("before", keys, amount, early), **_plus("spent", keys, amount, late)}


def latest_change(time: datetime) -> Document:
    """Express the latest time of a settled call or an adjustment, which is of use until `since` is set."""
    return {"latest": {"$cond": [{"$eq": ["$since", UNKNOWN]}, {"$max": ["$latest", time]}, "$$REMOVE"]}}


def adjustment_change(keys: Keys, amount: Decimal, *, condition: Document) -> Document:
    """Express the charges after an adjustment, if a condition is true."""
    return _plus("spent", keys, amount, condition)


def _plus(part: str, keys: Keys, amount: Decimal, condition: Any) -> Document:
    """Express the addition of an amount in each window that is not pruned."""
    return {
        path: {
            "$cond": [
                {"$and": [condition, {"$gte": [key, f"$first.{window.value}"]}]},
                {"$add": [{"$ifNull": [f"${path}", _ZERO]}, Decimal128(amount)]},
                f"${path}",
            ]
        }
        for window, key in keys.items()
        for path in [f"{part}.{window.value}.{key}"]
    }


def alerted_path(window: BudgetWindow, key: str, limit: Decimal) -> str:
    """Return the path of the last alert of a limit; dots in the limit are replaced, as they separate fields."""
    return f"alerted.{window.value}.{key}.{_name(limit)}"


def share_alerted(document: Document, window: BudgetWindow, key: str, limit: Decimal) -> int:
    """Return the share of the last alert of a limit, in per cent."""
    return int(document["alerted"][window.value].get(key, {}).get(_name(limit), 0))


def spent_by_key(document: Document, window: BudgetWindow) -> dict[str, Decimal]:
    """Return the charges in each window, by key."""
    sums: dict[str, Decimal] = {}
    for part in _PARTS:
        for key, amount in document.get(part, {}).get(window.value, {}).items():
            sums[key] = money.add(sums.get(key, money.ZERO), amount.to_decimal())
    return sums


def spent(document: Document, window: BudgetWindow, key: str) -> Decimal:
    """Return the charges in the window of a key."""
    parts = (document.get(part, {}).get(window.value, {}).get(key) for part in _PARTS)
    return money.total(each.to_decimal() for each in parts if each is not None)


def is_pruned(document: Document, window: BudgetWindow, key: str) -> bool:
    """Return whether the window of a key is pruned."""
    return key < str(document["first"][window.value])


def reserved(document: Document, window: BudgetWindow, key: str, *, without: str | None = None) -> Decimal:
    """Return the sum of the reservations in the window of a key, without that of one call."""
    calls = [each for call_id, each in document.get("open", {}).items() if call_id != without]
    return money.total(each["bound"].to_decimal() for each in calls if each[window.value] == key)


def prune_update(document: Document, current_keys: Keys) -> Document:
    """Return the update that prunes the earliest windows beyond `MAX_WINDOWS`; the current one is never pruned."""
    first: Document = {}
    removed: Document = {}
    for window in BudgetWindow:
        name, current = window.value, current_keys[window]
        keys = sorted({key for part in (*_PARTS, "alerted") for key in document[part][name]})
        past = [key for key in keys if key < current][: max(len(keys) - MAX_WINDOWS, 0)]
        rest = [key for key in keys if key not in past]
        future = rest[MAX_WINDOWS:]  # written by clocks that were wrong for weeks
        removed |= {f"{part}.{name}.{key}": "" for part in (*_PARTS, "alerted") for key in (*past, *future)}
        if past:
            first[f"first.{name}"] = min([*rest, current])
    return {"$unset": removed, **({"$set": first} if first else {})} if removed else {}


def _name(limit: Decimal) -> str:
    return (money.format_usd(limit) or "").replace(".", "_")
