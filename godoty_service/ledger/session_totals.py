"""Session totals as they are stored in their session's document, and their update outside a turn."""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any, Protocol

from godoty_service.ledger.cache_savings import CacheSavings
from godoty_service.ledger.codec import usage_from_document, usage_to_document
from godoty_service.ledger.entries import FIRST_AGENT
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import Run, SessionTotals, Timing, Totals
from godoty_service.mongo.collection import Document, Snapshot
from godoty_service.pricing import money


class SessionTotalsStore(Protocol):
    """Stores the totals of each session; implemented by `sessions/store.py`."""

    def at(self, snapshot: Snapshot) -> "SessionTotalsStore":
        """Return a view of the store that reads from a snapshot."""

    async def read_totals(self, tenant_id: str, session_uid: str) -> tuple[Document | None, int] | None:
        """Return a session's totals and their revision; None: the session is deleted."""

    async def read_shown_totals(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Return a session's totals, and whether readers show them as stored; None: the session is deleted."""

    def sessions_with_totals(self, tenant_id: str | None) -> AsyncIterator[tuple[str, str, str]]:
        """Yield the tenant, our id and the caller's id of each session whose totals include an entry."""

    async def replace_totals(self, tenant_id: str, session_uid: str, *, totals: Document, revision: int) -> bool:
        """Replace the totals of this revision; return False if it is not the current one."""

    async def mark_totals_stale(self, tenant_id: str, session_uid: str) -> None:
        """Mark the totals stale before an entry is inserted outside a turn."""


class SessionTotalsUpdater:
    """Updates session totals when entries close or are inserted outside a turn."""

    def __init__(self, store: SessionTotalsStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    async def refresh(self, tenant_id: str, session_uid: str) -> None:
        """Apply the entries that were closed or inserted since the totals were stored; no-op for a deleted session."""
        while (found := await self._store.read_totals(tenant_id, session_uid)) is not None:
            totals, revision = session_totals_from_document(found[0]), found[1]
            entries = await self._ledger.entries_after(
                tenant_id, session_uid, after=totals.last_number, also=totals.open
            )
            updated = session_totals_to_document(totals.apply(entries))
            if await self._store.replace_totals(tenant_id, session_uid, totals=updated, revision=revision):
                return

    async def rebuild(self, tenant_id: str, session_uid: str) -> None:
        """Recompute the totals from all entries of a session; no-op for a deleted session."""
        while (found := await self._store.read_totals(tenant_id, session_uid)) is not None:
            entries = await self._ledger.entries_after(tenant_id, session_uid, after=0)
            rebuilt = session_totals_to_document(SessionTotals().apply(entries))
            if await self._store.replace_totals(tenant_id, session_uid, totals=rebuilt, revision=found[1]):
                return

    async def mark_stale(self, tenant_id: str, session_uid: str) -> None:
        """Make readers check the ledger for entries that the stored totals lack."""
        await self._store.mark_totals_stale(tenant_id, session_uid)


def session_totals_to_document(totals: SessionTotals) -> Document:
    """Encode session totals. Runs and timings are columns: a column is decoded faster than a row each.

    If one agent made all calls, as in most sessions, its sum is that of the session, and only its name is stored.
    """
    by_agent = totals.by_agent
    return {
        "last_number": totals.last_number,
        "open": list(totals.open),
        "open_turns": list(totals.open_turns),
        "last_turn": totals.last_turn,
        "totals": totals_to_document(totals.totals),
        "by_model": [{"model": model, **totals_to_document(each)} for model, each in totals.by_model],
        "agent": by_agent[0][0] if len(by_agent) == 1 else None,
        "by_agent": [{"agent": agent, **totals_to_document(each)} for agent, each in by_agent if len(by_agent) > 1],
        "runs": _columns(
            ("turn", "model", "time", "cost"), [run._replace(cost=_text(run.cost)) for run in totals.runs]
        ),
        "timings": _columns(("provider", "time_to_first_token", "duration"), totals.timings),
        "cache_savings": _savings_document(totals.cache_savings),
    }


def session_totals_from_document(document: Document | None) -> SessionTotals:
    """Decode session totals; a session without stored ones has empty totals."""
    if not document:
        return SessionTotals()
    totals = totals_from_document(document["totals"])
    return SessionTotals(
        last_number=document["last_number"],
        open=tuple(document["open"]),
        open_turns=tuple(document["open_turns"]),
        last_turn=document["last_turn"],
        totals=totals,
        by_agent=_by_agent(document, totals),
        by_model=tuple((each["model"], totals_from_document(each)) for each in document["by_model"]),
        runs=_runs(document["runs"]),
        timings=_timings(document["timings"]),
        cache_savings=_savings(document.get("cache_savings")),  # totals that an earlier build has written have none
    )


def totals_to_document(totals: Totals) -> Document:
    """Encode totals without their pending calls, which session totals list by number."""
    return {
        "cost": money.to_decimal128(totals.cost),
        "usage": usage_to_document(totals.usage),
        "model_calls": totals.model_calls,
        "turns": totals.turns,
        "unresolved_calls": totals.unresolved_calls,
        "unresolved_bound": money.to_decimal128(totals.unresolved_bound),
        "unbounded_calls": totals.unbounded_calls,
    }


def totals_from_document(document: Document) -> Totals:
    """Decode totals."""
    return Totals(
        cost=money.from_decimal128(document["cost"]),
        usage=usage_from_document(document["usage"]),
        model_calls=document["model_calls"],
        turns=document["turns"],
        unresolved_calls=document["unresolved_calls"],
        unresolved_bound=money.from_decimal128(document["unresolved_bound"]),
        unbounded_calls=document["unbounded_calls"],
    )


def _savings_document(savings: CacheSavings | None) -> Document | None:
    if savings is None:
        return None
    saved = money.to_decimal128(savings.saved)
    return {"saved": saved, "calls": savings.calls, "unknown_calls": savings.unknown_calls}


def _savings(document: Document | None) -> CacheSavings | None:
    if document is None:
        return None
    saved = money.from_decimal128(document["saved"])
    return CacheSavings(saved=saved, calls=document["calls"], unknown_calls=document["unknown_calls"])


def _by_agent(document: Document, totals: Totals) -> tuple[tuple[str, Totals], ...]:
    """Decode the sums by agent; those of an earlier build, which had one agent, have none."""
    if found := document.get("by_agent"):
        return tuple((each["agent"], totals_from_document(each)) for each in found)
    agent = document.get("agent") or (FIRST_AGENT if totals != Totals() else None)
    return ((agent, totals),) if agent is not None else ()


def _runs(columns: Document) -> tuple[Run, ...]:
    costs = [None if text is None else Decimal(text) for text in columns["cost"]]
    return tuple(map(Run, columns["turn"], columns["model"], columns["time"], costs))


def _timings(columns: Document) -> tuple[Timing, ...]:
    return tuple(map(Timing, columns["provider"], columns["time_to_first_token"], columns["duration"]))


def _columns(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Document:
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _text(amount: Decimal | None) -> Any:
    return None if amount is None else str(amount)
