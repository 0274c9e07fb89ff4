"""Results as rows, pandas data frames and Parquet files: usage and ledger entries above all.

Nested fields have dotted names, such as `totals.cost_usd`; the keys of a `UsageRow` are columns of their own. Amounts
are exact decimals: pandas' columns hold `Decimal`, Parquet's have 25 decimals.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import chain, islice
from os import PathLike
from typing import TYPE_CHECKING, Any

from godoty.types import UsageKey, UsageRow

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 10_000  # rows that are in memory at once
_DIGITS, _DECIMALS = 38, 25


def rows(items: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield each item as a flat dict with the same columns; nested lists remain lists."""
    for item in items:
        yield dict(_flat(item, type(item), ""))


def to_pandas(items: Iterable[Any]) -> pd.DataFrame:
    """Return a data frame with a row an item (`pip install 'godoty-client[pandas]'`)."""
    import pandas as pd  # noqa: PLC0415 - an extra

    return pd.DataFrame.from_records(list(rows(items)))


def to_parquet(items: Iterable[Any], path: str | PathLike[str]) -> int:
    """Write a Parquet file with a row an item, and return their number (`pip install 'godoty-client[parquet]'`).

    Raises:
        ValueError: There are no items, so that their columns are not known.
    """
    source = iter(items)
    first = next(source, None)
    if first is None:
        raise ValueError("there is nothing to write: the columns of a file are those of its first row")
    return write_parquet(rows(chain([first], source)), columns(type(first)), path)


def write_parquet(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any], path: str | PathLike[str]) -> int:
    """Write a Parquet file, a row group after the other, and return the number of its rows.

    Args:
        rows: The rows; those of one group are in memory at once.
        columns: The columns with their types: those of Python, or lists and classes of them, as `columns` returns them.
        path: The file.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    schema = pa.schema([(name, _arrow_type(hint, pa)) for name, hint in columns.items()])
    source, count = iter(rows), 0
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(source, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def columns(kind: type[Any]) -> dict[str, Any]:
    """Return the columns of a class's rows, with their types."""
    return dict(_columns(kind, ""))


def _columns(kind: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    if kind is UsageRow:
        yield from _columns(UsageKey, prefix)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = _bare(hints[field.name])
        if kind is UsageRow and field.name == "keys":
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _columns(hint, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hint


def _flat(item: Any, kind: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a value of a class; of None, each is None."""
    if kind is UsageRow:
        for field in dataclasses.fields(UsageKey):
            values = (getattr(key, field.name) for key in item.keys)
            yield field.name, next((value for value in values if value), None)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, value = _bare(hints[field.name]), getattr(item, field.name, None)
        if kind is UsageRow and field.name == "keys":
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _flat(value, hint, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dict(_flat(value, type(value), ""))
    return value


def _bare(hint: Any) -> Any:
    """Return a type without its "| None"."""
    if isinstance(hint, types.UnionType):
        return next(each for each in typing.get_args(hint) if each is not types.NoneType)
    return hint


def _arrow_type(hint: Any, pa: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        return pa.list_(_arrow_type(_bare(typing.get_args(hint)[0]), pa))
    if typing.get_origin(hint) is Mapping:
        return pa.map_(pa.string(), pa.string())
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return pa.struct([(name, _arrow_type(each, pa)) for name, each in columns(hint).items()])
    if issubclass(hint, StrEnum):
        return pa.string()
    return {
        Decimal: pa.decimal128(_DIGITS, _DECIMALS),
        datetime: pa.timestamp("us", tz="UTC"),
        date: pa.date32(),
        timedelta: pa.duration("us"),
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        bytes: pa.binary(),
        str: pa.string(),
    }[hint]
