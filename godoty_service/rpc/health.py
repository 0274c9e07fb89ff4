"""Health, as gRPC's health protocol reports it.

A server is SERVING once its listener is open, while the system clock is right and the database answers.
"""

import asyncio
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_STATUS = health_pb2.HealthCheckResponse


class ServingStatus(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # has no types
    """The status of all services, which is the same.

    gRPC's own servicer holds a lock while it writes to a watcher: one that does not read would keep every report back.

    Attributes:
        stopped: Set when calls that last as long as the server are to end.
    """

    def __init__(self, services: Sequence[str]) -> None:
        """Build it; nothing is SERVING before `open`.

        Args:
            services: Their names; the empty one is the whole server's.
        """
        self._services = frozenset(services)
        self._open = False
        self._right_clock = True
        self._storage_available = True
        self._stops = False
        self._changed = asyncio.Event()
        self.stopped = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer health checks."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def open(self) -> None:
        """Report that the listener takes calls."""
        self._open = True
        self._report()

    def clock_measured(self, *, within_tolerance: bool) -> None:
        """Report whether the system clock is right: a load balancer leaves a server with a wrong one alone."""
        self._right_clock = within_tolerance
        self._report()

    def storage_probed(self, *, available: bool) -> None:
        """Report whether the database answers."""
        self._storage_available = available
        self._report()

    def shut_down(self) -> None:
        """Report NOT_SERVING from now on."""
        self._stops = True
        self._report()

    def end_watches(self) -> None:
        """End the calls that last as long as the server."""
        self.stopped.set()
        self._report()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> health_pb2.HealthCheckResponse:
        """Report the status of a service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def List(  # noqa: N802 - the same
        self, _request: health_pb2.HealthListRequest, _context: object
    ) -> health_pb2.HealthListResponse:
        """Report the status of all services."""
        answer = health_pb2.HealthCheckResponse(status=self._status)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, answer))

    async def Watch(  # noqa: N802 - the same
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> None:
        """Report the status of a service now and whenever it changes, until the server stops."""
        known, sent = request.service in self._services, None
        while True:
            changed = self._changed
            status = self._status if known else _STATUS.SERVICE_UNKNOWN
            if status != sent:
                sent = status
                await context.write(health_pb2.HealthCheckResponse(status=status))
            elif self.stopped.is_set():
                return
            else:
                await changed.wait()

    @property
    def _status(self) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
        serving = self._open and self._right_clock and self._storage_available and not self._stops
        return _STATUS.SERVING if serving else _STATUS.NOT_SERVING

    def _report(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
