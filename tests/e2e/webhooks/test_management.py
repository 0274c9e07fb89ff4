"""Webhooks by gRPC: applied, listed and deleted by their own tenant; a secret is shown once."""

import base64
from typing import Any

import pytest
from godoty.v1 import webhook_pb2 as pb

from godoty_service.bootstrap.components import open_components
from tests.conftest import Start
from tests.e2e.webhooks.conftest import ENCRYPTION_KEY, HOOK, SETTINGS, Become, Tenant
from tests.support.caller import failure_of
from tests.support.receiver import Receiver
from tests.support.service import soon, stored_bytes

URL = "https://hooks.example/godoty"


async def test_webhook_is_returned_without_its_secret(tenant: Tenant) -> None:
    """Only the response that created it has the secret; the same webhook again changes nothing."""
    webhook = {"name": HOOK, "url": URL, "event_types": ["turn.finished"], "description": "for billing"}
    first = await tenant.call("ApplyWebhook", webhook=webhook)
    again = await tenant.call("ApplyWebhook", webhook=webhook)

    assert (first.changed, again.changed, again.secret) == (True, False, "")
    assert first.secret.startswith("whsec_")
    assert first.webhook == again.webhook == await tenant.webhook()
    assert (first.webhook.enabled, first.webhook.description) == (True, "for billing")
    for part in (first.secret, first.secret[6:]):
        assert part.encode() not in stored_bytes(tenant.service)


async def test_webhooks_of_others_do_not_exist(tenant: Tenant, become: Become, receiver: Receiver) -> None:
    """NOT_FOUND for all that names them, and their events are for their own tenant alone."""
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    (delivery,) = await tenant.delivered(1)
    other = become(tenant.service.another_tenant())

    calls = [
        other.call("DeleteWebhook", webhook_name=HOOK),
        other.call("ListDeliveries", webhook_name=HOOK),
        other.call("RedeliverEvent", webhook_name=HOOK, event_id=delivery.event_id),
    ]
    for call in calls:
        failure = await failure_of(call)
        assert (failure.reason, failure.metadata) == ("WEBHOOK_NOT_FOUND", {"webhook_name": HOOK})
    assert list((await other.call("ListWebhooks")).webhooks) == []
    await other.apply(receiver.url())
    failure = await failure_of(other.call("RedeliverEvent", webhook_name=HOOK, event_id=delivery.event_id))
    assert failure.reason == "DELIVERY_NOT_FOUND"
    assert await other.deliveries() == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"url": "https://10.0.0.1/"}, "webhook.url"),
        ({"url": "http://93.184.216.34/"}, "webhook.url"),
        ({"url": "https://169.254.169.254/latest"}, "webhook.url"),
        ({"url": "https://user:pw@hooks.example/"}, "webhook.url"),
        ({"event_types": ["turn.started"]}, "webhook.event_types"),
        ({"name": "Hook"}, "webhook.name"),
        ({"description": "a\nb"}, "webhook.description"),
    ],
)
async def test_invalid_field_is_named(tenant: Tenant, fields: dict[str, Any], path: str) -> None:
    """Nothing is stored."""
    failure = await failure_of(tenant.call("ApplyWebhook", webhook={"name": HOOK, "url": URL} | fields))

    assert (failure.reason, list(failure.fields)) == ("INVALID_FIELD", [path])
    assert tenant.documents("webhooks") == []


async def test_webhook_needs_an_encryption_key(serve: Start, become: Become) -> None:
    """FAILED_PRECONDITION: a secret is not stored in clear."""
    tenant = become(await serve(**SETTINGS | {"encryption_keys": None}))

    failure = await failure_of(tenant.call("ApplyWebhook", webhook={"name": HOOK, "url": URL}))

    assert failure.reason == "PROVIDER_KEYS_OFF"


