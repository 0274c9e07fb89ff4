"""The errors that OpenRouter answers before a generation starts, worded as recorded."""

from typing import Any

from godoty_service.sandbox.channel import Channel
from godoty_service.sandbox.conversation import RequestError
from godoty_service.sandbox.scenario import Scenario
from godoty_service.sandbox.wire import JSON, error_body

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


def message_of(status: int, scenario: Scenario) -> str:
    """The message of an error, the scenario's own before the usual one."""
    return scenario.text("message") or _MESSAGES.get(status, "Error")


async def respond_error(
    channel: Channel, status: int, scenario: Scenario, *, provider: str, body_status: int | None = None
) -> None:
    """Answer with an error; with `body_status` the HTTP status differs from the body's code."""
    code = status if body_status is None else body_status
    message = message_of(code, scenario)
    upstream: dict[str, Any] = {"provider_name": provider, "raw": f"sandbox: {code} as the scenario wants it"}
    metadata = upstream if message == "Provider returned error" else None
    headers = {"retry-after": scenario.text("retry_after")} if scenario.has("retry_after") else None
    await channel.respond(status, error_body(code, message, metadata), JSON, headers)


async def respond_refusal(channel: Channel, error: RequestError) -> None:
    """Answer a request that cannot be served."""
    await channel.respond(error.status, error_body(error.status, error.message, error.metadata), JSON)
