"""The bounds of output schemas and of the values that are checked by them.

The validator holds the interpreter while it works, also in another thread. So the work is bounded before it begins: a
schema by what it has, a value by an estimate of what its check takes.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from godoty_service.exact_json import LiteralFloat

MAX_SCHEMA_CHARACTERS: Final = 32_768
MAX_SCHEMA_VALUES: Final = 4_000  # values and names of members
MAX_DEPTH: Final = 64  # levels, of a schema and of a value
MAX_REFERENCES: Final = 200
MAX_PATTERNS: Final = 64
MAX_PATTERN_CHARACTERS: Final = 512
MAX_IN_PLACE: Final = 500  # subschemas that apply to one place of a value, through `allOf`, `$ref` and the like
MAX_NUMBER_CHARACTERS: Final = 100
MAX_EXPONENT: Final = 308
MAX_OUTPUT_CHARACTERS: Final = 1024 * 1024  # of a value as JSON; a message of the stream has at most 3 MiB
MAX_OUTPUT_VALUES: Final = 100_000
_FRACTION, _DIGIT = 40, 4  # steps that a comparison takes for a fraction or a long integer, and for each of its digits
_SMALL_BITS, _EXACT_BITS = 64, 53  # of integers: those without such steps, and those that a float has exactly
_EXACT_DIGITS = 15  # of a fraction that differs from others as a float, too, unless it is beyond these
_LEAST_FLOAT, _MOST_FLOAT = 1e-290, 1e290


class TooLarge(ValueError):
    """A value exceeds a bound; the text says which."""


@dataclass(slots=True)
class Size:
    """The size of a JSON value, level by level: the root is level 0.

    Attributes:
        values: The number of values at each level.
        text: The characters of strings, and of the names of members, at each level.
        names: The number of members in all.
        numbers: The number of numbers, arrays and objects at each level.
        number_weights: The sum of the numbers' `number_weight` at each level.
        heaviest: The highest of them.
        inexact: The number of numbers that may be the same as floats, and are not.
    """

    values: list[int] = field(default_factory=list)
    text: list[int] = field(default_factory=list)
    names: int = 0
    numbers: list[int] = field(default_factory=list)
    number_weights: list[int] = field(default_factory=list)
    heaviest: int = 0
    inexact: int = 0

    def inside(self) -> "Size":
        """Return the size of the only member."""
        levels = (self.values, self.text, self.numbers, self.number_weights)
        values, text, numbers, weights = (each[1:] for each in levels)
        return Size(values, text, self.names - 1, numbers, weights, self.heaviest, self.inexact)


def measure(value: Any, *, max_values: int) -> Size:
    """Return the size of a parsed value.

    Raises:
        TooLarge: It is too deep, has too many values, or a number that is too long.
    """
    size, total, names = Size(), 0, 0
    level = [value]
    while level:
        total += len(level)
        if total + size.names > max_values:
            raise TooLarge(f"must have at most {max_values:,} values and members")
        if len(size.values) == MAX_DEPTH:
            raise TooLarge(f"must be nested at most {MAX_DEPTH} deep")
        text, below, names = names, list[Any](), 0  # a member's name counts at the level of its value
        numbers = weights = 0
        for each in level:
            if isinstance(each, str):
                text += len(each)
                continue
            numbers += 1
            if isinstance(each, dict):
                below += each.values()
                size.names += len(each)
                names += sum(map(len, each))
            elif isinstance(each, list):
                below += each
            elif each is not None:
                _check_number(each)
                if weight := number_weight(each):
                    weights += weight
                    size.heaviest = max(size.heaviest, weight)
                size.inexact += _is_inexact(each)
        size.values.append(len(level))
        size.text.append(text)
        size.numbers.append(numbers)
        size.number_weights.append(weights)
        level = below
    return size


def number_weight(value: Any) -> int:
    """Return the steps that a comparison takes for a number, whose size is bounded; 0 for a small one or none."""
    if isinstance(value, LiteralFloat):
        _, _, exponent = value.text.lower().partition("e")
        return _FRACTION + _DIGIT * (len(value.text) + abs(int(exponent or 0)))
    bits = value.bit_length() if isinstance(value, int) else 0
    return 0 if bits < _SMALL_BITS else _FRACTION + _DIGIT * bits // 3


def _is_inexact(value: Any) -> bool:
    """Return whether a number may be equal to another one as a float."""
    if isinstance(value, LiteralFloat):
        return len(value.text) > _EXACT_DIGITS or 0 < abs(value) < _LEAST_FLOAT or abs(value) > _MOST_FLOAT
    return bool(value.bit_length() > _EXACT_BITS)


def _check_number(value: Any) -> None:
    if isinstance(value, LiteralFloat):
        _, _, exponent = value.text.lower().partition("e")
        too_long = len(value.text) > MAX_NUMBER_CHARACTERS or abs(int(exponent or 0)) > MAX_EXPONENT
    else:
        too_long = isinstance(value, int) and value.bit_length() > 3 * MAX_NUMBER_CHARACTERS
    if too_long:
        raise TooLarge(
            f"must have no number of more than {MAX_NUMBER_CHARACTERS} characters, or with an exponent above"
            f" {MAX_EXPONENT}"
        )
