"""Tenants' webhooks. Owns `webhooks`, one document per tenant and name; secrets are stored sealed.

Beside what the tenant defines, a document has the state of the endpoint (`endpoints.py`), which changes without the
webhook's revision:

due_time      When deliveries to it are due, at the earliest after the pause; absent: none is pending.
wake          How often deliveries were added: who has the lease sees those that were added meanwhile.
lease_owner   The server that delivers to it.
lease_until   When another one may, by the database's clock.
failures      How many attempts have failed since the last one with success.
pause_until   Until when nothing is sent, after attempts that failed; absent: the last one had success.
last_success_time  When an attempt had success last.
outbox        When and why the server switched it off, while that is not reported.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document, Index
from godoty_service.turns.event_log.outbox import EPOCH
from godoty_service.webhooks.sealing import Encryption, seal, unseal
from godoty_service.webhooks.webhook import Webhook, WebhookSecret

MAX_WEBHOOKS = 20  # of a tenant
_UNREPORTED: Document = {"outbox.time": {"$gt": EPOCH}}


class Webhooks:
    """Webhooks by tenant."""

    COLLECTION = "webhooks"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("name", 1)], unique=True, where={"name": {"$gt": ""}}),
        Index(keys=[("due_time", 1)], where={"enabled": True}),
        Index(keys=[("update_time", 1)]),
        Index(keys=[("outbox.time", 1)], where=_UNREPORTED),
    )

    def __init__(self, collection: Collection, *, secret_box: Encryption) -> None:
        """Create the store.

        Args:
            collection: `webhooks`.
            secret_box: Encrypts and decrypts secrets.
        """
        self._webhooks = collection
        self._secret_box = secret_box

    async def read(self, tenant_id: str, name: str) -> Webhook | None:
        """Return a webhook; None: there is none."""
        found = await self._webhooks.find_one({"_id": id_of(tenant_id, name), "tenant_id": tenant_id})
        return None if found is None else from_document(found)

    async def page(self, tenant_id: str, *, after: str, limit: int) -> list[Webhook]:
        """Return webhooks by name, after a name; empty: from the beginning."""
        query = {"tenant_id": tenant_id, "name": {"$gt": after}}
        return [from_document(each) for each in await self._webhooks.find(query, sort=[("name", 1)], limit=limit)]

    async def of_tenants(self, tenant_ids: Sequence[str]) -> dict[str, list[Webhook]]:
        """Return the enabled webhooks of tenants, by tenant."""
        query = {"tenant_id": {"$in": list(tenant_ids)}, "name": {"$gt": ""}, "enabled": True}
        webhooks: dict[str, list[Webhook]] = {}
        for each in await self._webhooks.find(query):
            webhooks.setdefault(each["tenant_id"], []).append(from_document(each))
        return webhooks

    async def changed_since(self, time: datetime | None) -> AsyncIterator[Webhook]:
        """Yield the webhooks that were changed at a time or later; None: all."""
        query: Document = {"name": {"$gt": ""}} if time is None else {"update_time": {"$gte": time}}
        async for each in self._webhooks.iterate(query):
            yield from_document(each)

    async def is_full(self, tenant_id: str) -> bool:
        """Return whether a tenant has as many webhooks as it may have."""
        query = {"tenant_id": tenant_id, "name": {"$gt": ""}}
        return await self._webhooks.count(query, limit=MAX_WEBHOOKS) >= MAX_WEBHOOKS

    async def insert(self, webhook: Webhook) -> bool:
        """Insert a webhook; return False if there is one of its name."""
        document = {"_id": id_of(webhook.tenant_id, webhook.name), **_to_document(webhook), "wake": 0, "failures": 0}
        try:
            await self._webhooks.insert_one(document)
        except DuplicateKey:
            return False
        return True

    async def update(self, old: Webhook, new: Webhook) -> bool:
        """Replace a webhook by its next revision; return False if it was changed meanwhile."""
        return await self._webhooks.update_one(_query(old), {"$set": _to_document(new)})

    async def switch_off(self, webhook: Webhook, new: Webhook) -> bool:
        """Switch a webhook off, to be reported by the outbox; return False if it was changed meanwhile."""
        report = {"time": new.disable_time, "reason": new.disabled_reason}
        return await self._webhooks.update_one(_query(webhook), {"$set": {**_to_document(new), "outbox": report}})

    async def delete(self, webhook: Webhook) -> bool:
        """Delete a webhook; return False if it was changed meanwhile."""
        return await self._webhooks.delete_one(_query(webhook))

    async def erase(self, tenant_id: str) -> bool:
        """Delete all webhooks of a tenant; return whether there were any."""
        return await self._webhooks.delete_many({"tenant_id": tenant_id}) > 0

    async def switched_off(self, *, limit: int) -> list[Webhook]:
        """Return some webhooks as they were switched off by the server, which is not reported yet."""
        return [
            replace(from_document(each), disable_time=each["outbox"]["time"], disabled_reason=each["outbox"]["reason"])
            for each in await self._webhooks.find(_UNREPORTED, limit=limit)
        ]

    async def set_reported(self, webhooks: Sequence[Webhook]) -> None:
        """Record that it is reported that webhooks were switched off."""
        for each in webhooks:
            query = {"_id": id_of(each.tenant_id, each.name), "outbox.time": each.disable_time}
            await self._webhooks.update_one(query, {"$unset": {"outbox": ""}})

    def seal(self, webhook_uid: str, secret: str) -> bytes:
        """Encrypt a secret of a webhook.

        Raises:
            ProviderKeysOff: The service has no encryption key.
        """
        return seal(self._secret_box, webhook_uid, secret)

    def unseal(self, webhook: Webhook, *, at: datetime) -> list[str]:
        """Decrypt the secrets of a webhook that are in force at a time, the newest first.

        Raises:
            ProviderKeysOff: The service lacks a key, or one was sealed for another webhook.
        """
        return [unseal(self._secret_box, webhook.uid, each.sealed) for each in webhook.secrets_at(at)]

    async def reseal(self) -> int:
        """Re-encrypt with the first encryption key what others encrypted; return the number of webhooks changed.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        changed = 0
        async for webhook in self.changed_since(None):
            sealed = [each.sealed for each in webhook.secrets]
            if all(map(self._secret_box.is_current, sealed)):
                continue
            new = [self.seal(webhook.uid, unseal(self._secret_box, webhook.uid, each)) for each in sealed]
            known, changes = _sealed(sealed), _sealed(new)
            changed += await self._webhooks.update_one({**_query(webhook), **known}, {"$set": changes})
        return changed


