"""Converts the requests of StartTurn and WaitTurn."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.errors import InvalidRequest
from godoty_service.rpc.agent_codec import parse_turn_id
from godoty_service.rpc.validation import Violations

_WAIT: Final = timedelta(seconds=30)  # unless the request says otherwise
_LONGEST_WAIT: Final = timedelta(minutes=5)


def parse_start(request: pb.StartTurnRequest) -> pb.ConverseRequest:
    """Return the request of Converse that begins the same turn.

    Raises:
        InvalidRequest: There is none.
    """
    if not request.HasField("request"):
        raise InvalidRequest.of("request", "must be set")
    converse = pb.ConverseRequest()
    converse.CopyFrom(request.request)
    if converse.on_disconnect == turn_pb.ON_DISCONNECT_CANCEL:
        raise InvalidRequest.of("request.on_disconnect", "must be ON_DISCONNECT_CONTINUE, or unset")
    converse.on_disconnect = converse.on_disconnect or turn_pb.ON_DISCONNECT_CONTINUE
    return converse


@contextmanager
def within(path: str) -> Iterator[None]:
    """Name the invalid fields of a message by their paths in the request that has it."""
    try:
        yield
    except InvalidRequest as error:
        error.violations = tuple(replace(each, field=f"{path}.{each.field}") for each in error.violations)
        raise


def parse_wait(request: pb.WaitTurnRequest) -> tuple[str, timedelta]:
    """Return the turn to wait for, and for how long.

    Raises:
        InvalidRequest: A field is invalid.
    """
    violations = Violations()
    longest = _WAIT
    if request.HasField("timeout"):
        longest = violations.read_duration("timeout", request.timeout, most=_LONGEST_WAIT)
    turn_id = parse_turn_id(request.turn_id)
    violations.raise_if_any()
    return turn_id, longest
