"""Assembles the tool calls of one answer from their pieces, as OpenRouter and other gateways send them."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from godoty_service.ids import new_id
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.text import clean
from godoty_service.openrouter.tool_input import tool_input, value_of

_ID = re.compile(r"[\x21-\x7e]{1,256}")
_NO_NAME = "unnamed_tool"  # no agent has it, so that the model is told so
_LONGEST_NAME = 64  # Strands takes no longer one
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(slots=True)
class _Call:
    """A tool call that is being assembled."""

    order: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    size: int = 0  # characters of all pieces
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A whole tool call. `input` is a JSON object as text."""

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
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self.too_many = False

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, pieces: Any) -> bool:
        """Take the `tool_calls` of a chunk; returns whether there was one among them."""
        touched: list[_Call] = []
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict) and (call := self._take(piece, touched)) is not None:
                touched.append(call)
        return bool(touched)

    def whole(self, taken: Callable[[], Collection[str]] = frozenset) -> list[ToolCall]:
        """Return the calls in the order of their indexes.

        Args:
            taken: Returns the ids that the conversation has already.
        """
        if not self._calls:
            return []
        known = set(taken())
        found: list[ToolCall] = []
        for call in sorted(self._calls, key=lambda each: each.order):
            call_id = call.id if _ID.fullmatch(call.id) and call.id not in known else new_id("tool")
            known.add(call_id)
            given = tool_input(call.pieces, limit=self._limits.tool_input_bytes, cut=call.cut)
            found.append(ToolCall(id=call_id, name=_name(call.name), input=given))
        return found

    def _take(self, piece: dict[str, Any], touched: list[_Call]) -> _Call | None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        index, call_id = _index(piece.get("index")), _text(piece.get("id"))
        name, arguments = _text(function.get("name")), _arguments(function.get("arguments"))
        call = self._known(index, call_id, touched, named=bool(name))
        if call is None or _begins_another(call, call_id, name, arguments):
            call = self._new(index)
        if call is None:
            return None
        self._extend(call, call_id, name, arguments)
        return call

    def _known(self, index: int | None, call_id: str, touched: list[_Call], *, named: bool) -> _Call | None:
        """Return the call that a piece may continue."""
        if index is not None:
            return self._by_index.get(index)
        call = self._by_id.get(call_id) if call_id else None
        if call is None and (not call_id or not named) and self._calls:
            call = self._calls[-1]
        return None if call in touched and named else call  # in one list without indexes, each is a call

    def _new(self, index: int | None) -> _Call | None:
        if len(self._calls) >= self._limits.tool_calls:
            self.too_many = True
            return None
        call = _Call(order=index if index is not None else len(self._calls))
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _extend(self, call: _Call, call_id: str, name: str, arguments: str) -> None:
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
        if name and name != call.name and len(call.name) <= _LONGEST_NAME:
            call.name = name if name.startswith(call.name) else call.name + name
        call.size += len(arguments)
        if call.size > 2 * self._limits.tool_input_bytes:  # twice: the whole may be repeated
            call.cut = True
        elif arguments:
            call.pieces.append(arguments)


def _begins_another(call: _Call, call_id: str, name: str, arguments: str) -> bool:
    """Return whether a piece begins another call than the one at its place."""
    value = value_of(call.pieces) if call.pieces and (call_id or name) else None
    if call_id and call.id and call_id != call.id:
        return bool(name) or value is not None
    if not name or (call_id and call_id == call.id):
        return False
    if name != call.name and call.pieces:  # a name's own pieces come before the arguments
        return True
    return bool(value) and bool(arguments) and value_of([arguments]) != value


def _index(value: Any) -> int | None:
    """Read an index, which may be written as a string or a fraction."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None  # noqa: PLR2004 - no call has a number of ten digits
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
        return json.dumps(value, default=_number, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "<unreadable>"


def _number(value: Any) -> Any:
    """Return an amount, which chunks with a cost have in place of any fraction, as JSON can write it."""
    return float(value) if isinstance(value, Decimal) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _name(name: str) -> str:
    """Return a name that Strands and every provider take; another one is the name of no tool."""
    return _NOT_IN_NAMES.sub("_", clean(name).strip())[:_LONGEST_NAME] or _NO_NAME
