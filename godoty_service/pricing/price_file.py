"""The operator's own prices, of `GODOTY_PRICE_FILE`: for models that the upstream lists without prices, or not at all.

A TOML file of `[[prices]]` tables, described in docs/accounting.md. A price applies from its time on: a call that
started before a change keeps its price.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from godoty_service.pricing.price_overrides import listed_price
from godoty_service.pricing.unit_prices import UnitPrices

_MAX_BYTES = 1024 * 1024
_MAX_RULES = 1_000
_MAX_PATTERN = 256  # characters
_REQUIRED = {"prompt": "prompt", "completion": "completion"}
_OPTIONAL = {"cache_read": "input_cache_read", "cache_write": "input_cache_write", "request": "request"}
_PRICES = _REQUIRED | _OPTIONAL  # the listing's keys, by the file's
_KEYS = frozenset({"models", "from", *_PRICES})
_PRICE_RULE = 'must be US dollars as a decimal of at most 25 places, such as "0.0000002"; "0" is free'


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """The prices of the models that match a pattern, from a time on; `*` stands for any characters."""

    pattern: str
    start: datetime
    prices: UnitPrices

    @property
    def rank(self) -> tuple[int, datetime]:
        """The order of rules that match: a name before patterns, then the longer pattern, then the later start."""
        literal = len(self.pattern.replace("*", ""))
        return literal + (_MAX_PATTERN if "*" not in self.pattern else 0), self.start

    def matches(self, model: str) -> bool:
        """Return whether the pattern matches a model; only `*` has a meaning of its own."""
        return fnmatchcase(model, self.pattern.replace("[", "[[]").replace("?", "[?]"))


@dataclass(frozen=True, slots=True)
class PriceRules:
    """All rules of a file, in its order."""

    rules: tuple[PriceRule, ...] = ()

    def __len__(self) -> int:
        return len(self.rules)

    def find(self, model: str, *, at: datetime) -> UnitPrices | None:
        """Return the prices of a model at a time; None: the file has none. Of equal rules the last one applies."""
        found: PriceRule | None = None
        for rule in self.rules:
            applies = rule.start <= at and (found is None or rule.rank >= found.rank)
            if applies and rule.matches(model):
                found = rule
        return found.prices if found is not None else None

    def to_document(self) -> list[dict[str, Any]]:
        """Encode the rules as they are stored with a catalogue."""
        return [
            {"pattern": rule.pattern, "start": rule.start.isoformat(), "prices": rule.prices.to_document()}
            for rule in self.rules
        ]

    @classmethod
    def from_document(cls, document: Sequence[Mapping[str, Any]]) -> "PriceRules":
        """Decode rules from `to_document`."""
        return cls(
            tuple(
                PriceRule(
                    pattern=each["pattern"],
                    start=datetime.fromisoformat(each["start"]),
                    prices=UnitPrices.from_document(each["prices"]),
                )
                for each in document
            )
        )


def load_price_file(path: Path) -> PriceRules:
    """Read a price file.

    Raises:
        ValueError: It cannot be read, or a line of it is wrong; the text names the place.
    """
    try:
        return PriceRules(tuple(_rules(_document(path))))
    except (OSError, ValueError) as error:  # a TOMLDecodeError names line and column
        raise ValueError(f"GODOTY_PRICE_FILE {path}: {getattr(error, 'strerror', None) or error}") from error


def _document(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        body = file.read(_MAX_BYTES + 1)
    if len(body) > _MAX_BYTES:
        raise ValueError(f"must have at most {_MAX_BYTES} bytes")
    return tomllib.loads(body.decode(), parse_float=Decimal)  # a price without quotes is exact, too


def _rules(document: Mapping[str, Any]) -> Iterator[PriceRule]:
    tables = document.get("prices")
    if set(document) != {"prices"} or not isinstance(tables, list) or not tables:
        raise ValueError("must have [[prices]] tables, and nothing else")
    count = 0
    for number, table in enumerate(tables, 1):
        for rule in _table_rules(table, f"prices[{number}]"):
            count += 1
            if count > _MAX_RULES:
                raise ValueError(f"must have at most {_MAX_RULES} patterns")
            yield rule


def _table_rules(table: Any, place: str) -> Iterator[PriceRule]:
    if not isinstance(table, Mapping):
        raise ValueError(f"{place}: must be a table")  # noqa: TRY004 - every error of a file is a ValueError
    if unknown := sorted(set(table) - _KEYS):
        raise ValueError(f"{place}.{unknown[0]}: unknown; known are {', '.join(sorted(_KEYS))}")
    start = _start(table.get("from"), place)
    prices = UnitPrices.from_listing(dict(_read_prices(table, place)))
    for pattern in _patterns(table.get("models"), place):
        yield PriceRule(pattern=pattern, start=start, prices=prices)


def _patterns(value: Any, place: str) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns or not all(map(_is_pattern, patterns)):
        raise ValueError(f'{place}.models: must be names of models or patterns with *, such as ["llama-*"]')
    return list(patterns)


def _is_pattern(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_PATTERN


def _start(value: Any, place: str) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError(f"{place}.from: must be a day or a time with an offset, such as 2026-11-01T00:00:00Z")


def _read_prices(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    for key, name in _PRICES.items():
        value = table.get(key)
        if value is None and key in _OPTIONAL:
            continue
        price = listed_price(value) if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool) else None
        if price is None:
            raise ValueError(f"{place}.{key}: {_PRICE_RULE}")
        yield name, str(price)
