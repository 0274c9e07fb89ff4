"""Accounts: each API key is an account with its own generations and totals."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from openrouter_sandbox.billing.invoice import Invoice
from openrouter_sandbox.conversation import RequestError
from openrouter_sandbox.decimal_json import dumps

_CREDITS = Decimal(1000)


def account_of(key: str) -> str:
    """Return the account of a key: a sandbox key names itself; of a real key only a hash is retained."""
    if key.startswith("sandbox"):
        return key
    return "sk-or-" + hashlib.sha256(key.encode()).hexdigest()[:12]


def authenticate(request: Request) -> str:
    """Return the account of a request's bearer key.

    Raises:
        RequestError: 401 with OpenRouter's message, for a missing or unknown key.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise RequestError(401, "Missing Authentication header")
    if not key.startswith(("sk-or-", "sandbox")):
        raise RequestError(401, "User not found.")
    return account_of(key)


class Accounts:
    """Serves `GET /key` and `GET /credits`: an account's usage, summed from the invoice."""

    def __init__(self, invoice: Invoice) -> None:
        self._invoice = invoice

    async def key(self, request: Request) -> Response:
        """Return the key's limits and usage."""
        account = authenticate(request)
        used, byok = self._invoice.total(key=account), self._invoice.upstream_total(key=account)
        return json_response({"data": _key_data(account, used, byok)})

    async def credits(self, request: Request) -> Response:
        """Return the credits bought and used, in USD."""
        used = self._invoice.total(key=authenticate(request))
        return json_response({"data": {"total_credits": _CREDITS, "total_usage": used}})


def _key_data(account: str, used: Decimal, byok: Decimal) -> dict[str, Any]:
    periods = ("", "_daily", "_weekly", "_monthly")
    return {
        "label": account,
        **{f"usage{period}": used for period in periods},
        **{f"byok_usage{period}": byok for period in periods},
        "limit": None,
        "limit_remaining": None,
        "limit_reset": None,
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": "user_sandbox",
        "expires_at": None,
        "rate_limit": {"interval": "10s", "note": "This field is deprecated and safe to ignore.", "requests": -1},
    }


def json_response(body: Any, status: int = 200) -> Response:
    """Return a JSON response with exact decimal numbers."""
    return Response(dumps(body), status, media_type="application/json")


def iso(unix: float) -> str:
    """Return a Unix time in OpenRouter's format, ISO 8601 in UTC."""
    return datetime.fromtimestamp(unix, UTC).isoformat()
