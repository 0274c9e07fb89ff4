"""Formats a run's results as Markdown tables, one per mode."""

from bench.measuring import Sample
from bench.results import Results, quantile

_COLUMNS = (
    ("server", "---"),
    ("CPU a token, µs", "---:"),
    ("least to most", "---:"),
    ("times Godoty", "---:"),
    ("memory, MB", "---:"),
    ("first token, ms", "---:"),
    ("its 95th", "---:"),
    ("whole answer, s", "---:"),
    ("its 95th", "---:"),
    ("held, 99th, ms", "---:"),
    ("held, most, ms", "---:"),
    ("tokens a message", "---:"),
    ("sandbox, mongod, generator, µs", "---:"),
    ("not exact", "---:"),
)


def tables(results: Results) -> str:
    """Return the tables of all modes."""
    return "\n\n".join(f"### {results.modes[mode].title}\n\n{table(results, mode)}" for mode in results.samples)


def table(results: Results, mode: str) -> str:
    """Return the table of a mode, a row per contender."""
    lines = ["| " + " | ".join(name for name, _ in _COLUMNS) + " |", "|" + "|".join(line for _, line in _COLUMNS) + "|"]
    lines += ["| " + " | ".join(_row(results, mode, name)) + " |" for name in results.contenders(mode)]
    return "\n".join(lines)


def _row(results: Results, mode: str, name: str) -> list[str]:
    samples = results.of(mode, name)
    first, whole = results.first(mode, name), results.whole(mode, name)
    return [
        name,
        *_cpu(results, mode, name),
        "" if name == "direct" else f"{max(sample.megabytes for sample in samples):.0f}",
        *(_number(quantile(first, share), 1) for share in (0.5, 0.95)),
        *(_number(quantile(whole, share), 2) for share in (0.5, 0.95)),
        *(_number(results.median(mode, name, each), 0) for each in (_held_99th, _held_most)),
        _number(results.median(mode, name, _merged), 2),
        ", ".join(_number(results.median(mode, name, each), 0) for each in (_sandbox, _mongod, _generator)),
        str(sum(sample.seen["failed"] for sample in samples)),
    ]


def _cpu(results: Results, mode: str, name: str) -> list[str]:
    """Return CPU per token, its range, and its multiple of Godoty's."""
    if name == "direct":
        return ["", "", ""]
    values = [sample.microseconds for sample in results.of(mode, name)]
    middle, ours = (results.median(mode, each, lambda sample: sample.microseconds) for each in (name, "godoty"))
    times = f"{middle / ours:.1f}" if middle and ours else ""
    return [_number(middle, 0), f"{min(values):.0f} to {max(values):.0f}", times]


def _held_99th(sample: Sample) -> float:
    return sample.seen["held"][-2] * 1000 if sample.seen["held"] else float("nan")


def _held_most(sample: Sample) -> float:
    return sample.seen["held"][-1] * 1000 if sample.seen["held"] else float("nan")


def _merged(sample: Sample) -> float:
    return sample.tokens / sample.seen["messages"] if sample.seen["messages"] else float("nan")


def _sandbox(sample: Sample) -> float:
    return sample.sandbox / sample.tokens * 1e6


def _mongod(sample: Sample) -> float:
    return sample.mongod / sample.tokens * 1e6


def _generator(sample: Sample) -> float:
    return sample.generator / sample.tokens * 1e6


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or value != value else f"{value:,.{digits}f}"  # noqa: PLR0124 - nan: not measured
