"""The ASGI application: the protocol under several paths, misbehaving ones among them, and the control of tests."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from openrouter_sandbox.mcp.faults import FAULTS, crowd
from openrouter_sandbox.mcp.leaks import LEAKY
from openrouter_sandbox.mcp.state import McpState
from openrouter_sandbox.mcp.tools import announce, build_server
from openrouter_sandbox.streaming.client_connection import ClientConnection

CLIENT, SECRET, TOKEN = "sandbox-client", "sandbox-secret", "sandbox-token"
_KEPT_REQUESTS = 1_000
_MODERN = "2026-"  # what the versions of the protocol without sessions begin with
_METHODS = ("POST", "GET", "DELETE")
_LEGACY = ("/legacy", "/restless")
_PROTOCOL = ("/mcp", "/secret", "/crowded", *_LEGACY, LEAKY)


class McpApp:
    """Serves the protocol; `run` must be entered while it does.

    Paths: `/mcp`, `/legacy` (versions with sessions only), `/restless` (likewise; ends each stream to listen at once),
    `/crowded` (lists more tools than anyone can use), `/secret` (needs a header `X-Api-Key` or an access token of
    `/token`), `/leaky` (repeats the headers of requests in its list and its tool `leak`), `/redirect?to=URL&status=N`,
    `/silent`, `/nonsense?kind=K`, `/flood`; `/_sandbox/...` controls it.
    """

    def __init__(self, state: McpState) -> None:
        self._state = state
        self._manager: StreamableHTTPSessionManager | None = None
        self._renew = asyncio.Event()
        self._ready = asyncio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        task = asyncio.create_task(self._manage())
        await self._ready.wait()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def forget_sessions(self) -> None:
        """Forget all sessions, as a restart does."""
        self._ready.clear()
        self._renew.set()
        await self._ready.wait()

    async def _manage(self) -> None:
        while True:
            self._renew.clear()
            self._manager = StreamableHTTPSessionManager(build_server(self._state))
            async with self._manager.run():
                self._ready.set()
                await self._renew.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        path = request.url.path
        self._state.requests.append({"path": path, "method": request.method, "headers": dict(request.headers)})
        del self._state.requests[:-_KEPT_REQUESTS]
        if path in _PROTOCOL and request.method in _METHODS:
            await self._protocol(path, request, send)
            return
        if path in ("/nonsense", "/flood"):
            await request.body()
            arguments = (
                {"kind": request.query_params.get("kind", "html")} if path == "/nonsense" else {"megabytes": 100}
            )
            await FAULTS[path[1:]](ClientConnection(scope, receive, send), 1, arguments)
            return
        response = await self._other(path, request)
        await response(scope, receive, send)

    async def _protocol(self, path: str, request: Request, send: Send) -> None:
        """Answer a request of the protocol."""
        scope, headers = request.scope, request.headers
        if path == "/secret" and not _is_authorized(request):
            await Response("a secret is needed", 401)(scope, request.receive, send)
            return
        if path in _LEGACY and headers.get("mcp-protocol-version", "").startswith(_MODERN):
            await Response("Bad Request: Unsupported protocol version", 400)(scope, request.receive, send)
            return
        body = await request.body() if request.method == "POST" else b""
        if path == "/restless" and request.method == "GET":
            await ClientConnection(scope, request.receive, send).respond(200, b"retry: 0\n\n", "text/event-stream")
            return
        if path == "/crowded" and (message := _message(body, "tools/list")) is not None:
            await crowd(ClientConnection(scope, request.receive, send), message["id"])
            return
        if (fault := _fault(body)) is not None:
            name, request_id, arguments = fault
            self._state.calls[name] += 1
            await FAULTS[name](ClientConnection(scope, request.receive, send), request_id, arguments)
            return
        assert self._manager is not None  # noqa: S101 - `run` is entered
        await self._manager.handle_request(scope, _replayed(body, request.receive), send)

    async def _other(self, path: str, request: Request) -> Response:
        query = request.query_params
        match path:
            case "/token":
                return await _token(request)
            case "/redirect":
                return RedirectResponse(query["to"], int(query.get("status", "307")))
            case "/silent":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            case "/_sandbox/release":
                self._state.release(query["hold"])
            case "/_sandbox/forget":
                await self.forget_sessions()
            case "/_sandbox/learn":
                self._state.learned.append(query["name"])
                await announce(self._state)
            case "/_sandbox/records":
                self._state.records = int(query["tools"])
                await announce(self._state)
            case "/_sandbox/calls":
                return JSONResponse({"calls": self._state.calls, "cancelled": self._state.cancelled})
            case _:
                return Response("there is nothing here", 404)
        return JSONResponse({})


def _fault(body: bytes) -> tuple[str, Any, dict[str, Any]] | None:
    """Return the fault that a call asks for, the id of the request and its arguments; None: it asks for none."""
    if (message := _message(body, "tools/call")) is None:
        return None
    name = message["params"]["name"]
    return (name, message["id"], message["params"].get("arguments") or {}) if name in FAULTS else None


def _message(body: bytes, method: str) -> dict[str, Any] | None:
    """Return the request in a body; None: it is no request of this method."""
    try:
        message = json.loads(body or b"null")
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.get("method") == method else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that yields a body that was read before."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _is_authorized(request: Request) -> bool:
    headers = request.headers
    return headers.get("x-api-key") == SECRET or headers.get("authorization") == f"Bearer {TOKEN}"


async def _token(request: Request) -> Response:
    """Issue an access token to the client that presents its credentials."""
    expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    form = (await request.body()).decode()
    if request.headers.get("authorization") != f"Basic {expected}" or "grant_type=client_credentials" not in form:
        return JSONResponse({"error": "invalid_client"}, 401)
    return JSONResponse({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})
