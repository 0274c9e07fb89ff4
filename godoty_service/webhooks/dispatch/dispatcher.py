"""Delivers events: several endpoints side by side, few of one tenant, so that slow ones hold up no other tenant's.

An endpoint is delivered to by one server at a time (`endpoints.py`). The deliveries of a turn are sent in their order,
and those of a session not side by side. An attempt counts once it is recorded: a server that dies in between sends the
event again, under the same id.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from godoty_service.agents.outbound.pool import HttpPool
from godoty_service.aio.periodic import run_every
from godoty_service.clock import Clock
from godoty_service.errors import GodotyError
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.delivery import Attempt, Delivery, DeliveryState
from godoty_service.webhooks.dispatch.endpoints import Endpoint, Endpoints
from godoty_service.webhooks.dispatch.sender import GONE, WebhookSender
from godoty_service.webhooks.store import Webhooks

log = structlog.get_logger(__name__)

_SIDE_BY_SIDE: Final = 4  # requests to one endpoint
_DUE: Final = 64  # deliveries of one read
_SLICE: Final = 20.0  # seconds after which an endpoint makes way for others
_MARGIN: Final = timedelta(seconds=10)  # by which a lease is longer than an attempt
_READ: Final = 5.0  # seconds after the renewal of a lease in which attempts may begin
_AFTER: Final = timedelta(milliseconds=1)
_BROKEN: Final = 3  # attempts that failed in a row; when an endpoint answers again after them, all is retried at once


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How many endpoints this server delivers to at once.

    Attributes:
        endpoints: Of all tenants together.
        of_tenant: Of one tenant.
    """

    endpoints: int
    of_tenant: int


