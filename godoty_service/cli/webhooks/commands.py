"""`godoty webhook`: apply, list and delete a tenant's webhooks, list their deliveries, and deliver events again."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import webhook_pb2 as pb

from godoty_service.cli.agents.commands import run
from godoty_service.cli.context import out, print_table

if TYPE_CHECKING:
    from godoty_service.cli.agents.client import Connection

webhook_app = typer.Typer(
    help="Manage a tenant's webhooks by way of a running server: GODOTY_LISTEN, and an API key of the scope agents in"
    " GODOTY_API_KEY; by default those of `godoty dev` in this directory.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The webhook's name.")]
_STATES = {
    "pending": pb.DELIVERY_STATE_PENDING,
    "delivered": pb.DELIVERY_STATE_DELIVERED,
    "failed": pb.DELIVERY_STATE_FAILED,
    "not-sent": pb.DELIVERY_STATE_NOT_SENT,
}


@webhook_app.command("apply")
def apply(  # noqa: PLR0917 - typer passes them by name
    name: Name,
    url: Annotated[str, typer.Option(help="The URL of the endpoint.")],
    events: Annotated[
        list[str] | None,
        typer.Option("--event", help="A type of events, such as turn.finished; repeatable. None: all."),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    enabled: Annotated[bool, typer.Option(help="Whether it gets events.")] = True,  # noqa: FBT002 - typer's way
    rotate: Annotated[bool, typer.Option("--rotate-secret", help="Create a new secret.")] = False,  # noqa: FBT002 - likewise
    overlap: Annotated[
        int, typer.Option(help="Seconds for which the earlier secrets sign beside the new one.", min=0)
    ] = 86_400,
) -> None:
    """Create or change a webhook, and print its secret if it has a new one: it is shown this once."""

    async def work(server: "Connection") -> None:
        webhook = pb.Webhook(name=name, url=url, event_types=events or (), description=description, enabled=enabled)
        request = pb.ApplyWebhookRequest(webhook=webhook, rotate_secret=rotate)
        if rotate:
            request.rotation_overlap.FromTimedelta(timedelta(seconds=overlap))
        response = await server.call(server.agents.ApplyWebhook, request)
        out.print(f"{name} {'applied' if response.changed else 'unchanged'}", markup=False)
        if response.secret:
            out.print(f"secret: {response.secret}", markup=False)

    run(work)


@webhook_app.command("list")
def list_all() -> None:
    """Print the webhooks."""

    async def work(server: "Connection") -> None:
        rows = [_row(each) async for each in _webhooks(server)]
        print_table(("webhook", "url", "events", "state", "last success", "changed"), rows)

    run(work)


@webhook_app.command("delete")
def delete(name: Name) -> None:
    """Delete a webhook with its secrets and deliveries."""

    async def work(server: "Connection") -> None:
        await server.call(server.agents.DeleteWebhook, pb.DeleteWebhookRequest(webhook_name=name))
        out.print("deleted")

    run(work)


@webhook_app.command("deliveries")
def deliveries(
    name: Name,
    state: Annotated[str, typer.Option(help=f"Only those in this state: {', '.join(_STATES)}.")] = "",
    limit: Annotated[int, typer.Option(help="The most deliveries.", min=1, max=500)] = 50,
) -> None:
    """Print the newest deliveries of a webhook."""
    if state and state not in _STATES:
        raise typer.BadParameter(f"must be one of {', '.join(_STATES)}", param_hint="--state")

    async def work(server: "Connection") -> None:
        wanted = _STATES.get(state, pb.DELIVERY_STATE_UNSPECIFIED)
        request = pb.ListDeliveriesRequest(webhook_name=name, state=wanted, page_size=limit)
        page = await server.call(server.agents.ListDeliveries, request)
        rows = [_delivery_row(each) for each in page.deliveries]
        print_table(("event", "type", "state", "attempts", "status", "error", "created", "next attempt"), rows)

    run(work)


@webhook_app.command("redeliver")
def redeliver(name: Name, event: Annotated[str, typer.Argument(help="The event's id.")]) -> None:
    """Deliver an event again, under the same id."""

    async def work(server: "Connection") -> None:
        request = pb.RedeliverEventRequest(webhook_name=name, event_id=event)
        await server.call(server.agents.RedeliverEvent, request)
        out.print("pending")

    run(work)


@webhook_app.command("listen")
def listen(
    port: Annotated[int, typer.Option(help="The port of 127.0.0.1; 0: a free one.", min=0, max=65_535)] = 0,
    secret: Annotated[
        str, typer.Option(envvar="GODOTY_WEBHOOK_SECRET", help="The secret of a webhook that has this address.")
    ] = "",
    events: Annotated[
        list[str] | None, typer.Option("--event", help="A type of events; repeatable. None: all.")
    ] = None,
) -> None:
    """Receive events on this machine, verify their signatures and print them, until Ctrl-C.

    Without a secret, a webhook `listen-PORT` is created for as long as it listens.
    """
    from godoty_service.cli.webhooks.listen import listen_with  # noqa: PLC0415 - only this command needs it

    if secret:
        asyncio.run(listen_with(None, port=port, secret=secret, events=[]))
        return

    async def work(server: "Connection") -> None:
        await listen_with(server, port=port, secret="", events=events or [])

    run(work)


def _row(webhook: pb.Webhook) -> tuple[str, ...]:
    state = "enabled" if webhook.enabled else f"off {webhook.disabled_reason}".strip()
    success = webhook.last_success_time.ToJsonString() if webhook.HasField("last_success_time") else ""
    return (
        webhook.name,
        webhook.url,
        " ".join(webhook.event_types) or "all",
        state,
        success,
        webhook.update_time.ToJsonString(),
    )


def _delivery_row(delivery: pb.WebhookDelivery) -> tuple[str, ...]:
    names = {number: name for name, number in _STATES.items()}
    due = delivery.next_attempt_time.ToJsonString() if delivery.HasField("next_attempt_time") else ""
    return (
        delivery.event_id,
        delivery.event_type,
        names.get(delivery.state, str(delivery.state)),
        str(delivery.attempts),
        str(delivery.last_status) if delivery.HasField("last_status") else "",
        delivery.last_error,
        delivery.create_time.ToJsonString(),
        due,
    )


async def _webhooks(server: "Connection") -> AsyncGenerator[pb.Webhook, None]:
    """Yield the webhooks, by name; pages are requested as needed."""
    request = pb.ListWebhooksRequest()
    while True:
        page = await server.call(server.agents.ListWebhooks, request)
        for each in page.webhooks:
            yield each
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
