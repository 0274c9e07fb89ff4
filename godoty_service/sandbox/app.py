"""The application: OpenRouter's endpoints under `/api/v1`, the sandbox's own under `/_sandbox`."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from godoty_service.sandbox.accounts import Accounts, authenticate, json_response
from godoty_service.sandbox.completions import ChatCompletions
from godoty_service.sandbox.control import Control
from godoty_service.sandbox.conversation import RequestError
from godoty_service.sandbox.desk import Desk
from godoty_service.sandbox.wire import JSON, error_body


class Models:
    """`GET /models` and its endpoints; the listing is encoded once."""

    def __init__(self, desk: Desk) -> None:
        self._catalogue = desk.catalogue
        self._encoded: dict[bool, bytes] = {}

    async def models(self, request: Request) -> Response:
        """The listing: models with text output, or all with `?output_modalities=all`."""
        every = request.query_params.get("output_modalities") == "all"
        if every not in self._encoded:
            listing = self._catalogue.listing(every_modality=every)
            self._encoded[every] = json.dumps(listing).encode()  # its prices are strings
        return Response(self._encoded[every], media_type=JSON)

    async def endpoints(self, request: Request) -> Response:
        """Who serves a model, at what price."""
        authenticate(request)
        name = f"{request.path_params['author']}/{request.path_params['slug']}"
        body = self._catalogue.endpoints_body(name)
        if body is None:
            raise RequestError(404, "Resource not found")
        return json_response(body)


def build(desk: Desk) -> Starlette:
    """The ASGI application over what a desk holds."""
    models, accounts = Models(desk), Accounts(desk.books.invoice)
    api = [
        Route("/chat/completions", ChatCompletions(desk), methods=["POST"]),
        Route("/models", models.models, methods=["GET"]),
        Route("/models/{author}/{slug}/endpoints", models.endpoints, methods=["GET"]),
        Route("/generation", desk.books.records.get, methods=["GET"]),
        Route("/key", accounts.key, methods=["GET"]),
        Route("/credits", accounts.credits, methods=["GET"]),
    ]
    routes = [Mount("/api/v1", routes=api), Mount("/_sandbox", routes=Control(desk).routes())]
    return Starlette(routes=routes, exception_handlers={RequestError: _refuse})


async def _refuse(_: Request, error: Any) -> Response:
    return Response(error_body(error.status, error.message, error.metadata), error.status, media_type=JSON)
