"""Python functions as client tools: what a request declares of them, and the values that they are called with."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from godoty import Action, Attachment, ClientToolOutput, Tool
from godoty.actions.outputs import output_of
from godoty.actions.schemas import InvalidValue
from pydantic import BaseModel, Field


class Color(Enum):
    """A color."""

    RED = "red"
    BLUE = "blue"


class Urgency(IntEnum):
    """How soon."""

    LOW = 1
    HIGH = 2


@dataclass
class Location:
    """A place on Earth.

    Attributes:
        latitude: Degrees north.
        name: What people call it.
    """

    latitude: float
    longitude: float
    name: str = "here"

    def __post_init__(self) -> None:
        if abs(self.latitude) > 90:
            raise ValueError("there is no such latitude")


class Options(TypedDict):
    """Options of a search."""

    limit: int
    color: NotRequired[Color]


class Item(BaseModel):
    """An item of an order."""

    sku: str
    count: int = Field(gt=0)


class Order(BaseModel):
    """An order."""

    items: list[Item]


@dataclass
class Tree:
    """A class that contains itself."""

    children: list[Tree]


def called(hint: Any, value: Any) -> Any:
    """Return what a function with a parameter of a type gets for a JSON value."""

    def look(given: Any) -> Any:
        return given

    look.__annotations__["given"] = hint
    return Tool(look).call(Action(input_json=json.dumps({"given": value})))


def schema(hint: Any) -> dict[str, Any]:
    """Return the schema of a parameter of a type."""

    def look(given: Any) -> None: ...

    look.__annotations__["given"] = hint
    found: dict[str, Any] = Tool(look).input_schema["properties"]["given"]
    return found


def search(  # noqa: D417 - that is the case
    words: list[str],
    place: Location,
    options: Options | None = None,
    *,
    level: Urgency = Urgency.LOW,
    sort: Literal["price", "name"] = "price",
    since: Annotated[datetime | None, "Only newer ones."] = None,
) -> str:
    """Find offers
    near a place.

    It never buys any.

    Args:
        words: What to look for,
            all of them.
        place: Where.
        sort (str): The order.

    Returns:
        The offers.
    """  # noqa: D205 - that is the case
    return "none"


def test_schema_is_made_of_hints_and_docstring() -> None:
    """Names, types, defaults and what is required; the text before "Args:" describes the tool."""
    tool = Tool(search)

    assert (tool.name, tool.description) == ("search", "Find offers near a place. It never buys any.")
    assert tool.input_schema["required"] == ["words", "place"]
    assert tool.input_schema["additionalProperties"] is False
    properties = tool.input_schema["properties"]
    assert properties["words"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "What to look for, all of them.",
    }
    assert properties["place"] == {
        "type": "object",
        "description": "Where.",
        "additionalProperties": False,
        "required": ["latitude", "longitude"],
        "properties": {
            "latitude": {"type": "number", "description": "Degrees north."},
            "longitude": {"type": "number"},
            "name": {"type": "string", "description": "What people call it.", "default": "here"},
        },
    }
    assert properties["options"]["anyOf"][0]["required"] == ["limit"]
    assert properties["options"]["anyOf"][1] == {"type": "null"}
    assert properties["level"] == {"enum": [1, 2], "type": "integer", "default": 1}
    assert properties["sort"] == {
        "enum": ["price", "name"],
        "type": "string",
        "default": "price",
        "description": "The order.",
    }
    assert properties["since"]["description"] == "Only newer ones."
    declared = tool.declaration()
    assert (declared.tool_name, json.loads(declared.input_schema)) == ("search", tool.input_schema)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (str, "a", "a"),
        (str, 5, "5"),
        (int, 5, 5),
        (int, "5", 5),
        (int, 5.0, 5),
        (float, 5, 5.0),
        (float, "0.5", 0.5),
        (bool, True, True),
        (bool, "false", False),
        (Decimal, 0.1, Decimal("0.1")),
        (Decimal, "12.30", Decimal("12.30")),
        (datetime, "2026-11-30T00:00:00Z", datetime(2026, 11, 30, tzinfo=UTC)),
        (int | str, "5", "5"),
        (str | int, 5, 5),
        (int | None, None, None),
        (list[int], ["1", 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], ["a", "a"], {"a"}),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict, {"a": [1]}, {"a": [1]}),
        (list, [1, "a"], [1, "a"]),
        (Any, {"a": 1}, {"a": 1}),
        (Literal["a", 1], 1, 1),
        (Literal["price"], "PRICE", "price"),
        (Color, "red", Color.RED),
        (Urgency, "2", Urgency.HIGH),
        (Location, {"latitude": "1", "longitude": 2}, Location(1.0, 2.0)),
        (Options, {"limit": 1, "color": "blue"}, {"limit": 1, "color": Color.BLUE}),
        (Item, {"sku": "a", "count": "2"}, Item(sku="a", count=2)),
        (list[Order], [{"items": [{"sku": "a", "count": 1}]}], [Order(items=[Item(sku="a", count=1)])]),
    ],
)
def test_values_are_converted_to_the_hinted_types(hint: Any, value: Any, expected: Any) -> None:
    """Those of another JSON type if nothing is lost; a union prefers what fits as it is."""
    found = called(hint, value)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (int, 5.5, "given: must be an integer"),
        (int, True, "given: must be an integer"),
        (int, [5], "given: must be an integer"),
        (str, None, "given: must be a text"),
        (float, "nan", "given: must be a number"),
        (bool, 1, "given: must be true or false"),
        (list[int], [1, "x"], r"given\[1\]: must be an integer"),
        (tuple[int, int], [1], "given: must be a list of 2"),
        (Literal["a", "b"], "c", 'given: must be one of "a", "b"'),
        (Color, "green", 'given: must be one of "red", "blue"'),
        (Location, {"latitude": 1}, "given.longitude: is missing"),
        (Location, {"latitude": 91, "longitude": 1}, "given: there is no such latitude"),
        (Options, {"limit": 1, "page": 2}, "given.page: there is no such member"),
        (Item, {"sku": "a", "count": 0}, "greater than 0"),
        (int | None, "x", "given: must be an integer; or given: must be null"),
        (datetime, "soon", "given: must be an ISO 8601 time"),
    ],
)
def test_value_that_does_not_fit_is_refused_with_its_place(hint: Any, value: Any, problem: str) -> None:
    """The text is for the model."""
    with pytest.raises(InvalidValue, match=problem):
        called(hint, value)


def test_schemas_of_pydantic_are_those_of_the_class() -> None:
    """Its definitions become those of the whole, to which the references point."""

    def buy(order: Order) -> None: ...

    tool = Tool(buy)
    assert tool.input_schema["$defs"]["Item"]["properties"]["count"]["exclusiveMinimum"] == 0
    assert tool.input_schema["properties"]["order"]["properties"]["items"]["items"] == {"$ref": "#/$defs/Item"}


def test_action_is_no_argument_of_the_model() -> None:
    """A parameter of its type gets it."""

    def look(number: int, action: Action) -> str:
        return f"{number} {action.action_id}"

    tool = Tool(look)
    assert list(tool.input_schema["properties"]) == ["number"]
    assert tool.call(Action(action_id="act_1", input_json='{"number": 2}')) == "2 act_1"


def test_methods_and_objects_are_tools() -> None:
    """Without `self`."""

    class Shop:
        def look(self, number: int) -> int:
            """Look."""
            return number

        async def __call__(self, number: int) -> int:
            """Look later."""
            return number

    method, called_later = Tool(Shop().look), Tool(Shop(), name="later")
    assert (method.name, method.description, method.asynchronous) == ("look", "Look.", False)
    assert method.call(Action(input_json='{"number": 2}')) == 2
    assert called_later.asynchronous
    assert asyncio.run(called_later.call(Action(input_json='{"number": 2}'))) == 2


def no_hint(number) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - that is the case
    ...


def variadic(*numbers: int) -> None: ...


def strange(given: complex) -> None: ...


def recursive(tree: Tree) -> None: ...


def _private(number: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "kind", "problem"),
    [
        (no_hint, TypeError, "no_hint: the parameter number has no type hint"),
        (variadic, TypeError, "variadic: the parameter numbers has no name"),
        (strange, TypeError, "strange: complex has no JSON schema"),
        (recursive, TypeError, "recursive: Tree contains itself"),
        (_private, ValueError, "'_private' is no name of a tool"),
    ],
)
def test_function_that_cannot_be_a_tool_is_refused_at_once(function: Any, kind: type[Exception], problem: str) -> None:
    """When it is decorated, not when the model calls it."""
    with pytest.raises(kind, match=problem):
        Tool(function)


def test_description_that_is_too_long_is_refused() -> None:
    """A short one can be given."""

    def look() -> None: ...

    look.__doc__ = "word " * 300
    with pytest.raises(ValueError, match="at most 1000 printable characters"):
        Tool(look)
    assert Tool(look, description="Finds it.").description == "Finds it."


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        ("two pens", "output_text", "two pens"),
        ("\ud800", "output_text", "?"),
        (None, "output_json", "null"),
        ({"pens": [1, 2.5]}, "output_json", '{"pens": [1, 2.5]}'),
        (Location(1, 2), "output_json", '{"latitude": 1, "longitude": 2, "name": "here"}'),
        (Item(sku="a", count=1), "output_json", '{"sku": "a", "count": 1}'),
        ([Color.RED, Decimal("0.10")], "output_json", '["red", "0.10"]'),
        ({"at": datetime(2026, 11, 30, tzinfo=UTC)}, "output_json", '{"at": "2026-11-30T00:00:00+00:00"}'),
        ("x" * 70_000, "error", "ValueError: the result has 70000 characters, and may have 65536"),
        (["x" * 40_000], "output_text", f'["{"x" * 40_000}"]'),
        (float("nan"), "error", "TypeError: the result is no JSON value: Out of range float values"),
        (object(), "error", "TypeError: the result is no JSON value: a object is none"),
        (KeyError("no such\norder"), "error", "KeyError: 'no such"),
        (RuntimeError("x" * 2000), "error", f"RuntimeError: {'x' * 985}…"),
        (ValueError(), "error", "ValueError"),
        (Attachment(attachment_id="att_1"), "attachment_id", "att_1"),
        (ClientToolOutput(error="closed"), "error", "closed"),
    ],
)
def test_results_are_texts_json_values_images_and_errors(value: Any, field: str, expected: str) -> None:
    """As the contract takes them: what it would refuse is an error that the model sees."""
    output = output_of(value)

    assert not isinstance(output, bytes)
    assert output.WhichOneof("output") == field
    assert str(getattr(output, field)).startswith(expected)
    assert len(output.error) <= 1000
    assert output.error.isprintable()


def test_pydantic_is_not_imported_for_others() -> None:
    """Nor by the client as a whole."""
    program = "import sys, godoty; godoty.Godoty; godoty.Tool(lambda: None, name='x'); print('pydantic' in sys.modules)"

    async def run() -> bytes:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0]

    assert asyncio.run(run()).strip() == b"False"
