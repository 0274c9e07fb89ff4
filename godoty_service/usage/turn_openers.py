"""Selects the call with which a turn is counted in usage sums, and detects when that call changes. Pure.

A turn is counted with its first call that is not void as far as the roll-ups know: a call that they do not include as
void is not void yet. If that call turns out void after another call of the turn was rolled up, the turn moves to the
other call. Under rule 1 (`states.py`), a turn stays with its first call, void or not.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from godoty_service.ledger.states import document_contribution
from godoty_service.mongo.collection import Document
from godoty_service.usage.window import Window

FIELDS = dict.fromkeys(
    ("session_uid", "turn_id", "number", "state", "rule", "rollup_state", "opens_turn", "settle_time"), 1
)
_MIN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedTurn:
    """A call with which its turn is counted from `time` on, though it belonged to an earlier batch.

    Attributes:
        entry_id: The id of the call.
        time: From when on.
        rolled_up: The call is in the roll-ups; False: it was pending in its batch.
    """

    entry_id: str
    time: datetime
    rolled_up: bool

    def to_document(self) -> Document:
        """Encode it for the state document."""
        return {"id": self.entry_id, "time": self.time, "rolled_up": self.rolled_up}

    @classmethod
    def from_document(cls, document: Document) -> "MovedTurn":
        """Decode it."""
        return cls(entry_id=document["id"], time=document["time"], rolled_up=document["rolled_up"])


def opener(
    calls: Iterable[Document], *, rolling_up: Collection[str] = (), excluded: Collection[str] = ()
) -> Document | None:
    """Return the call with which a turn is counted; None: all its calls are void.

    Args:
        calls: The calls of the turn, ordered by number.
        rolling_up: Ids of final calls that count as rolled up, regardless of their `rollup_state`.
        excluded: Ids of final calls that do not count as rolled up, regardless of their `rollup_state`.
    """
    for each in calls:
        rolled_up = ("rollup_state" not in each and each["_id"] not in excluded) or each["_id"] in rolling_up
        if not rolled_up or document_contribution(each).turn:
            return each
    return None


def openers(
    calls: Iterable[Document], *, ready: Collection[str], pending: Collection[str], window: Window
) -> tuple[list[str], list[MovedTurn]]:
    """Return the calls of a batch with which their turns are counted, and the turns that move to other calls.

    Args:
        calls: All calls of the turns that have calls in the batch.
        ready: Ids of the batch's final entries.
        pending: Ids of the batch's pending calls.
        window: The times at which the batch can become visible.
    """
    opening: list[str] = []
    moved: list[MovedTurn] = []
    for turn in by_turn(calls):
        first = opener(turn, rolling_up=ready)
        if first is None:
            continue
        if first["_id"] in ready or first["_id"] in pending:
            opening.append(first["_id"])
        elif not first.get("opens_turn") and first.get("rollup_state") in (None, "counted"):
            ends = [each["settle_time"] for each in turn if each["_id"] in ready and "settle_time" in each]
            time = window.clamp(max(ends, default=_MIN_TIME))
            moved.append(MovedTurn(entry_id=first["_id"], time=time, rolled_up="rollup_state" not in first))
    return opening, moved


def by_turn(calls: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the calls of each turn, ordered by number."""
    turns: dict[tuple[str, str], list[Document]] = {}
    for each in calls:
        turns.setdefault((each["session_uid"], each["turn_id"]), []).append(each)
    for turn in turns.values():
        yield sorted(turn, key=lambda each: each["number"])
