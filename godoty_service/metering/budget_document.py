"""A tenant's budget document, as it is read and as its changes are expressed.

since   Calls that started before it are counted in `before`, the others in `spent`.
before  What the ledger says that those come to; `stated`: for good.
spent   What the others have cost, one by one.
open    The bound of each open call, with the windows in which it is reserved.
told    The share that a turn was told of last, by limit, in the newest window.
correction  Its `revision`, and the `adjustment_id` that is counted now; `budget_corrections.py` says how.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.charges import Held, Statement
from godoty_service.mongo import Document

_ZERO = Decimal128("0")
_PARTS = ("before", "spent")


def stated(statement: Statement) -> Document:
    """Write down what is spent by window."""
    return {
        window.value: {"key": key, "amount": Decimal128(amount)} for window, (key, amount) in statement.spent.items()
    }


def reservations(calls: Iterable[Held]) -> Document:
    """Write down what calls may cost, in the windows of their start."""
    return {
        each.call_id: {
            "bound": Decimal128(each.bound),
            "time": each.time,
            **{window.value: window.key(each.time) for window in BudgetWindow},
        }
        for each in calls
    }


def fits(window: BudgetWindow, keys: dict[str, str], bound: Decimal, limit: Decimal) -> Document:
    """Express that a call fits a budget; not in a day or month that is over: what it has spent is forgotten."""
    going_on = {"$gte": [keys[window.value], {"$max": [f"${part}.{window.value}.key" for part in _PARTS]}]}
    total = {"$add": [_used(window, keys), Decimal128(bound)]}
    return {"$and": [going_on, {"$lte": [total, Decimal128(limit)]}]}


def _used(window: BudgetWindow, keys: dict[str, str]) -> Document:
    name, key = window.value, keys[window.value]
    parts = [{"$cond": [{"$eq": [f"${part}.{name}.key", key]}, f"${part}.{name}.amount", _ZERO]} for part in _PARTS]
    bound = {"$cond": [{"$eq": [f"$$each.v.{name}", key]}, "$$each.v.bound", _ZERO]}
    return {"$add": [*parts, {"$sum": {"$map": {"input": {"$objectToArray": "$open"}, "as": "each", "in": bound}}}]}


def told(window: BudgetWindow, key: str, limit: Decimal, percent: int) -> Document:
    """Express that a share of a limit was told, in the window of a key; what was told in earlier ones is gone."""
    now = f"$told.{window.value}"
    limits = {"$cond": [{"$eq": [f"{now}.key", key]}, f"{now}.limits", {}]}
    return {"key": key, "limits": {"$mergeObjects": [limits, {_name(limit): percent}]}}


def not_told(window: BudgetWindow, key: str, limit: Decimal, percent: int) -> Document:
    """Match where a share of a limit, or a larger one, was not told."""
    now = f"told.{window.value}"
    return {"$nor": [{f"{now}.key": key, f"{now}.limits.{_name(limit)}": {"$gte": percent}}]}


def settled(reservation: str, amount: Decimal) -> Document:
    """Express what is spent after a reserved call, in the part that it belongs to."""
    early = {"$lt": [f"{reservation}.time", "$since"]}
    return {
        part: {
            window.value: {"$cond": [mine, plus(now, f"{reservation}.{window.value}", amount), now]}
            for window in BudgetWindow
            for now in [f"${part}.{window.value}"]
        }
        for part, mine in zip(_PARTS, (early, {"$not": [early]}), strict=True)
    }


def plus(now: str, key: Any, amount: Decimal) -> Document:
    """Add to the same window, begin a later one, or leave a later one alone: keys sort by time."""
    same = {"key": key, "amount": {"$add": [f"{now}.amount", Decimal128(amount)]}}
    later = {"key": key, "amount": Decimal128(amount)}
    return {
        "$cond": [
            {"$eq": [f"{now}.key", key]},
            same,
            {"$cond": [{"$lt": [f"{now}.key", key]}, later, now]},
        ]
    }


def share_told(document: Document, window: BudgetWindow, key: str, limit: Decimal) -> int:
    """Tell what share of a limit was told in the window of a key, in per cent."""
    last = document["told"].get(window.value, {})
    return int(last["limits"].get(_name(limit), 0)) if last.get("key") == key else 0


def newest(document: Document, window: BudgetWindow) -> str:
    """Tell the key of the newest day or month in which something was spent."""
    return max(str(document[part][window.value]["key"]) for part in _PARTS)


def spent(document: Document, window: BudgetWindow, key: str) -> Decimal:
    """Tell what was spent in the window of a key."""
    parts = [document.get(part, {}).get(window.value, {}) for part in _PARTS]
    return money.total(each["amount"].to_decimal() for each in parts if each.get("key") == key)


def reserved(document: Document, window: BudgetWindow, key: str) -> Decimal:
    """Tell what is reserved in the window of a key."""
    calls = document.get("open", {}).values()
    return money.total(each["bound"].to_decimal() for each in calls if each[window.value] == key)


def _name(limit: Decimal) -> str:
    """Name a limit in a path, where a dot would part it."""
    return (money.format_usd(limit) or "").replace(".", "_")
