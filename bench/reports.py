"""Writes a report, its raw results and its plot into docs/benchmarks."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
_DIGITS = 5  # of a raw figure: 10 µs, where it is a time in seconds


def write(name: str, text: str, *, raw: Any, svg: str | None = None) -> None:
    """Write `NAME.md`, `NAME.json` and, if there is one, the plot `NAME.svg`."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    if svg is not None:
        (_FOLDER / f"{name}.svg").write_text(svg)
        text = f"{text}\n![CPU of the server for each streamed token]({name}.svg)\n"
    (_FOLDER / f"{name}.md").write_text(f"{text}\nRaw results: [{name}.json]({name}.json).\n")
    (_FOLDER / f"{name}.json").write_text(json.dumps(_rounded(raw), separators=(",", ":")) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
