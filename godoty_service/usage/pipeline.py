"""Builds the aggregation pipelines of usage sums, and decodes their results. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.ledger.states import counts
from godoty_service.ledger.totals import COUNTS, Totals
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import COUNTERS, TokenUsage
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.read_plan import Range
from godoty_service.usage.rollup_store import EXACT_DECIMALS

_ORDER = {"start_time": 1, "number": 1, "_id": 1}
_POSITION = {"time": "$start_time", "number": "$number", "id": "$_id"}
_AMOUNTS = ("cost", "unresolved_bound")
_ENTRY_AMOUNTS = ("later",)  # of entries alone: no roll-up has them
_ZERO = Decimal128("0")
_CALL = {"$eq": ["$kind", "call"]}
_REQUESTED = {"$ifNull": ["$requested_id", "$requested_model"]}
_MAX_TIME = datetime(9999, 1, 1, tzinfo=UTC)
NAME_MARK = "="  # no reference begins with it
# The end user's reference; the marked name of an entry of schema 1; or nothing.
_USER = {"$ifNull": ["$user_reference", {"$ifNull": [{"$concat": [NAME_MARK, "$user"]}, ""]}]}
# "support@3"; the agent alone for an entry of a build that stored no version.
_AGENT_VERSION = {"$ifNull": [{"$concat": ["$agent", "@", {"$toString": "$agent_version"}]}, "$agent"]}
_SETTLED = {"$ifNull": ["$final_from", "$settle_time", "$time", "$start_time"]}


def rollup_stages(tenant_id: str, level: str, ranges: Sequence[Range]) -> list[Document]:
    """Return the stage that matches the documents of a level in some time ranges."""
    return [_match({"tenant_id": tenant_id, "level": level}, "time", ranges)]


def entry_stages(tenant_id: str, span: Range, *, as_of: datetime, after: Document | None, limit: int) -> list[Document]:
    """Return the stages that project the next entries of a time range to what each contributes to the sums.

    Args:
        tenant_id: The tenant.
        span: The time range.
        as_of: The time of the report. The watermark has reached it, so an entry contributes the same whenever it is
            read: a sum that is made in pieces needs no snapshot.
        after: The position of the last entry of the previous piece, as `group_stages` returns it; None: start.
        limit: The most entries.
    """
    rolled_up = {"$eq": [{"$type": "$rollup_state"}, "missing"]}
    start = {"$cond": ["$rolled_up", "$start_time", _MAX_TIME]}  # a pending call that no report counted is not visible
    return [
        {"$match": {"$and": [_in_span(tenant_id, span), *_after(after)]}},
        {"$sort": _ORDER},
        {"$limit": limit},
        {"$set": {"rolled_up": rolled_up}},
        {
            "$set": {
                "final": {"$and": ["$rolled_up", {"$lte": [_SETTLED, as_of]}]},
                "visible": {"$lte": [{"$ifNull": ["$visible_from", start]}, as_of]},
            }
        },
        {"$project": {**_groups_of_entry(as_of), **_sums_of_entry(as_of), "position": _POSITION}},
    ]


def pending_stages(tenant_id: str, ranges: Sequence[Range], *, as_of: datetime) -> list[Document]:
    """Return the stages that project the counted pending calls to what each contributes to the sums."""
    return [
        _match(
            {"rollup_state": {"$in": ["counted", "deferred", "ready"]}, "tenant_id": tenant_id}, "start_time", ranges
        ),
        {"$match": {"visible_from": {"$lte": as_of}}},
        {
            "$project": {
                "time": "$start_time",
                "model": _listed("model", _REQUESTED, as_of),
                "provider": _listed("provider", "", as_of),
                "agent": 1,
                "agent_version": _AGENT_VERSION,
                "user": _USER,
                "session": "$session_id",
                "api_key": {"$ifNull": ["$api_key_id", ""]},
                "model_calls": _one(True),
                "pending_calls": _one(True),
                "turns": _one({"$and": ["$opens_turn", _opened_turn(as_of)]}),
            }
        },
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """How sums are grouped: by fields, and by time in a zone with this offset ("+05:45")."""

    names: Sequence[str]
    time: TimeGroup | None
    offset: str


def group_stages(spec: GroupSpec, *, split_digits: bool, limit: int, with_last: bool = False) -> list[Document]:
    """Return the stages that sum documents by group.

    Args:
        spec: How to group.
        split_digits: Sum the digits of amounts beyond `EXACT_DECIMALS` decimals separately, so that none is lost. Else,
            for roll-ups only, return in `fine` whether there are any.
        limit: The most groups.
        with_last: Also return the number of entries of a group (`entries`) and the position of the last one (`last`).
    """
    key: Document = {name: f"${name}" for name in spec.names}
    if spec.time is not None:
        key["time"] = {"$dateTrunc": {"date": "$time", "unit": spec.time.value, "timezone": spec.offset}}
    amounts = _in_two(*_AMOUNTS, *_ENTRY_AMOUNTS) if split_digits else {name: {"$sum": f"${name}"} for name in _AMOUNTS}
    sums: Document = {"_id": key, **amounts}
    if not split_digits:
        sums["fine"] = {"$max": "$fine"}
    sums |= {name: {"$sum": f"${name}"} for name in COUNTS}
    sums |= {name: {"$sum": f"$usage.{name}"} for name in COUNTERS}
    sums["reported"] = {"$mergeObjects": "$usage"}  # the counters that were reported at all
    if with_last:
        sums |= {"entries": {"$sum": 1}, "last": {"$max": "$position"}}
    return [{"$group": sums}, {"$limit": limit}, {"$set": {name: {"$toString": f"${name}"} for name in amounts}}]


def read_totals(document: Document) -> Totals:
    """Decode the sum of a group."""
    return Totals(
        cost=_amount(document, "cost"),
        unresolved_bound=_amount(document, "unresolved_bound"),
        usage=TokenUsage(**{name: document[name] for name in COUNTERS if name in document["reported"]}),
        **{name: document[name] for name in COUNTS},
    )


def read_later_cost(document: Document) -> Decimal:
    """Decode the cost of a group's calls that became final after the report's `as_of`."""
    return _amount(document, "later") if "later" in document else money.ZERO


def _groups_of_entry(as_of: datetime) -> Document:
    """Express the group fields of an entry as of a time."""
    served = {"$ifNull": ["$served_model", _REQUESTED]}
    model = {"$cond": ["$final", served, _listed("model", _REQUESTED, as_of)]}
    return {
        "time": "$start_time",
        "model": {"$cond": [_CALL, model, "$model"]},
        "provider": {"$cond": ["$final", {"$ifNull": ["$provider", ""]}, _listed("provider", "", as_of)]},
        "agent": 1,
        "agent_version": _AGENT_VERSION,
        "user": _USER,
        "session": "$session_id",
        "api_key": {"$ifNull": ["$api_key_id", ""]},
    }


def _listed(what: str, unknown: str | Document, as_of: datetime) -> Document:
    """Express the model or provider under which a pending call was listed: when it became known differs by call."""
    return {"$cond": [{"$lte": [{"$ifNull": ["$listed.time", _MAX_TIME]}, as_of]}, f"$listed.{what}", unknown]}


def _opened_turn(as_of: datetime) -> Document:
    """Express whether a turn was counted with this call at a time already."""
    return {"$lte": [{"$ifNull": ["$opens_time", as_of]}, as_of]}


def _sums_of_entry(as_of: datetime) -> Document:
    """Express the contribution of an entry as of a time."""
    unresolved = _final_call("unresolved")
    resolves = {"$and": ["$final", {"$not": _CALL}, "$resolves"]}
    pending = {"$and": [_CALL, "$visible", {"$not": "$final"}]}
    bound = {"$cond": [unresolved, "$upper_bound", {"$cond": [resolves, {"$multiply": ["$bound", -1]}, _ZERO]}]}
    unbounded = {"$and": [unresolved, _missing("$upper_bound")]}
    return {
        "cost": {"$cond": [_final("cost"), "$cost", _ZERO]},
        "later": {
            "$cond": [{"$and": ["$rolled_up", {"$not": "$final"}, counts("cost", adjustments=True)]}, "$cost", _ZERO]
        },
        "usage": {"$cond": [_final("usage"), "$usage", {}]},
        "model_calls": _one({"$or": [_final_call("call"), pending]}),
        "turns": _one({"$and": ["$opens_turn", {"$or": [_final_call("turn"), pending]}, _opened_turn(as_of)]}),
        "pending_calls": _one(pending),
        "unresolved_calls": {"$subtract": [_one(unresolved), _one(resolves)]},
        "unresolved_bound": {"$ifNull": [bound, _ZERO]},
        "unbounded_calls": {"$subtract": [_one(unbounded), _one({"$and": [resolves, _missing("$bound")]})]},
    }


def _in_span(tenant_id: str, span: Range) -> Document:
    return {"tenant_id": tenant_id, "start_time": {"$gte": span.start, "$lt": span.end}}


def _after(position: Document | None) -> list[Document]:
    """Return the conditions for entries after a position, in the order of the index."""
    if position is None:
        return []
    time, number, entry_id = position["time"], position["number"], position["id"]
    later = [
        {"start_time": {"$gt": time}},
        {"start_time": time, "number": {"$gt": number}},
        {"start_time": time, "number": number, "_id": {"$gt": entry_id}},
    ]
    return [{"start_time": {"$gte": time}}, {"$or": later}]


def _in_two(*names: str) -> Document:
    """Sum amounts, each in two parts: up to `EXACT_DECIMALS` decimals, and beyond."""
    sums: Document = {}
    for name in names:
        coarse = {"$trunc": [f"${name}", EXACT_DECIMALS]}
        sums[name] = {"$sum": coarse}
        sums[f"{name}_fine"] = {"$sum": {"$subtract": [f"${name}", coarse]}}
    return sums


def _amount(document: Document, name: str) -> Decimal:
    """Decode an amount; raises `decimal.Inexact` if it needs more than 34 digits."""
    amount, fine = Decimal(document[name]), document.get(f"{name}_fine")
    return amount if fine is None else money.add(amount, Decimal(fine))


def _match(query: Document, field: str, ranges: Sequence[Range]) -> Document:
    branches = [{**query, field: {"$gte": each.start, "$lt": each.end}} for each in ranges]
    return {"$match": branches[0] if len(branches) == 1 else {"$or": branches}}


def _final(aspect: str) -> Document:
    """Express whether an entry counts in an aspect once it is final; an adjustment always does."""
    return {"$and": ["$final", counts(aspect, adjustments=True)]}


def _final_call(aspect: str) -> Document:
    """Express whether a call counts in an aspect once it is final."""
    return {"$and": ["$final", _CALL, counts(aspect)]}


def _missing(field: str) -> Document:
    return {"$eq": [{"$type": field}, "missing"]}


def _one(condition: Any) -> Document:
    return {"$cond": [condition, 1, 0]}