class WebhookDispatcher:
    """Delivers to the endpoints that are due."""

    def __init__(
        self,
        *,
        webhooks: Webhooks,
        endpoints: Endpoints,
        deliveries: Deliveries,
        sender: WebhookSender,
        limits: DispatchLimits,
        clock: Clock,
        observe: Callable[[DeliveryState], None] = lambda _: None,
    ) -> None:
        """Create it.

        Args:
            webhooks: The webhooks, of which dead ones are switched off.
            endpoints: The endpoints, and their leases.
            deliveries: The deliveries.
            sender: Sends events.
            limits: How many endpoints are delivered to at once.
            clock: Returns the current time.
            observe: Called with the state of each delivery after an attempt.
        """
        self._webhooks = webhooks
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._sender = sender
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self._lease = sender.timeout + _MARGIN
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}  # by document, with the tenant
        self._freed = asyncio.Event()

    async def run(self, interval: float) -> None:
        """Deliver until cancelled; look for due endpoints every `interval` seconds."""
        try:
            await run_every(interval, self.start_due, failure="webhooks_not_delivered", wake=self._freed)
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop all deliveries: those that were sent and not recorded are sent again, by any server."""
        tasks = [task for _, task in self._running.values()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def start_due(self) -> None:
        """Start to deliver to the endpoints that are due, as many as there may be."""
        while len(self._running) < self._limits.endpoints:
            tenants = Counter(tenant_id for tenant_id, _ in self._running.values())
            full = [tenant_id for tenant_id, number in tenants.items() if number >= self._limits.of_tenant]
            endpoint = await self._endpoints.claim(self._lease, excluding=self._running.keys(), excluding_tenants=full)
            if endpoint is None:
                return
            task = asyncio.create_task(self._deliver(endpoint))
            self._running[endpoint.document_id] = endpoint.webhook.tenant_id, task
            task.add_done_callback(partial(self._end, endpoint.document_id))

    def _end(self, key: str, _: "asyncio.Task[None]") -> None:
        """Forget a task that has ended, and look at once for another endpoint."""
        self._running.pop(key, None)
        self._freed.set()

    async def _deliver(self, endpoint: Endpoint) -> None:
        """Deliver to an endpoint until nothing is due, or it is another one's turn, and release it."""
        pool = self._sender.connections(endpoint.webhook.tenant_id)
        try:
            last = await self._deliver_batches(pool, endpoint)
            if last is None:
                await self._endpoints.release(endpoint, due_time=self._clock())
            else:
                await self._release(last)
        except asyncio.CancelledError:
            with suppress(GodotyError):  # another server need not wait for the end of the lease
                await self._endpoints.release(endpoint, due_time=self._clock())
            raise
        except GodotyError as error:  # the lease ends by itself
            log.warning("webhook_not_delivered", webhook=endpoint.document_id, error=str(error))
        except Exception:
            log.exception("webhook_fault", webhook=endpoint.document_id)
        finally:
            await pool.aclose()

    async def _deliver_batches(self, pool: HttpPool, endpoint: Endpoint) -> Endpoint | None:
        """Deliver batch after batch; return the endpoint, or None if its lease is lost or it was switched off."""
        ends_at = time.monotonic() + _SLICE
        while (renewed_at := time.monotonic()) < ends_at:
            current = await self._endpoints.renew(endpoint, self._lease)
            if current is None:
                return None
            endpoint = replace(current, failures=endpoint.failures)
            batch = await self._next_batch(endpoint)
            if not batch:
                return endpoint
            if time.monotonic() - renewed_at > _READ:
                continue  # the database is slow: the lease would end during the attempts
            endpoint, is_off = await self._send(pool, endpoint, batch)
            if is_off:
                return None
            if endpoint.failures:
                return endpoint
        return endpoint

    async def _next_batch(self, endpoint: Endpoint) -> list[Delivery]:
        """Return the deliveries to send now: the first of their turns, and one of a session.

        An endpoint whose last attempt failed gets one, to see whether it answers again.
        """
        uid = endpoint.webhook.uid
        while due := await self._deliveries.due(uid, limit=_DUE):
            first = await self._deliveries.first_of_groups(uid, {each.group for each in due})
            known = {each.delivery_id for each in due}
            batch: dict[str, Delivery] = {}
            for each in due:
                first_id, first_time = first.get(each.group, ("", each.next_time))
                if first_id == each.delivery_id:
                    batch.setdefault(each.lane, each)
                elif first_id not in known:  # it waits for its next attempt, or has ended meanwhile
                    await self._deliveries.postpone(each, until=first_time + _AFTER)
            if batch:
                return list(batch.values())[: 1 if endpoint.failures else _SIDE_BY_SIDE]
        return []

    async def _send(self, pool: HttpPool, endpoint: Endpoint, batch: Sequence[Delivery]) -> tuple[Endpoint, bool]:
        """Send a batch; return the endpoint with what is known of it then, and whether it was switched off."""
        attempts = (self._attempt(pool, endpoint, each) for each in batch)
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        sent = [each for each in outcomes if not isinstance(each, BaseException)]
        if faults := [each for each in outcomes if isinstance(each, BaseException)]:
            raise faults[0]  # now that all have ended: what was sent is recorded
        succeeded = any(attempt.succeeded for _, attempt in sent)
        failed = sum(not attempt.succeeded for _, attempt in sent)
        failures = endpoint.failures + failed if not succeeded else 0
        success_time = self._clock() if succeeded else None
        if succeeded and endpoint.failures >= _BROKEN:
            await self._deliveries.retry_now(endpoint.webhook.uid)
        await self._endpoints.record_attempts(endpoint, failures=failures, success_time=success_time)
        if not succeeded and (reason := self._death(endpoint, sent)):
            return endpoint, await self._switch_off(endpoint, reason)
        return replace(endpoint, failures=failures), False

    async def _attempt(self, pool: HttpPool, endpoint: Endpoint, delivery: Delivery) -> tuple[Delivery, Attempt]:
        """Send an event and record the outcome; return the delivery as it is then, and the outcome."""
        attempt = await self._sender.send(pool, endpoint.webhook, delivery)
        recorded = await self._deliveries.record(delivery, attempt)
        self._observe(recorded.state)
        return recorded, attempt

    def _death(self, endpoint: Endpoint, sent: Sequence[tuple[Delivery, Attempt]]) -> str:
        """Return why an endpoint is to be switched off; empty: it is not.

        It is dead if it says so, or if a delivery has failed for good, and none had success while it was retried.
        """
        webhook = endpoint.webhook
        last = max(webhook.last_success_time or webhook.active_since, webhook.active_since)
        for delivery, attempt in sent:
            if attempt.status == GONE:
                return f"The endpoint answered HTTP {GONE}: it takes no more events."
            if delivery.state is DeliveryState.FAILED and last <= delivery.create_time:
                window = self._deliveries.schedule.window.total_seconds()
                return f"All attempts of {window:g} s have failed. The last one: {attempt.error}"
        return ""

    async def _switch_off(self, endpoint: Endpoint, reason: str) -> bool:
        """Switch a dead endpoint off; return False if its webhook was changed meanwhile: it gets another chance."""
        now, webhook = self._clock(), endpoint.webhook
        off = replace(
            webhook,
            enabled=False,
            disabled_reason=reason,
            disable_time=now,
            revision=webhook.revision + 1,
            update_time=now,
        )
        is_off = await self._webhooks.switch_off(webhook, off)
        if is_off:
            log.warning("webhook_switched_off", tenant_id=webhook.tenant_id, webhook=webhook.name, reason=reason)
        return is_off

    async def _release(self, endpoint: Endpoint) -> None:
        """Release an endpoint until its next delivery is due; one that fails also has a pause."""
        due_time = await self._deliveries.next_due(endpoint.webhook.uid)
        pause = self._deliveries.schedule.endpoint_pause(endpoint.failures)
        pause_until = self._clock() + pause if pause else None
        await self._endpoints.release(endpoint, due_time=due_time, pause_until=pause_until)
