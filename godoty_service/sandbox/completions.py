"""`POST /chat/completions`: serves while the client stays, bills the abort when it leaves."""

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from godoty_service.sandbox.channel import Channel
from godoty_service.sandbox.connections import Connection
from godoty_service.sandbox.desk import Desk
from godoty_service.sandbox.exchange import Exchange


class ChatCompletions:
    """The ASGI endpoint."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:  # gone before it had said what it wanted
            return
        exchange = Exchange(self._desk, request, body, Channel(scope, receive, send))
        connection = self._desk.connections.opened()
        try:
            await self._until_done_or_left(exchange, connection)
        finally:
            self._desk.connections.closed(connection)

    async def _until_done_or_left(self, exchange: Exchange, connection: Connection) -> None:
        work = asyncio.ensure_future(exchange.run())
        left = asyncio.ensure_future(exchange.channel.until_left())
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif not exchange.channel.was_cut:
                self._desk.connections.aborted(connection, **exchange.abandoned())
        finally:
            work.cancel()
            left.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
