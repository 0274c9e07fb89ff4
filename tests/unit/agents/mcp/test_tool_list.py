"""The tools of a server as agents see them."""

from typing import Any

import pytest

from godoty_service.agents.mcp.tool_list import MAX_TOOLS, ListedTool, ToolList, make_tool_list
from godoty_service.agents.mcp.tools import MAX_OFFERED, MAX_OFFERED_BYTES, McpTool, OfferedTools, combine
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


async def test_tool_with_a_long_name_is_not_offered() -> None:
    """It could not be called by the part of it that is kept; nor is the whole of it matched with patterns."""
    listed = await make_tool_list(server(allow=("*a*b*c*d*",)), [tool("x" * 1_000_000), tool("y" * 129), tool("abcd")])

    assert usable(listed) == ["crm_abcd"]
    assert all("128 characters" in each.problem for each in listed.tools[:2])
    assert len(listed.tools[0].description) <= 128


def test_tools_of_all_servers_together_are_bounded() -> None:
    """Each request to the model has them; the prompt says how many are missing."""
    parts = [offered(f"s{number}", 128) for number in range(6)]

    combined = combine(parts)

    assert len(combined.tools) == len(combined.specs) == MAX_OFFERED
    assert combined.notes == (f"{6 * 128 - MAX_OFFERED} more tools are left out: there are too many.",)


def test_schemas_of_all_servers_together_are_bounded() -> None:
    """Small tools that still fit are offered."""
    parts = [offered(f"s{number}", 20, size=16_000) for number in range(5)] + [offered("small", 1)]

    combined = combine(parts)

    assert combined.spec_bytes <= MAX_OFFERED_BYTES
    assert "small_t0" in combined.tools


def offered(prefix: str, number: int, *, size: int = 10) -> OfferedTools:
    """Return the tools of a server."""
    crm = server(prefix=prefix)
    tools = [
        McpTool(
            crm, ListedTool(name=name, offered_name=f"{prefix}_{name}", description="", schema={}, schema_bytes=size)
        )
        for name in (f"t{each}" for each in range(number))
    ]
    by_name = {each.tool_name: each for each in tools}
    return OfferedTools(tools=by_name, specs=tuple(each.tool_spec for each in tools), spec_bytes=number * size)
