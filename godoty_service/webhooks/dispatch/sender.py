"""Sends events to endpoints by HTTP: only to permitted addresses, signed, and without following redirects."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Final

import httpcore2

from godoty_service.agents.outbound.pool import (
    HttpPool,
    Network,
    RequestFailed,
    RequestTimedOut,
    raw_headers,
    read_bounded,
)
from godoty_service.agents.outbound.urls import REDIRECTS, host_header, split_url
from godoty_service.clock import Clock
from godoty_service.errors import GodotyError
from godoty_service.webhooks.delivery import Attempt, Delivery
from godoty_service.webhooks.signatures import signed_headers
from godoty_service.webhooks.store import Webhooks
from godoty_service.webhooks.webhook import Webhook

GONE: Final = 410  # the endpoint takes no events any more
_SUCCESS: Final = range(200, 300)
_MAX_ANSWER: Final = 16 * 1024  # bytes of an answer's body that are read, so that the connection can be used again
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "godoty",
}


class WebhookSender:
    """Sends events."""

    def __init__(self, network: Network, webhooks: Webhooks, *, timeout: timedelta, clock: Clock) -> None:
        """Create it.

        Args:
            network: Checks addresses and certificates.
            webhooks: Decrypts their secrets.
            timeout: The time that an attempt may take.
            clock: Returns the current time.
        """
        self.timeout = timeout
        self._network = network
        self._webhooks = webhooks
        self._clock = clock

    def connections(self, tenant_id: str) -> HttpPool:
        """Return a pool of connections, without one; it looks names up within the tenant's share of look-ups."""
        return HttpPool(self._network, owner=tenant_id)

    async def send(self, pool: HttpPool, webhook: Webhook, delivery: Delivery) -> Attempt:
        """Send an event once; return the outcome. A failure of the endpoint is no error."""
        status: int | None = None
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                response = await self._post(pool, webhook, delivery)
                status = response.status
                await self._end(response)
        except (TimeoutError, RequestTimedOut):
            late = f"The endpoint did not answer within {self.timeout.total_seconds():g} s."
            return Attempt(error=late) if status is None else _attempt(status)
        except RequestFailed as failure:
            return Attempt(error=str(failure))
        except GodotyError as error:  # a secret cannot be decrypted
            return Attempt(error=error.text)
        return _attempt(status)

    async def _post(self, pool: HttpPool, webhook: Webhook, delivery: Delivery) -> httpcore2.Response:
        """Send the request, for the URL as it is composed of the parts that were checked.

        Raises:
            RequestFailed: No answer came.
            ProviderKeysOff: A secret cannot be decrypted.
        """
        now, body = self._clock(), delivery.body.encode()
        parts = split_url(webhook.url)
        target = httpcore2.URL(
            scheme=parts.scheme.encode(),
            host=parts.host.encode(),
            port=None if parts.is_default_port else parts.port,
            target=parts.target.encode(),
        )
        secrets = self._webhooks.unseal(webhook, at=now)
        signed = signed_headers(secrets, message_id=delivery.event_id, timestamp=int(now.timestamp()), body=body)
        headers = raw_headers({**_HEADERS, "Content-Length": len(body), **signed})
        seconds = self.timeout.total_seconds()
        return await pool.send(
            "POST", target, headers=[(b"Host", host_header(target)), *headers], content=body, read_timeout=seconds
        )

    async def _end(self, response: httpcore2.Response) -> None:
        """Read the body of an answer up to a bound, and close it; its status has said all there is to know."""
        with suppress(RequestFailed):
            await read_bounded(response, max_bytes=_MAX_ANSWER)


def _attempt(status: int) -> Attempt:
    """Return the outcome of an attempt that was answered."""
    if status in _SUCCESS:
        return Attempt(status=status)
    if status in REDIRECTS:
        return Attempt(status=status, error="The endpoint redirects, which is not followed.")
    return Attempt(status=status, error=f"The endpoint answered HTTP {status}.")
