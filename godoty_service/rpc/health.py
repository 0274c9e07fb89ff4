"""Health, as gRPC's health protocol reports it: SERVING once the listener is open, while the system clock is right."""

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer  # as aio, the stubs hide it

_STATUS = health_pb2.HealthCheckResponse


class ServingStatus:
    """The status of all services, which is the same."""

    def __init__(self, services: Sequence[str]) -> None:
        """Build it; nothing is SERVING before `open`.

        Args:
            services: Their names; the empty one is the whole server's.
        """
        self._services = services
        self._servicer = HealthServicer()
        self._open = False
        self._right_clock = True

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer health checks."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def open(self) -> None:
        """Report that the listener takes calls."""
        self._open = True
        await self._report()

    async def clock_measured(self, *, within_tolerance: bool) -> None:
        """Report whether the system clock is right: a load balancer leaves a server with a wrong one alone."""
        self._right_clock = within_tolerance
        await self._report()

    async def shut_down(self) -> None:
        """Report NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()

    async def _report(self) -> None:
        serving = self._open and self._right_clock
        for name in self._services:
            await self._servicer.set(name, _STATUS.SERVING if serving else _STATUS.NOT_SERVING)
