"""Server tools: tools that the provider runs within a request. Their prices, and what one request can use of them.

A request that offers server tools is a loop at the provider: the model answers, the provider runs the tools that it
called, and the model answers again, until it calls none or the request's `stop_server_tools_when` ends the loop; one
more answer, without tools, may follow. Every answer is billed, with its whole input. The bound counts

- the fees: for each tool the most that one call costs, as `GET /tools` lists it, times the calls that the request
  allows;
- the answers: one for each call that is allowed, and the last one;
- the input: the request and the descriptions of the tools in each answer, all results in each but the first, and twice
  what was output before, once as it is and once for the results of calls that were refused.

A result has a size only where the tool's engine applies the limit that the request states; other engines, and those
whose fees are in no list, have no finite bound.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, DecimalException
from typing import Any

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, provider_message
from godoty_service.pricing import money
from godoty_service.pricing.price_overrides import listed_price
from godoty_service.pricing.token_usage import whole_number

log = structlog.get_logger(__name__)

_WAIT = 2.0  # seconds for which a call waits for the list
_MAX_TOOLS = 500  # of a list
_MAX_ENGINES = 50  # of a tool
_MAX_ROWS = 50  # of an engine
_DESCRIPTION_TOKENS = 2048  # of a tool's name, description and schema, in the input of every answer

Engine = tuple[str, str | None]  # a tool, and the engine that runs it; None: a tool that has one engine


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToolUse:
    """What one request may use of a server tool.

    Attributes:
        tool: The provider's name of the tool, such as "openrouter:web_search".
        engine: The engine that runs it.
        max_uses: The most calls of it in one request.
        result_tokens: The most tokens of all its results in one request together; None: they have no limit.
    """

    tool: str
    engine: str
    max_uses: int
    result_tokens: int | None

    @property
    def label(self) -> str:
        """The tool and its engine, as errors name them."""
        return f"{self.tool} with the engine {self.engine}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToolOffer:
    """The server tools that an agent's requests offer.

    Attributes:
        entries: Their entries of the request's `tools`, in OpenRouter's form.
        uses: The most that one request can use of them.
    """

    entries: tuple[dict[str, Any], ...] = ()
    uses: tuple[ServerToolUse, ...] = ()


NO_OFFER = ServerToolOffer()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToolBound:
    """The most that one request can use of all its server tools.

    Attributes:
        fees: In US dollars.
        answers: The answers of the model, each billed with its own input.
        description_tokens: Tokens of the tools' descriptions, in each answer's input.
        result_tokens: Tokens of the results, in the input of each answer but the first.
    """

    fees: Decimal = money.ZERO
    answers: int = 1
    description_tokens: int = 0
    result_tokens: int = 0

    def input_tokens(self, request_tokens: int, output_tokens: int) -> int:
        """Return the most input tokens of all answers together.

        Args:
            request_tokens: Those of the request.
            output_tokens: The most output tokens of one answer.
        """
        earlier = self.answers * (self.answers - 1) // 2  # the answers before each answer, over all of them
        fixed = self.answers * (request_tokens + self.description_tokens)
        return fixed + (self.answers - 1) * self.result_tokens + 2 * earlier * output_tokens


NO_SERVER_TOOLS = ServerToolBound()


class ServerToolPrices:
    """The provider's list of server tools, which is fetched when a call first needs it, and refreshed when stale."""

    def __init__(
        self,
        *,
        fetch: Callable[[], Awaitable[bytes]],
        valid_for: timedelta = timedelta(hours=1),
        retry_after: timedelta = timedelta(minutes=1),
        clock: Clock = utc_now,
    ) -> None:
        """Build it.

        Args:
            fetch: Fetches the body of the list.
            valid_for: How long a list is valid; a stale one stays in force while the next cannot be fetched.
            retry_after: How long after a failure the next attempt is made.
            clock: Returns the time.
        """
        self._fetch_list = fetch
        self._valid_for = valid_for
        self._retry_after = retry_after
        self._clock = clock
        self._prices: Mapping[Engine, Decimal] = {}
        self._due: datetime | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._fetch_started = 0.0  # the event loop's time

    async def prepare(self) -> None:
        """Load the list if there is none or a stale one; wait until two seconds after its fetch began."""
        now = asyncio.get_running_loop().time()
        if self._fetching is None and (self._due is None or self._clock() >= self._due):
            self._fetching, self._fetch_started = asyncio.create_task(self._fetch()), now
        if self._fetching is not None and (left := self._fetch_started + _WAIT - now) > 0:
            await asyncio.wait([self._fetching], timeout=left)

    def bound(self, uses: Iterable[ServerToolUse]) -> ServerToolBound | None:
        """Return the most that a request can use of these tools; None: one of them has no finite bound."""
        found = list(uses)
        if any(self.is_unbounded(each) for each in found):
            return None
        try:
            fees = money.total(money.multiply(self._prices[each.tool, each.engine], each.max_uses) for each in found)
        except DecimalException:  # more than 34 digits
            return None
        return ServerToolBound(
            fees=fees,
            answers=1 + sum(each.max_uses for each in found),
            description_tokens=_DESCRIPTION_TOKENS * len(found),
            result_tokens=sum(each.result_tokens or 0 for each in found),
        )

    def is_unbounded(self, use: ServerToolUse) -> bool:
        """Return whether a tool has no finite bound."""
        return use.result_tokens is None or (use.tool, use.engine) not in self._prices

    async def _fetch(self) -> None:
        """Fetch the list. If it cannot be fetched, or has no price, the last one stays in force."""
        failed_until = self._clock() + self._retry_after
        try:
            prices = await asyncio.to_thread(parse_prices, await self._fetch_list())
        except GodotyError as error:
            log.warning("server_tools_fetch_failed", error=str(error), provider_message=provider_message(error))
            self._due = failed_until
        except (ValueError, TypeError) as error:
            log.error("price_list_rejected", list="tools", error=str(error))  # noqa: TRY400 - the text is the cause
            self._due = failed_until
        else:
            self._prices, self._due = prices, self._clock() + self._valid_for
        finally:
            self._fetching = None


