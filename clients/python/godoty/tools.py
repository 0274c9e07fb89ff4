"""Client tools: Python functions that a model calls, and that run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

_F = TypeVar("_F", bound=Callable[..., Any])


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
        name: As in the arguments.
        description: The description.
        input_schema: The JSON schema of its input.
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
        raise NotImplementedError


class ToolRegistry:
    """The tools of a client, which its turns declare and run."""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The registered tools by name."""
        raise NotImplementedError

    @overload
    def tool(self, function: _F, /) -> _F: ...
    @overload
    def tool(
        self,
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
        raise NotImplementedError
