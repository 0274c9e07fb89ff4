"""Error responses sent before a generation starts, with the messages recorded from OpenRouter."""

from typing import Any

from openrouter_sandbox.conversation import RequestError
from openrouter_sandbox.scenarios.scenario import Scenario
from openrouter_sandbox.streaming.chunk_encoder import JSON, error_body
from openrouter_sandbox.streaming.client_connection import ClientConnection

_MESSAGES = {
    400: "Provider returned error",
    401: "User not found.",
    402: "Insufficient credits. Add more using https://openrouter.ai/credits",
    403: "Provider returned error",
    404: "No endpoints found for this model.",
    408: "Request timed out",
    413: "Request too large",
    422: "Provider returned error",
    429: "Provider returned error",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "No instances available",
    524: "Request timed out. Please try again later.",
    529: "Provider returned error",
}


def error_message(status: int, scenario: Scenario) -> str:
    """Return the scenario's `message`, else the recorded message for the status."""
    return scenario.text("message") or _MESSAGES.get(status, "Error")


async def respond_error(
    connection: ClientConnection, status: int, scenario: Scenario, *, provider: str, body_status: int | None = None
) -> None:
    """Send an error response; with `body_status` the code in the body differs from the HTTP status."""
    code = status if body_status is None else body_status
    message = error_message(code, scenario)
    upstream: dict[str, Any] = {"provider_name": provider, "raw": f"sandbox: {code} as the scenario requests"}
    metadata = upstream if message == "Provider returned error" else None
    headers = {"retry-after": scenario.text("retry_after")} if scenario.has("retry_after") else None
    await connection.respond(status, error_body(code, message, metadata), JSON, headers)


async def respond_request_error(connection: ClientConnection, error: RequestError) -> None:
    """Send the response to a request that cannot be served."""
    await connection.respond(error.status, error_body(error.status, error.message, error.metadata), JSON)
