"""The tables of `godoty-usage`: exact amounts or marked ones, in any width."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from godoty.usage import amounts
from godoty.usage.table import Line, bars_of, columns_of, table
from hypothesis import given
from hypothesis import strategies as st

AMOUNTS = st.decimals(min_value=-(10**6), max_value=10**9, places=25) | st.decimals(
    min_value=0, max_value=1, places=9, allow_nan=False
)
LABELS = st.sampled_from(["2026-11-29", "anthropic/claude-haiku-4.5", "社内の利用者", "é" * 60, "none", "x"])


def lines_of(costs: list[Decimal]) -> list[Line]:
    """Return a line for each amount."""
    return [Line((f"model-{number}",), cost, calls=number) for number, cost in enumerate(costs)]


@given(st.lists(AMOUNTS | st.none(), min_size=1, max_size=8), st.integers(12, 40))
def test_amount_is_exact_or_marked(values: list[Decimal | None], most: int) -> None:
    """A text without a mark is the amount; one with a mark is nearer to it than half of its last decimal."""
    texts = amounts.column(values, most)

    assert len({len(text) for text in texts}) == 1
    assert len({text.index(".") for text in texts if "." in text}) <= 1
    for value, padded in zip(values, texts, strict=True):
        text = padded.strip()
        if value is None:
            assert text == "unknown"
        elif text.startswith(amounts.BELOW):
            assert 0 < abs(value) < Decimal(text[1:])
        elif text.startswith(amounts.ROUNDED):
            last = Decimal(1).scaleb(-len(text.partition(".")[2]))
            assert 0 < abs(Decimal(text[1:]) - value) <= last / 2
        else:
            assert Decimal(text) == value


def test_amounts_are_exact_where_they_fit() -> None:
    """The points are below one another, and no zeros are added."""
    assert amounts.column([Decimal("0.0000105"), Decimal("12.30"), Decimal(7)], 12) == [
        " 0.0000105",
        "12.3      ",
        " 7        ",
    ]
    assert [each.strip() for each in amounts.column([Decimal("0.123456789123"), Decimal("0.5")], 12)] == [
        "~0.123456789",
        "0.5",
    ]
    assert [each.strip() for each in amounts.column([Decimal("1E-12"), Decimal(3)], 8)] == ["<0.00001", "3"]


@given(
    st.lists(st.tuples(LABELS, LABELS, AMOUNTS, st.integers(0, 10**9)), min_size=1, max_size=5),
    st.integers(40, 200),
    st.booleans(),
)
def test_table_fits_its_terminal(rows: list[tuple[str, str, Decimal, int]], width: int, blocks: bool) -> None:  # noqa: FBT001 - drawn
    """No line is wider than the terminal."""
    lines = [Line((first, second), cost, calls=n, input_tokens=n, output_tokens=n) for first, second, cost, n in rows]
    printed = table(["day", "model"], lines, Line(("total",), Decimal(0)), width=width, blocks=blocks).texts

    assert len(printed) == len(lines) + 2
    assert all(columns_of(each) <= width for each in printed), printed


def test_wide_table_has_more_columns() -> None:
    """At 40 columns labels, costs and bars; at 120 also calls, tokens and turns."""
    lines = [Line(("anthropic/claude-haiku-4.5",), Decimal("0.25"), calls=3, input_tokens=1_234_567, turns=2)]
    lines.append(Line(("openai/gpt-4o-mini",), Decimal("0.125"), calls=1, output_tokens=9, turns=1, open_calls=1))
    total = replace(lines[0].plus(lines[1]), labels=("total",))

    narrow = table(["model"], lines, total, width=40, blocks=True).texts
    wide = table(["model"], lines, total, width=120, blocks=True).texts

    assert narrow[0].split() == ["model", "cost", "USD"]
    assert [each.rstrip("█") != each for each in narrow] == [False, True, True, False]
    assert wide[0].split() == ["model", "cost", "USD", "calls", "input", "output", "turns"]
    assert wide[2].split()[:3] == ["openai/gpt-4o-mini", "0.125+", "1"]
    assert wide[3].split() == ["total", "0.375+", "4", "1,234,567", "9", "3"]


def test_bars_are_in_proportion() -> None:
    """In eighths of a column; the smallest one can be seen, and what is 0 or below has none."""
    costs = [Decimal(8), Decimal(3), Decimal("0.0001"), Decimal(0), Decimal(-1), None]

    assert bars_of(costs, 4, blocks=True) == ["████", "█▌", "▏", "", "", ""]
    assert bars_of(costs, 8, blocks=False) == ["########", "###", "#", "", "", ""]
