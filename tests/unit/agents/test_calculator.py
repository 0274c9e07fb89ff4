import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.agents.tools.arithmetic import MAX_LENGTH, evaluate
from godoty_service.agents.tools.calculator import calculator


async def calculate(expression: Any) -> tuple[str, str]:
    use = {"toolUseId": "1", "name": "calculator", "input": {"expression": expression}}
    events = [event async for event in calculator.stream(use, {})]  # type: ignore[arg-type]
    result = events[-1]["tool_result"]
    return result["status"], result["content"][0]["text"]


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("0.1 + 0.2", "0.3"),
        ("(1.1 + 2.2) * 3", "9.9"),
        ("2**100", "1267650600228229401496703205376"),
        ("2**-2", "0.25"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("7 % 3", "1"),
        ("1/3", "0.3333333333333333333333333333333333 (rounded)"),
        ("sqrt(2.25)", "1.5"),
        ("sqrt(10**40 + 2 * 10**20 + 1)", "100000000000000000001"),
        ("sqrt(2)", "1.4142135623731"),
        ("round(1234.5678, 2)", "1234.57"),
        ("round(2.4)", "2"),
        ("min(3, 1, 2) + max(1, 2)", "3"),
        ("floor(-1.2) + ceil(1.2)", "0"),
        ("log(100, 10)", "2"),
        ("log(e)", "1"),
        ("sin(pi / 2) + cos(0)", "2"),
        ("abs(-5)", "5"),
        ("1_000 * 1e3", "1000000"),
        ("(-1)**(10**900)", "1"),
    ],
)
async def test_arithmetic_is_exact_if_possible(expression: str, written: str) -> None:
    """Decimals and fractions are exact; other values are rounded, and a cut fraction has a note."""
    assert ("success", written) == await calculate(expression)


@pytest.mark.parametrize(
    ("expression", "cause"),
    [
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("2^3", "use ** for powers"),
        ("(-8)**0.5", "not a real number"),
        ("sqrt(-1)", "negative"),
        ("log(0)", "not positive"),
        ("sqrt(1, 2)", "takes 1 argument"),
        ("round(1, 0.5)", "whole number of digits"),
        ("x + 1", "unknown name"),
        ("1 +", "not valid arithmetic"),
        ("", "not valid arithmetic"),
        ("\x00", "not valid"),
        ("\u0661 + 1", "not arithmetic"),
        ("1j", "not arithmetic"),
        ("True", "not arithmetic"),
        ("1 if 2 else 3", "not arithmetic"),
        ("[1, 2]", "not arithmetic"),
        ("sqrt(10**901)", "number in the expression is too large"),
        ("-" * 900 + "1", "nested too deeply"),
        ("1+" * 600 + "1", "too long"),
    ],
)
async def test_expression_without_value_is_clear_error(expression: str, cause: str) -> None:
    """An expression without a value is a tool error with the cause."""
    status, text = await calculate(expression)

    assert status == "error"
    assert cause in text


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').system('true')", "(1).__class__", "open('/etc/passwd')", "(lambda: 1)()", "'a' * 9"],
)
async def test_only_arithmetic_is_evaluated(expression: str) -> None:
    """Names, attributes, strings and calls outside the allow-list are rejected."""
    status, _ = await calculate(expression)

    assert status == "error"


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**9**9**9**9",
        "(9**999)**999",
        "1e999999999",
        "1e-999999999",
        "10**1000 * 10**1000",
        "2**0.5**-9999",
        "round(1, 10**900)",
        "*".join(["9" * 400] * 2) + "**2",
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1",
        "+".join("1" * 500),
        "1" * (MAX_LENGTH + 1),
        "9" * 10_000_000,
    ],
    ids=lambda text: text[:20],
)
async def test_large_expression_is_rejected_at_once(expression: str) -> None:
    """No expression blocks the event loop noticeably, for any size of its operands."""
    started = time.thread_time()
    status, _ = await calculate(expression)

    assert status == "error"
    assert time.thread_time() - started < 1


@given(st.text(alphabet="0123456789.+-*/%()e, sqrtlogminmax", max_size=60))
def test_any_text_gives_a_number_or_a_value_error(text: str) -> None:
    """Any text of a model yields a number or a ValueError, quickly."""
    started = time.thread_time()
    with contextlib.suppress(ValueError):
        evaluate(text)
    assert time.thread_time() - started < 1
