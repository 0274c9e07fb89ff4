"""What a wrong clock wrote into ledger entries, and the best time known instead. Pure.

The evidence for a call's start, best first:

generation_id   The provider's own clock: OpenRouter's ids hold the second in which the generation began.
server_offset   How far the server that wrote the entry was ahead in the nearest of its calls that has such an id.
repair_time     Nothing is known: the call is booked at the time of the repair, so that no closed period changes.

A settlement keeps its distance from its call's start where the same clock wrote both. Else it is dated by when the
usage books took it up (`books`), by the call's `duration`, or by the repair.
"""

import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from godoty_service.mongo import Document

REPAIRED = "time_repair"  # an entry's field: what its times were before a repair, and why they were changed
_GENERATION = re.compile(r"gen-(\d{10})-")
_FIRST_GENERATION = datetime(2023, 1, 1, tzinfo=UTC)  # there was no OpenRouter before
_ONE_CLOCK = timedelta(hours=2)  # a call and its settlement are so near; more was written by two clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """New times of an entry.

    Attributes:
        entry_id: The entry.
        start: The `start_time` that it had.
        times: The new values, by field.
        evidence: Where each comes from.
        before: The old values, by field.
    """

    entry_id: str
    start: datetime
    times: dict[str, datetime]
    evidence: dict[str, str]
    before: dict[str, datetime]

    @property
    def moves(self) -> bool:
        """Whether the entry belongs to another time than before."""
        return "start_time" in self.times

    @property
    def starts(self) -> set[datetime]:
        """The times that the entry belonged to and belongs to."""
        return {self.start, *(times["start_time"] for times in (self.before, self.times) if "start_time" in times)}

    def to_document(self) -> Document:
        """Write it down."""
        return {
            "id": self.entry_id,
            "start": self.start,
            "times": self.times,
            "evidence": self.evidence,
            "before": self.before,
        }

    @classmethod
    def again(cls, entry: Document) -> "Repair":
        """Return a repair that was made, and that not all sums are known to have."""
        made = entry[REPAIRED]
        times = {name: entry[name] for name in made["before"]}
        return cls(entry_id=entry["_id"], start=entry["start_time"], times=times, **_said(made))

    @classmethod
    def from_document(cls, document: Document) -> "Repair":
        """Read it."""
        return cls(
            entry_id=document["id"],
            start=document["start"],
            times=document["times"],
            **_said(document),
        )


class EntryTimes:
    """Finds the best known times of entries that are dated after a limit."""

    def __init__(self, *, now: datetime, limit: datetime) -> None:
        """Build it.

        Args:
            now: The database's time, that of the repair.
            limit: A time after it was written by a wrong clock.
        """
        self._now = now
        self._limit = limit
        self._offsets: dict[str, list[tuple[datetime, timedelta]]] = {}

    def learn(self, calls: Iterable[Document]) -> None:
        """Take note of how far the servers of calls were ahead, by the provider's clock."""
        for call in calls:
            begun = self._generated(call)
            if begun is not None and call["start_time"] > self._limit:
                insort(self._offsets.setdefault(call["owner"], []), (call["start_time"], call["start_time"] - begun))

    def of_call(self, call: Document) -> Repair | None:
        """Return a call's new times; None: none of them is wrong."""
        start, settle = call["start_time"], call.get("settle_time")
        found: dict[str, tuple[datetime, str]] = {}
        if start > self._limit:
            begun, evidence = self._begun(call)
            found["start_time"] = (begun if settle is None or settle > self._limit else min(begun, settle)), evidence
        if settle is not None and settle > self._limit:
            begun, evidence = found.get("start_time", (start, ""))
            found["settle_time"] = self._settled(call, begun, evidence)
        return _repair(call, found)

    def of_adjustment(self, adjustment: Document, call: Document | None) -> Repair | None:
        """Return an adjustment's new times; None: none is wrong. It belongs to the time of its call.

        Args:
            adjustment: The entry.
            call: The call that it corrects, before or after its own repair.
        """
        found: dict[str, tuple[datetime, str]] = {}
        if adjustment["start_time"] > self._limit:
            repaired = self.of_call(call) if call is not None else None
            start = repaired.times.get("start_time") if repaired is not None else (call or {}).get("start_time")
            begun = (start, "call") if start is not None else (self._now, "repair_time")
            found = dict.fromkeys(("start_time", "call_time") if "call_time" in adjustment else ("start_time",), begun)
        if adjustment["time"] > self._limit:
            found["time"] = self._known(adjustment) or (self._now, "repair_time")
        return _repair(adjustment, found)

    def _begun(self, call: Document) -> tuple[datetime, str]:
        generated = self._generated(call)
        if generated is not None:
            return generated, "generation_id"
        start: datetime = call["start_time"]
        offsets = self._offsets.get(call["owner"], [])
        nearest = min(offsets, key=lambda each: abs(each[0] - start), default=None)
        if nearest is not None and start - nearest[1] <= self._now:
            return start - nearest[1], "server_offset"
        return self._now, "repair_time"

    def _settled(self, call: Document, begun: datetime, evidence: str) -> tuple[datetime, str]:
        distance: timedelta = call["settle_time"] - call["start_time"]
        if evidence and timedelta() <= distance <= _ONE_CLOCK:
            return min(begun + distance, self._now), evidence
        if (known := self._known(call)) is not None:
            return max(known[0], begun), known[1]
        if "duration" in call:
            return min(begun + timedelta(microseconds=call["duration"]), self._now), "duration"
        return self._now, "repair_time"

    def _known(self, entry: Document) -> tuple[datetime, str] | None:
        known = entry.get("known_time")
        return (known, "books") if known is not None and known <= self._now else None

    def _generated(self, call: Document) -> datetime | None:
        found = _GENERATION.match(call.get("generation_id") or "")
        time = datetime.fromtimestamp(int(found[1]), UTC) if found else None
        return time if time is not None and _FIRST_GENERATION < time <= self._now else None


def _said(document: Document) -> dict[str, Any]:
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
