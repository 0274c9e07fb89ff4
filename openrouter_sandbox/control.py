"""The control endpoints under `/_sandbox/`: invoice, request log, connections, scenarios, holds, settings, reset."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openrouter_sandbox.accounts import account_of, json_response
from openrouter_sandbox.decimal_json import loads, plain_decimal
from openrouter_sandbox.scenarios.scenario import ScenarioError
from openrouter_sandbox.state import SandboxState


class Control:
    """Inspects and configures a running sandbox; requires no API key."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """Return the routes, relative to the mount path."""
        endpoints = [
            ("GET", "/invoice", self.invoice),
            ("GET", "/requests", self.requests),
            ("GET", "/connections", self.connections),
            ("GET", "/settings", self.settings),
            ("POST", "/settings", self.change_settings),
            ("GET", "/scenarios", self.scenarios),
            ("POST", "/scenarios", self.add_scenarios),
            ("DELETE", "/scenarios", self.clear_scenarios),
            ("POST", "/holds", self.allow_tokens),
            ("POST", "/reset", self.reset),
        ]
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in endpoints]

    async def invoice(self, request: Request) -> Response:
        """Return the invoice lines and their total, filtered by `?key=`, `?user=` and `?session=`."""
        query = request.query_params
        key = account_of(query["key"]) if query.get("key") else None
        filters = {"key": key, "user": query.get("user"), "session": query.get("session")}
        invoice = self._state.billing.invoice
        lines = [line.as_dict() for line in invoice.lines(**filters)]
        return json_response({"lines": lines, "total": plain_decimal(invoice.total(**filters))})

    async def requests(self, _: Request) -> Response:
        """Return the newest chat requests and the newest GET requests, oldest first."""
        log = self._state.request_log
        return json_response({"requests": log.entries(), "reads": log.reads()})

    async def connections(self, _: Request) -> Response:
        """Return the number of open responses and the list of aborted ones."""
        return json_response(self._state.connections.as_dict())

    async def settings(self, _: Request) -> Response:
        """Return the settings."""
        return json_response(self._state.billing.settings.as_dict())

    async def change_settings(self, request: Request) -> Response:
        """Change some settings and return all of them."""
        try:
            self._state.billing.settings.change(await _json_object(request))
        except ValueError as error:
            return json_response({"error": str(error)}, 400)
        return await self.settings(request)

    async def scenarios(self, _: Request) -> Response:
        """Return the queued and standing scenarios."""
        return json_response(self._state.scenarios.as_dict())

    async def add_scenarios(self, request: Request) -> Response:
        """Queue a scenario or make it a standing default; `{"scenarios": [...]}` adds several."""
        try:
            body = await _json_object(request)
            for spec in body.get("scenarios", [body]):
                self._state.scenarios.add(spec)
        except (ScenarioError, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        return await self.scenarios(request)

    async def clear_scenarios(self, request: Request) -> Response:
        """Remove the queued and standing scenarios."""
        self._state.scenarios.clear()
        return await self.scenarios(request)

    async def allow_tokens(self, request: Request) -> Response:
        """Release tokens to answers paused by `hold=`: `{"hold": NAME, "tokens": N}`; all without `tokens`."""
        try:
            body = await _json_object(request)
            tokens = body.get("tokens")
            self._state.holds.allow(str(body.get("hold", "")), None if tokens is None else int(tokens))
        except (ValueError, TypeError) as error:
            return json_response({"error": str(error)}, 400)
        return json_response({})

    async def reset(self, _: Request) -> Response:
        """Restore the state of a new sandbox: no lines, no records, no scenarios, default settings."""
        state = self._state
        state.billing.invoice.clear()
        state.billing.records.clear()
        state.billing.settings.reset()
        state.scenarios.clear()
        state.request_log.clear()
        state.connections.clear()
        state.holds.clear()
        state.reasoning_check.clear()
        return json_response({})


async def _json_object(request: Request) -> dict[str, Any]:
    body = loads(await request.body())
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the callers map ValueError to status 400
    return body
