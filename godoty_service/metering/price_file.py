"""The operator's own prices, from `GODOTY_PRICE_FILE`: for models that the upstream lists without any, or not at all.

A TOML file of `[[prices]]` tables; docs/accounting.md describes it. A price holds from its time on, so a call that
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

from godoty_service.metering.price_overrides import listed_price
from godoty_service.metering.prices import UnitPrices

_LARGEST = 1024 * 1024  # bytes
_MOST_RULES = 1_000
_LONGEST_PATTERN = 256
_REQUIRED = {"prompt": "prompt", "completion": "completion"}
_OPTIONAL = {"cache_read": "input_cache_read", "cache_write": "input_cache_write", "request": "request"}
_PRICES = _REQUIRED | _OPTIONAL  # by the file's keys, those of a listing
_KEYS = frozenset({"models", "from", *_PRICES})
_PRICE_RULE = 'must be US dollars as a decimal of at most 25 places, such as "0.0000002"; "0" is free'


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """The prices of the models that a pattern matches, from a time on; `*` stands for any characters."""

    pattern: str
    start: datetime
    prices: UnitPrices

    @property
    def rank(self) -> tuple[int, datetime]:
        """What decides between rules that match: the longer pattern, then the later start."""
        literal = len(self.pattern.replace("*", ""))
        return literal + (_LONGEST_PATTERN if "*" not in self.pattern else 0), self.start


@dataclass(frozen=True, slots=True)
class PriceRules:
    """All rules of a file, in its order."""

    rules: tuple[PriceRule, ...] = ()

    def __len__(self) -> int:
        return len(self.rules)

    def find(self, model: str, *, at: datetime) -> UnitPrices | None:
        """Return the prices of a model at a time; None: the file has none for it. Of equal rules the last counts."""
        found: PriceRule | None = None
        for rule in self.rules:
            holds = rule.start <= at and fnmatchcase(model, rule.pattern)
            if holds and (found is None or rule.rank >= found.rank):
                found = rule
        return found.prices if found is not None else None

    def to_document(self) -> list[dict[str, Any]]:
        """Return the rules as they are stored with a catalogue."""
        return [
            {"pattern": rule.pattern, "start": rule.start.isoformat(), "prices": rule.prices.to_document()}
            for rule in self.rules
        ]

    @classmethod
    def from_document(cls, document: Sequence[Mapping[str, Any]]) -> "PriceRules":
        """Read what `to_document` wrote."""
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
        body = file.read(_LARGEST + 1)
    if len(body) > _LARGEST:
        raise ValueError(f"must have at most {_LARGEST} bytes")
    return tomllib.loads(body.decode(), parse_float=Decimal)  # a price is exact also where it is written without quotes


def _rules(document: Mapping[str, Any]) -> Iterator[PriceRule]:
    tables = document.get("prices")
    if set(document) != {"prices"} or not isinstance(tables, list) or not tables:
        raise ValueError("must have [[prices]] tables, and nothing else")
    made = 0
    for number, table in enumerate(tables, 1):
        for rule in _table_rules(table, f"prices[{number}]"):
            made += 1
            if made > _MOST_RULES:
                raise ValueError(f"must have at most {_MOST_RULES} patterns")
            yield rule


def _table_rules(table: Any, place: str) -> Iterator[PriceRule]:
    if not isinstance(table, Mapping):
        raise ValueError(f"{place}: must be a table")  # noqa: TRY004 - all that is wrong with a file is a ValueError
    if unknown := sorted(set(table) - _KEYS):
        raise ValueError(f"{place}.{unknown[0]}: unknown; known are {', '.join(sorted(_KEYS))}")
    start = _start(table.get("from"), place)
    prices = UnitPrices.from_listing(dict(_read_prices(table, place)))
    for pattern in _patterns(table.get("models"), place):
        yield PriceRule(pattern=pattern, start=start, prices=prices)


def _patterns(value: Any, place: str) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    texts = isinstance(patterns, list) and patterns and all(isinstance(each, str) for each in patterns)
    if not texts or not all(0 < len(each) <= _LONGEST_PATTERN for each in patterns):
        raise ValueError(f'{place}.models: must be names of models or patterns with *, such as ["llama-*"]')
    return list(patterns)


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
