"""A tool's input: a JSON object that can be stored and sent again, or the reason why the tool must not run."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from strands.hooks import BeforeToolCallEvent, HookProvider, HookRegistry

from godoty_service.openrouter.text import clean

_UNPARSED = "unparsed_arguments"
_FAULT = "fault"
_QUOTED = 2000  # characters of what cannot be parsed that the model gets to see again
_DEEPEST = 100
_PLACEHOLDERS = ("{}", "null", '""')  # what some providers send before or after the arguments
_LENIENT = json.JSONDecoder(strict=False)  # models write line ends into strings


class UnparsedInputs(HookProvider):
    """Answers a tool call whose arguments are no valid input with an error that the model sees; no tool runs."""

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hook that runs before each tool call."""
        registry.add_callback(BeforeToolCallEvent, self._check)

    def _check(self, event: BeforeToolCallEvent) -> None:
        given: Any = event.tool_use["input"]
        if isinstance(given, dict) and given.keys() == {_UNPARSED, _FAULT}:
            event.cancel_tool = f"The tool was not called: {given[_FAULT]}. Call it again with a JSON object."


def tool_input(pieces: Sequence[str], *, limit: int, cut: bool = False) -> str:
    """Return a tool call's input as JSON text, from the pieces of its arguments in their order.

    Args:
        pieces: Concatenated they are a JSON object; providers that repeat or anticipate it are understood.
        limit: Largest input, in bytes.
        cut: There were more pieces than that.
    """
    text = clean("".join(pieces))
    if cut or len(text.encode()) > limit:
        return _unparsed(text, f"its arguments are longer than {limit} bytes")
    if not text.strip():
        return "{}"
    value, exact = _parse(text), True
    if value is None:
        value, exact = _parse_odd([clean(piece) for piece in pieces]), False
    if value is None:
        return _unparsed(text, "its arguments are not valid JSON")
    if fault := fault_of(value[0]):
        return _unparsed(text, fault)
    return text if exact and _is_sound(text) else clean(json.dumps(value[0], ensure_ascii=False))


def value_of(pieces: Sequence[str]) -> Any:
    """Return the object that the pieces of a call's arguments make, or None if they are not complete."""
    found = _parse("".join(pieces))
    return found[0] if found is not None and isinstance(found[0], dict) else None


def fault_of(value: Any) -> str | None:
    """Return why a parsed value can be no tool's input, or None."""
    if not isinstance(value, dict):
        return "its arguments are not a JSON object"
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            return f"its arguments are nested more than {_DEEPEST} deep"
        below: list[Any] = []
        for each in level:
            for inner in each.values() if isinstance(each, dict) else each:
                if isinstance(inner, float) and not math.isfinite(inner):
                    return "its arguments have a number that is not finite"
                if isinstance(inner, (dict, list)):
                    below.append(inner)
        level = below
    return None


def _parse(text: str) -> tuple[Any] | None:
    """Parse a whole text; the value comes in a tuple, since it may be null."""
    try:
        return (json.loads(text, strict=False),)
    except (ValueError, RecursionError):
        return None


def _parse_odd(pieces: Sequence[str]) -> tuple[Any] | None:
    """Parse arguments that are no JSON when concatenated: with placeholders around them, or repeated."""
    told = [piece for piece in pieces if piece.strip()]
    while len(told) > 1 and told[0].strip() in _PLACEHOLDERS:
        told = told[1:]
    while len(told) > 1 and told[-1].strip() in _PLACEHOLDERS:
        told = told[:-1]
    if (found := _parse("".join(told))) is not None:
        return found
    before, last = "".join(told[:-1]), told[-1]
    snapshots = all(later.startswith(earlier) for earlier, later in pairwise(told))
    if (snapshots or last.startswith(before)) and (found := _parse(last)) is not None:
        return found
    return _repeated("".join(told))


def _repeated(text: str) -> tuple[Any] | None:
    """Parse a text that holds one value several times, perhaps after an empty object."""
    values: list[Any] = []
    place = 0
    while place < len(text):
        try:
            value, place = _LENIENT.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        if value != {} and value not in values:
            values.append(value)
        place += len(text[place:]) - len(text[place:].lstrip())
    return (values[0],) if len(values) == 1 else None


def _is_sound(text: str) -> bool:
    """Return whether a text that was parsed can be handed on as it is."""
    if "\\ud" in text.lower():  # perhaps half a surrogate pair
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _unparsed(text: str, fault: str) -> str:
    return json.dumps({_UNPARSED: clean(text[:_QUOTED]), _FAULT: fault}, ensure_ascii=False)
