"""What the keywords of one subschema take at one place of a value. Pure."""

from typing import Any, Final, NamedTuple

DEPENDENCIES: Final = "dependencies"  # of earlier drafts: the validator still applies it
_NUMBER_KEYWORDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class Weight(NamedTuple):
    """What checks at one place of a value take at most.

    Attributes:
        steps: Checks of keywords: some 20 ns each.
        states: States of regular expressions, for each character.
        subschemas: Subschemas that apply.
        numbers: Numbers that a number at the place, or inside it, is compared with; beside a step, each comparison
            takes what `number_weight` says of either.
        unique: Keywords that compare all items of an array with one another.
    """

    steps: int
    states: int
    subschemas: int
    numbers: int = 0
    unique: int = 0

    def plus(self, other: "Weight") -> "Weight":
        """Return the sum."""
        a, b, c, d, e = self
        f, g, h, i, j = other
        return Weight(a + f, b + g, c + h, d + i, e + j)

    def most(self, other: "Weight") -> "Weight":
        """Return the higher of each."""
        return Weight(*map(max, self, other))

    def times(self, factor: int) -> "Weight":
        """Return a multiple."""
        return Weight(*(each * factor for each in self))


NOTHING: Final = Weight(0, 0, 0)


def own_weight(schema: dict[str, Any], *, states: int) -> Weight:
    """Return what a subschema's own keywords take.

    Args:
        schema: The subschema.
        states: Those of its pattern.
    """
    compared = [schema.get("const"), *_list(schema, "enum")]
    values, numbers = _count(compared)
    numbers += sum(name in schema for name in _NUMBER_KEYWORDS)
    names = [schema.get("required"), schema.get("properties")]
    for keyword in ("dependentRequired", DEPENDENCIES):
        dependent = schema.get(keyword)
        names += (each for each in dependent.values() if isinstance(each, list)) if isinstance(dependent, dict) else ()
    steps = values + sum(len(each) for each in names if isinstance(each, (list, dict)))
    return Weight(steps, states, 1, numbers, int(schema.get("uniqueItems") is True))


def _count(values: list[Any]) -> tuple[int, int]:
    """Return how many values there are, with those inside them, and how many of them are numbers."""
    total, numbers, waiting = 0, 0, [*values]
    while waiting:
        each = waiting.pop()
        total += 1
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif not isinstance(each, str) and each is not None:
            numbers += 1
    return total, numbers


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []
