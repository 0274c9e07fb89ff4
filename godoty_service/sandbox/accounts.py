"""Accounts: each API key is one, and sees only its own generations and totals."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from godoty_service.sandbox.conversation import RequestError
from godoty_service.sandbox.exact import dumps
from godoty_service.sandbox.invoice import Invoice

_CREDITS = Decimal(1000)


def account_of(key: str) -> str:
    """The account of a key: a sandbox key is its own name; a real one is never kept, only its hash."""
    if key.startswith("sandbox"):
        return key
    return "sk-or-" + hashlib.sha256(key.encode()).hexdigest()[:12]


def authenticate(request: Request) -> str:
    """The account of a request's bearer key; raises RequestError (401) as OpenRouter words it."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise RequestError(401, "Missing Authentication header")
    if not key.startswith(("sk-or-", "sandbox")):
        raise RequestError(401, "User not found.")
    return account_of(key)


class Accounts:
    """`GET /key` and `GET /credits`: what an account has used, from the invoice."""

    def __init__(self, invoice: Invoice) -> None:
        self._invoice = invoice

    async def key(self, request: Request) -> Response:
        """The key's limits and use."""
        account = authenticate(request)
        used, byok = self._invoice.total(key=account), self._invoice.upstream_total(key=account)
        return json_response({"data": _key_data(account, used, byok)})

    async def credits(self, request: Request) -> Response:
        """Credits bought and used."""
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
    """A JSON response with exact numbers."""
    return Response(dumps(body), status, media_type="application/json")


def iso(unix: float) -> str:
    """A moment as OpenRouter writes it."""
    return datetime.fromtimestamp(unix, UTC).isoformat()
