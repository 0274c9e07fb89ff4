"""What the status line says."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from godoty.chat.status import Status, wrapped
from godoty.types import (
    CallState,
    ModelCall,
    ModelCallFinished,
    TextDelta,
    TokenUsage,
    Totals,
    TurnFinished,
    TurnStarted,
)
from rich.cells import cell_len


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def totals(cost: str, tokens: int, turns: int = 1) -> Totals:
    """Return totals without open calls."""
    return Totals(cost_usd=Decimal(cost), usage=TokenUsage(total_tokens=tokens), turns=turns, model_calls=1)


def call(state: CallState = CallState.SETTLED) -> ModelCall:
    """Return a call that has ended."""
    return ModelCall(
        state=state,
        served_model="openai/gpt-4o-mini",
        provider="OpenAI",
        cost_usd=Decimal("0.002") if state is CallState.SETTLED else None,
        usage=TokenUsage(total_tokens=10),
    )


def test_status_follows_the_turn() -> None:
    """Its cost grows with its calls, and is the server's at its end."""
    clock = Clock()
    status = Status(clock)
    status.open("s", totals("0.5", 100))
    assert status.parts() == ["s", "session $0.5, 1 turn, 100 tokens"]

    status.begin(lambda: True)
    clock.now = 1.0
    assert status.progress() == "sending, 1 s"
    status.receive(TurnStarted(session_id="s", totals=totals("0.5", 100)))
    status.activity = ""
    status.receive(TextDelta("a"))
    status.receive(ModelCallFinished(call()))
    status.receive(ModelCallFinished(call(CallState.PENDING)))
    clock.now = 3.0
    assert status.parts() == [
        "s",
        "turn $0.002, 10 tokens, 1 call pending",
        "session $0.5, 1 turn, 100 tokens",
        "openai/gpt-4o-mini via OpenAI",
        "first token 1.0 s",
        "3.0 s",
    ]
    assert status.progress() == "answering, 3 s"

    status.receive(TurnFinished(turn_totals=totals("0.004", 20), session_totals=totals("0.504", 120, 2)))
    status.end()
    clock.now = 9.0
    assert status.parts()[1:3] == ["turn $0.004, 20 tokens", "session $0.504, 2 turns, 120 tokens"]
    assert status.elapsed == timedelta(seconds=3)


def test_lost_connection_is_shown() -> None:
    """In place of what the turn does."""
    status = Status(Clock())
    status.begin(lambda: False)

    assert status.progress() == "the connection is lost: resuming, 0 s"


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_status_fits(width: int) -> None:
    """It takes as many lines as it needs; a part is wrapped only if it is wider than the terminal."""
    parts = ["session-1", "turn $0.0000105, 12 tokens", "session $0.0000105, 1 turn", "openai/gpt-4o-mini via OpenAI"]

    lines = wrapped(parts, width)

    assert all(cell_len(line) <= width for line in lines)
    if width >= 40:
        assert " · ".join(lines) == " · ".join(parts)
    assert len(lines) == {10: 6, 40: 3, 80: 2, 200: 1}[width]
