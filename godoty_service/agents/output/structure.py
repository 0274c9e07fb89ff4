"""The subschemas of a schema: which of them apply to the same place of a value, and which to the places below. Pure.

From this follows, before a value is there, what the check of a value takes at most at each of its levels. The validator
remembers what came of a recursive reference at a place, so that its target counts once there, however many ways lead to
it; other subschemas count as often as they apply.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from godoty_service.agents.output.limits import (
    MAX_DEPTH,
    MAX_IN_PLACE,
    MAX_PATTERN_CHARACTERS,
    MAX_PATTERNS,
    MAX_REFERENCES,
)
from godoty_service.agents.output.patterns import MAX_ALL_STATES, MAX_STATES, states
from godoty_service.agents.output.weight import DEPENDENCIES, NOTHING, Weight, own_weight

IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
IN_PLACE: Final = ("not", "if", "then", "else")
IN_PLACE_MAPS: Final = ("dependentSchemas", DEPENDENCIES)
BELOW: Final = (
    *("additionalProperties", "items", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
BELOW_NAMED: Final = "properties"
BELOW_PATTERNS: Final = "patternProperties"
BELOW_NUMBERED: Final = "prefixItems"
DEFINITIONS: Final = ("$defs", "definitions")
APART: Final = ("contentSchema",)  # applies to nothing by itself, and may have anchors
REFERENCES: Final = ("$ref", "$dynamicRef")
_INDEX: Final = re.compile("0|[1-9][0-9]{0,5}")  # the validator accepts leading zeros, too
_ROOT_ONLY: Final = ("$id", "$schema")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")
_UNEVALUATED: Final = ("unevaluatedItems", "unevaluatedProperties")
_MAX_UNEVALUATED: Final = 4  # of these that surround one another at one place
_UNEVALUATED_FACTOR: Final = 3  # by which each of them multiplies what its subschema takes
_MAX_COMBINED: Final = 20_000  # subschemas that apply in place, summed over all subschemas
_MAX_WORK: Final = 20_000  # subschemas that are looked at to weigh all levels: some 30 ms


@dataclass(slots=True)
class Subschema:
    """A subschema.

    Attributes:
        pointer: Its JSON pointer in the schema.
        own: What its own keywords take at a place.
        in_place: Subschemas that apply to the same place.
        below: Subschemas that apply to every place directly below.
        named: Subschemas that apply to one place directly below: a member, or an item by its index.
        names: The states of the patterns by which the names of members are matched.
        references: The references that lead to subschemas that apply to the same place.
        flat: It, and all subschemas that apply to the same place, each as often as it applies, but for `recursive`;
            empty: not computed.
        recursive: The targets of recursive references that apply to the same place.
        is_leaf: No subschema applies below.
        unevaluated: How many of the keywords that need all others first surround one another in them.
    """

    pointer: str
    own: Weight = NOTHING
    in_place: list["Subschema"] = field(default_factory=list)
    below: list["Subschema"] = field(default_factory=list)
    named: dict[str | int, "Subschema"] = field(default_factory=dict)
    names: int = 0
    references: list[str] = field(default_factory=list)
    flat: list["Subschema"] = field(default_factory=list)
    recursive: list["Subschema"] = field(default_factory=list)
    is_leaf: bool = False
    unevaluated: int = 0

    @property
    def is_reference(self) -> bool:
        """Whether it adds to the one subschema in it only what its own keywords take."""
        return len(self.in_place) == 1 and not (self.below or self.named or self.recursive)

    @property
    def factor(self) -> int:
        """By what these keywords multiply what it takes."""
        return int(_UNEVALUATED_FACTOR**self.unevaluated)


class Structure:
    """The subschemas of one schema.

    Attributes:
        root: The schema itself.
    """

    def __init__(self, schema: Any) -> None:
        """Find them.

        Args:
            schema: The parsed schema, whose depth is bounded.

        Raises:
            ValueError: A reference leads nowhere or out of the schema, a bound is exceeded, or a subschema applies to
                its own place again without end; the text says what must be.
        """
        self._schema = schema
        self._known: dict[str, Subschema] = {}
        self._anchors: dict[str, Subschema] = {}
        self._patterns = 0
        self._states_in_all = 0
        self._references = 0
        self.root = self._add(schema, "")
        self._resolve()
        self._combined = 0
        self._checked: set[int] = set()
        for each in self._known.values():
            self._check_in_place(each, ())
        self._back, self._recursive = _back_references(self.root)
        for each in self._known.values():
            self._flatten(each)
        self._weights: dict[tuple[int, int], Weight] = {}
        self._work = 0

    def weights(self) -> list[Weight]:
        """Return what the check of a value takes at most at one place of each level, the root first.

        Raises:
            ValueError: The schema is too complex.
        """
        recursive = NOTHING
        for each in self._recursive:
            for weight in self._levels(each):
                recursive = recursive.plus(weight)
        found = list(self._levels(self.root))
        if recursive == NOTHING:
            return found
        return [weight.plus(recursive) for weight in [*found, *[NOTHING] * (MAX_DEPTH - len(found))]]

    def _levels(self, subschema: Subschema) -> Iterator[Weight]:
        """Yield what a subschema takes at one place of each level below where it applies."""
        for level in range(MAX_DEPTH):
            if (weight := self._weight(subschema, level)) == NOTHING:
                return
            yield weight

    def _add(self, schema: Any, pointer: str) -> Subschema:
        """Add a subschema with those inside it."""
        if pointer in self._known:
            return self._known[pointer]
        found = self._known[pointer] = Subschema(pointer)
        if isinstance(schema, bool):
            found.own = Weight(1, 0, 1)
            return found
        if not isinstance(schema, dict):
            raise ValueError(f"must have an object or a boolean at {_place(pointer)}")  # noqa: TRY004 - a caller's fault
        if pointer and any(name in schema for name in _ROOT_ONLY):
            raise ValueError(f"must have $id and $schema at its root only, not at {_place(pointer)}")
        found.own = own_weight(schema, states=self._states(schema.get("pattern"), pointer))
        found.unevaluated = int(any(name in schema for name in _UNEVALUATED))
        for place, inner in _subschemas(schema):
            self._connect(found, place, self._add(inner, f"{pointer}/{'/'.join(map(_escaped, place))}"))
        for name in REFERENCES:
            if isinstance(schema.get(name), str):
                found.references.append(schema[name])
        for name in _ANCHORS:
            if isinstance(schema.get(name), str):
                self._add_anchor(schema[name], found)
        return found

    def _add_anchor(self, name: str, subschema: Subschema) -> None:
        if self._anchors.setdefault(name, subschema) is not subschema:
            raise ValueError(f"must have each anchor once, not {name[:100]!r} again at {_place(subschema.pointer)}")

    def _connect(self, outer: Subschema, place: tuple[str, ...], inner: Subschema) -> None:
        keyword = place[0]
        if keyword in (*IN_PLACE_LISTS, *IN_PLACE, *IN_PLACE_MAPS):
            outer.in_place.append(inner)
        elif keyword == BELOW_NAMED:
            outer.named[place[1]] = inner
        elif keyword == BELOW_NUMBERED:
            outer.named[int(place[1])] = inner
        elif keyword == BELOW_PATTERNS:
            outer.names += self._states(place[1], inner.pointer)
            outer.below.append(inner)
        elif keyword in BELOW:
            outer.below.append(inner)

    def _states(self, pattern: Any, pointer: str) -> int:
        """Return the states of a pattern; 0 if it is none."""
        if not isinstance(pattern, str):
            return 0
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise ValueError(f"must have at most {MAX_PATTERNS} patterns")
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise ValueError(f"must have patterns of at most {MAX_PATTERN_CHARACTERS} characters: {_place(pointer)}")
        count = states(pattern)
        self._states_in_all += count
        if count > MAX_STATES or self._states_in_all > MAX_ALL_STATES:
            raise ValueError(f"must have simpler patterns, or fewer repetitions in them, at {_place(pointer)}")
        return count

    def _resolve(self) -> None:
        """Connect the subschemas that refer to others with these."""
        waiting = list(self._known.values())
        while waiting:
            before = len(self._known)
            for each in waiting:
                for reference in each.references:
                    self._references += 1
                    if self._references > MAX_REFERENCES:
                        raise ValueError(f"must have at most {MAX_REFERENCES} references")
                    each.in_place.append(self._target(reference))
            waiting = list(self._known.values())[before:]  # a reference may lead to what no keyword leads to

    def _target(self, reference: str) -> Subschema:
        if not reference.startswith("#"):
            raise ValueError(f"must refer to itself only, by # and a place in it, not to {reference[:100]!r}")
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise ValueError(f"refers to {reference[:100]!r}, which is not there")
            return self._anchors[fragment]
        if fragment in self._known:
            return self._known[fragment]
        target: Any = self._schema
        pointer = ""  # the one under which the target is known: a reference may write it in other ways
        for part in fragment.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and _INDEX.fullmatch(name) and int(name) < len(target):
                target = target[int(name)]
            else:
                raise ValueError(f"refers to {reference[:100]!r}, which is not there")
            pointer += f"/{_escaped(name)}"
        return self._add(target, pointer)

    def _check_in_place(self, subschema: Subschema, path: tuple[int, ...]) -> None:
        """Check that a subschema does not apply to its own place again.

        Args:
            subschema: The subschema.
            path: The identities of those through which it applies to the place.
        """
        if id(subschema) in self._checked:
            return
        if id(subschema) in path:
            raise ValueError(f"must not apply {_place(subschema.pointer)} to the same place again without end")
        if len(path) >= MAX_IN_PLACE:
            raise _too_many_in_place()
        for each in subschema.in_place:
            self._check_in_place(each, (*path, id(subschema)))
        self._checked.add(id(subschema))

    def _flatten(self, subschema: Subschema) -> None:
        """Compute what applies to the same place as a subschema."""
        if subschema.flat:
            return
        flat = [subschema]
        for each in subschema.in_place:
            if (id(subschema), id(each)) in self._back:
                subschema.recursive.append(each)
                continue
            self._flatten(each)
            flat += each.flat
            subschema.recursive += each.recursive
            if len(flat) + len(subschema.recursive) > MAX_IN_PLACE:
                raise _too_many_in_place()
        subschema.unevaluated += max((each.unevaluated for each in subschema.in_place), default=0)
        if subschema.unevaluated > _MAX_UNEVALUATED:
            raise ValueError(f"must have at most {_MAX_UNEVALUATED} unevaluated… keywords inside one another")
        self._combined += len(flat)
        if self._combined > _MAX_COMBINED:
            raise _too_many_in_place()
        subschema.flat = flat
        subschema.is_leaf = not any(each.below or each.named for each in flat)

    def _weight(self, subschema: Subschema, level: int) -> Weight:
        """Return what a subschema takes at most at one place, a number of levels below where it applies."""
        if level and subschema.is_leaf:
            return NOTHING
        key = (id(subschema), level)
        if (known := self._weights.get(key)) is not None:
            return known
        if subschema.is_reference:  # one of many, perhaps, to the same subschema
            found = self._weight(subschema.in_place[0], level).plus(subschema.own if level == 0 else NOTHING)
            self._weights[key] = found
            return found
        found = self._weight_here(subschema) if level == 0 else self._weight_below(subschema, level)
        found = self._weights[key] = found.times(subschema.factor) if subschema.factor > 1 else found
        return found

    def _weight_here(self, subschema: Subschema) -> Weight:
        found = NOTHING
        for each in subschema.flat:
            self._count(1 + len(each.below) + len(each.named))
            found = found.plus(each.own)
        return found

    def _weight_below(self, subschema: Subschema, level: int) -> Weight:
        everywhere, named = NOTHING, dict[str | int, Weight]()
        for each in subschema.flat:
            self._count(1 + len(each.below) + len(each.named))
            if level == 1:
                everywhere = everywhere.plus(Weight(0, each.names, 0))
            for inner in each.below:
                if (weight := self._weight(inner, level - 1)) is not NOTHING:
                    everywhere = everywhere.plus(weight)
            for name, inner in each.named.items():
                if (weight := self._weight(inner, level - 1)) is not NOTHING:
                    named[name] = named[name].plus(weight) if name in named else weight
        highest = NOTHING
        for weight in named.values():
            highest = highest.most(weight)
        return everywhere.plus(highest)

    def _count(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise ValueError("must be simpler: its subschemas refer to one another in too many ways")


def _subschemas(schema: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the subschemas directly inside a schema, each with its place in it."""
    for keyword, value in schema.items():
        if keyword in (*IN_PLACE, *BELOW, *APART):
            yield (keyword,), value
        elif keyword in (*IN_PLACE_LISTS, BELOW_NUMBERED) and isinstance(value, list):
            for index, each in enumerate(value):
                yield (keyword, str(index)), each
        elif keyword in (*IN_PLACE_MAPS, BELOW_NAMED, BELOW_PATTERNS, *DEFINITIONS) and isinstance(value, dict):
            for name, each in value.items():
                if keyword != DEPENDENCIES or not isinstance(each, list):
                    yield (keyword, name), each


def _back_references(root: Subschema) -> tuple[set[tuple[int, int]], list[Subschema]]:
    """Return the references that lead to a subschema from inside it, by identities, and these subschemas."""
    back, targets = set[tuple[int, int]](), dict[int, Subschema]()
    open_ones, done = set[int](), set[int]()
    stack = [(root, iter([*root.in_place, *root.named.values(), *root.below]))]
    open_ones.add(id(root))
    while stack:
        subschema, inner = stack[-1]
        each = next(inner, None)
        if each is None:
            stack.pop()
            open_ones.discard(id(subschema))
            done.add(id(subschema))
        elif id(each) in open_ones:
            back.add((id(subschema), id(each)))
            targets[id(each)] = each
        elif id(each) not in done:
            open_ones.add(id(each))
            stack.append((each, iter([*each.in_place, *each.named.values(), *each.below])))
    return back, list(targets.values())


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _place(pointer: str) -> str:
    return f"#{pointer}"[:100]


def _too_many_in_place() -> ValueError:
    return ValueError(f"must have at most {MAX_IN_PLACE} subschemas that apply to one place of a value")
