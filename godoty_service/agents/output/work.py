"""What the check of one value takes: estimated by the levels of the schema, or counted place by place. Pure."""

from typing import Any, Final

from godoty_service.agents.output.limits import Size
from godoty_service.agents.output.structure import Subschema, Weight

MAX_STEPS: Final = 1_000_000  # 20 ms
MAX_MATCHED: Final = 1_000_000  # characters times states of the patterns that they are matched with: 40 ms
_MAX_EXPLAINED: Final = 20_000  # values that errors may refer to: 30 ms
_MAX_COUNTED: Final = 200_000  # subschemas at places of the value that are looked at
_CHARACTERS: Final = 16  # of text that weigh as much as a value

Applied = list[tuple[Subschema, int]]  # subschemas that apply to a place, each with the factor of what surrounds it


def is_bounded(root: Subschema, weights: tuple[Weight, ...], value: Any, size: Size) -> bool:
    """Return whether the check of a value takes at most some tens of milliseconds.

    Args:
        root: The schema.
        weights: What a check takes at most at one place of each level.
        value: The value.
        size: Its size.
    """
    levels = list(zip(weights, size.values, size.text, strict=False))
    steps = sum(weight.steps * values for weight, values, _ in levels)
    matched = sum(weight.states * text for weight, _, text in levels)
    return (steps <= MAX_STEPS and matched <= MAX_MATCHED) or _Count().bounded(root, value)


def is_explained(weights: tuple[Weight, ...], size: Size) -> bool:
    """Return whether the errors of a value can be collected: each one copies the part of the value that it is about."""
    below = [values + text // _CHARACTERS for values, text in zip(size.values, size.text, strict=True)]
    return sum(weight.subschemas * sum(below[level:]) for level, weight in enumerate(weights)) <= _MAX_EXPLAINED


class _Count:
    """Counts what a check takes, without the alternatives that the estimate has for one place."""

    def __init__(self) -> None:
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
            elif isinstance(place, dict):
                self._add_members(place, flat, places)
            elif isinstance(place, list):
                below: Applied = [(inner, factor) for each, factor in flat for inner in each.below]
                for index, item in enumerate(place):
                    places.append((item, [*below, *_named(flat, index)]))
                    self._counted += len(flat)
        return max(self._steps, self._matched) <= MAX_STEPS

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
