"""The tools of a server as agents see them."""

from typing import Any

import pytest

from godoty_service.agents.mcp.tool_list import MAX_TOOLS, ToolList, make_tool_list
from tests.unit.agents.mcp.servers import server, tool

SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"const": 5}, "c": {}}, "$defs": {"x": {}}}


def usable(listed: ToolList) -> list[str]:
    """Return the names of the tools that agents can use."""
    return [each.offered_name for each in listed.tools if not each.problem]


async def test_names_have_the_prefix_and_fit_all_models() -> None:
    """Characters that models do not accept become underscores; long names are cut and remain different."""
    long = "x" * 128

    listed = await make_tool_list(server(prefix="my"), [tool("a.b/c"), tool(long), tool(f"{long[:-1]}y")])

    names = usable(listed)
    assert names[0] == "my_a_b_c"
    assert all(len(name) <= 64 for name in names)
    assert len(set(names)) == 3


async def test_of_two_names_that_differ_in_a_hyphen_the_first_is_used() -> None:
    """Strands refuses an agent with both."""
    listed = await make_tool_list(server(), [tool("a-b"), tool("a_b"), tool("c")])

    assert usable(listed) == ["crm_a-b", "crm_c"]
    assert "a-b" in listed.tools[1].problem


async def test_schema_is_handed_on_unchanged() -> None:
    """It is the server's, in the form that Strands passes on."""
    (only,) = (await make_tool_list(server(), [tool("a", SCHEMA)])).tools

    assert only.spec == {"name": "crm_a", "description": "Does something.", "inputSchema": {"json": SCHEMA}}


def nested(depth: int) -> dict[str, Any]:
    """Return a schema of a depth."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "description": "x" * 17_000}, "bytes"),
        (nested(40), "deep"),
        (nested(1_000), "deep"),
        ({"type": "string"}, "object"),
        ({}, "object"),
    ],
)
async def test_schema_out_of_bounds_is_not_offered(schema: dict[str, Any], problem: str) -> None:
    """The tool is listed with the reason, and without the schema; the others are offered."""
    listed = await make_tool_list(server(), [tool("bad", schema), tool("good")])

    assert usable(listed) == ["crm_good"]
    assert problem in listed.tools[0].problem
    assert listed.tools[0].schema == {}


async def test_allow_and_deny_lists_apply_to_the_names_of_the_server() -> None:
    """`deny` wins; both take patterns."""
    limited = server(allow=("read_*", "write"), deny=("read_secret*",))

    listed = await make_tool_list(limited, [tool(each) for each in ("read_a", "read_secrets", "write", "drop")])

    assert usable(listed) == ["crm_read_a", "crm_write"]


async def test_number_description_and_total_size_are_bounded() -> None:
    """A server cannot fill the request to the model."""
    many = [tool(f"t{number}", description="y" * 10_000) for number in range(MAX_TOOLS + 5)]

    listed = await make_tool_list(server(), many)

    assert listed.left_out == 5
    assert len(listed.tools) == MAX_TOOLS
    assert max(len(each.description) for each in listed.tools) == 4099
    assert sum(each.size for each in listed.tools if not each.problem) <= 256 * 1024
