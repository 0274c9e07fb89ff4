"""Assembles the tool calls of one answer from their pieces, as OpenRouter and other gateways send them.

A tool call's input is a JSON object that can be stored and sent again, or the reason why the tool must not run.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from strands.hooks import BeforeToolCallEvent, HookProvider, HookRegistry

from godoty_service import exact_json
from godoty_service.ids import new_id
from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.text import replace_lone_surrogates

_ID = re.compile(r"[\x21-\x7e]{1,256}")
_NO_NAME = "unnamed_tool"  # no agent has a tool of this name, so the model gets an error
_MAX_NAME = 64  # Strands accepts no longer name
_MAX_INDEX_DIGITS = 9
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_UNPARSED = "unparsed_arguments"
_FAULT = "fault"
_MAX_QUOTED = 2000  # characters of unparsable arguments that the model sees again
_MAX_DEPTH = 100
_PLACEHOLDERS = ("{}", "null", '""')  # what some providers send before or after the arguments
# Models write line ends into strings.
_LENIENT = json.JSONDecoder(strict=False, parse_float=exact_json.LiteralFloat)


@dataclass(slots=True)
class _PartialCall:
    """A tool call that is being assembled."""

    order: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    size: int = 0  # characters of all pieces
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A complete tool call. `input` is a JSON object as text."""

    id: str
    name: str
    input: str


class ToolCalls:
    """The tool calls of one answer.

    Pieces of one call have the same index; without one, the same id, or they follow one another. A piece with another
    id, or with a name after the call before it is complete, begins a call, also at a known index.

    Attributes:
        too_many: There were more of them than the limits allow.
    """

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._calls: list[_PartialCall] = []
        self._by_index: dict[int, _PartialCall] = {}
        self._by_id: dict[str, _PartialCall] = {}
        self.too_many = False

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, pieces: Any) -> bool:
        """Add the `tool_calls` of a chunk; return whether there was one among them."""
        touched: list[_PartialCall] = []
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict) and (call := self._add_piece(piece, touched)) is not None:
                touched.append(call)
        return bool(touched)

    def complete(self, taken_ids: Callable[[], Collection[str]] = frozenset) -> list[ToolCall]:
        """Return the calls in the order of their indexes.

        Args:
            taken_ids: Returns the ids that the conversation has already.
        """
        if not self._calls:
            return []
        known = set(taken_ids())
        complete: list[ToolCall] = []
        for call in sorted(self._calls, key=lambda each: each.order):
            call_id = call.id if _ID.fullmatch(call.id) and call.id not in known else new_id("tool")
            known.add(call_id)
            text = tool_input(call.pieces, limit=self._limits.tool_input_bytes, cut=call.cut)
            complete.append(ToolCall(id=call_id, name=_tool_name(call.name), input=text))
        return complete

    def _add_piece(self, piece: dict[str, Any], touched: list[_PartialCall]) -> _PartialCall | None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        index, call_id = _index(piece.get("index")), _text(piece.get("id"))
        name, arguments = _text(function.get("name")), _arguments(function.get("arguments"))
        call = self._find(index, call_id, touched, named=bool(name))
        if call is None or _begins_another(call, call_id, name, arguments):
            call = self._new(index)
        if call is None:
            return None
        self._extend(call, call_id, name, arguments)
        return call

    def _find(
        self, index: int | None, call_id: str, touched: list[_PartialCall], *, named: bool
    ) -> _PartialCall | None:
        """Return the call that a piece may continue."""
        if index is not None:
            return self._by_index.get(index)
        call = self._by_id.get(call_id) if call_id else None
        if call is None and (not call_id or not named) and self._calls:
            call = self._calls[-1]
        return None if call in touched and named else call  # in one list without indexes, each is a call

    def _new(self, index: int | None) -> _PartialCall | None:
        if len(self._calls) >= self._limits.tool_calls:
            self.too_many = True
            return None
        call = _PartialCall(order=index if index is not None else len(self._calls))
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _extend(self, call: _PartialCall, call_id: str, name: str, arguments: str) -> None:
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
        if name and name != call.name and len(call.name) <= _MAX_NAME:
            call.name = name if name.startswith(call.name) else call.name + name
        call.size += len(arguments)
        if call.size > 2 * self._limits.tool_input_bytes:  # twice: the whole may be repeated
            call.cut = True
        elif arguments:
            call.pieces.append(arguments)


