"""What a model call counts in sums, by its state: one table, for Python and for MongoDB. Pure.

An entry names the rule that it counts by (`ModelCall.rule`), so that sums of an earlier build stay those of its
entries. Rule 1: a turn counts with its first call, even a void one, and an unresolved call counts no tokens. Rule 2: a
turn counts with its first call that is not void, and an unresolved call counts its known tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from godoty_service.ledger.entries import CallState, ModelCall

CURRENT_RULE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """The aspects in which a call of a state counts.

    Attributes:
        call: It is one of the model calls.
        turn: Its turn counts, if this is the call that the turn counts with.
        pending: It is one of the pending calls.
        unresolved: It is one of the unresolved calls, and its upper bound counts.
        cost: Its cost counts.
        usage: Its tokens count.
    """

    call: bool = True
    turn: bool = True
    pending: bool = False
    unresolved: bool = False
    cost: bool = False
    usage: bool = False


_FIRST = {
    CallState.PENDING: Contribution(pending=True),
    CallState.SETTLED: Contribution(cost=True, usage=True),
    CallState.UNRESOLVED: Contribution(unresolved=True),
    CallState.VOID: Contribution(call=False),
}
_SECOND = _FIRST | {
    CallState.UNRESOLVED: Contribution(unresolved=True, usage=True),
    CallState.VOID: Contribution(call=False, turn=False),
}
RULES: Mapping[int, Mapping[CallState, Contribution]] = MappingProxyType(
    {1: MappingProxyType(_FIRST), 2: MappingProxyType(_SECOND)}
)

_KNOWN = [state.value for state in CallState]
# A state of a later schema counts as unresolved, as `ledger/codec.py` reads it. Adjustments have no state.
_STATE = {"$cond": [{"$in": [{"$ifNull": ["$state", _KNOWN[0]]}, _KNOWN]}, "$state", CallState.UNRESOLVED.value]}


def contribution(call: ModelCall) -> Contribution:
    """Return what a call counts by its own rule; a rule of a later build is treated as the current one."""
    return RULES[min(call.rule, CURRENT_RULE)][call.state]


def counts(aspect: str) -> dict[str, Any]:
    """Return the MongoDB expression that is true for calls that count in an aspect."""
    first, second = ([state.value for state, each in RULES[rule].items() if getattr(each, aspect)] for rule in RULES)
    if first == second:
        return {"$in": [_STATE, first]}
    # An entry without a rule has the first; in MongoDB's order a missing value is below any number.
    return {"$in": [_STATE, {"$cond": [{"$gte": ["$rule", 2]}, second, first]}]}
