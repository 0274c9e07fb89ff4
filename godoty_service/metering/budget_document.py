"""A tenant's budget document, as it is read and as its changes are expressed.

since   Calls that started before it are counted in `before`, the others in `spent`; `UNKNOWN` until the policy is set.
stated  `before` is final.
first   By window, the key of the earliest day, month or total that is counted; what is earlier is forgotten.
before  By window and key, what the ledger says that the calls before `since` come to.
spent   By window and key, what the others have cost, one by one.
open    The bound of each open call, with the windows in which it is reserved, when that was by the database's clock,
        and which server makes the call.
told    By window, key and limit, the share that a turn was told of last.
correction  Its `revision`, and the `adjustment_id` that is counted now; `budget_corrections.py` says how.

Several days and months stand side by side, so that an entry of a clock that is wrong leaves the others readable.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.budget import BudgetWindow
from godoty_service.metering import money
from godoty_service.metering.charges import Held, Statement
from godoty_service.mongo import Document

UNKNOWN = datetime(9999, 1, 1, tzinfo=UTC)
KEPT = 40  # days or months of a window
_ZERO = Decimal128("0")
_PARTS = ("before", "spent")
Keys = Mapping[BudgetWindow, str]


def keys_of(time: datetime) -> dict[BudgetWindow, str]:
    """Return the key of each window that a time falls into."""
    return {window: window.key(time) for window in BudgetWindow}


def first_of(statement: Statement) -> Document:
    """Write the earliest windows of a statement."""
    return {window.value: key for window, key in statement.first.items()}


def stated(statement: Statement) -> Document:
    """Write what is spent by window and key."""
    return {
        window.value: {key: Decimal128(amount) for key, amount in sums.items()}
        for window, sums in statement.spent.items()
    }


def nothing() -> Document:
    """Write that nothing is spent, or told."""
    return {window.value: {} for window in BudgetWindow}


def reservations(calls: Iterable[Held]) -> Document:
    """Express what calls may cost, in the windows of their start; `made` is the time of the write."""
    return {
        each.call_id: {
            "bound": Decimal128(each.bound),
            "time": each.time,
            "made": "$$NOW",
            "owner": {"$literal": each.owner},
            **{window.value: key for window, key in keys_of(each.time).items()},
        }
        for each in calls
    }


def fits(window: BudgetWindow, keys: Keys, bound: Decimal, limit: Decimal) -> Document:
    """Express that a call fits a budget; not in a day or month whose sums are forgotten."""
    counted = {"$gte": [keys[window], f"$first.{window.value}"]}
    total = {"$add": [_used(window, keys[window]), Decimal128(bound)]}
    return {"$and": [counted, {"$lte": [total, Decimal128(limit)]}]}


def _used(window: BudgetWindow, key: str) -> Document:
    parts = [{"$ifNull": [f"${part}.{window.value}.{key}", _ZERO]} for part in _PARTS]
    bound = {"$cond": [{"$eq": [f"$$each.v.{window.value}", key]}, "$$each.v.bound", _ZERO]}
    return {"$add": [*parts, {"$sum": {"$map": {"input": {"$objectToArray": "$open"}, "as": "each", "in": bound}}}]}


def settled(reservation: str, keys: Keys, amount: Decimal) -> Document:
    """Express what is spent after a reserved call, in the part that it belongs to."""
    early = {"$lt": [f"{reservation}.time", "$since"]}
    late = {"$not": [early]}
    return {**_plus("before", keys, amount, early), **_plus("spent", keys, amount, late)}


def adjusted(keys: Keys, amount: Decimal, *, where: Document) -> Document:
    """Express what is spent after an adjustment, if a condition holds."""
    return _plus("spent", keys, amount, where)


def _plus(part: str, keys: Keys, amount: Decimal, where: Any) -> Document:
    """Express a sum in each window that is not forgotten."""
    return {
        path: {
            "$cond": [
                {"$and": [where, {"$gte": [key, f"$first.{window.value}"]}]},
                {"$add": [{"$ifNull": [f"${path}", _ZERO]}, Decimal128(amount)]},
                f"${path}",
            ]
        }
        for window, key in keys.items()
        for path in [f"{part}.{window.value}.{key}"]
    }


def told_path(window: BudgetWindow, key: str, limit: Decimal) -> str:
    """Return where it stands what share of a limit was told; a dot in the limit would part the path."""
    return f"told.{window.value}.{key}.{_name(limit)}"


def share_told(document: Document, window: BudgetWindow, key: str, limit: Decimal) -> int:
    """Return what share of a limit was told in the window of a key, in per cent."""
    return int(document["told"][window.value].get(key, {}).get(_name(limit), 0))


def amounts(document: Document, window: BudgetWindow) -> dict[str, Decimal]:
    """Return what was spent, by key."""
    sums: dict[str, Decimal] = {}
    for part in _PARTS:
        for key, amount in document.get(part, {}).get(window.value, {}).items():
            sums[key] = money.add(sums.get(key, money.ZERO), amount.to_decimal())
    return sums


def spent(document: Document, window: BudgetWindow, key: str) -> Decimal:
    """Return what was spent in the window of a key."""
    parts = (document.get(part, {}).get(window.value, {}).get(key) for part in _PARTS)
    return money.total(each.to_decimal() for each in parts if each is not None)


def is_forgotten(document: Document, window: BudgetWindow, key: str) -> bool:
    """Whether the sums of a window are not kept any more."""
    return key < str(document["first"][window.value])


def reserved(document: Document, window: BudgetWindow, key: str) -> Decimal:
    """Return what is reserved in the window of a key."""
    calls = document.get("open", {}).values()
    return money.total(each["bound"].to_decimal() for each in calls if each[window.value] == key)


def surplus(document: Document, now: datetime) -> Document:
    """Express that the windows of a document beyond `KEPT` are forgotten: the earliest ones, never the current one."""
    first: Document = {}
    gone: Document = {}
    for window in BudgetWindow:
        name, current = window.value, window.key(now)
        keys = sorted({key for part in (*_PARTS, "told") for key in document[part][name]})
        past = [key for key in keys if key < current][: max(len(keys) - KEPT, 0)]
        left = [key for key in keys if key not in past]
        future = left[KEPT:]  # of clocks that are wrong for weeks on end
        gone |= {f"{part}.{name}.{key}": "" for part in (*_PARTS, "told") for key in (*past, *future)}
        if past:
            first[f"first.{name}"] = min([*left, current])
    return {"$unset": gone, **({"$set": first} if first else {})} if gone else {}


def _name(limit: Decimal) -> str:
    return (money.format_usd(limit) or "").replace(".", "_")
