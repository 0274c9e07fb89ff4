import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[3] / "godoty_service"
# Where amounts are read, held, written and told; elsewhere there are none.
WITH_MONEY = [
    *("metering/**/*.py", "openrouter/**/*.py", "turns/**/*.py", "cli/**/*.py"),
    *("rpc/*messages.py", "rpc/*requests.py", "tenancy/policy.py", "budget.py"),
]

# A float may measure time or a share, in these names; it may never hold money.
NO_MONEY = re.compile(
    r"share|backoff|seconds|grace|timeout|retry_after|wait|delay|duration|latency|interval|elapsed|monotonic|age$|_at$|time"
)
# What the model thought goes back to it unchanged, what it asks of a tool is the tool's: neither holds amounts.
WITHOUT_MONEY = {f"openrouter/{name}.py" for name in ("reasoning", "tool_input", "tool_calls", "portable")}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _mentions_float(node: ast.AST | None) -> bool:
    """Tell whether an annotation holds `float`, also where it is quoted."""
    if node is None:
        return False
    return bool(re.search(r"\bfloat\b", ast.unparse(node)))


def _faults(tree: ast.AST, within: str = "") -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, Function) else within
        yield from (
            (node.lineno, text) for text in _fault(node, name) if isinstance(node, ast.expr | ast.stmt | ast.arg)
        )
        yield from _faults(node, name)


def _fault(node: ast.AST, within: str) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id="float")) if not NO_MONEY.search(within):
            yield "float()"
        case ast.Call(func=function, keywords=keywords):
            parsers = [keyword.value for keyword in keywords if keyword.arg == "parse_float"]
            if any(isinstance(parser, ast.Name) and parser.id == "float" for parser in parsers):
                yield "parse_float=float"
            if ast.unparse(function) in {"json.loads", "json.load"} and not parsers:
                yield "json without parse_float"
        case ast.arg(arg=name, annotation=annotation) | ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
            if _mentions_float(annotation) and not NO_MONEY.search(name):
                yield f"{name}: float"
        case ast.FunctionDef(name=name, returns=returns) | ast.AsyncFunctionDef(name=name, returns=returns):
            if _mentions_float(returns) and not NO_MONEY.search(name):
                yield f"{name}() -> float"
        case _:
            pass


def test_no_money_passes_through_a_float() -> None:
    """Where amounts pass, from the wire to the caller, no float is made, parsed or declared but for time or a share."""
    found = [
        f"{path.relative_to(SERVICE)}:{line}: {text}"
        for place in WITH_MONEY
        for path in sorted(SERVICE.glob(place))
        if path.relative_to(SERVICE).as_posix() not in WITHOUT_MONEY
        for line, text in _faults(ast.parse(path.read_text()))
    ]

    assert found == []


def test_the_guard_looks_everywhere() -> None:
    """None of the places is empty: a room that was renamed is missed, not passed over."""
    assert [] == [place for place in WITH_MONEY if not any(SERVICE.glob(place))]


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("x = float(cost)", ["float()"]),
        (
            "json.loads(x, parse_float=float)",
            [
                "parse_float=float",
            ],
        ),
        ("json.loads(x)", ["json without parse_float"]),
        ("json.loads(x, parse_float=Decimal)", []),
        ("def f(cost: float | None): ...", ["cost: float"]),
        ("def cost() -> 'float': ...", ["cost() -> float"]),
        ("class A:\n    cost: dict[str, float]", ["cost: float"]),
        ("def retry_after(x) -> float:\n    return float(x)", []),
        ("async def f(*, idle_seconds: float): ...", []),
        ("isinstance(x, float)", []),
    ],
)
def test_the_guard_sees_floats(code: str, faults: list[str]) -> None:
    """The guard itself finds what it is there for."""
    assert faults == [text for _, text in _faults(ast.parse(code))]
