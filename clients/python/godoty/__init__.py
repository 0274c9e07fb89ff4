"""Godoty's client: `Godoty` and `AsyncGodoty`, the stubs `godoty.v1` and the terminal chat.

Names are imported when they are first used: programs that need the stubs alone do not pay for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from godoty.actions.approvals import ApprovalCallback as ApprovalCallback
    from godoty.actions.approvals import Approve as Approve
    from godoty.actions.approvals import Decision as Decision
    from godoty.actions.approvals import Deny as Deny
    from godoty.actions.tools import Tool as Tool
    from godoty.client import AsyncGodoty as AsyncGodoty
    from godoty.client import Godoty as Godoty
    from godoty.errors import ConnectionFailed as ConnectionFailed
    from godoty.errors import FieldViolation as FieldViolation
    from godoty.errors import GodotyError as GodotyError
    from godoty.reasons import *  # noqa: F403 - a class for each reason, in its __all__
    from godoty.turns.async_turn import AsyncTurn as AsyncTurn
    from godoty.turns.options import AttachmentInput as AttachmentInput
    from godoty.turns.options import ConverseOptions as ConverseOptions
    from godoty.turns.options import TurnOptions as TurnOptions
    from godoty.turns.turn import Turn as Turn
    from godoty.types import *  # noqa: F403 - the contract's messages, in its __all__

_NAMES = {
    "actions.approvals": ("ApprovalCallback", "Approve", "Decision", "Deny"),
    "actions.tools": ("Tool",),
    "client": ("AsyncGodoty", "Godoty"),
    "errors": ("ConnectionFailed", "FieldViolation", "GodotyError"),
    "turns.async_turn": ("AsyncTurn",),
    "turns.options": ("AttachmentInput", "ConverseOptions", "TurnOptions"),
    "turns.turn": ("Turn",),
}
_GENERATED = ("reasons", "types")


def __getattr__(name: str) -> object:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"godoty.{module}"), name)
    if name[:1].isupper():
        for module in _GENERATED:
            loaded = import_module(f"godoty.{module}")
            if name in loaded.__all__:
                return getattr(loaded, name)
    raise AttributeError(f"module 'godoty' has no attribute {name!r}")


def __dir__() -> list[str]:
    generated = [name for module in _GENERATED for name in import_module(f"godoty.{module}").__all__]
    return sorted([*globals(), *generated, *(name for names in _NAMES.values() for name in names)])
