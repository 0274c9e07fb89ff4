"""`godoty webhook listen`: shows events in the terminal."""

import asyncio
import json
import signal
from contextlib import suppress

from godoty.v1 import webhook_pb2 as pb

from godoty_service.cli.agents.client import Connection
from godoty_service.cli.context import err, out
from godoty_service.cli.webhooks.receiver import Receiver


async def listen_with(server: Connection | None, *, port: int, secret: str, events: list[str]) -> None:
    """Receive and print events until SIGINT or SIGTERM.

    Args:
        server: The connection, with which a webhook is created; None: one exists.
        port: The port of 127.0.0.1; 0: a free one.
        secret: The secret of the webhook that exists.
        events: The types of events of the one that is created; empty: all.

    Raises:
        ValueError: The webhook cannot be created.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Receiver(port=port, on_event=_print_event, on_refused=_print_refused) as receiver:
        name = f"listen-{receiver.port}"
        receiver.secret = secret if server is None else await _create(server, name, receiver.url, events)
        out.print(f"Listening on {receiver.url} …", markup=False)
        try:
            await stop.wait()
        finally:
            if server is not None:
                with suppress(ValueError):  # the server may be gone
                    await server.call(server.agents.DeleteWebhook, pb.DeleteWebhookRequest(webhook_name=name))


async def _create(server: Connection, name: str, url: str, events: list[str]) -> str:
    """Create a webhook; return its secret.

    Raises:
        ValueError: It cannot be created.
    """
    webhook = pb.Webhook(name=name, url=url, event_types=events, description="godoty webhook listen")
    request = pb.ApplyWebhookRequest(webhook=webhook, rotate_secret=True)  # one of this name may be left
    return str((await server.call(server.agents.ApplyWebhook, request)).secret)


def _print_event(body: str) -> None:
    """Print an event: a line with its type and id, then its data."""
    event = json.loads(body)
    out.print(f"{event['timestamp']} {event['type']} {event['id']}", markup=False)
    out.print(json.dumps(event["data"], indent=2, ensure_ascii=False), markup=False)


def _print_refused(reason: str) -> None:
    err.print(f"refused: {reason}", markup=False)
