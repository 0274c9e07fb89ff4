"""Server tools of a definition: tools that the provider runs within a model call. Values and their JSON form. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DEFAULT_USES = 3
DEFAULT_RESULTS = 5
DEFAULT_CHARACTERS = 2000
DEFAULT_CONTENT_TOKENS = 5000


class SearchEngine(StrEnum):
    """Who searches."""

    AUTO = "auto"
    NATIVE = "native"
    EXA = "exa"
    PARALLEL = "parallel"
    PERPLEXITY = "perplexity"


class FetchEngine(StrEnum):
    """Who fetches."""

    AUTO = "auto"
    NATIVE = "native"
    OPENROUTER = "openrouter"
    EXA = "exa"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """The domains whose pages a tool reads. Both empty: all.

    Attributes:
        allowed: These alone.
        excluded: All but these.
    """

    allowed: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSearch:
    """The provider's web search. None: the default.

    Attributes:
        engine: Who searches.
        max_uses: Maximum number of searches of one model call.
        max_results: Maximum number of results of one search.
        max_characters: Maximum length of one result.
        domains: The domains whose pages it finds.
    """

    engine: SearchEngine | None = None
    max_uses: int | None = None
    max_results: int | None = None
    max_characters: int | None = None
    domains: Domains = Domains()

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows it."""
        return "openrouter:web_search"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFetch:
    """The provider's reading of web pages and PDFs by their addresses. None: the default.

    Attributes:
        engine: Who fetches.
        max_uses: Maximum number of pages of one model call.
        max_content_tokens: Maximum length of one page.
        domains: The domains whose pages it fetches.
    """

    engine: FetchEngine | None = None
    max_uses: int | None = None
    max_content_tokens: int | None = None
    domains: Domains = Domains()

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows it."""
        return "openrouter:web_fetch"


ServerTool = WebSearch | WebFetch


def search_to_fields(search: WebSearch | None) -> dict[str, Any]:
    """Return the JSON form of a definition's web search; empty: it has none."""
    if search is None:
        return {}
    limits = {"max_results": search.max_results, "max_characters": search.max_characters}
    return {"web_search": _to_fields(search, limits)}


def fetch_to_fields(fetch: WebFetch | None) -> dict[str, Any]:
    """Return the JSON form of a definition's web fetch; empty: it has none."""
    return {} if fetch is None else {"web_fetch": _to_fields(fetch, {"max_content_tokens": fetch.max_content_tokens})}


def search_from_fields(content: dict[str, Any] | None) -> WebSearch | None:
    """Decode a web search; an engine that only a later build knows is the default one."""
    if content is None:
        return None
    engine = content.get("engine")
    return WebSearch(
        engine=SearchEngine(engine) if engine in set(SearchEngine) else None,
        max_uses=content.get("max_uses"),
        max_results=content.get("max_results"),
        max_characters=content.get("max_characters"),
        domains=_domains(content),
    )


def fetch_from_fields(content: dict[str, Any] | None) -> WebFetch | None:
    """Decode a web fetch; an engine that only a later build knows is the default one."""
    if content is None:
        return None
    engine = content.get("engine")
    return WebFetch(
        engine=FetchEngine(engine) if engine in set(FetchEngine) else None,
        max_uses=content.get("max_uses"),
        max_content_tokens=content.get("max_content_tokens"),
        domains=_domains(content),
    )


def _to_fields(tool: ServerTool, limits: dict[str, int | None]) -> dict[str, Any]:
    fields = {
        "engine": tool.engine,
        "max_uses": tool.max_uses,
        **limits,
        "allowed": list(tool.domains.allowed) or None,
        "excluded": list(tool.domains.excluded) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _domains(content: dict[str, Any]) -> Domains:
    return Domains(allowed=tuple(content.get("allowed", ())), excluded=tuple(content.get("excluded", ())))
