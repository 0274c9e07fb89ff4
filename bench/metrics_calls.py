"""A client for turns and session metrics, over the load generator's connections."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Self

from godoty.v1 import agent_service_pb2 as pb

from bench.contenders.contender import MODEL, Contender
from bench.generator.exchange import Exchange
from bench.generator.http2 import Http2Connection
from bench.generator.plan import Target

_AT_ONCE = 8
_METRICS = "/godoty.v1.AgentService/GetSessionMetrics"
_PREFIX = 5  # bytes before a gRPC message


class Caller:
    """Calls one server.

    Args:
        turning: A connection for turns.
        asking: Connections for metrics.
    """

    def __init__(self, turning: Http2Connection, asking: list[Http2Connection]) -> None:
        self._turning = turning
        self._asking = asking

    @classmethod
    async def open(cls, contender: Contender, *, connections: int) -> Self:
        """Connect."""
        metrics = replace(contender.target, path=_METRICS)
        return cls(await _connect(contender.target), [await _connect(metrics) for _ in range(connections)])

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._turning, *self._asking):
            connection.close()

    async def turns(self, session_id: str, count: int) -> None:
        """Run turns with one model call each."""
        request = pb.ConverseRequest(session_id=session_id, text="@sandbox plain tokens=8 flat=1", model=MODEL)
        for _ in range(count):
            await _answer(self._turning, request.SerializeToString())

    async def totals(self, session_id: str) -> tuple[int, Decimal]:
        """Return the model calls and the cost of a session, as the service reports them."""
        exchange = await _answer(self._asking[0], _body(session_id))
        response = pb.GetSessionMetricsResponse.FromString(b"".join(exchange.pieces)[_PREFIX:])
        return response.totals.model_calls, Decimal(response.totals.cost_usd)

    async def ask(self, session_ids: Sequence[str], count: int) -> tuple[list[float], float]:
        """Request the metrics of one session after the other, eight concurrently.

        Returns:
            The latencies and the time in all, in seconds.
        """
        bodies, latencies, begun = [_body(each) for each in session_ids], list[float](), time.perf_counter()

        async def some(place: int) -> None:
            for turn in range(place, count, _AT_ONCE):
                body = bodies[turn % len(bodies)]
                exchange = await _answer(self._asking[place % len(self._asking)], body)
                latencies.append(exchange.ended - exchange.begun)

        await asyncio.gather(*map(some, range(_AT_ONCE)))
        return latencies, time.perf_counter() - begun


async def _connect(target: Target) -> Http2Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Http2Connection(target), target.host, target.port)
    return connection


async def _answer(connection: Http2Connection, body: bytes) -> Exchange:
    """Send a request; raise RuntimeError if it fails."""
    exchange = Exchange(asyncio.get_running_loop().create_future())
    if (fault := await asyncio.wait_for(connection.ask(body, exchange), 60)) is not None:
        raise RuntimeError(fault)
    return exchange


def _body(session_id: str) -> bytes:
    return pb.GetSessionMetricsRequest(session_id=session_id).SerializeToString()
