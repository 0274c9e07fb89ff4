import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[3] / "godoty_service"
# The code that handles amounts; there are none elsewhere.
WITH_MONEY = [
    *("pricing/**/*.py", "ledger/**/*.py", "metering/**/*.py", "budgets/**/*.py", "usage/**/*.py"),
    *("openrouter/**/*.py", "turns/**/*.py", "cli/**/*.py"),
    "rpc/**/*codec.py",
]

# A float may measure time, a share or progress, in these names; it may never hold money.
NO_MONEY = re.compile(
    r"share|backoff|seconds|grace|timeout|retry_after|wait|delay|duration|latency|interval|elapsed|monotonic|progress|age$|_at$|time"
)
# Reasoning is returned to the model unchanged, and tool inputs belong to the tool: neither contains amounts.
WITHOUT_MONEY = {
    "openrouter/decoding/reasoning_details.py",
    "openrouter/decoding/tool_calls.py",
    "openrouter/message_normalizer.py",
}
# `godoty webhook listen` prints an event as it came.
WITHOUT_MONEY.add("cli/webhooks/listen.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _mentions_float(node: ast.AST | None) -> bool:
    """Return whether an annotation contains `float`, also as a string."""
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
    """Code that handles amounts makes, parses and declares no float, except for times and ratios."""
    found = [
        f"{path.relative_to(SERVICE)}:{line}: {text}"
        for place in WITH_MONEY
        for path in sorted(SERVICE.glob(place))
        if path.relative_to(SERVICE).as_posix() not in WITHOUT_MONEY
        for line, text in _faults(ast.parse(path.read_text()))
    ]

    assert found == []


def test_guard_covers_every_place() -> None:
    """None of the places is empty: a renamed module fails the test instead of being skipped."""
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
def test_guard_finds_floats(code: str, faults: list[str]) -> None:
    """The guard itself finds a float."""
    assert faults == [text for _, text in _faults(ast.parse(code))]
