"""The sandbox's own endpoints under `/_sandbox/`: the invoice, what arrived, scenarios, settings."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godoty_service.sandbox.accounts import account_of, json_response
from godoty_service.sandbox.desk import Desk
from godoty_service.sandbox.exact import loads, plain
from godoty_service.sandbox.scenario import ScenarioError


class Control:
    """Reads and turns a running sandbox; needs no key."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Every endpoint, under the path it is mounted at."""
        endpoints = [
            ("GET", "/invoice", self.invoice),
            ("GET", "/requests", self.requests),
            ("GET", "/connections", self.connections),
            ("GET", "/settings", self.settings),
            ("POST", "/settings", self.change_settings),
            ("GET", "/scenarios", self.scenarios),
            ("POST", "/scenarios", self.plan),
            ("DELETE", "/scenarios", self.clear_scenarios),
            ("POST", "/holds", self.allow),
            ("POST", "/reset", self.reset),
        ]
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in endpoints]

    async def invoice(self, request: Request) -> Response:
        """The lines and their total; `?key=`, `?user=` and `?session=` filter."""
        query = request.query_params
        key = account_of(query["key"]) if query.get("key") else None
        chosen = {"key": key, "user": query.get("user"), "session": query.get("session")}
        invoice = self._desk.books.invoice
        lines = [line.as_dict() for line in invoice.lines(**chosen)]
        return json_response({"lines": lines, "total": plain(invoice.total(**chosen))})

    async def requests(self, _: Request) -> Response:
        """The newest requests, oldest first."""
        return json_response({"requests": self._desk.journal.entries()})

    async def connections(self, _: Request) -> Response:
        """The open responses, and the aborted ones."""
        return json_response(self._desk.connections.as_dict())

    async def settings(self, _: Request) -> Response:
        """The settings."""
        return json_response(self._desk.books.settings.as_dict())

    async def change_settings(self, request: Request) -> Response:
        """Change some settings; answers with all of them."""
        try:
            self._desk.books.settings.change(await _object(request))
        except ValueError as error:
            return json_response({"error": str(error)}, 400)
        return await self.settings(request)

    async def scenarios(self, _: Request) -> Response:
        """What is planned."""
        return json_response(self._desk.scenarios.as_dict())

    async def plan(self, request: Request) -> Response:
        """Queue a scenario or make it the standing default; `{"scenarios": [...]}` plans several."""
        try:
            wish = await _object(request)
            for single in wish.get("scenarios", [wish]):
                self._desk.scenarios.plan(single)
        except (ScenarioError, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        return await self.scenarios(request)

    async def clear_scenarios(self, request: Request) -> Response:
        """Forget what is planned."""
        self._desk.scenarios.clear()
        return await self.scenarios(request)

    async def allow(self, request: Request) -> Response:
        """Let held answers go on: `{"hold": NAME, "tokens": N}`; without `tokens` to their end."""
        try:
            wish = await _object(request)
            tokens = wish.get("tokens")
            self._desk.holds.allow(str(wish.get("hold", "")), None if tokens is None else int(tokens))
        except (ValueError, TypeError) as error:
            return json_response({"error": str(error)}, 400)
        return json_response({})

    async def reset(self, _: Request) -> Response:
        """As newly started: no lines, no records, no scenarios, default settings."""
        desk = self._desk
        desk.books.invoice.clear()
        desk.books.records.clear()
        desk.books.settings.reset()
        desk.scenarios.clear()
        desk.journal.clear()
        desk.connections.clear()
        desk.holds.clear()
        desk.trail.clear()
        return json_response({})


async def _object(request: Request) -> dict[str, Any]:
    body = loads(await request.body())
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the caller answers 400 to it
    return body
