"""The states of a call, and what a call counts by its state: one table, for Python and for MongoDB. Pure.

A new state is a member of `CallState` and a row of `_CURRENT`: totals, budgets, pipelines, queries and checks ask for
an aspect, never for a state by its name.

An entry names the rule that it counts by (`ModelCall.rule`), so that sums of an earlier build stay those of its
entries. Rule 1: a turn counts with its first call, even a void one, and an unresolved call counts no tokens. Rule 2: a
turn counts with its first call that is not void, and an unresolved call counts its known tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

CURRENT_RULE = 2


class CallState(StrEnum):
    """What is known of a call's cost. A call changes state once, from an open state to a final one."""

    PENDING = "pending"
    SETTLED = "settled"
    UNRESOLVED = "unresolved"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """The aspects in which a call of a state counts.

    Attributes:
        call: It is one of the model calls; False: it was never sent.
        turn: Its turn counts, if this is the call that the turn counts with.
        open: It is not closed yet: one of the pending calls, whose upper bound is reserved. It counts nothing else.
        unresolved: It is one of the unresolved calls, and its upper bound counts until a resolution states its cost.
        cost: It has a cost, which counts.
        usage: Its tokens count, as far as they are known.
    """

    call: bool = True
    turn: bool = True
    open: bool = False
    unresolved: bool = False
    cost: bool = False
    usage: bool = False


_CURRENT = {
    CallState.PENDING: Contribution(open=True),
    CallState.SETTLED: Contribution(cost=True, usage=True),
    CallState.UNRESOLVED: Contribution(unresolved=True, usage=True),
    CallState.VOID: Contribution(call=False, turn=False),
}
_FIRST = {state: replace(each, turn=True) for state, each in _CURRENT.items()}
_FIRST[CallState.UNRESOLVED] = Contribution(unresolved=True)
RULES: Mapping[int, Mapping[CallState, Contribution]] = MappingProxyType(
    {1: MappingProxyType(_FIRST), 2: MappingProxyType(_CURRENT)}
)
_ADJUSTMENT = Contribution(call=False, turn=False, cost=True, usage=True)

_KNOWN = {state.value: state for state in CallState}
# A state of a later build: the call is not open, and its cost is not known to be final.
_UNKNOWN = CallState.UNRESOLVED
# Adjustments have no state.
_STATE = {"$cond": [{"$in": [{"$ifNull": ["$state", _UNKNOWN.value]}, [*_KNOWN]]}, "$state", _UNKNOWN.value]}


def decode_state(value: str) -> CallState:
    """Decode a state; one of a later build counts as unresolved."""
    return _KNOWN.get(value, _UNKNOWN)


def contribution(state: CallState, rule: int) -> Contribution:
    """Return what a call counts by its state and rule; a rule of a later build is treated as the current one."""
    return RULES[min(rule, CURRENT_RULE)][state]


def document_contribution(document: Mapping[str, Any]) -> Contribution:
    """Return what an entry counts by its document, of which `state` and `rule` are read; an adjustment has neither."""
    if "state" not in document:
        return _ADJUSTMENT
    return contribution(decode_state(document["state"]), document.get("rule", 1))


def counts(aspect: str, *, adjustments: bool = False) -> dict[str, Any]:
    """Return the MongoDB expression that is true for calls that count in an aspect.

    Args:
        aspect: An attribute of `Contribution`.
        adjustments: It is true for adjustments, too.
    """
    first, second = (_states(aspect, rule) for rule in RULES)
    # An entry without a rule has the first; in MongoDB's order a missing value is below any number.
    counted: Any = first if first == second else {"$cond": [{"$gte": ["$rule", 2]}, second, first]}
    calls = {"$in": [_STATE, counted]}
    return {"$or": [{"$ne": ["$kind", "call"]}, calls]} if adjustments else calls


def state_query(aspect: str) -> dict[str, Any]:
    """Return the query for the calls that count in an aspect; those of unknown states do not match.

    It is also the filter of partial indexes: while one state has the aspect, it is matched by equality.

    Raises:
        ValueError: The rules differ in this aspect.
    """
    first, second = (_states(aspect, rule) for rule in RULES)
    if first != second:
        raise ValueError(f"which states count in {aspect} depends on the rule")
    return {"state": second[0] if len(second) == 1 else {"$in": second}}


def _states(aspect: str, rule: int) -> list[str]:
    return [state.value for state, each in RULES[rule].items() if getattr(each, aspect)]
