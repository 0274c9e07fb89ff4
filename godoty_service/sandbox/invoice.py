"""The invoice: one line for each generation that was billed. It is never corrected."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from godoty_service.sandbox.exact import EXACT, plain


@dataclass(frozen=True)
class Line:
    """One billed generation.

    Attributes:
        generation_id: As the stream and the `X-Generation-Id` header named it.
        key: The account, see `accounts.account_of`.
        model: The model that served, by its listed id.
        provider: Who served.
        usage: The usage that was billed, in the shape of the stream's usage chunk.
        cost: What the account is charged, in USD.
        cancelled: Whether the generation was cut short.
        user: The request's `user`.
        session: The request's `session_id`.
        created: Unix seconds.
        upstream_cost: What the provider takes from the tenant's own account, under BYOK.
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
        """The line with its money as decimal strings; the usage keeps its exact numbers."""
        return {
            "generation_id": self.generation_id,
            "key": self.key,
            "model": self.model,
            "provider": self.provider,
            "usage": dict(self.usage),
            "cost": plain(self.cost),
            "upstream_cost": None if self.upstream_cost is None else plain(self.upstream_cost),
            "cancelled": self.cancelled,
            "user": self.user,
            "session_id": self.session,
            "created": self.created,
        }


class Invoice:
    """All lines, in the order they were billed."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Bill a generation."""
        self._lines.append(line)

    def lines(self, *, key: str | None = None, user: str | None = None, session: str | None = None) -> list[Line]:
        """The lines of an account, an end user, a session; all of them by default."""
        return [
            line
            for line in self._lines
            if key in {None, line.key} and user in {None, line.user} and session in {None, line.session}
        ]

    def total(self, *, key: str | None = None, user: str | None = None, session: str | None = None) -> Decimal:
        """The sum of the lines' costs."""
        with localcontext(EXACT):
            return sum((line.cost for line in self.lines(key=key, user=user, session=session)), Decimal(0))

    def upstream_total(self, *, key: str) -> Decimal:
        """What an account's own provider accounts paid under BYOK."""
        with localcontext(EXACT):
            return sum((line.upstream_cost or Decimal(0) for line in self.lines(key=key)), Decimal(0))

    def clear(self) -> None:
        """Tear up the invoice: `/_sandbox/reset`."""
        self._lines.clear()
