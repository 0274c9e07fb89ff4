"""A tenant's budget document, as it is read and as its changes are expressed.

since   Calls that started before it are counted in `before`, the others in `spent`.
before  What the ledger says that those come to; `stated`: for good.
spent   What the others have cost, one by one.
open    The bound of each open call, with the windows in which it is reserved.
told    The share of a budget that a turn was told of last.
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


def used(window: BudgetWindow, keys: dict[str, str]) -> Document:
    """Express what is spent and reserved in a window."""
    name, key = window.value, keys[window.value]
    parts = [{"$cond": [{"$eq": [f"${part}.{name}.key", key]}, f"${part}.{name}.amount", _ZERO]} for part in _PARTS]
    bound = {"$cond": [{"$eq": [f"$$each.v.{name}", key]}, "$$each.v.bound", _ZERO]}
    return {"$add": [*parts, {"$sum": {"$map": {"input": {"$objectToArray": "$open"}, "as": "each", "in": bound}}}]}


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
