"""Evaluates arithmetic without `eval`: a parsed expression, an allow-list of its nodes, and a bound on every number.

Integers and decimals are fractions, so `0.1 + 0.2` is 0.3; a value that is not exact (roots, logarithms, sines) is a
float. Each operation is bounded before it is evaluated, so no expression takes noticeable time.
"""

import ast
import math
import operator
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any, Final

Number = Fraction | float

MAX_LENGTH: Final = 1_000
MAX_DEPTH: Final = 100
MAX_DIGITS: Final = 1_000
_MAX_BITS: Final = int(MAX_DIGITS * math.log2(10))
SHOWN_DIGITS: Final = 34
_CONTEXT: Final = Context(prec=SHOWN_DIGITS, rounding=ROUND_HALF_EVEN)

_CONSTANTS: Final = {"pi": math.pi, "e": math.e}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Number]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def evaluate(expression: str) -> Number:
    """Evaluate an expression.

    Returns:
        A fraction if the value is exact, else a float.

    Raises:
        ValueError: The expression is not arithmetic, has no finite real value, or is too large; the text has the cause.
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"expression is too long: at most {MAX_LENGTH} characters")
    if not expression.isascii():
        raise ValueError("expression has characters that are not arithmetic: use digits, + - * / and names")
    try:
        text = expression.strip()
        return _Evaluation(text).value(ast.parse(text, mode="eval").body, depth=0)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("expression is not valid arithmetic") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("a number in the expression is too large") from None


class _Evaluation:
    """One expression, with its text, because a parsed decimal has already lost digits."""

    def __init__(self, text: str) -> None:
        self._text = text

    def value(self, node: ast.expr, *, depth: int) -> Number:
        if depth > MAX_DEPTH:
            raise ValueError(f"expression is nested too deeply: at most {MAX_DEPTH} levels")
        return _bounded(self._raw(node, depth=depth + 1))

    def _raw(self, node: ast.expr, *, depth: int) -> Number:
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name(id=name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _UNARY[type(op)](self.value(operand, depth=depth))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _BINARY[type(op)](self.value(left, depth=depth), self.value(right, depth=depth))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return _call(name, [self.value(arg, depth=depth) for arg in args])
        raise ValueError(_rejection(node))

    def _literal(self, node: ast.Constant) -> Number:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ValueError(_rejection(node))  # noqa: TRY004 - the expression is wrong, not our call
        if isinstance(node.value, int):
            return Fraction(node.value)
        text = ast.get_source_segment(self._text, node) or ""
        exponent = text.lower().partition("e")[2]
        if exponent and abs(int(exponent)) > MAX_DIGITS:
            raise ValueError(f"a number has too large an exponent: at most {MAX_DIGITS}")
        return Fraction(text)


def _bounded(number: Number) -> Number:
    if isinstance(number, complex):
        raise ValueError("the result is not a real number")  # noqa: TRY004 - (-8) ** 0.5 is complex
    if isinstance(number, float):
        if not math.isfinite(number):
            raise ValueError("the result is not a finite number")
        return number
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > _MAX_BITS:
        raise ValueError(f"a number has too many digits: at most {MAX_DIGITS}")
    return number


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
        if abs(base) not in {0, 1} and (bits - 1) * abs(exponent) > _MAX_BITS:
            raise ValueError(f"a power has too many digits: at most {MAX_DIGITS}")
        return base**exponent.numerator if abs(base) != 1 else base ** (exponent.numerator % 2)
    root: Number = float(base) ** float(exponent)
    return root


def _square_root(x: Number) -> Number:
    if x < 0:
        raise ValueError("square root of a negative number")
    if isinstance(x, Fraction):
        over, under = math.isqrt(x.numerator), math.isqrt(x.denominator)
        if over * over == x.numerator and under * under == x.denominator:
            return Fraction(over, under)
    return math.sqrt(x)


def _logarithm(x: Number, base: Number = math.e) -> Number:
    if x <= 0 or base <= 0:
        raise ValueError("logarithm of a number that is not positive")
    if base == 10:  # noqa: PLR2004 - log10 is exact where log(x)/log(10) is not
        return math.log10(x)
    return math.log(x) / math.log(base) if base != math.e else math.log(x)


def _round(x: Number, digits: Number = Fraction(0)) -> Number:
    places = math.floor(digits)
    if places != digits or abs(places) > MAX_DIGITS:
        raise ValueError(f"round takes a whole number of digits, at most {MAX_DIGITS}")
    rounded: Number = x.__round__(places)  # round() loses the type of a union
    return rounded


_BINARY: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: _floor(a // b),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


def _floor(x: Number) -> Number:
    return Fraction(math.floor(x))


def _least(*numbers: Number) -> Number:
    return min(numbers)


def _greatest(*numbers: Number) -> Number:
    return max(numbers)


_FUNCTIONS: Final[dict[str, tuple[Callable[..., Number], int, int]]] = {
    # name: the function, its least and most arguments
    "sqrt": (_square_root, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "min": (_least, 1, MAX_LENGTH),
    "max": (_greatest, 1, MAX_LENGTH),
    "floor": (_floor, 1, 1),
    "ceil": (lambda x: Fraction(math.ceil(x)), 1, 1),
    "log": (_logarithm, 1, 2),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
}


def _call(name: str, args: list[Number]) -> Number:
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(args) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise ValueError(f"{name} takes {wanted} argument(s), not {len(args)}")
    return function(*args)


def _rejection(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
        return "^ is not an operator here: use ** for powers"
    if isinstance(node, ast.Name | ast.Call):
        known = ", ".join([*_FUNCTIONS, *_CONSTANTS])
        return f"unknown name: use {known}"
    return "expression is not arithmetic: use numbers, + - * / // % **, parentheses and functions"


def format_number(number: Fraction | float) -> str:
    """Return a number as text: exact if its decimals terminate, else rounded, with a note."""
    if isinstance(number, float):
        return f"{number:.15g}"
    if number.denominator == 1:
        return str(number.numerator)
    places = _decimal_places(number.denominator)
    if places is not None and places <= SHOWN_DIGITS:
        return f"{_shifted(number, places):f}"
    rounded = _CONTEXT.divide(Decimal(number.numerator), Decimal(number.denominator))
    return f"{rounded} (rounded)"


def _decimal_places(denominator: int) -> int | None:
    """Return the digits after the point of 1/denominator; None: they do not terminate."""
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    return max(twos, fives) if rest == 1 else None


def _shifted(number: Fraction, places: int) -> Decimal:
    sign, digits, _ = Decimal(number.numerator * 10**places // number.denominator).as_tuple()
    return Decimal((sign, digits, -places))
