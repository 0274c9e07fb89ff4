"""Turns that run without a reader, or were started before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Unpack, cast

from godoty.calls import Call, Pages
from godoty.codec import all_from, enum_number, from_message, to_duration
from godoty.turns.options import ConverseOptions, MessageOptions
from godoty.turns.progress import cancellation
from godoty.turns.request import output_of, prepare
from godoty.types import StartedTurn, TurnState, TurnSummary
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2

_MARGIN = 10.0  # seconds beyond its own time after which a wait is given up


def start(
    text: str, *, output_schema: type[Any] | Mapping[str, Any] | str | None = None, **options: Unpack[MessageOptions]
) -> Call[StartedTurn]:
    """Begin a turn that runs to its end without a reader; `wait` returns its end, `client.resume` its events.

    The call is repeated while no server answers, with the same request id: there is one charge.

    Args:
        text: The user's message.
        output_schema: What the turn's `output_json` is: a pydantic class, or a JSON schema as dict or JSON text.
        options: See `MessageOptions`. Attachments of more than 1 MiB in all are uploaded before, by
            `client.attachments.upload`.

    Raises:
        ValueError: The attachments are too large.
    """
    output = output_of(output_schema) if output_schema is not None else None
    prepared = prepare(text, cast("ConverseOptions", options), output=output, disconnect_grace=0)
    if prepared.uploads:
        raise ValueError("attachments of more than 1 MiB in all: pass what client.attachments.upload(…) returns")
    return Call(
        "AgentService.StartTurn",
        pb.StartTurnRequest(request=prepared.request),
        lambda response: from_message(StartedTurn, response),
        repeatable=True,
    )


def wait(turn_id: str, *, timeout: float = 30.0) -> Call[TurnSummary]:
    """Return a turn once it has ended, or as it is when the time has passed (`state`).

    Args:
        turn_id: The turn.
        timeout: The seconds to wait at most, up to 300.
    """
    request = pb.WaitTurnRequest(turn_id=turn_id, timeout=to_duration(timedelta(seconds=timeout)))
    return Call(
        "AgentService.WaitTurn",
        request,
        lambda response: from_message(TurnSummary, response.turn),
        timeout=timeout + _MARGIN,
    )


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
