"""Turns that were started before."""

from __future__ import annotations

from godoty.calls import Call, Pages
from godoty.codec import all_from, enum_number, from_message
from godoty.turns.progress import cancellation
from godoty.types import TurnState, TurnSummary
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2


def get(turn_id: str) -> Call[TurnSummary]:
    """Return what is known of a turn, for a day after its end."""
    request = pb.GetTurnRequest(turn_id=turn_id)
    return Call("AgentService.GetTurn", request, lambda response: from_message(TurnSummary, response.turn))


def list_turns(
    *, session_id: str = "", state: TurnState | str = TurnState.UNSPECIFIED, page_size: int = 0
) -> Pages[TurnSummary]:
    """Yield turns, newest first, for a day after their end.

    Args:
        session_id: Only turns of this session; empty for all.
        state: Only turns in this state, "running" or "ended"; unspecified for all.
        page_size: Number of turns per page; 0 for the server's default.
    """
    request = pb.ListTurnsRequest(session_id=session_id, page_size=page_size)
    request.state = enum_number(turn_pb2.TurnState.DESCRIPTOR, state)  # type: ignore[assignment] # a number
    return Pages("AgentService.ListTurns", request, lambda page: all_from(TurnSummary, page.turns))


def cancel(turn_id: str) -> Call[None]:
    """Cancel a running turn; what it has cost is charged. One that has ended does not change."""
    return cancellation(turn_id)
