"""The methods of AgentDefinitionService for webhooks: one short method per RPC."""

from godoty.v1 import webhook_pb2 as pb

from godoty_service.rpc.agents import webhook_codec
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.pagination import PageRequest
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.webhooks.changes import Record, Values, WebhookComponents

_PAGE = 50  # entries


class WebhookMethods:
    """Reads and changes the webhooks of the key's own tenant."""

    def __init__(self, webhooks: WebhookComponents, *, administration: Administration, page_bytes: int) -> None:
        """Create the methods.

        Args:
            webhooks: What manages the webhooks.
            administration: Records changes.
            page_bytes: Bytes at which a page ends.
        """
        self._webhooks = webhooks
        self._administration = administration
        self._page_bytes = page_bytes

    async def ApplyWebhook(self, request: pb.ApplyWebhookRequest, call: CallContext) -> pb.ApplyWebhookResponse:
        """Create or change a webhook."""
        webhook, changed, secret = await self._webhooks.changes.apply(
            call.tenant_id,
            webhook_codec.parse_webhook(request, self._webhooks.rules),
            etag=request.etag,
            rotation=webhook_codec.rotation(request),
            record=self._recorder(call, "ApplyWebhook"),
        )
        return pb.ApplyWebhookResponse(
            webhook=webhook_codec.webhook_message(webhook, now=self._webhooks.clock()), changed=changed, secret=secret
        )

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, call: CallContext) -> pb.ListWebhooksResponse:
        """Return a page of webhooks."""
        page = PageRequest(request, ("webhooks", call.tenant_id), str, default_size=_PAGE)
        after, now = page.position[0] if page.position else "", self._webhooks.clock()
        found = await self._webhooks.webhooks.page(call.tenant_id, after=after, limit=page.limit)
        webhooks, token = page.cut(
            found,
            [webhook_codec.webhook_message(each, now=now) for each in found[: page.size]],
            position=lambda each: [each.name],
            max_bytes=self._page_bytes,
        )
        return pb.ListWebhooksResponse(webhooks=webhooks, next_page_token=token)

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, call: CallContext) -> pb.DeleteWebhookResponse:
        """Delete a webhook."""
        name = webhook_codec.parse_name(request.webhook_name)
        record = self._recorder(call, "DeleteWebhook")
        await self._webhooks.changes.delete(call.tenant_id, name, etag=request.etag, record=record)
        return pb.DeleteWebhookResponse()

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, call: CallContext) -> pb.ListDeliveriesResponse:
        """Return a page of deliveries."""
        name, state = webhook_codec.parse_name(request.webhook_name), webhook_codec.parse_state(request)
        query = ("deliveries", call.tenant_id, name, str(request.state))
        page = PageRequest(request, query, str, default_size=_PAGE)
        before = page.position[0] if page.position else None
        webhook = await self._webhooks.changes.require(call.tenant_id, name)
        found = await self._webhooks.deliveries.page(webhook, state=state, before=before, limit=page.limit)
        deliveries, token = page.cut(
            found,
            [webhook_codec.delivery_message(each) for each in found[: page.size]],
            position=lambda each: [each.delivery_id],
            max_bytes=self._page_bytes,
        )
        return pb.ListDeliveriesResponse(deliveries=deliveries, next_page_token=token)

    async def RedeliverEvent(self, request: pb.RedeliverEventRequest, call: CallContext) -> pb.RedeliverEventResponse:
        """Deliver an event again."""
        name, event_id = webhook_codec.parse_event(request)
        delivery = await self._webhooks.changes.redeliver(call.tenant_id, name, event_id)
        return pb.RedeliverEventResponse(delivery=webhook_codec.delivery_message(delivery))

    def _recorder(self, call: CallContext, method: str) -> Record:
        """Return a function that records a change of a tenant's webhook in the audit log."""
        actor = Actor(kind=ActorKind.KEY, id=call.principal.key_id, peer=call.peer)

        async def record(old: Values | None, new: Values | None) -> None:
            await self._administration.record_webhook_change(actor, method, call.tenant_id, old=old, new=new or {})

        return record
