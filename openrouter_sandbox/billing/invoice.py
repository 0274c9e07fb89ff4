"""The invoice: one line per billed generation. Lines are never changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from openrouter_sandbox.decimal_json import EXACT, plain_decimal


@dataclass(frozen=True)
class Line:
    """One billed generation.

    Attributes:
        generation_id: The id in the stream and in the `X-Generation-Id` header.
        key: The account, see `accounts.account_of`.
        model: The served model's listed id.
        provider: The provider's display name.
        usage: The billed usage, in the shape of the stream's usage chunk.
        cost: The charge to the account, in USD.
        cancelled: Whether the client aborted the generation.
        user: The request's `user`.
        session: The request's `session_id`.
        created: Unix seconds.
        upstream_cost: The provider's charge to the account's own provider key, in USD; None without BYOK.
    """

    generation_id: str
    key: str
    model: str
    provider: str
    usage: Mapping[str, Any]
    cost: Decimal
    cancelled: bool
    user: str | None
    session: str | None
    created: int
    upstream_cost: Decimal | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the line as JSON data: money as decimal strings, usage with exact numbers."""
        return {
            "generation_id": self.generation_id,
            "key": self.key,
            "model": self.model,
            "provider": self.provider,
            "usage": dict(self.usage),
            "cost": plain_decimal(self.cost),
            "upstream_cost": None if self.upstream_cost is None else plain_decimal(self.upstream_cost),
            "cancelled": self.cancelled,
            "user": self.user,
            "session_id": self.session,
            "created": self.created,
        }


class Invoice:
    """All lines, in billing order."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Append the line of a generation."""
        self._lines.append(line)

    def lines(self, *, key: str | None = None, user: str | None = None, session: str | None = None) -> list[Line]:
        """Return the lines of an account, an end user or a session; all by default."""
        return [
            line
            for line in self._lines
            if key in {None, line.key} and user in {None, line.user} and session in {None, line.session}
        ]

    def total(self, *, key: str | None = None, user: str | None = None, session: str | None = None) -> Decimal:
        """Return the sum of the matching lines' costs, in USD."""
        with localcontext(EXACT):
            return sum((line.cost for line in self.lines(key=key, user=user, session=session)), Decimal(0))

    def upstream_total(self, *, key: str) -> Decimal:
        """Return the sum of an account's upstream costs under BYOK, in USD."""
        with localcontext(EXACT):
            return sum((line.upstream_cost or Decimal(0) for line in self.lines(key=key)), Decimal(0))

    def clear(self) -> None:
        """Remove all lines; `POST /_sandbox/reset` does it."""
        self._lines.clear()
