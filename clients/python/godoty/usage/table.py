"""Tables with bars, in as many columns as the terminal has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from godoty.usage import amounts

OPEN = "+"

_GAP = "  "
_LEAST_BAR, _MOST_BAR = 8, 60
_LEAST_LABEL = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BARS = Context(prec=20)


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        labels: What its entries have in common.
        cost_usd: Their cost. None: unknown.
        calls: Their model calls.
        input_tokens: Tokens of the prompts. None: unknown.
        output_tokens: Tokens of the answers. None: unknown.
        turns: The turns.
        open_calls: Calls whose cost is not in `cost_usd`.
    """

    labels: tuple[str, ...]
    cost_usd: Decimal | None
    calls: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    turns: int = 0
    open_calls: int = 0

    def plus(self, other: Line) -> Line:
        """Return a line with the sums of both."""
        return Line(
            self.labels,
            _sum(self.cost_usd, other.cost_usd),
            self.calls + other.calls,
            _count(self.input_tokens, other.input_tokens),
            _count(self.output_tokens, other.output_tokens),
            self.turns + other.turns,
            self.open_calls + other.open_calls,
        )


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        texts: Its lines.
        rounded: Whether one of its amounts is marked as rounded.
    """

    texts: list[str]
    rounded: bool


def table(groups: Sequence[str], lines: Sequence[Line], total: Line, *, width: int, blocks: bool) -> Table:
    """Return a table: a heading, the lines with a bar each, and the total.

    Columns of numbers are left out, and labels and bars cut, as far as the width demands.

    Args:
        groups: The headings of the labels.
        lines: The lines.
        total: The last line.
        width: The columns of the terminal.
        blocks: Bars may be of block characters; else they are of "#".
    """
    everything = (*lines, total)
    costs = _cost_column(everything, width)
    labels, left = _label_columns(groups, everything, width - len(costs[0]))
    columns = [*labels, costs]
    for heading, texts in _counts(everything):
        column = _aligned((heading, *texts))
        if left - len(column[0]) - len(_GAP) >= _LEAST_BAR + len(_GAP):
            columns.append(column)
            left -= len(column[0]) + len(_GAP)
    bar = min(left - len(_GAP), _MOST_BAR)
    bars = ["", *bars_of([line.cost_usd for line in lines], bar, blocks=blocks), ""] if bar >= _LEAST_BAR else []
    texts = [
        _GAP.join([column[number] for column in columns] + ([bars[number]] if bars else [])).rstrip()
        for number in range(len(everything) + 1)
    ]
    return Table(texts, rounded=any(map(amounts.is_marked, costs)))


def bars_of(costs: Sequence[Decimal | None], width: int, *, blocks: bool) -> list[str]:
    """Return a bar for each amount; the largest one is as long as `width`, and any above 0 can be seen."""
    peak = max((each for each in costs if each is not None), default=Decimal(0))
    return [_bar(each, peak, width, blocks=blocks) for each in costs]


def shown(text: str) -> str:
    """Return a text as one line that cannot control the terminal."""
    return "".join(character if character.isprintable() else "·" for character in text)


def cut(text: str, width: int) -> str:
    """Return a text in exactly as many columns: what is too long lacks its middle, as names often differ at the end."""
    if (missing := width - columns_of(text)) >= 0:
        return text + " " * missing
    first = _head(text, (width - 1) // 2)
    last = _head(text[::-1], width - 1 - columns_of(first))[::-1]
    return f"{first}…{last}" + " " * (width - 1 - columns_of(first) - columns_of(last))


def columns_of(text: str) -> int:
    """Return the number of columns of a text in a terminal."""
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _head(text: str, width: int) -> str:
    """Return as much of the beginning as fits."""
    used = 0
    for place, character in enumerate(text):
        used += _columns_of(character)
        if used > width:
            return text[:place]
    return text


def _label_columns(groups: Sequence[str], lines: Sequence[Line], width: int) -> tuple[list[list[str]], int]:
    """Return the columns of the labels with their headings, and the width that they leave."""
    columns = [
        [heading, *(line.labels[place] if place < len(line.labels) else "" for line in lines)]
        for place, heading in enumerate(groups)
    ]
    widths = [max(columns_of(text) for text in column) for column in columns]
    gaps = len(_GAP) * len(columns)
    for space in (width - gaps - len(_GAP) - _LEAST_BAR, width - gaps):
        if sum(min(each, _LEAST_LABEL) for each in widths) <= space:
            break
    while sum(widths) > max(space, len(widths)):
        widths[widths.index(max(widths))] -= 1
    texts = [[cut(text, each) for text in column] for column, each in zip(columns, widths, strict=True)]
    return texts, width - gaps - sum(widths)


def _cost_column(lines: Sequence[Line], width: int) -> list[str]:
    """Return the column of the costs with its heading; half of the table at most, unless a whole number needs more."""
    texts = amounts.column([line.cost_usd for line in lines], min(max(width // 4, 12), 32))
    if any(line.open_calls for line in lines):
        texts = [text + (OPEN if line.open_calls else " ") for text, line in zip(texts, lines, strict=True)]
    return _aligned(("cost USD", *texts))


def _counts(lines: Sequence[Line]) -> Iterator[tuple[str, list[str]]]:
    """Yield the other columns, the most wanted first."""
    yield "calls", [f"{line.calls:,}" for line in lines]
    yield "input", [_number(line.input_tokens) for line in lines]
    yield "output", [_number(line.output_tokens) for line in lines]
    yield "turns", [f"{line.turns:,}" for line in lines]


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _aligned(texts: Sequence[str]) -> list[str]:
    width = max(len(text) for text in texts)
    return [text.rjust(width) for text in texts]


def _bar(cost: Decimal | None, peak: Decimal, width: int, *, blocks: bool) -> str:
    if cost is None or cost <= 0:
        return ""
    share = _BARS.divide(cost, peak)
    if not blocks:
        return "#" * max(int(_BARS.multiply(share, Decimal(width))), 1)
    whole, eighths = divmod(max(int(_BARS.multiply(share, Decimal(width * 8))), 1), 8)
    return "█" * whole + (_EIGHTHS[eighths] if eighths else "")


def _sum(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else amounts.add(first, second)


def _count(first: int | None, second: int | None) -> int | None:
    """Return the sum of what is known."""
    return first if second is None else second if first is None else first + second
