"""The operator's price file: exact prices by model pattern and time, or one line that says what is wrong."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from godoty_service.pricing.price_file import PriceRules, load_price_file

JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
FREE = '[[prices]]\nmodels = "*"\nfrom = 2026-01-01\nprompt = "0"\ncompletion = "0"\n'


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    """A path for a price file."""
    return tmp_path / "prices.toml"


def _loaded(path: Path, text: str) -> PriceRules:
    path.write_text(text)
    return load_price_file(path)


def test_prices_are_read_exactly(price_file: Path) -> None:
    """With quotes or without, to the last decimal; a price that is not stated is unknown."""
    rules = _loaded(
        price_file,
        """
        [[prices]]
        models = ["llama-*", "qwen3"]
        from = 2026-01-01T01:00:00+01:00
        prompt = "0.0000000208333333333333"
        completion = 0.0000006
        cache_read = "0"
        request = 1
        """,
    )

    prices = rules.find("qwen3", at=JANUARY)
    assert prices is not None
    assert (prices.prompt, prices.completion) == (Decimal("0.0000000208333333333333"), Decimal("0.0000006"))
    assert (prices.input_cache_read, prices.request) == (Decimal(0), Decimal(1))
    assert prices.input_cache_write is None
    assert rules.find("llama-3.3-70b", at=MARCH) == prices
    assert rules.find("qwen3-30b", at=MARCH) is None


def test_price_applies_from_its_time_on(price_file: Path) -> None:
    """Before the first time there is none; each call has the newest one that had begun when it started."""
    later = FREE.replace('prompt = "0"', 'prompt = "2"').replace("2026-01-01", "2026-03-01")
    rules = _loaded(price_file, later + FREE)

    found = [rules.find("any", at=at) for at in (datetime(2025, 12, 31, tzinfo=UTC), JANUARY, FEBRUARY, MARCH)]
    assert [each and each.prompt for each in found] == [None, 0, 0, 2]


def test_most_specific_pattern_applies_in_any_order(price_file: Path) -> None:
    """A name before a pattern, a longer pattern before a shorter one, the time only between equal patterns."""
    tables = [
        FREE.replace('"*"', f'"{pattern}"').replace('prompt = "0"', f'prompt = "{price}"')
        for pattern, price in (("llama-3", 1), ("llama-*", 2), ("*", 3))
    ]
    newest = tables[2].replace("2026-01-01", "2026-02-01")
    for order in (tables, [newest, *reversed(tables)]):
        rules = _loaded(price_file, "".join(order))

        found = [rules.find(name, at=MARCH) for name in ("llama-3", "llama-30", "qwen")]
        assert [each and each.prompt for each in found] == [1, 2, 3]


def test_only_the_asterisk_is_special_in_a_pattern(price_file: Path) -> None:
    """Brackets and question marks are characters of a name."""
    rules = _loaded(price_file, FREE.replace('"*"', '["m[12]", "n?", "o*[x]"]'))

    names = ("m[12]", "m1", "n?", "n1", "o-1[x]", "ox")
    assert [rules.find(name, at=MARCH) is not None for name in names] == [True, False, True, False, True, False]


def test_rules_are_stored_and_read_back(price_file: Path) -> None:
    """The rules that are stored with a catalogue price later as the file did."""
    rules = _loaded(price_file, FREE + FREE.replace('"0"', '"0.0000001"').replace("2026-01-01", "2026-02-01"))

    assert PriceRules.from_document(rules.to_document()) == rules


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "must have [[prices]] tables, and nothing else"),
        ("prices = 1", "must have [[prices]] tables, and nothing else"),
        ("prices = [1]", "prices[1]: must be a table"),
        (FREE + "[other]", "must have [[prices]] tables, and nothing else"),
        (FREE + FREE.replace('"0"', "-1", 1), "prices[2].prompt: must be US dollars as a decimal"),
        (FREE.replace('completion = "0"', ""), "prices[1].completion: must be US dollars as a decimal"),
        (FREE.replace('"0"', f'"0.{"0" * 25}1"'), "prices[1].prompt: must be US dollars as a decimal"),
        (FREE.replace('"0"', '"1000001"'), "prices[1].prompt: must be US dollars as a decimal"),
        (FREE.replace('"0"', "true"), "prices[1].prompt: must be US dollars as a decimal"),
        (FREE.replace('"0"', "nan"), "prices[1].prompt: must be US dollars as a decimal"),
        (FREE.replace('"0"', '"1.000,00"'), "prices[1].prompt: must be US dollars as a decimal"),
        (FREE.replace("2026-01-01", '"2026-01-01"'), "prices[1].from: must be a day or a time with an offset"),
        (FREE.replace("2026-01-01", "2026-01-01T00:00:00"), "prices[1].from: must be a day or a time with an offset"),
        (FREE.replace("from = 2026-01-01", ""), "prices[1].from: must be a day or a time with an offset"),
        (FREE.replace('"*"', "[]"), "prices[1].models: must be names of models or patterns with *"),
        (FREE.replace('"*"', '""'), "prices[1].models: must be names of models or patterns with *"),
        (FREE.replace('"*"', "[1]"), "prices[1].models: must be names of models or patterns with *"),
        (FREE + 'inptu = "0"', "prices[1].inptu: unknown; known are cache_read"),
        (FREE.replace('"*"', str([f"m{n}" for n in range(1001)])), "must have at most 1000 patterns"),
        ("[[prices]]\nprompt = x\n", "line 2, column 10"),
        ("#" * 1024 * 1024 + FREE, "must have at most 1048576 bytes"),
        ("\udcff", "can't decode byte"),
    ],
)
def test_wrong_file_is_refused_in_one_line(price_file: Path, text: str, error: str) -> None:
    """The setting, the file, the place in it, and what it must be."""
    price_file.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(ValueError, match="GODOTY_PRICE_FILE") as refused:
        load_price_file(price_file)

    line = str(refused.value)
    assert line.startswith(f"GODOTY_PRICE_FILE {price_file}: ")
    assert error in line
    assert "\n" not in line


def test_missing_file_is_refused(price_file: Path) -> None:
    """A path of no file is not an empty file."""
    with pytest.raises(ValueError, match="No such file"):
        load_price_file(price_file)