class UnparsedInputs(HookProvider):
    """Answers a tool call whose arguments are no valid input with an error that the model sees; no tool runs."""

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hook that runs before each tool call."""
        registry.add_callback(BeforeToolCallEvent, self._check)

    def _check(self, event: BeforeToolCallEvent) -> None:
        if (unparsed := unparsed_input(event.tool_use["input"])) is not None:
            event.cancel_tool = f"The tool was not called: {unparsed[1]}. Call it again with a JSON object."


def unparsed_input(value: Any) -> tuple[str, str] | None:
    """Return the start of the arguments that were no valid input, and why; None: they were."""
    if isinstance(value, dict) and value.keys() == {_UNPARSED, _FAULT}:
        return value[_UNPARSED], value[_FAULT]
    return None


def tool_input(pieces: Sequence[str], *, limit: int, cut: bool = False) -> str:
    """Return a tool call's input as JSON text.

    Args:
        pieces: The pieces of its arguments in order. Concatenated they are a JSON object, or a provider repeats it, or
            sends it before its pieces.
        limit: Largest input, in bytes.
        cut: There were more pieces than that.
    """
    text = replace_lone_surrogates("".join(pieces))
    if cut or len(text.encode()) > limit:
        return _unparsed(text, f"its arguments are longer than {limit} bytes")
    if not text.strip():
        return "{}"
    value, exact = _parse(text), True
    if value is None:
        value, exact = _parse_repeated([replace_lone_surrogates(piece) for piece in pieces]), False
    if value is None:
        return _unparsed(text, "its arguments are not valid JSON")
    if fault := input_fault(value[0]):
        return _unparsed(text, fault)
    if exact and _is_strict_json(text):
        return text
    return replace_lone_surrogates(exact_json.dumps(value[0]))


def input_fault(value: Any) -> str | None:
    """Return why a parsed value is no valid tool input; None: it is."""
    if not isinstance(value, dict):
        return "its arguments are not a JSON object"
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            return f"its arguments are nested more than {_MAX_DEPTH} deep"
        below: list[Any] = []
        for each in level:
            for inner in each.values() if isinstance(each, dict) else each:
                if isinstance(inner, float) and not math.isfinite(inner):
                    return "its arguments have a number that is not finite"
                if isinstance(inner, (dict, list)):
                    below.append(inner)
        level = below
    return None


def _begins_another(call: _PartialCall, call_id: str, name: str, arguments: str) -> bool:
    """Return whether a piece begins another call than the one at its position."""
    value = _complete_object(call.pieces) if call.pieces and (call_id or name) else None
    if call_id and call.id and call_id != call.id:
        return bool(name) or value is not None
    if not name or (call_id and call_id == call.id):
        return False
    if name != call.name and call.pieces:  # the pieces of a name precede the arguments
        return True
    return bool(value) and bool(arguments) and _complete_object([arguments]) != value


def _complete_object(pieces: Sequence[str]) -> Any:
    """Return the object that the pieces of a call's arguments make; None: they are not complete."""
    found = _parse("".join(pieces))
    return found[0] if found is not None and isinstance(found[0], dict) else None


def _parse(text: str) -> tuple[Any] | None:
    """Parse a whole text; the value is in a tuple, since it may be null."""
    try:
        return (json.loads(text, strict=False, parse_float=exact_json.LiteralFloat),)
    except (ValueError, RecursionError):
        return None


def _parse_repeated(pieces: Sequence[str]) -> tuple[Any] | None:
    """Parse arguments that are not JSON when concatenated: they are repeated, or have placeholders around them."""
    texts = [piece for piece in pieces if piece.strip()]
    while len(texts) > 1 and texts[0].strip() in _PLACEHOLDERS:
        texts = texts[1:]
    while len(texts) > 1 and texts[-1].strip() in _PLACEHOLDERS:
        texts = texts[:-1]
    if (found := _parse("".join(texts))) is not None:
        return found
    before, last = "".join(texts[:-1]), texts[-1]
    snapshots = all(later.startswith(earlier) for earlier, later in pairwise(texts))
    if (snapshots or last.startswith(before)) and (found := _parse(last)) is not None:
        return found
    return _parse_equal_values("".join(texts))


def _parse_equal_values(text: str) -> tuple[Any] | None:
    """Parse a text that contains one value several times, perhaps after an empty object."""
    values: list[Any] = []
    position = 0
    while position < len(text):
        try:
            value, position = _LENIENT.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        if value != {} and value not in values:
            values.append(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return (values[0],) if len(values) == 1 else None


def _is_strict_json(text: str) -> bool:
    """Return whether a leniently parsed text can be forwarded unchanged: strict JSON without lone surrogates."""
    if "\\ud" in text.lower():  # may be a lone surrogate
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _unparsed(text: str, fault: str) -> str:
    return json.dumps({_UNPARSED: replace_lone_surrogates(text[:_MAX_QUOTED]), _FAULT: fault}, ensure_ascii=False)


def _index(value: Any) -> int | None:
    """Return an index, which may be written as a string or a fraction."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= _MAX_INDEX_DIGITS else None
    try:
        return int(value) if isinstance(value, (int, float, Decimal)) and value == int(value) else None
    except (ValueError, OverflowError):
        return None


def _arguments(value: Any) -> str:
    """Return arguments as text; some providers send them as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, default=_float, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "<unreadable>"


def _float(value: Any) -> Any:
    """Return a Decimal, which each fraction is in a chunk with a cost, as JSON can write it."""
    return float(value) if isinstance(value, Decimal) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _tool_name(name: str) -> str:
    """Return a name that Strands and every provider accept; any other character is replaced."""
    return _NOT_IN_NAMES.sub("_", replace_lone_surrogates(name).strip())[:_MAX_NAME] or _NO_NAME
