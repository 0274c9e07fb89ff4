"""Decisions on tool calls that need approval."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from godoty.actions.outputs import printable
from godoty.types import Action
from godoty.v1 import action_pb2 as pb

_MAX_WHY = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Approve:
    """The tool is called.

    Attributes:
        input: Another input of the call, as a dict or as JSON text of an object; the model sees that it was changed.
            None: the input that the model gave.
    """

    input: Mapping[str, Any] | str | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """The tool is not called.

    Attributes:
        why: The reason, for the model: its first 1000 characters. Empty: none.
    """

    why: str = ""


Decision: TypeAlias = Approve | Deny | bool | None
"""True is `Approve()`, False is `Deny()`; None leaves the action open."""

ApprovalCallback: TypeAlias = Callable[[Action], Decision | Awaitable[Decision]]
"""Decides on one action: its `name` and `input_json`, the definition's `reason`, and who may decide (`decider`)."""


def result_of(action_id: str, decision: Approve | Deny | bool) -> pb.ActionResult:  # noqa: FBT001 - it is a decision
    """Return the answer to an action.

    Raises:
        TypeError: It is no decision.
    """
    match decision:
        case Approve(input=given):
            text = given if isinstance(given, str) else "" if given is None else json.dumps(given, ensure_ascii=False)
            return pb.ActionResult(action_id=action_id, approve=pb.ActionApproval(input_json=text))
        case True:
            return pb.ActionResult(action_id=action_id, approve=pb.ActionApproval())
        case Deny(why=why):
            return pb.ActionResult(action_id=action_id, deny=pb.ActionDenial(why=printable(why, _MAX_WHY)))
        case False:
            return pb.ActionResult(action_id=action_id, deny=pb.ActionDenial())
    raise TypeError(f"{decision!r} is no decision: return Approve(…), Deny(…), True, False or None")
