"""The results of a run: samples by mode and contender, and their medians."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.measuring import Sample
from bench.modes import Mode


@dataclass
class Results:
    """Samples by mode.

    Attributes:
        modes: The modes that were measured, by name.
        samples: Their samples, in order.
    """

    modes: dict[str, Mode] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, name: str, mode: Mode, sample: Sample) -> None:
        """Add a sample."""
        self.modes[name] = mode
        self.samples.setdefault(name, []).append(sample)

    def contenders(self, mode: str) -> list[str]:
        """Return the contenders of a mode, in the order of the tables."""
        seen = {sample.contender for sample in self.samples[mode]}
        return [name for name in self.modes[mode].contenders if name in seen]

    def of(self, mode: str, contender: str) -> list[Sample]:
        """Return a contender's samples in a mode; none if it was not measured."""
        return [sample for sample in self.samples.get(mode, ()) if sample.contender == contender]

    def median(self, mode: str, contender: str, value: Callable[[Sample], float]) -> float | None:
        """Return the median of a value over a contender's samples; None: there is none."""
        values = [value(sample) for sample in self.of(mode, contender)]
        return statistics.median(values) if values else None

    def first(self, mode: str, contender: str) -> list[float]:
        """Return the times to first token of all rounds, in milliseconds, ascending."""
        return sorted(each * 1000 for sample in self.of(mode, contender) for each in sample.seen["first"])

    def whole(self, mode: str, contender: str) -> list[float]:
        """Return the total times of all rounds, in seconds, ascending."""
        return sorted(each for sample in self.of(mode, contender) for each in sample.seen["whole"])

    def failed(self) -> int:
        """Return the number of inexact answers."""
        return sum(sample.seen["failed"] for samples in self.samples.values() for sample in samples)

    def as_dict(self) -> dict[str, Any]:
        """Return the raw results; times in seconds."""
        return {mode: [sample.as_dict() for sample in samples] for mode, samples in self.samples.items()}


def quantile(ascending: list[float], share: float) -> float | None:
    """Return the quantile of the values; None: there are none."""
    return ascending[round((len(ascending) - 1) * share)] if ascending else None
