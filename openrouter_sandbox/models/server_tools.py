"""The server tools on offer: the body of `GET /tools`, their parameters, and what one call of each costs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

WEB_SEARCH, WEB_FETCH = "openrouter:web_search", "openrouter:web_fetch"
NATIVE, AUTO = "native", "auto"
FALLBACK = "exa"  # the engine of "auto" for models whose provider has no search of its own

# By tool and engine: USD for one call; None: the model's provider bills it.
_PRICES: Mapping[str, Mapping[str, str | None]] = {
    WEB_SEARCH: {NATIVE: None, "exa": "0.007", "parallel": "0.004", "perplexity": "0.005"},
    WEB_FETCH: {NATIVE: None, "openrouter": "0", "exa": "0.001", "parallel": "0.001"},
}
# By tool: the names of its parameters, and the type of each value.
PARAMETERS: Mapping[str, Mapping[str, type]] = {
    WEB_SEARCH: {
        "engine": str,
        "max_uses": int,
        "max_results": int,
        "max_total_results": int,
        "max_characters": int,
        "search_context_size": str,
        "allowed_domains": list,
        "excluded_domains": list,
    },
    WEB_FETCH: {
        "engine": str,
        "max_uses": int,
        "max_content_tokens": int,
        "allowed_domains": list,
        "blocked_domains": list,
    },
}


def call_price(tool: str, engine: str) -> Decimal:
    """Return the price of one call in USD; 0 if the model's provider bills it."""
    return Decimal(_PRICES[tool].get(engine) or "0")


def has_engine(tool: str, engine: str) -> bool:
    """Return whether a tool has an engine of this name."""
    return engine == AUTO or engine in _PRICES[tool]


def listing() -> dict[str, Any]:
    """Return the body of `GET /tools`."""
    tools = [_tool(name, engines) for name, engines in _PRICES.items()]
    return {"data": tools, "total_count": len(tools), "links": {"next": None}}


def _tool(name: str, engines: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.removeprefix("openrouter:").replace("_", " ").capitalize(),
        "status": "active",
        "aliases": [],
        "default_engine": NATIVE,
        "fallback_engine": FALLBACK,
        "engines": [_engine(engine, price) for engine, price in engines.items()],
    }


def _engine(name: str, price: str | None) -> dict[str, Any]:
    row = {"unit": "request", "price": price, "mode": None, "max_units_per_call": 1}
    source = "provider" if price is None else "none" if price == "0" else "openrouter"
    return {
        "id": name,
        "name": name.capitalize(),
        "byok": "none",
        "data_regions": ["global"],
        "default_mode": None,
        "executed_by": "provider" if name == NATIVE else "openrouter",
        "pricing": [row] if source == "openrouter" else [],
        "pricing_source": source,
        "pricing_doc_url": None,
    }
