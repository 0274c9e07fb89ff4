"""Converts the metrics of sessions, and caches them encoded, so that an unchanged session is not converted again."""

from collections.abc import Iterable
from dataclasses import dataclass

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.aio.caching import TtlCache
from godoty_service.ledger.latency import by_provider
from godoty_service.ledger.totals import NEWEST_RUNS, SessionTotals, Totals
from godoty_service.rpc.metering_codec import (
    cache_savings_message,
    latency_messages,
    run_message,
    timestamp,
    totals_message,
)
from godoty_service.sessions.batched_reads import Version
from godoty_service.sessions.session import Session

Key = tuple[str, str]  # the tenant, and the caller's id of the session

_MAX_SESSIONS = 1_000  # of some 4 KB each


@dataclass(frozen=True, slots=True)
class CachedMetrics:
    """A session's metrics.

    Attributes:
        version: The session's version.
        body: The encoded response.
    """

    version: Version
    body: bytes

    def message(self, session: Session) -> pb.GetSessionMetricsResponse:
        """Decode the response, with the session's update time: a turn without cost may have changed it since."""
        message = pb.GetSessionMetricsResponse.FromString(self.body)
        message.update_time.CopyFrom(timestamp(session.update_time))
        return message


class SessionMetricsCache:
    """Metrics by session, evicted least recently used first."""

    def __init__(self) -> None:
        self._cache: TtlCache[Key, CachedMetrics] = TtlCache(size=_MAX_SESSIONS)

    def get(self, key: Key) -> CachedMetrics | None:
        """Return the cached metrics of a session."""
        return self._cache.get(key)

    def put(self, key: Key, session: Session, message: pb.GetSessionMetricsResponse) -> None:
        """Cache the metrics of a session whose entries are all final and included in its totals."""
        self._cache.put(key, CachedMetrics((session.uid, session.totals_revision), message.SerializeToString()))


def metrics_message(session: Session, session_totals: SessionTotals) -> pb.GetSessionMetricsResponse:
    """Convert the metrics of a session, its most expensive model and agent first."""
    response = pb.GetSessionMetricsResponse(
        totals=totals_message(session_totals.current()),
        recent_runs=[run_message(run) for run in reversed(session_totals.runs[-NEWEST_RUNS:])],
        latency=latency_messages(by_provider(session_totals.timings)),
        create_time=timestamp(session.create_time),
        update_time=timestamp(session.update_time),
    )
    if session_totals.cache_savings is not None:
        response.cache_savings.CopyFrom(cache_savings_message(session_totals.cache_savings))
    for model, totals in _by_cost(session_totals.by_model):
        response.by_model.add(model=model, totals=totals_message(totals))
    for agent, totals in _by_cost(session_totals.by_agent):
        response.by_agent.add(agent=agent, totals=totals_message(totals))
    return response


def _by_cost(sums: Iterable[tuple[str, Totals]]) -> list[tuple[str, Totals]]:
    return sorted(sums, key=lambda each: (-each[1].cost, each[0]))
