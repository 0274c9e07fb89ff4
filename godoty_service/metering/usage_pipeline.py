"""Sums of usage as MongoDB computes them, and how they are read. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.metering import money
from godoty_service.metering.rollups import PLACES
from godoty_service.metering.states import counts
from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage import COUNTERS, TokenUsage
from godoty_service.metering.usage_plan import Range
from godoty_service.metering.usage_sums import COUNTS
from godoty_service.mongo import Document

_ORDER = {"start_time": 1, "number": 1, "_id": 1}
_PLACE = {"time": "$start_time", "number": "$number", "id": "$_id"}
_AMOUNTS = ("cost", "unresolved_bound")
_OF_ENTRIES = ("later",)  # amounts that no roll-up has
_ZERO = Decimal128("0")
_CALL = {"$eq": ["$kind", "call"]}
_ASKED = {"$ifNull": ["$requested_id", "$requested_model"]}
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
_SETTLED = {"$ifNull": ["$known_time", "$settle_time", "$time", "$start_time"]}


def of_rollups(tenant_id: str, level: str, ranges: Sequence[Range]) -> list[Document]:
    """Choose documents of a level."""
    return [_match({"tenant_id": tenant_id, "level": level}, "time", ranges)]


def of_entries(
    tenant_id: str, stretch: Range, *, as_of: datetime, after: Document | None, limit: int
) -> list[Document]:
    """Choose the next entries of a stretch, each as what it added to the sums at a time, booked or pending.

    Args:
        tenant_id: Whose.
        stretch: The stretch.
        as_of: What was known at this time counts. The books are closed through it, so an entry gives the same whenever
            it is read: a sum that is made in pieces needs no snapshot.
        after: The place of the last entry before, as `grouped` gives it.
        limit: How many.
    """
    booked = {"$eq": [{"$type": "$unbooked"}, "missing"]}
    opened = {"$cond": ["$booked", "$start_time", _NEVER]}  # a pending call that no answer has counted is not known
    return [
        {"$match": {"$and": [_stretch(tenant_id, stretch), *_after(after)]}},
        {"$sort": _ORDER},
        {"$limit": limit},
        {"$set": {"booked": booked}},
        {
            "$set": {
                "known": {"$and": ["$booked", {"$lte": [_SETTLED, as_of]}]},
                "opened": {"$lte": [{"$ifNull": ["$opened_time", opened]}, as_of]},
            }
        },
        {"$project": {**_groups_of_entry(as_of), **_sums_of_entry(as_of), "place": _PLACE}},
    ]


def of_pending(tenant_id: str, ranges: Sequence[Range], *, as_of: datetime) -> list[Document]:
    """Choose the calls that are noted as pending, each as what it adds to the sums."""
    return [
        _match({"unbooked": {"$in": ["noted", "left", "final"]}, "tenant_id": tenant_id}, "start_time", ranges),
        {"$match": {"opened_time": {"$lte": as_of}}},
        {
            "$project": {
                "time": "$start_time",
                "model": _listed("model", _ASKED, as_of),
                "provider": _listed("provider", "", as_of),
                "agent": 1,
                "user": {"$ifNull": ["$user", ""]},
                "session": "$session_id",
                "model_calls": _one(True),
                "pending_calls": _one(True),
                "turns": _one({"$and": ["$opens_turn", _opened_turn(as_of)]}),
            }
        },
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How sums are cut: by fields, and by time in a zone of this offset."""

    names: Sequence[str]
    time: TimeGroup | None
    offset: str


def grouped(cut: Cut, *, fine: bool, limit: int, places: bool = False) -> list[Document]:
    """Sum what was chosen.

    Args:
        cut: By what.
        places: Give how many entries a group has (`entries`), and the place of the last (`last`).
        fine: Sum what an amount has beyond `PLACES` decimals apart, so that no digit is lost. Else, of roll-ups only,
            tell whether one has any.
        limit: The most groups that are given.
    """
    key: Document = {name: f"${name}" for name in cut.names}
    if cut.time is not None:
        key["time"] = {"$dateTrunc": {"date": "$time", "unit": cut.time.value, "timezone": cut.offset}}
    amounts = _in_two(*_AMOUNTS, *_OF_ENTRIES) if fine else {name: {"$sum": f"${name}"} for name in _AMOUNTS}
    sums: Document = {"_id": key, **amounts}
    if not fine:
        sums["fine"] = {"$max": "$fine"}
    sums |= {name: {"$sum": f"${name}"} for name in COUNTS}
    sums |= {name: {"$sum": f"$usage.{name}"} for name in COUNTERS}
    sums["told"] = {"$mergeObjects": "$usage"}  # which counters there were at all
    if places:
        sums |= {"entries": {"$sum": 1}, "last": {"$max": "$place"}}
    return [{"$group": sums}, {"$limit": limit}, {"$set": {name: {"$toString": f"${name}"} for name in amounts}}]


