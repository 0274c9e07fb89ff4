"""Plots CPU per token as an SVG."""

from html import escape

from bench.results import Results

_WIDTH, _LEFT, _ROW, _GAP, _BAR = 760, 150, 24, 46, 16
_MODES = ("flat", "paced")
_OURS, _THEIRS = "#2f6f4f", "#9aa5b1"


def plot(results: Results) -> str | None:
    """Return the plot of CPU per token at full speed and paced, a bar per contender; None: neither was measured."""
    parts: list[str] = []
    bottom = 0
    for mode in _MODES:
        bars = _bars(results, mode)
        if bars:
            parts.append(_text(0, bottom + 22, results.modes[mode].title, size=14))
            parts += _group(bars, bottom + _GAP - 10)
            bottom += _GAP + _ROW * len(bars)
    if not parts:
        return None
    style = 'font-family="sans-serif" fill="#222"'
    background = f'<rect width="{_WIDTH}" height="{bottom + 8}" fill="#fff"/>'
    body = "\n".join([background, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 8}" {style}>\n'
        f"<title>CPU of the server for each streamed token, in µs</title>\n{body}\n</svg>\n"
    )


def _bars(results: Results, mode: str) -> list[tuple[str, float]]:
    if mode not in results.samples:
        return []
    names = [name for name in results.contenders(mode) if name != "direct"]
    return [(name, results.median(mode, name, lambda sample: sample.microseconds) or 0.0) for name in names]


def _group(bars: list[tuple[str, float]], top: int) -> list[str]:
    scale = (_WIDTH - _LEFT - 90) / max(value for _, value in bars)
    parts = []
    for place, (name, value) in enumerate(bars):
        y, colour = top + place * _ROW, _OURS if name == "godoty" else _THEIRS
        width = value * scale
        parts.append(_text(_LEFT - 8, y + 13, name, anchor="end"))
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(_text(round(_LEFT + width + 6), y + 13, f"{value:.0f} µs"))
    return parts


def _text(x: int, y: int, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
