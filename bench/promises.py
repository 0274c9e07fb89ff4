"""What was promised of a run, and what it saw."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.measuring import Sample
from bench.results import Results

_HELD = 50.0  # milliseconds
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
    """A promise and what was seen.

    Attributes:
        name: Its number.
        what: What is compared.
        limit: The most that it may be.
        seen: What it was.
        unit: The unit of both.
    """

    name: str
    what: str
    limit: float
    seen: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether it was kept."""
        return self.seen <= self.limit

    def row(self) -> str:
        """A row of the table."""
        unit = f" {self.unit}" if self.unit else ""
        verdict = "kept" if self.kept else "**missed**"
        return f"| {self.name} | {self.what} | {self.limit:.4g}{unit} | {self.seen:.3g}{unit} | {verdict} |"


def table(promises: list[Promise]) -> str:
    """All promises of a run as Markdown."""
    head = "| promise | what | at most | seen | |\n|---|---|---:|---:|---|\n"
    return head + "\n".join(promise.row() for promise in promises)


def promises(results: Results) -> Iterator[Promise]:
    """What can be said of the modes and contenders that were measured."""
    yield from _shares(results)
    yield from _held(results)
    yield from _first(results)
    yield from _many(results)
    if results.samples:
        yield Promise("all", "answers that were not exactly the expected text", 0, results.failed())


def _shares(results: Results) -> Iterator[Promise]:
    for mode, peer, limit in _SHARES:
        ours, theirs = (results.median(mode, name, lambda sample: sample.microseconds) for name in ("godoty", peer))
        if ours is not None and theirs:
            yield Promise("P1", f"CPU a token, of what {peer} takes, {mode}", limit, ours / theirs)


def _held(results: Results) -> Iterator[Promise]:
    ours, bare = (results.median("calm", name, _longest) for name in ("godoty", "direct"))
    if ours is not None:
        beside = f" (direct: {bare:.0f} ms)" if bare is not None else ""
        yield Promise("P1", f"longest that a token was held while the CPU is free{beside}", _HELD, ours, "ms")


def _longest(sample: Sample) -> float:
    return max(sample.seen["held"], default=0.0) * 1000


def _first(results: Results) -> Iterator[Promise]:
    alone = _added(results, "first-1", "godoty")
    if alone is not None:
        yield Promise("P2", "added to the first token, 1 stream", _ADDED, alone, "ms")
    ours, theirs = (_added(results, "first-20", name) for name in ("godoty", "litellm-proxy"))
    if ours is not None and theirs:
        yield Promise("P2", "of what litellm-proxy adds to the first token, 20 streams", 1 / 4, ours / theirs)


def _added(results: Results, mode: str, name: str) -> float | None:
    """Milliseconds that a server adds to the median time to first token; None: not measured."""
    with_it, without = results.first(mode, name), results.first(mode, "direct")
    return statistics.median(with_it) - statistics.median(without) if with_it and without else None


def _many(results: Results) -> Iterator[Promise]:
    for mode, limit in _SLOWER.items():
        load = results.modes[mode].load if mode in results.modes else None
        slowest = results.median(mode, "godoty", lambda sample: max(sample.seen["whole"], default=float("inf")))
        if load is None or slowest is None:
            continue
        factor = slowest / load.paced_seconds
        yield Promise("P3", f"slowest of {mode} streams, times the paced time", limit, factor)
        memory = max(sample.megabytes for sample in results.of(mode, "godoty"))
        yield Promise("P3", f"memory of all workers, {mode} streams", _MEMORY, memory, "MB")
