"""Latency of providers: medians and percentiles over a session's newest calls. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from godoty_service.ledger.totals import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """The median, the 95th percentile (nearest rank) and the newest of some durations."""

    median: timedelta
    p95: timedelta
    last: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLatency:
    """The latency of one provider; an empty name stands for all of them together."""

    provider: str
    calls: int
    time_to_first_token: LatencySummary | None
    duration: LatencySummary | None


def by_provider(timings: Sequence[Timing]) -> list[ProviderLatency]:
    """Summarize timings, the newest last: all of them first, then each provider by name; empty for no timings."""
    if not timings:
        return []
    providers = sorted({timing.provider for timing in timings if timing.provider})
    return [
        _latency("", timings),
        *(_latency(name, [each for each in timings if each.provider == name]) for name in providers),
    ]


def _latency(provider: str, timings: Sequence[Timing]) -> ProviderLatency:
    first = [timing.time_to_first_token for timing in timings if timing.time_to_first_token is not None]
    return ProviderLatency(
        provider=provider,
        calls=len(timings),
        time_to_first_token=_summary(first),
        duration=_summary([timing.duration for timing in timings]),
    )


def _summary(times: Sequence[int]) -> LatencySummary | None:
    if not times:
        return None
    ordered = sorted(times)
    return LatencySummary(
        median=_ranked(ordered, 0.5), p95=_ranked(ordered, 0.95), last=timedelta(microseconds=times[-1])
    )


def _ranked(ordered: Sequence[int], share: float) -> timedelta:
    return timedelta(microseconds=ordered[max(0, math.ceil(share * len(ordered)) - 1)])
