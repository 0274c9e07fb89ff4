"""Client tools: Python functions that a model calls, and that run in this process."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, overload

from godoty.actions.docstrings import parsed
from godoty.actions.schemas import InvalidValue, Kind, Member, Schemas
from godoty.types import Action
from godoty.v1 import action_pb2

_F = TypeVar("_F", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MAX_DESCRIPTION = 1_000  # characters
_MAX_SCHEMA = 8_192  # characters of its JSON text
_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Tool:
    """A function as a client tool.

    Its name is the function's; its description the docstring up to "Args:", whose entries describe the parameters; its
    input schema is made of the type hints: str, int, float, bool, None, list, tuple, set, dict, unions, Literal, Enum,
    dataclasses, TypedDict, Annotated with a description, datetime, date, Decimal, and pydantic models. A parameter of
    the type `Action` gets the action itself and is not part of the schema.

    Args:
        function: The function, which may be `async`.
        name: The name that the model sees. None: the function's.
        description: What it does, for the model. None: from its docstring.
        timeout: The seconds after which a call fails, and the model is answered that. None: it may take any time.
        declare: Whether requests declare it. False: the definition of the agent does (`AgentTool.client`).

    Raises:
        TypeError: A parameter has no type hint, or one that has no schema.
        ValueError: The name, description or schema exceeds what a server takes.

    Attributes:
        function: As in the arguments.
        name: As in the arguments.
        description: The description.
        input_schema: The JSON schema of its input.
        timeout: As in the arguments.
        declare: As in the arguments.
        asynchronous: Whether the function is `async`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        declare: bool = True,
    ) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", ""))
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no name of a tool: 1 to 64 letters, digits, _ and -, the first a letter"
            )
        summary, texts = parsed(inspect.getdoc(function))
        self.description = " ".join((description or summary or self.name.replace("_", " ")).split())
        if len(self.description) > _MAX_DESCRIPTION or not self.description.isprintable():
            raise ValueError(f"{self.name}: the description must have at most {_MAX_DESCRIPTION} printable characters")
        self.timeout = timeout
        self.declare = declare
        self.asynchronous = is_asynchronous(function)
        self._action_parameter, self._input, self.input_schema = _input_of(self.name, function, texts)
        self._schema_text = json.dumps(self.input_schema, ensure_ascii=False, separators=(",", ":"))
        if len(self._schema_text) > _MAX_SCHEMA:
            raise ValueError(f"{self.name}: its JSON schema has more than {_MAX_SCHEMA} characters")

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def declaration(self) -> action_pb2.ClientTool:
        """Return what a request declares."""
        return action_pb2.ClientTool(tool_name=self.name, description=self.description, input_schema=self._schema_text)

    def call(self, action: Action) -> Any:
        """Call the function with an action's input; that of an `async` one returns an awaitable.

        Raises:
            InvalidValue: The input does not fit the type hints.
        """
        arguments = self._input.read(_parsed(action.input_json), "", True)
        if self._action_parameter:
            arguments[self._action_parameter] = action
        return self.function(**arguments)


class ToolRegistry:
    """The tools of a client, which its turns declare and run."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The registered tools by name."""
        return MappingProxyType(self._tools)

    @overload
    def tool(self, function: _F, /) -> _F: ...
    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        declare: bool = True,
    ) -> Callable[[_F], _F]: ...
    def tool(self, function: Any = None, /, **options: Any) -> Any:
        """Register a function as a client tool of this client's turns: `@client.tool`, or with options of `Tool`.

        A call of the model runs it with the arguments converted to its type hints, and answers with what it returns: a
        text, a JSON value (also a dataclass or a pydantic model), `bytes` of an image, an `Attachment`. An exception is
        an error that the model sees, as are invalid arguments and a name that there is not.
        """
        if function is None:
            return lambda decorated: self.tool(decorated, **options)
        tool = Tool(function, **options)
        self._tools[tool.name] = tool
        return function


def by_name(tools: Iterable[Callable[..., Any] | Tool]) -> dict[str, Tool]:
    """Return tools, or functions as tools, by their names."""
    made = (each if isinstance(each, Tool) else Tool(each) for each in tools)
    return {each.name: each for each in made}


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Return whether a callable is an `async` function, or an object with an `async` call."""
    call = getattr(function, "__call__", None)  # noqa: B004 - it is called later
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _input_of(name: str, function: Callable[..., Any], texts: Mapping[str, str]) -> tuple[str, Kind, dict[str, Any]]:
    """Return the name of the parameter that gets the action, the kind of the input, and its JSON schema."""
    hints = typing.get_type_hints(_hinted(function), include_extras=True)
    action, members = "", dict[str, Member]()
    for each in inspect.signature(function).parameters.values():
        if each.kind in _UNNAMED:
            raise TypeError(
                f"{name}: the parameter {each.name} has no name for the model: it is positional or variadic"
            )
        if each.name not in hints:
            raise TypeError(f"{name}: the parameter {each.name} has no type hint")
        if hints[each.name] is Action:
            action = each.name
            continue
        required = each.default is inspect.Parameter.empty
        members[each.name] = Member(hints[each.name], each.default, required, texts.get(each.name, ""))
    schemas = Schemas()
    try:
        kind = schemas.members(members)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    return action, kind, {**kind.schema, **({"$defs": schemas.definitions} if schemas.definitions else {})}


def _hinted(function: Callable[..., Any]) -> Any:
    """Return what has the type hints of a callable: of an object with `__call__`, that method."""
    if isinstance(function, partial):
        return _hinted(function.func)
    return function if inspect.isroutine(function) else getattr(inspect.unwrap(function), "__call__", function)  # noqa: B004


def _parsed(input_json: str) -> Any:
    try:
        return json.loads(input_json or "{}", parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"the input is no JSON: {error}") from None


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")
