"""Changes of tenants' webhooks: each is recorded in the audit log before it is made."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.budgets.thresholds import BudgetThresholds
from godoty_service.clock import Clock
from godoty_service.ids import new_id
from godoty_service.ledger.unresolved_outbox import UnresolvedOutbox
from godoty_service.turns.event_log.outbox import TurnOutbox
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.delivery import Delivery
from godoty_service.webhooks.dispatch.endpoints import Endpoints
from godoty_service.webhooks.erasure import WebhookErasure
from godoty_service.webhooks.errors import (
    DeliveryNotFound,
    TooManyWebhooks,
    WebhookChanged,
    WebhookNotFound,
    WebhookOff,
)
from godoty_service.webhooks.event import EventType
from godoty_service.webhooks.outbox.budget_marks import BudgetMarks
from godoty_service.webhooks.signatures import new_secret
from godoty_service.webhooks.store import MAX_WEBHOOKS, Webhooks
from godoty_service.webhooks.subscribers import Subscribers
from godoty_service.webhooks.webhook import MAX_SECRETS, Webhook, WebhookSecret

_ATTEMPTS = 20  # of a change that others' changes overtake

Values = Mapping[str, Any]
Record = Callable[[Values | None, Values | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTerms:
    """What a tenant writes of a webhook.

    Attributes:
        name: Its name.
        url: The URL of the endpoint.
        description: What it is for.
        event_types: The types of events that it gets; empty: all.
        enabled: Whether it gets events.
    """

    name: str
    url: str
    description: str = ""
    event_types: tuple[str, ...] = ()
    enabled: bool = True


class WebhookChanges:
    """Makes changes."""

    def __init__(
        self,
        *,
        webhooks: Webhooks,
        deliveries: Deliveries,
        endpoints: Endpoints,
        subscribers: Subscribers,
        thresholds: BudgetThresholds,
        marks: BudgetMarks,
        clock: Clock,
    ) -> None:
        """Create it.

        Args:
            webhooks: The webhooks.
            deliveries: Their deliveries.
            endpoints: Their endpoints.
            subscribers: The tenants that are notified, as this server knows them.
            thresholds: The shares of budgets that are reached.
            marks: Those that were reported.
            clock: Returns the current time.
        """
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._endpoints = endpoints
        self._subscribers = subscribers
        self._thresholds = thresholds
        self._marks = marks
        self._clock = clock

    async def apply(
        self, tenant_id: str, terms: WebhookTerms, *, etag: str, rotation: timedelta | None, record: Record
    ) -> tuple[Webhook, bool, str]:
        """Create a webhook, or change the one of this name; the same terms as before change nothing, with any etag.

        Args:
            tenant_id: The tenant.
            terms: The webhook, whose fields were checked.
            etag: The version that the change is based on; empty: any.
            rotation: Create a new secret, and let the earlier ones sign for this time; None: the secrets remain.
            record: Records the change: with what was, None for a new webhook, and what will be.

        Returns:
            The webhook, whether it was changed, and its new secret; empty: it has none.

        Raises:
            WebhookChanged: It is not the version of the etag, or others change it again and again.
            TooManyWebhooks: The tenant may have no further webhook.
            ProviderKeysOff: The service has no encryption key.
        """
        for _ in range(_ATTEMPTS):
            old = await self._webhooks.read(tenant_id, terms.name)
            if old is not None and rotation is None and _terms(old) == terms:
                self._subscribers.note(old)
                return old, False, ""
            _check_etag(terms.name, old, etag)
            if old is None and await self._webhooks.is_full(tenant_id):
                text = f"The tenant has {MAX_WEBHOOKS} webhooks: delete one first."
                raise TooManyWebhooks(text, metadata={"limit": str(MAX_WEBHOOKS)})
            secret = new_secret() if old is None or rotation is not None else ""
            new = self._next(tenant_id, terms, old, secret, rotation)
            await record(None if old is None else recorded(old), recorded(new))
            await self._start_thresholds(old, new)
            written = await (self._webhooks.insert(new) if old is None else self._webhooks.update(old, new))
            if written:
                self._subscribers.note(new)
                if new.enabled:
                    await self._endpoints.add_deliveries(
                        [new], at_once=True
                    )  # those that were pending when it was switched off
                return new, True, secret
        raise WebhookChanged.of(terms.name, "")

    async def delete(self, tenant_id: str, name: str, *, etag: str, record: Record) -> None:
        """Delete a webhook with its deliveries.

        Raises:
            WebhookNotFound: There is no such webhook.
            WebhookChanged: It is not the version of the etag, or others change it again and again.
        """
        for _ in range(_ATTEMPTS):
            old = await self.require(tenant_id, name)
            _check_etag(name, old, etag)
            await record(recorded(old), None)
            if await self._webhooks.delete(old):
                await self._deliveries.delete_of(old)
                return
        raise WebhookChanged.of(name, "")

    async def redeliver(self, tenant_id: str, name: str, event_id: str) -> Delivery:
        """Deliver an event again, or now.

        Raises:
            WebhookNotFound: There is no such webhook.
            WebhookOff: It is switched off.
            DeliveryNotFound: It has no delivery of this event.
        """
        webhook = await self.require(tenant_id, name)
        if not webhook.enabled:
            raise WebhookOff(f"The webhook {name} is switched off: enable it first.", metadata={"webhook_name": name})
        delivery = await self._deliveries.redeliver(webhook, event_id)
        if delivery is None:
            text = f"The webhook {name} has no delivery of the event {event_id}."
            raise DeliveryNotFound(text, metadata={"webhook_name": name, "event_id": event_id})
        await self._endpoints.add_deliveries([webhook], at_once=True)
        return delivery

    async def require(self, tenant_id: str, name: str) -> Webhook:
        """Return a webhook.

        Raises:
            WebhookNotFound: There is no such webhook.
        """
        webhook = await self._webhooks.read(tenant_id, name)
        if webhook is None:
            raise WebhookNotFound.of(name)
        return webhook

    def _next(
        self, tenant_id: str, terms: WebhookTerms, old: Webhook | None, secret: str, rotation: timedelta | None
    ) -> Webhook:
        """Return the next revision of a webhook."""
        now = self._clock()
        uid = new_id("webhook", made=now) if old is None else old.uid
        secrets: tuple[WebhookSecret, ...] = () if old is None else old.secrets
        if secret:
            ended = _ending(secrets, now + (rotation or timedelta()), now)
            secrets = (*ended, WebhookSecret(sealed=self._webhooks.seal(uid, secret), create_time=now))
        was_active = old is not None and old.enabled
        return Webhook(
            tenant_id=tenant_id,
            name=terms.name,
            uid=uid,
            url=terms.url,
            description=terms.description,
            event_types=terms.event_types,
            enabled=terms.enabled,
            active_since=old.active_since if old is not None and was_active else now,
            secrets=secrets,
            disabled_reason="" if terms.enabled or old is None else old.disabled_reason,
            disable_time=None if terms.enabled or old is None else old.disable_time,
            revision=1 if old is None else old.revision + 1,
            create_time=now if old is None else old.create_time,
            update_time=now,
        )

    async def _start_thresholds(self, old: Webhook | None, new: Webhook) -> None:
        """Mark the shares of budgets as reported that were reached before the tenant is notified of them."""
        event_type, tenant_id = EventType.BUDGET_THRESHOLD, new.tenant_id
        if not new.takes(event_type) or (old is not None and old.takes(event_type)):
            return
        others = (await self._webhooks.of_tenants([tenant_id])).get(tenant_id, [])
        if any(each.takes(event_type) for each in others):
            return  # all that is reached is reported to them, or is about to be
        known = (await self._marks.read([tenant_id])).get(tenant_id, {})
        for each in await self._thresholds.read([tenant_id]):
            await self._marks.raise_to(tenant_id, known, each.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookComponents:
    """What manages the tenants' webhooks.

    Attributes:
        webhooks: The webhooks.
        deliveries: Their deliveries.
        endpoints: Their endpoints.
        subscribers: The tenants that are notified.
        changes: Changes webhooks.
        rules: Decides which addresses they may have.
        erasure: Erases what they have of tenants and end users.
        turns: The ends of turns that are not published yet.
        calls: The unresolved calls that are not published yet.
        thresholds: The shares of budgets that are reached.
        marks: Those that were reported.
        clock: Returns the current time.
    """

    webhooks: Webhooks
    deliveries: Deliveries
    endpoints: Endpoints
    subscribers: Subscribers
    changes: WebhookChanges
    rules: AddressRules
    erasure: WebhookErasure
    turns: TurnOutbox
    calls: UnresolvedOutbox
    thresholds: BudgetThresholds
    marks: BudgetMarks
    clock: Clock


def _ending(secrets: Sequence[WebhookSecret], time: datetime, now: datetime) -> tuple[WebhookSecret, ...]:
    """Return the earlier secrets that still sign, with their ends; the oldest are dropped if there are too many."""
    ended = (
        replace(each, expire_time=time if each.expire_time is None else min(each.expire_time, time)) for each in secrets
    )
    in_force = [each for each in ended if each.expire_time is not None and each.expire_time > now]
    return tuple(in_force[-(MAX_SECRETS - 1) :])


def _terms(webhook: Webhook) -> WebhookTerms:
    """Return what a tenant has written of a webhook."""
    return WebhookTerms(
        name=webhook.name,
        url=webhook.url,
        description=webhook.description,
        event_types=webhook.event_types,
        enabled=webhook.enabled,
    )


def _check_etag(name: str, webhook: Webhook | None, etag: str) -> None:
    """Check that a webhook is the version of an etag; empty: any.

    Raises:
        WebhookChanged: It is another version, or does not exist.
    """
    known = webhook.etag if webhook is not None else ""
    if etag not in ("", known):
        raise WebhookChanged.of(name, known)


def recorded(webhook: Webhook) -> Values:
    """Return what the audit log records of a webhook: nothing secret."""
    return {
        "webhook": webhook.name,
        "url": webhook.url,
        "description": webhook.description,
        "event_types": list(webhook.event_types),
        "enabled": webhook.enabled,
        "secrets": len(webhook.secrets),
    }
