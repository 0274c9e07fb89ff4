"""Schema 1: new names of collections, fields and values. It needs all servers stopped."""

from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.migrations.schema import Migration
from godoty_service.migrations.steps import (
    CreateIndexes,
    DeleteDocuments,
    DropIndex,
    Rename,
    RenameCollection,
    ReplaceDocuments,
    UpdateDocuments,
)
from godoty_service.mongo.collection import Document, Index

_WINDOWS = ("day", "month", "total")
_STATES = {"open": "pending", "noted": "counted", "left": "deferred", "final": "ready"}
_MOVED_TURNS: tuple[Document, list[Document]] = (
    {"batch.moved": {"$exists": True}},
    [
        {
            "$set": {
                "batch.moved_turns": {
                    "$map": {
                        "input": "$batch.moved",
                        "as": "each",
                        "in": {"id": "$$each.id", "time": "$$each.time", "rolled_up": "$$each.booked"},
                    }
                }
            }
        },
        {"$unset": "batch.moved"},
    ],
)
_LEASE: tuple[Document, list[Document]] = (
    {"lease.before": {"$exists": True}},
    [
        {"$set": {"lease.predecessors": "$lease.before"}},
        {"$set": {"lease.predecessors.predecessors": []}},  # of each: all stand in the lease itself
        {"$unset": ["lease.before", "lease.predecessors.before"]},
    ],
)

_LEDGER_INDEXES = (  # those after the first: builds before 313f0b1 did not have them
    Index(
        keys=(("rollup_state", 1), ("tenant_id", 1), ("start_time", 1)),
        where={"rollup_state": {"$exists": True}},
    ),
    Index(keys=(("corrects", 1),), where={"corrects": {"$exists": True}}),
    Index(keys=(("unapplied", 1),), where={"unapplied": True}),
    Index(keys=(("generation_id", 1),), where={"generation_id": {"$gt": ""}}),
    Index(keys=(("tenant_id", 1), ("time", 1)), where={"kind": "adjustment"}),
)


def budget_by_window(old: Document) -> Document:
    """Return a budget that had one day and one month, as one with several: sums by window and key.

    What was counted of an earlier day or month is not complete, and is forgotten. A reservation gets the time of its
    call as the time of its write, and no owner: its server is stopped.
    """
    parts = {name: old.get(name, {}) for name in ("before", "spent", "alerted")}
    first = {window: _newest(parts, window) for window in _WINDOWS}
    return {
        **{name: value for name, value in old.items() if name not in parts},
        "first": first,
        "before": {window: _amount(parts["before"].get(window), first[window]) for window in _WINDOWS},
        "spent": {window: _amount(parts["spent"].get(window), first[window]) for window in _WINDOWS},
        "alerted": {window: _limits(parts["alerted"].get(window)) for window in _WINDOWS},
        "open": {
            name: {**each, "made": each.get("made", each["time"]), "owner": each.get("owner", "")}
            for name, each in old.get("open", {}).items()
        },
    }


def _newest(parts: dict[str, Any], window: str) -> str:
    keys = [parts[name][window]["key"] for name in ("before", "spent") if window in parts[name]]
    return max(keys, default="all" if window == "total" else "")


def _amount(part: Document | None, key: str) -> dict[str, Decimal128]:
    return {key: part["amount"]} if part is not None and part["key"] == key else {}


def _limits(part: Document | None) -> Document:
    return {part["key"]: part["limits"]} if part is not None else {}


MIGRATION = Migration(
    version=1,
    oldest_server=1,
    steps=(
        RenameCollection("usage_books", "usage_rollup_state"),
        RenameCollection("usage_quarters", "usage_rollups"),
        RenameCollection("gates", "turn_limits"),
        CreateIndexes("ledger", _LEDGER_INDEXES),
        UpdateDocuments(
            "ledger",
            (
                Rename("unbooked", "rollup_state", _STATES),
                Rename("opened_time", "visible_from"),
                Rename("known_time", "final_from"),
            ),
        ),
        DropIndex("ledger", "unbooked_1_tenant_id_1_start_time_1"),
        UpdateDocuments(
            "usage_rollup_state",
            (
                Rename("closed", "watermark"),
                Rename("latest", "last_change"),
                Rename("done", "last_batch"),
                Rename("batch.final", "batch.ready"),
                Rename("batch.unseen", "batch.pending"),
                Rename("batch.left", "batch.deferred"),
                Rename("batch.opening", "batch.turn_openers"),
                _MOVED_TURNS,
            ),
        ),
        UpdateDocuments(
            "sessions",
            (
                Rename("unfolded", "totals_stale"),
                Rename("fold", "totals"),
                Rename("totals.through", "totals.last_number"),
                Rename("fold_revision", "totals_revision"),
                _LEASE,
            ),
            batch=200,  # a session may be large
        ),
        UpdateDocuments("budgets", (Rename("told", "alerted"),)),
        ReplaceDocuments("budgets", {"first": {"$exists": False}}, budget_by_window, "convert budgets"),
        DeleteDocuments("replicas", {"beat": {"$exists": True}}),
        DropIndex("replicas", "beat_1"),
    ),
)
