"""Godoty's client: `Godoty` and `AsyncGodoty`, the stubs `godoty.v1` and the terminal chat.

Names are imported when they are first used: programs that need the stubs alone do not pay for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from godoty.client import AsyncGodoty as AsyncGodoty
    from godoty.client import Godoty as Godoty
    from godoty.converse_request import AttachmentInput as AttachmentInput
    from godoty.converse_request import ConverseOptions as ConverseOptions
    from godoty.errors import ConnectionFailed as ConnectionFailed
    from godoty.errors import FieldViolation as FieldViolation
    from godoty.errors import GodotyError as GodotyError
    from godoty.reasons import *  # noqa: F403 - a class for each reason, in its __all__
    from godoty.turn import AsyncTurn as AsyncTurn
    from godoty.turn import Turn as Turn
    from godoty.types import *  # noqa: F403 - the contract's messages, in its __all__

_NAMES = {
    "client": ("AsyncGodoty", "Godoty"),
    "converse_request": ("AttachmentInput", "ConverseOptions"),
    "errors": ("ConnectionFailed", "FieldViolation", "GodotyError"),
    "turn": ("AsyncTurn", "Turn"),
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