def id_of(tenant_id: str, name: str) -> str:
    """Return the id of a webhook's document."""
    return f"{tenant_id}/{name}"


def _query(webhook: Webhook) -> Document:
    return {
        "_id": id_of(webhook.tenant_id, webhook.name),
        "tenant_id": webhook.tenant_id,
        "uid": webhook.uid,
        "revision": webhook.revision,
    }


def _sealed(secrets: Sequence[bytes]) -> Document:
    """Return sealed secrets by their paths in a document."""
    return {f"secrets.{place}.sealed": each for place, each in enumerate(secrets)}


def _to_document(webhook: Webhook) -> Document:
    return {
        "tenant_id": webhook.tenant_id,
        "name": webhook.name,
        "uid": webhook.uid,
        "url": webhook.url,
        "description": webhook.description,
        "event_types": list(webhook.event_types),
        "enabled": webhook.enabled,
        "active_since": webhook.active_since,
        "disabled_reason": webhook.disabled_reason,
        "disable_time": webhook.disable_time,
        "secrets": [
            {"sealed": each.sealed, "create_time": each.create_time, "expire_time": each.expire_time}
            for each in webhook.secrets
        ],
        "revision": webhook.revision,
        "create_time": webhook.create_time,
        "update_time": webhook.update_time,
    }


def from_document(document: Document) -> Webhook:
    """Return the webhook of a document."""
    return Webhook(
        tenant_id=document["tenant_id"],
        name=document["name"],
        uid=document["uid"],
        url=document["url"],
        description=document["description"],
        event_types=tuple(document["event_types"]),
        enabled=document["enabled"],
        active_since=document["active_since"],
        disabled_reason=document["disabled_reason"],
        disable_time=document["disable_time"],
        secrets=tuple(
            WebhookSecret(sealed=each["sealed"], create_time=each["create_time"], expire_time=each.get("expire_time"))
            for each in document["secrets"]
        ),
        last_success_time=document.get("last_success_time"),
        revision=document["revision"],
        create_time=document["create_time"],
        update_time=document["update_time"],
    )
