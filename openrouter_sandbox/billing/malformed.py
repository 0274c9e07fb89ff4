"""Malformed bodies of `GET /generation?id=`, and responses of upstreams without that path."""

from collections.abc import Mapping

from starlette.responses import Response

from openrouter_sandbox.scenarios.scenario import ScenarioError

_JSON = "application/json"
_HTML = "text/html"
_DEPTH = 100_000  # levels of nesting
_LARGE = 4 * 1024 * 1024  # bytes

# The bodies that a scenario's `record=NAME` can select, each with its content type; the status is 200.
MALFORMED: Mapping[str, tuple[bytes, str]] = {
    "list": (b"[]", _JSON),
    "text": (b'"soon"', _JSON),
    "null": (b"null", _JSON),
    "number": (b"1e999999999999999999", _JSON),
    "empty": (b"", _JSON),
    "truncated": (b'{"data": {"total_cost": 0.0', _JSON),
    "html": (b"<html><body>Bad gateway</body></html>", _HTML),
    "latin1": (b'{"data": {"model": "caf\xe9"}}', _JSON),
    "data-text": (b'{"data": "soon"}', _JSON),
    "data-list": (b'{"data": [{"total_cost": 0.01}]}', _JSON),
    "data-empty": (b'{"data": {}}', _JSON),
    "deep": (b"[" * _DEPTH, _JSON),
    "data-deep": (b'{"data": {"total_cost": 0.01, "model": ' + b"[" * _DEPTH + b"]" * _DEPTH + b"}}", _JSON),
    "cost-text": (b'{"data": {"total_cost": "free", "usage": null}}', _JSON),
    "cost-negative": (b'{"data": {"total_cost": -0.01}}', _JSON),
    "cost-nan": (b'{"data": {"total_cost": NaN}}', _JSON),
    "cost-absurd": (b'{"data": {"total_cost": 1e400, "usage": 1e-400}}', _JSON),
    "large": (b'{"data": {"total_cost": 0.01}}' + b" " * _LARGE, _JSON),
}

# Responses of upstreams without generation records, by the value of the setting `record_endpoint`.
ABSENT: Mapping[str, tuple[int, bytes, str]] = {
    "fastapi": (404, b'{"detail":"Not Found"}', _JSON),
    "nginx": (404, b"<html><head><title>404 Not Found</title></head></html>", _HTML),
    "openai": (
        404,
        b'{"error":{"message":"Invalid URL (GET /v1/generation)","type":"invalid_request_error","code":null}}',
        _JSON,
    ),
    "empty": (404, b"", "text/plain"),
    "method": (405, b"Method Not Allowed", "text/plain"),
    "unimplemented": (501, b"", "text/plain"),
}


def malformed_response(name: str) -> Response:
    """Return a malformed record as a response.

    Raises:
        ScenarioError: The name is unknown.
    """
    if name not in MALFORMED:
        raise ScenarioError(f"unknown malformed record {name!r}; known: {', '.join(MALFORMED)}")
    body, media_type = MALFORMED[name]
    return Response(body, media_type=media_type)


def absent_response(name: str) -> Response:
    """Return the response of an upstream without `/generation`."""
    status, body, media_type = ABSENT[name]
    return Response(body, status, media_type=media_type)
