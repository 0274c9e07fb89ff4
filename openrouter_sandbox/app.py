"""The ASGI application: OpenRouter's endpoints under `/api/v1`, the control endpoints under `/_sandbox`."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from openrouter_sandbox.accounts import Accounts, authenticate, json_response
from openrouter_sandbox.completions import ChatCompletions
from openrouter_sandbox.control import Control
from openrouter_sandbox.conversation import RequestError
from openrouter_sandbox.models import server_tools
from openrouter_sandbox.state import SandboxState
from openrouter_sandbox.streaming.chunk_encoder import JSON, error_body


class Models:
    """Serves `GET /models`, `GET /tools` and `GET /models/{author}/{slug}/endpoints`; the listing is encoded once."""

    def __init__(self, state: SandboxState) -> None:
        self._catalogue = state.catalogue
        self._settings = state.billing.settings
        self._encoded: dict[bool, bytes] = {}

    async def models(self, request: Request) -> Response:
        """Return the models with text output, or all models with `?output_modalities=all`."""
        if self._settings.listing == "missing":
            return json_response({"detail": "Not Found"}, 404)
        if self._settings.listing == "unpriced":
            return json_response(self._catalogue.unpriced_listing())
        all_modalities = request.query_params.get("output_modalities") == "all"
        if all_modalities not in self._encoded:
            listing = self._catalogue.listing(all_modalities=all_modalities)
            self._encoded[all_modalities] = json.dumps(listing).encode()  # prices are strings: no Decimal to encode
        return Response(self._encoded[all_modalities], media_type=JSON)

    async def tools(self, request: Request) -> Response:
        """Return the server tools and their prices."""
        authenticate(request)
        return json_response(server_tools.listing())

    async def endpoints(self, request: Request) -> Response:
        """Return a model's providers and their prices."""
        authenticate(request)
        if self._settings.listing:
            return json_response({"detail": "Not Found"}, 404)
        name = f"{request.path_params['author']}/{request.path_params['slug']}"
        body = self._catalogue.endpoints_body(name)
        if body is None:
            raise RequestError(404, "Resource not found")
        return json_response(body)


def build_app(state: SandboxState) -> Starlette:
    """Build the ASGI application on the sandbox's state."""
    models, accounts = Models(state), Accounts(state.billing.invoice)
    api = [
        Route("/chat/completions", ChatCompletions(state), methods=["POST"]),
        _read_route(state, "/models", models.models),
        _read_route(state, "/models/{author}/{slug}/endpoints", models.endpoints),
        _read_route(state, "/tools", models.tools),
        _read_route(state, "/generation", state.billing.records.get),
        _read_route(state, "/key", accounts.key),
        _read_route(state, "/credits", accounts.credits),
    ]
    routes = [Mount("/api/v1", routes=api), Mount("/_sandbox", routes=Control(state).routes())]
    return Starlette(routes=routes, exception_handlers={RequestError: _error_response})


def _read_route(state: SandboxState, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return the route of a GET endpoint whose requests are logged."""

    async def logged(request: Request) -> Response:
        if state.billing.settings.record_requests:
            state.request_log.append_read(request)
        return await endpoint(request)

    return Route(path, logged, methods=["GET"])


async def _error_response(_: Request, error: Any) -> Response:
    return Response(error_body(error.status, error.message, error.metadata), error.status, media_type=JSON)
