"""Compares the results of a run with the promises."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.measuring import Sample
from bench.results import Results

_MAX_TOKEN_DELAY = 50.0  # milliseconds
_ADDED = 8.0  # milliseconds
_MEMORY = 500.0  # MB
_SLOWER = {"500": 1.25, "1000": 2.0}
_SHARES = (
    ("flat", "litellm-proxy", 1 / 8),
    ("flat", "openai-strands", 1 / 4),
    ("paced", "litellm-proxy", 1 / 3),
    ("paced", "openai-strands", 1 / 2),
)


@dataclass(frozen=True)
class Promise:
    """A promise and its measurement.

    Attributes:
        name: Its number.
        what: The measured quantity.
        limit: Its highest permitted value.
        seen: The measured value.
        unit: The unit of both.
        bare: The value of the bare libraries in the same run; None: they were not measured.
    """

    name: str
    what: str
    limit: float
    seen: float
    unit: str = ""
    bare: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it was kept."""
        return self.seen <= self.limit

    def row(self) -> str:
        """The row of the table."""
        unit = f" {self.unit}" if self.unit else ""
        verdict = "kept" if self.kept else "**missed**"
        bare = f"{self.bare:.3g}{unit}" if self.bare is not None else ""
        return f"| {self.name} | {self.what} | {self.limit:.4g}{unit} | {self.seen:.3g}{unit} | {verdict} | {bare} |"


def table(promises: list[Promise]) -> str:
    """Return all promises of a run as Markdown."""
    head = "| promise | what | at most | seen | | bare |\n|---|---|---:|---:|---|---:|\n"
    return head + "\n".join(promise.row() for promise in promises)


def promises(results: Results) -> Iterator[Promise]:
    """Yield the promises that concern the measured modes and contenders."""
    yield from _shares(results)
    yield from _token_delays(results)
    yield from _first(results)
    yield from _many(results)
    if results.samples:
        yield Promise("all", "answers that were not exactly the expected text", 0, results.failed())


def _shares(results: Results) -> Iterator[Promise]:
    for mode, peer, limit in _SHARES:
        ours, theirs, bare = (
            results.median(mode, name, lambda sample: sample.microseconds) for name in ("godoty", peer, "bare")
        )
        if ours is not None and theirs:
            what = f"CPU a token, of what {peer} takes, {mode}"
            yield Promise("P1", what, limit, ours / theirs, bare=_share(bare, theirs))


def _token_delays(results: Results) -> Iterator[Promise]:
    ours, direct, bare = (results.median("calm", name, _longest) for name in ("godoty", "direct", "bare"))
    if ours is not None:
        beside = f" (direct: {direct:.0f} ms)" if direct is not None else ""
        what = f"longest delay of a token while the CPU is free{beside}"
        yield Promise("P1", what, _MAX_TOKEN_DELAY, ours, "ms", bare)


def _longest(sample: Sample) -> float:
    return max(sample.seen["held"], default=0.0) * 1000


def _first(results: Results) -> Iterator[Promise]:
    alone = _added(results, "first-1", "godoty")
    if alone is not None:
        bare = _added(results, "first-1", "bare")
        yield Promise("P2", "added to the first token, 1 stream", _ADDED, alone, "ms", bare)
    ours, theirs, bare = (_added(results, "first-20", name) for name in ("godoty", "litellm-proxy", "bare"))
    if ours is not None and theirs:
        what = "of what litellm-proxy adds to the first token, 20 streams"
        yield Promise("P2", what, 1 / 4, ours / theirs, bare=_share(bare, theirs))


def _added(results: Results, mode: str, name: str) -> float | None:
    """Return the milliseconds that a server adds to the median time to first token; None: not measured."""
    with_it, without = results.first(mode, name), results.first(mode, "direct")
    return statistics.median(with_it) - statistics.median(without) if with_it and without else None


def _many(results: Results) -> Iterator[Promise]:
    for mode, limit in _SLOWER.items():
        load = results.modes[mode].load if mode in results.modes else None
        slowest, bare = (results.median(mode, name, _slowest) for name in ("godoty", "bare"))
        if load is None or slowest is None:
            continue
        factor = slowest / load.paced_seconds
        what = f"slowest of {mode} streams, times the paced time"
        yield Promise("P3", what, limit, factor, bare=_share(bare, load.paced_seconds))
        memory = max(sample.megabytes for sample in results.of(mode, "godoty"))
        yield Promise("P3", f"memory of all workers, {mode} streams", _MEMORY, memory, "MB")


def _slowest(sample: Sample) -> float:
    return max(sample.seen["whole"], default=float("inf"))


def _share(part: float | None, whole: float) -> float | None:
    return part / whole if part is not None else None
