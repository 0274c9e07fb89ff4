"""`POST /chat/completions`: stops the response and bills the abort when the client disconnects."""

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from openrouter_sandbox.connections import OpenResponse
from openrouter_sandbox.request_handler import RequestHandler
from openrouter_sandbox.state import SandboxState
from openrouter_sandbox.streaming.client_connection import ClientConnection


class ChatCompletions:
    """The ASGI endpoint of chat completions."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:  # disconnected before the whole request arrived
            return
        handler = RequestHandler(self._state, request, body, ClientConnection(scope, receive, send))
        response = self._state.connections.opened()
        try:
            await self._run_until_disconnected(handler, response)
        finally:
            self._state.connections.closed(response)

    async def _run_until_disconnected(self, handler: RequestHandler, response: OpenResponse) -> None:
        work = asyncio.ensure_future(handler.run())
        disconnect = asyncio.ensure_future(handler.connection.wait_disconnected())
        try:
            await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif not handler.connection.was_cut:
                self._state.connections.aborted(response, **handler.on_disconnect())
        finally:
            work.cancel()
            disconnect.cancel()
            await asyncio.gather(work, disconnect, return_exceptions=True)
