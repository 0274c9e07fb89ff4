"""Raises the reasons that concern webhooks."""

from datetime import timedelta

from godoty.v1 import webhook_pb2 as pb

from godoty_service.bootstrap.components import open_components
from godoty_service.webhooks.webhook import Webhook, WebhookSecret
from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import raises
from tests.support.caller import Failure, failure_of

EVENT = f"evt_{'0' * 32}"


async def _store(environment: Environment, *names: str, enabled: bool = False) -> None:
    """Store webhooks, which the shared server lets no tenant have on this machine."""
    service = environment.service
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        now = components.clock() - timedelta(hours=1)
        for name in names:
            webhook = Webhook(
                tenant_id=service.tenant_id,
                name=name,
                uid=f"webhook_{service.tenant_id}_{name}",
                url="https://hooks.example/",
                enabled=enabled,
                active_since=now,
                secrets=(WebhookSecret(sealed=b"", create_time=now),),
                create_time=now,
                update_time=now,
            )
            assert await components.webhooks.webhooks.insert(webhook)


async def _redeliver(environment: Environment) -> Failure:
    request = pb.RedeliverEventRequest(webhook_name="billing", event_id=EVENT)
    return await failure_of(environment.manage("RedeliverEvent", request))


@raises("WEBHOOK_NOT_FOUND")
async def _no_webhook(environment: Environment) -> Failure:
    return await failure_of(environment.manage("ListDeliveries", pb.ListDeliveriesRequest(webhook_name="billing")))


@raises("WEBHOOK_LIMIT")
async def _limit(environment: Environment) -> Failure:
    await _store(environment, *(f"hook-{number}" for number in range(20)))
    webhook = {"name": "one-more", "url": "https://hooks.example/"}
    return await failure_of(environment.manage("ApplyWebhook", pb.ApplyWebhookRequest(webhook=webhook)))


@raises("DELIVERY_NOT_FOUND")
async def _no_delivery(environment: Environment) -> Failure:
    await _store(environment, "billing", enabled=True)
    return await _redeliver(environment)


@raises("WEBHOOK_OFF")
async def _off(environment: Environment) -> Failure:
    await _store(environment, "billing")
    return await _redeliver(environment)
