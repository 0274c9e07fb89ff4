"""What the check of one value takes: estimated by the levels of the schema, or counted place by place. Pure."""

from typing import Any, Final

from godoty_service.agents.output.limits import MAX_OUTPUT_VALUES, Size, measure, number_weight
from godoty_service.agents.output.structure import Subschema
from godoty_service.agents.output.weight import Weight

MAX_STEPS: Final = 1_000_000  # 20 ms
MAX_MATCHED: Final = 1_000_000  # characters times states of the patterns that they are matched with: 40 ms
_MAX_EXPLAINED: Final = 20_000  # values that errors may refer to: 30 ms
_MAX_COUNTED: Final = 200_000  # subschemas at places of the value that are looked at
_CHARACTERS: Final = 16  # of text that weigh as much as a value
_UNIQUE_STEPS: Final = 16  # for each value inside an array of unique items
_PAIRED: Final = 15  # items of such an array that are compared one by one; of more, the hashes are compared
_INEXACT_STEPS: Final = 20  # for each pair of numbers inside it that may be the same as floats

Applied = list[tuple[Subschema, int]]  # subschemas that apply to a place, each with the factor of what surrounds it


def is_bounded(
    root: Subschema, weights: tuple[Weight, ...], value: Any, size: Size, *, heaviest_number: int = 0
) -> bool:
    """Return whether the check of a value takes at most some tens of milliseconds.

    Args:
        root: The schema.
        weights: What a check takes at most at one place of each level.
        value: The value.
        size: Its size.
        heaviest_number: The highest `number_weight` in the schema.
    """
    compared = heaviest_number + size.heaviest
    levels = list(zip(weights, size.values, size.text, size.numbers, strict=False))
    steps = sum(weight.steps * values + weight.numbers * numbers * compared for weight, values, _, numbers in levels)
    steps += sum(weight.unique * _unique_steps(size, level) for level, weight in enumerate(weights) if weight.unique)
    matched = sum(weight.states * text for weight, _, text, _ in levels)
    within = steps <= MAX_STEPS and matched <= MAX_MATCHED
    return within or _Count(heaviest_number, size.heaviest).bounded(root, value)


def _unique_steps(size: Size, level: int, items: int = _PAIRED) -> int:
    """Return the steps that it takes to compare all items of arrays at a level with one another."""
    values, numbers = sum(size.values[level + 1 :]), sum(size.number_weights[level + 1 :])
    comparisons = (_PAIRED + 1) // 2 if items <= _PAIRED else 1  # of each item
    return _UNIQUE_STEPS * values + comparisons * numbers + _INEXACT_STEPS * size.inexact**2


def is_explained(weights: tuple[Weight, ...], size: Size) -> bool:
    """Return whether the errors of a value can be collected: each one copies the part of the value that it is about."""
    below = [values + text // _CHARACTERS for values, text in zip(size.values, size.text, strict=True)]
    return sum(weight.subschemas * sum(below[level:]) for level, weight in enumerate(weights)) <= _MAX_EXPLAINED


class _Count:
    """Counts what a check takes, without the alternatives that the estimate has for one place."""

    def __init__(self, heaviest_number: int, heaviest_inside: int) -> None:
        """Begin.

        Args:
            heaviest_number: The highest `number_weight` in the schema.
            heaviest_inside: The highest in the value.
        """
        self._heaviest = heaviest_number
        self._inside = heaviest_inside
        self._steps = 0
        self._matched = 0
        self._counted = 0

    def bounded(self, root: Subschema, value: Any) -> bool:
        """Return whether it is bounded."""
        places: list[tuple[Any, Applied]] = [(value, [(root, 1)])]
        while places:
            if max(self._steps, self._matched) > MAX_STEPS or self._counted > _MAX_COUNTED:
                return False
            place, applied = places.pop()
            flat = _flat(applied)
            self._counted += 1 + len(flat)
            self._steps += sum(each.own.steps * factor for each, factor in flat)
            if isinstance(place, str):
                self._matched += len(place) * sum(each.own.states * factor for each, factor in flat)
                continue
            weight = self._inside if isinstance(place, (dict, list)) else number_weight(place)
            if numbers := sum(each.own.numbers * factor for each, factor in flat):
                self._steps += numbers * (self._heaviest + weight)
            if isinstance(place, dict):
                self._add_members(place, flat, places)
            elif isinstance(place, list):
                if unique := sum(each.own.unique * factor for each, factor in flat):
                    self._add_unique(place, unique)
                below: Applied = [(inner, factor) for each, factor in flat for inner in each.below]
                for index, item in enumerate(place):
                    places.append((item, [*below, *_named(flat, index)]))
                    self._counted += len(flat)
        return max(self._steps, self._matched) <= MAX_STEPS

    def _add_unique(self, place: list[Any], unique: int) -> None:
        size = measure(place, max_values=MAX_OUTPUT_VALUES)
        self._counted += sum(size.values)
        self._steps += unique * _unique_steps(size, 0, len(place))

    def _add_members(self, place: dict[str, Any], flat: Applied, places: list[tuple[Any, Applied]]) -> None:
        below: Applied = [(inner, factor) for each, factor in flat for inner in each.below]
        # Of the subschemas below, one may be for names.
        states = sum(each.names * factor for each, factor in flat)
        states += sum(each.own.states * factor for each, factor in _flat(below))
        for name, inner in place.items():
            self._matched += len(name) * states
            self._counted += len(flat)
            places.append((inner, [*below, *_named(flat, name)]))


def _flat(applied: Applied) -> Applied:
    """Return all subschemas that apply to a place; the targets of recursive references once."""
    flat: Applied = []
    known: set[int] = set()
    waiting = [*applied]
    while waiting:
        outer, factor = waiting.pop()
        flat += [(each, factor * outer.factor) for each in outer.flat]
        for each in outer.recursive:
            if id(each) not in known:
                known.add(id(each))
                waiting.append((each, 1))
    return flat


def _named(flat: Applied, name: str | int) -> Applied:
    return [(each.named[name], factor) for each, factor in flat if name in each.named]
