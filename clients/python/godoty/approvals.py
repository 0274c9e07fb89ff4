"""Decisions on tool calls that need approval."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from godoty.types import Action


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
        why: The reason, for the model. Empty: none.
    """

    why: str = ""


Decision: TypeAlias = Approve | Deny | bool | None
"""True is `Approve()`, False is `Deny()`; None leaves the action open."""

ApprovalCallback: TypeAlias = Callable[[Action], Decision | Awaitable[Decision]]
"""Decides on one action: its `name` and `input_json`, the definition's `reason`, and who may decide (`decider`)."""