def parse_prices(body: bytes) -> dict[Engine, Decimal]:
    """Return the most that one call costs in US dollars, by tool and engine; those without a finite price are omitted.

    Of an engine that is listed more than once, the dearest price counts.

    Raises:
        ValueError: The body is not a list of tools, or none of them has a price.
        TypeError: A price is a float.
    """
    document = money.loads(body)
    tools = document.get("data") if isinstance(document, dict) else None
    if not isinstance(tools, list):
        raise ValueError("not a list of tools")  # noqa: TRY004 - the callers take it as malformed
    found: dict[Engine, list[Decimal | None]] = {}
    for tool in _objects(tools, _MAX_TOOLS):
        for engine in _objects(tool.get("engines"), _MAX_ENGINES):
            name = engine.get("id")
            if isinstance(tool.get("id"), str) and (name is None or isinstance(name, str)):
                found.setdefault((tool["id"], name), []).append(_call_price(engine))
    known = {engine: [each for each in listed if each is not None] for engine, listed in found.items()}
    prices = {
        engine: max(amounts) for engine, amounts in known.items() if amounts and len(amounts) == len(found[engine])
    }
    if not prices:
        raise ValueError(f"none of its {len(tools)} tools has a price")
    return prices


def _call_price(engine: Mapping[str, Any]) -> Decimal | None:
    """Return the most that one call of an engine costs in its default mode; None: it has no finite price."""
    if engine.get("pricing_source") == "none":
        return money.ZERO
    if engine.get("pricing_source") != "openrouter":  # billed by a model's provider, or to a key of the account
        return None
    modes, rows = (None, engine.get("default_mode")), engine.get("pricing")
    if not isinstance(rows, list) or len(rows) > _MAX_ROWS or not all(isinstance(row, dict) for row in rows):
        return None  # nothing is priced by a part of its rows
    lines = [
        (listed_price(row.get("price")), whole_number(row.get("max_units_per_call")))
        for row in rows
        if row.get("mode") in modes
    ]
    known = [(price, units) for price, units in lines if price is not None and units]
    if not known or len(known) < len(lines):
        return None
    try:
        amount = money.total(money.multiply(price, units) for price, units in known)
    except DecimalException:  # more than 34 digits
        return None
    return amount if money.is_bounded(amount) else None


def _objects(value: Any, most: int) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none if it is too long."""
    if not isinstance(value, list) or len(value) > most:
        return []
    return [each for each in value if isinstance(each, dict)]