def read_totals(document: Document) -> Totals:
    """Read a group's sum."""
    return Totals(
        cost=_amount(document, "cost"),
        unresolved_bound=_amount(document, "unresolved_bound"),
        usage=TokenUsage(**{name: document[name] for name in COUNTERS if name in document["told"]}),
        **{name: document[name] for name in COUNTS},
    )


def read_later(document: Document) -> Decimal:
    """Read what a group cost that became known later."""
    return _amount(document, "later") if "later" in document else money.ZERO


def _groups_of_entry(as_of: datetime) -> Document:
    """What an entry had in common with others, by what was known of it."""
    served = {"$ifNull": ["$served_model", _ASKED]}
    model = {"$cond": ["$known", served, _listed("model", _ASKED, as_of)]}
    return {
        "time": "$start_time",
        "model": {"$cond": [_CALL, model, "$model"]},
        "provider": {"$cond": ["$known", {"$ifNull": ["$provider", ""]}, _listed("provider", "", as_of)]},
        "agent": 1,
        "user": {"$ifNull": ["$user", ""]},
        "session": "$session_id",
    }


def _listed(what: str, unknown: str | Document, as_of: datetime) -> Document:
    """Under what a pending call was listed: from when on who served it is known differs from call to call."""
    return {"$cond": [{"$lte": [{"$ifNull": ["$listed.time", _NEVER]}, as_of]}, f"$listed.{what}", unknown]}


def _opened_turn(as_of: datetime) -> Document:
    """Whether the turn that counts with a call did so at a time already."""
    return {"$lte": [{"$ifNull": ["$opens_time", as_of]}, as_of]}


def _sums_of_entry(as_of: datetime) -> Document:
    """What an entry added, by what was known of it."""
    unresolved = _known_call("unresolved")
    resolves = {"$and": ["$known", {"$not": _CALL}, "$resolves"]}
    open_then = {"$and": [_CALL, "$opened", {"$not": "$known"}]}
    bound = {"$cond": [unresolved, "$upper_bound", {"$cond": [resolves, {"$multiply": ["$bound", -1]}, _ZERO]}]}
    unbounded = {"$and": [unresolved, _missing("$upper_bound")]}
    return {
        "cost": {"$cond": [_known("cost"), "$cost", _ZERO]},
        "later": {"$cond": [{"$or": ["$known", {"$not": "$booked"}]}, _ZERO, "$cost"]},
        "usage": {"$cond": [_known("usage"), "$usage", {}]},
        "model_calls": _one({"$or": [_known_call("call"), open_then]}),
        "turns": _one({"$and": ["$opens_turn", {"$or": [_known_call("turn"), open_then]}, _opened_turn(as_of)]}),
        "pending_calls": _one(open_then),
        "unresolved_calls": {"$subtract": [_one(unresolved), _one(resolves)]},
        "unresolved_bound": {"$ifNull": [bound, _ZERO]},
        "unbounded_calls": {"$subtract": [_one(unbounded), _one({"$and": [resolves, _missing("$bound")]})]},
    }


def _stretch(tenant_id: str, stretch: Range) -> Document:
    return {"tenant_id": tenant_id, "start_time": {"$gte": stretch.start, "$lt": stretch.end}}


def _after(place: Document | None) -> list[Document]:
    """Choose what comes after a place, in the order of the index."""
    if place is None:
        return []
    time, number, entry_id = place["time"], place["number"], place["id"]
    later = [
        {"start_time": {"$gt": time}},
        {"start_time": time, "number": {"$gt": number}},
        {"start_time": time, "number": number, "_id": {"$gt": entry_id}},
    ]
    return [{"start_time": {"$gte": time}}, {"$or": later}]


def _in_two(*names: str) -> Document:
    """Sum amounts, each in two parts."""
    sums: Document = {}
    for name in names:
        coarse = {"$trunc": [f"${name}", PLACES]}
        sums[name] = {"$sum": coarse}
        sums[f"{name}_fine"] = {"$sum": {"$subtract": [f"${name}", coarse]}}
    return sums


def _amount(document: Document, name: str) -> Decimal:
    """Read an amount; raises `decimal.Inexact` where 34 digits do not hold it."""
    amount, fine = Decimal(document[name]), document.get(f"{name}_fine")
    return amount if fine is None else money.add(amount, Decimal(fine))


def _match(which: Document, field: str, ranges: Sequence[Range]) -> Document:
    branches = [{**which, field: {"$gte": each.start, "$lt": each.end}} for each in ranges]
    return {"$match": branches[0] if len(branches) == 1 else {"$or": branches}}


def _known(aspect: str) -> Document:
    """Whether an entry counts in an aspect, once it is known; an adjustment does."""
    return {"$and": ["$known", {"$or": [{"$not": _CALL}, counts(aspect)]}]}


def _known_call(aspect: str) -> Document:
    """Whether a call counts in an aspect, once it is known."""
    return {"$and": ["$known", _CALL, counts(aspect)]}


def _missing(field: str) -> Document:
    return {"$eq": [{"$type": field}, "missing"]}


def _one(condition: Any) -> Document:
    return {"$cond": [condition, 1, 0]}
