"""Sums entries for the verification of roll-ups, and names what is wrong with their marks. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from godoty_service.metering.booking import Batch
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.states import contribution
from godoty_service.metering.turn_openers import by_turn, opener
from godoty_service.metering.usage_cells import Sums, add_sums, details_of, turn_detail_of
from godoty_service.metering.usage_entries import Marked, entry_id
from godoty_service.metering.usage_window import Window
from godoty_service.mongo import Document


@dataclass(slots=True)
class EntryTotals:
    """The sums of some entries, at the level DETAIL.

    Attributes:
        booked: Of those that are taken up.
        moving: Of those that are being taken up.
        faults: What is wrong with entries themselves.
    """

    booked: Sums = field(default_factory=dict)
    moving: Sums = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, page: list[Marked], turns: "TurnOpeners", batch: Batch | None, window: Window) -> None:
        """Add entries."""
        moving = set(batch.final) if batch else set()
        moved = {each.entry_id: each.time for each in batch.moved if each.booked} if batch else {}
        self.faults += _faults(page, turns)
        for each in page:
            entry, name = each.entry, entry_id(each.entry)
            if name in moving:
                add_sums(self.moving, details_of([entry], opening=turns.taking, window=window))
            elif each.booked:
                known = max(each.known, (name not in moved and each.opens_time) or each.known)
                add_sums(self.booked, details_of([entry], opening=turns.opening, window=Window(), known=known))
                if name in moved:
                    add_sums(self.moving, turn_detail_of(entry, known=moved[name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOpeners:
    """With which calls turns count.

    Attributes:
        opening: By what is taken up.
        taking: By what is being taken up.
        moving: Turns that have calls in the latter.
    """

    opening: set[str]
    taking: set[str]
    moving: set[str]

    @classmethod
    def of(cls, calls: list[Document], batch: Batch | None) -> "TurnOpeners":
        """Find out by all calls of some turns, and by the batch that is being taken up."""
        first = [opener(turn, but=batch.final if batch else ()) for turn in by_turn(calls)]
        taking = {*batch.final, *(each.entry_id for each in batch.moved)} if batch else set()
        return cls(
            opening={each["_id"] for each in first if each is not None},
            taking=set(batch.opening or ()) if batch else set(),
            moving={each["turn_id"] for each in calls if each["_id"] in taking},
        )


def _faults(page: list[Marked], turns: TurnOpeners) -> Iterator[str]:
    for each in page:
        call, name = each.entry, entry_id(each.entry)
        if not isinstance(call, ModelCall) or not each.booked:
            continue
        if call.state is CallState.PENDING:
            yield f"call {name} is taken up and pending"
        was_first = each.opens_turn and not contribution(call).turn  # until it was void
        if each.opens_turn != (name in turns.opening) and not was_first and call.turn_id not in turns.moving:
            yield f"call {name} is {'' if each.opens_turn else 'not '}marked as its turn's first"
