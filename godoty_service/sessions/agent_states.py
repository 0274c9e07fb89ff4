"""The agent's state after each message at which a session can be forked.

Such a message stores the state if it has changed; any other refers to the message that stores it. So a fork reads two
messages, and a state that does not change is stored once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

METRICS_KEY: Final = "godoty_metrics"  # in the agent's state: a projection of the ledger, made anew for each turn
# What no message stores, and no copy of a session has: what belongs to the session itself.
_OF_SESSION: Final = frozenset({METRICS_KEY})
_EMPTY: Final = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAfter:
    """The agent's state after a message.

    Attributes:
        number: The number of the message that stores it; 0: it is empty.
        text: The state as JSON, if this message stores it.
    """

    number: int
    text: str | None = None


class AgentStates:
    """The states after the messages that a turn adds to a session."""

    def __init__(self, state: Mapping[str, Any], number: int | None) -> None:
        """Begin with the state before the turn.

        Args:
            state: The state.
            number: The number of the message that stores it; None: no message does.
        """
        self._text = state_text(state)
        self._number = number

    def after(self, number: int, state: Mapping[str, Any]) -> StateAfter:
        """Return the state after the message of a number."""
        text = state_text(state)
        if text == _EMPTY:
            self._text, self._number = text, 0
        elif text != self._text or not self._number:
            self._text, self._number = text, number
            return StateAfter(number=number, text=text)
        return StateAfter(number=self._number)

    def number_of(self, state: Mapping[str, Any]) -> int | None:
        """Return the number of the message that stores a state; 0: it is empty; None: no message does."""
        text = state_text(state)
        if text == _EMPTY:
            return 0
        return self._number if text == self._text else None


def state_text(state: Mapping[str, Any]) -> str:
    """Return a state as JSON, without what belongs to its session."""
    return json.dumps({name: value for name, value in state.items() if name not in _OF_SESSION})