async def test_change_of_another_version_is_refused(tenant: Tenant) -> None:
    """ETAG_MISMATCH, also for a rotation that is sent twice."""
    await tenant.apply(URL)
    etag = (await tenant.webhook()).etag
    rotate = {"webhook": {"name": HOOK, "url": URL}, "rotate_secret": True, "etag": etag}
    await tenant.call("ApplyWebhook", **rotate)

    failures = [
        await failure_of(tenant.call("ApplyWebhook", **rotate)),
        await failure_of(tenant.call("DeleteWebhook", webhook_name=HOOK, etag=etag)),
    ]

    assert [each.reason for each in failures] == ["ETAG_MISMATCH"] * 2


async def test_rotation_signs_with_both_secrets_until_the_overlap_ends(tenant: Tenant, receiver: Receiver) -> None:
    """A receiver that has either of them verifies; without an overlap the new one alone signs."""
    old = await tenant.apply(receiver.url())
    new = await tenant.apply(receiver.url(), rotation={"rotate_secret": True})
    await tenant.caller.converse("hello")
    received = await receiver.first()

    assert new not in ("", old)
    assert [received.is_signed_by(each) for each in (old, new)] == [True, True]
    assert (await tenant.webhook()).HasField("rotation_end_time")
    newest = await tenant.apply(receiver.url(), rotation={"rotate_secret": True, "rotation_overlap": {"seconds": 0}})
    await tenant.caller.converse("hello")
    later = (await soon(lambda: receiver.received[1:]))[0]
    assert [later.is_signed_by(each) for each in (old, new, newest)] == [False, False, True]
    assert len(later.signatures) == 1


async def test_deleted_webhook_leaves_nothing(tenant: Tenant, receiver: Receiver) -> None:
    """Neither deliveries nor secrets; one that is created under its name has none of them."""
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await tenant.delivered(1)

    await tenant.call("DeleteWebhook", webhook_name=HOOK)

    assert tenant.documents("webhooks") == tenant.documents("webhook_deliveries") == []
    await tenant.apply(receiver.url())
    assert await tenant.deliveries() == []


async def test_disabled_webhook_gets_nothing_also_not_later(tenant: Tenant, receiver: Receiver) -> None:
    """What happened while it was off is not delivered when it is on again."""
    await tenant.apply(receiver.url(), enabled=False)
    await tenant.caller.converse("hello", session_id="one")
    await tenant.apply(receiver.url(), enabled=True)
    await tenant.caller.converse("hello", session_id="two")

    await tenant.delivered(1)

    assert [each.data["session_id"] for each in receiver.received] == ["two"]


async def test_deliveries_are_paged_newest_first(tenant: Tenant, receiver: Receiver) -> None:
    """By state, too."""
    await tenant.apply(receiver.url())
    for number in range(3):
        await tenant.caller.converse("hello", session_id=f"s{number}")
        await tenant.delivered(number + 1)

    pages, token = [], ""
    for _ in range(3):
        page = await tenant.call("ListDeliveries", webhook_name=HOOK, page_size=1, page_token=token)
        pages += [each.session_id for each in page.deliveries]
        token = page.next_page_token

    assert (pages, token) == (["s2", "s1", "s0"], "")
    assert await tenant.deliveries(state=pb.DELIVERY_STATE_FAILED) == []
    assert len(await tenant.deliveries(state=pb.DELIVERY_STATE_DELIVERED)) == 3


async def test_secrets_are_resealed_with_the_first_key(serve: Start, become: Become, receiver: Receiver) -> None:
    """Then the other key is not needed any more."""
    tenant = become(await serve(**SETTINGS))
    secret = await tenant.apply(receiver.url())
    new_key = base64.b64encode(b"n" * 32).decode()
    service = tenant.service
    settings = service.backends.settings(service.database.name, encryption_keys=f"{new_key},{ENCRYPTION_KEY}")
    async with open_components(settings) as components:
        assert await components.webhooks.webhooks.reseal() == 1
        assert await components.webhooks.webhooks.reseal() == 0
    settings = service.backends.settings(service.database.name, encryption_keys=new_key)
    async with open_components(settings) as components:
        found = await components.webhooks.webhooks.read(service.tenant_id, HOOK)
        assert found is not None
        assert components.webhooks.webhooks.unseal(found, at=components.clock()) == [secret]
