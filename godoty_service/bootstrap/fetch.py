"""Builds what fetches documents for the tool http_fetch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.pool import Network
from godoty_service.agents.tools.http_fetch import Fetcher, FetchLimits
from godoty_service.settings.settings import Settings


@asynccontextmanager
async def open_fetcher(settings: Settings) -> AsyncIterator[Fetcher | None]:
    """Build the fetcher, if the operator permits any host; at the end of the block its connections are closed."""
    hosts = settings.fetch_host_patterns
    if not hosts:
        yield None
        return
    network = Network(rules=AddressRules(settings.fetch_allowed_networks), connect_timeout=settings.connect_timeout)
    limits = FetchLimits(
        seconds=settings.fetch_timeout, max_bytes=settings.fetch_bytes, connections=settings.fetch_connections
    )
    fetcher = Fetcher(network, hosts, limits)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()
