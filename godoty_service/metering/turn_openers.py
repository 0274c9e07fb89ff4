"""With which of its calls a turn counts in the sums of usage, and when that changes. Pure.

A turn counts with its first call that is not void, as far as the roll-ups know: a call that they have not taken as void
is not void yet. Where that call turns out void after another one of the turn was taken, the turn moves to the other.
By rule 1 (`states.py`), it counts with its first call, whatever becomes of it.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from godoty_service.metering.call import CallState
from godoty_service.metering.states import CURRENT_RULE, RULES
from godoty_service.metering.usage_window import Window
from godoty_service.mongo import Document

FIELDS = dict.fromkeys(
    ("session_uid", "turn_id", "number", "state", "rule", "unbooked", "opens_turn", "settle_time"), 1
)
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A call that its turn counts with from a time on, though it was taken before.

    Attributes:
        entry_id: The call's.
        time: From when on.
        booked: It is in the roll-ups; else it was pending when it was taken.
    """

    entry_id: str
    time: datetime
    booked: bool


def opener(calls: Iterable[Document], *, taking: Collection[str] = (), but: Collection[str] = ()) -> Document | None:
    """Return the call of a turn that it counts with; None: all are void.

    Args:
        calls: The turn's calls, in the order of their numbers.
        taking: Final ones that are taken into the roll-ups, whatever their mark says.
        but: Final ones that are not, whatever their mark says.
    """
    for each in calls:
        taken = ("unbooked" not in each and each["_id"] not in but) or each["_id"] in taking
        known_void = taken and each["state"] == CallState.VOID.value
        if not known_void or RULES[min(each.get("rule", 1), CURRENT_RULE)][CallState.VOID].turn:
            return each
    return None


def openers(
    calls: Iterable[Document], *, final: Collection[str], unseen: Collection[str], window: Window
) -> tuple[list[str], list[Moved]]:
    """Return which calls of a batch their turns count with, and which of others from now on.

    Args:
        calls: All calls of the turns that have some in the batch.
        final: The batch's final entries.
        unseen: The batch's pending calls.
        window: When the books can know of the batch.
    """
    opening: list[str] = []
    moved: list[Moved] = []
    for turn in by_turn(calls):
        first = opener(turn, taking=final)
        if first is None:
            continue
        if first["_id"] in final or first["_id"] in unseen:
            opening.append(first["_id"])
        elif not first.get("opens_turn") and first.get("unbooked") in (None, "noted"):
            ends = [each["settle_time"] for each in turn if each["_id"] in final and "settle_time" in each]
            time = window.clamp(max(ends, default=_ALWAYS))
            moved.append(Moved(entry_id=first["_id"], time=time, booked="unbooked" not in first))
    return opening, moved


def by_turn(calls: Iterable[Document]) -> Iterator[list[Document]]:
    """Return the calls of each turn, in the order of their numbers."""
    turns: dict[tuple[str, str], list[Document]] = {}
    for each in calls:
        turns.setdefault((each["session_uid"], each["turn_id"]), []).append(each)
    for turn in turns.values():
        yield sorted(turn, key=lambda each: each["number"])
