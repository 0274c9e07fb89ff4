"""Corrects times that a wrong clock wrote into ledger entries, by the best evidence. Pure.

The evidence for a call's start, best first:

generation_id   The provider's own clock: OpenRouter's ids contain the second in which the generation began.
server_offset   How far the entry's server was ahead, measured on the nearest of its calls that has such an id.
repair_time     No evidence: the call gets the time of the repair, so that no closed period changes.

A settlement keeps its distance from its call's start if the same clock wrote both. Otherwise it is dated by when the
usage roll-ups included it (`rollups`), by the call's `duration`, or by the repair.
"""

import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from godoty_service.mongo.collection import Document

REPAIRED = "time_repair"  # an entry's field: its times before a repair, and the evidence for the new ones
_GENERATION = re.compile(r"gen-(\d{10})-")
_FIRST_GENERATION = datetime(2023, 1, 1, tzinfo=UTC)  # OpenRouter did not exist before
_ONE_CLOCK = timedelta(hours=2)  # the most between a call and its settlement that one clock wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """New times of an entry.

    Attributes:
        entry_id: The entry.
        start: Its `start_time` before the repair.
        times: The new values, by field.
        evidence: The evidence for each, by field.
        before: The old values, by field.
    """

    entry_id: str
    start: datetime
    times: dict[str, datetime]
    evidence: dict[str, str]
    before: dict[str, datetime]

    @property
    def moves(self) -> bool:
        """Whether the repair changes the entry's period."""
        return "start_time" in self.times

    @property
    def starts(self) -> set[datetime]:
        """The start times of the entry before and after the repair."""
        return {self.start, *(times["start_time"] for times in (self.before, self.times) if "start_time" in times)}

    def to_document(self) -> Document:
        """Encode the repair."""
        return {
            "id": self.entry_id,
            "start": self.start,
            "times": self.times,
            "evidence": self.evidence,
            "before": self.before,
        }

    @classmethod
    def from_entry(cls, entry: Document) -> "Repair":
        """Return the unfinished repair of an entry: its times are repaired, but sums may lack the change."""
        repaired = entry[REPAIRED]
        times = {name: entry[name] for name in repaired["before"]}
        return cls(entry_id=entry["_id"], start=entry["start_time"], times=times, **_provenance(repaired))

    @classmethod
    def from_document(cls, document: Document) -> "Repair":
        """Decode a repair."""
        return cls(
            entry_id=document["id"],
            start=document["start"],
            times=document["times"],
            **_provenance(document),
        )


class EntryTimes:
    """Finds the best times of entries that are dated after a limit."""

    def __init__(self, *, now: datetime, limit: datetime) -> None:
        """Build it.

        Args:
            now: The database's time, that of the repair.
            limit: A later time was written by a wrong clock.
        """
        self._now = now
        self._limit = limit
        self._offsets: dict[str, list[tuple[datetime, timedelta]]] = {}

    def learn(self, calls: Iterable[Document]) -> None:
        """Measure by the provider's clock how far the servers of these calls were ahead."""
        for call in calls:
            generated = self._generated(call)
            if generated is not None and call["start_time"] > self._limit:
                offset = call["start_time"] - generated
                insort(self._offsets.setdefault(call["owner"], []), (call["start_time"], offset))

    def of_call(self, call: Document) -> Repair | None:
        """Return the repair of a call's times; None: all are right."""
        start, settle = call["start_time"], call.get("settle_time")
        found: dict[str, tuple[datetime, str]] = {}
        if start > self._limit:
            best, evidence = self._best_start(call)
            found["start_time"] = (best if settle is None or settle > self._limit else min(best, settle)), evidence
        if settle is not None and settle > self._limit:
            best, evidence = found.get("start_time", (start, ""))
            found["settle_time"] = self._best_settle_time(call, best, evidence)
        return _repair(call, found)

    def of_adjustment(self, adjustment: Document, call: Document | None) -> Repair | None:
        """Return the repair of an adjustment's times; None: all are right. It belongs to the period of its call.

        Args:
            adjustment: The entry.
            call: The call that it corrects, before or after its own repair.
        """
        found: dict[str, tuple[datetime, str]] = {}
        if adjustment["start_time"] > self._limit:
            repaired = self.of_call(call) if call is not None else None
            start = repaired.times.get("start_time") if repaired is not None else (call or {}).get("start_time")
            best = (start, "call") if start is not None else (self._now, "repair_time")
            found = dict.fromkeys(("start_time", "call_time") if "call_time" in adjustment else ("start_time",), best)
        if adjustment["time"] > self._limit:
            found["time"] = self._rolled_up(adjustment) or (self._now, "repair_time")
        return _repair(adjustment, found)

    def _best_start(self, call: Document) -> tuple[datetime, str]:
        generated = self._generated(call)
        if generated is not None:
            return generated, "generation_id"
        start: datetime = call["start_time"]
        offsets = self._offsets.get(call["owner"], [])
        nearest = min(offsets, key=lambda each: abs(each[0] - start), default=None)
        if nearest is not None and start - nearest[1] <= self._now:
            return start - nearest[1], "server_offset"
        return self._now, "repair_time"

    def _best_settle_time(self, call: Document, start: datetime, evidence: str) -> tuple[datetime, str]:
        distance: timedelta = call["settle_time"] - call["start_time"]
        if evidence and timedelta() <= distance <= _ONE_CLOCK:
            return min(start + distance, self._now), evidence
        if (known := self._rolled_up(call)) is not None:
            return max(known[0], start), known[1]
        if "duration" in call:
            return min(start + timedelta(microseconds=call["duration"]), self._now), "duration"
        return self._now, "repair_time"

    def _rolled_up(self, entry: Document) -> tuple[datetime, str] | None:
        known = entry.get("final_from")
        return (known, "rollups") if known is not None and known <= self._now else None

    def _generated(self, call: Document) -> datetime | None:
        found = _GENERATION.match(call.get("generation_id") or "")
        time = datetime.fromtimestamp(int(found[1]), UTC) if found else None
        return time if time is not None and _FIRST_GENERATION < time <= self._now else None


def _provenance(document: Document) -> dict[str, Any]:
    return {"evidence": document["evidence"], "before": document["before"]}


def _repair(entry: Document, found: dict[str, tuple[datetime, str]]) -> Repair | None:
    if not found:
        return None
    return Repair(
        entry_id=entry["_id"],
        start=entry["start_time"],
        times={name: time for name, (time, _) in found.items()},
        evidence={name: evidence for name, (_, evidence) in found.items()},
        before={name: entry[name] for name in found},
    )
