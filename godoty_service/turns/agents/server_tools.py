"""The provider's tools of an agent: how its requests offer them, and what one request can use of them. Pure."""

from collections.abc import Mapping
from typing import Any

from godoty_service.agents.definitions import AgentDefinition
from godoty_service.agents.server_tools import (
    DEFAULT_CHARACTERS,
    DEFAULT_CONTENT_TOKENS,
    DEFAULT_RESULTS,
    DEFAULT_USES,
    Domains,
    FetchEngine,
    SearchEngine,
    ServerTool,
    WebFetch,
    WebSearch,
)
from godoty_service.pricing.server_tools import ServerToolOffer, ServerToolUse

# The engines that apply the limits on results and uses which a request states.
_LIMITED_SEARCH = frozenset({SearchEngine.EXA, SearchEngine.PARALLEL, SearchEngine.PERPLEXITY})
_LIMITED_FETCH = frozenset({FetchEngine.OPENROUTER, FetchEngine.EXA, FetchEngine.PARALLEL})

_TOKENS_PER_CHARACTER = 4  # a token is never shorter than a byte, a character never longer than four
_CHARACTERS_PER_TOKEN = 4  # of a page, by which the provider estimates its tokens
_FRAME_TOKENS = 2048  # of a result, for its address, its title and the form around them


def server_tool_offer(definition: AgentDefinition) -> ServerToolOffer:
    """Return the server tools that an agent's requests offer, and the most that one request can use of them."""
    tools = definition.server_tools
    return ServerToolOffer(entries=tuple(map(_entry, tools)), uses=tuple(map(_use, tools)))


def server_tool_fields(definition: AgentDefinition) -> dict[str, Any]:
    """Return further fields of an agent's requests: the provider's own loop ends after a step for each allowed use."""
    steps = sum(map(_max_uses, definition.server_tools))
    return {"stop_server_tools_when": [{"type": "step_count_is", "step_count": steps}]} if steps else {}


def _max_uses(tool: ServerTool) -> int:
    return tool.max_uses or DEFAULT_USES


def _entry(tool: ServerTool) -> dict[str, Any]:
    uses = _max_uses(tool)
    match tool:
        case WebSearch():
            results = tool.max_results or DEFAULT_RESULTS
            parameters: dict[str, Any] = {
                "engine": _search_engine(tool).value,
                "max_uses": uses,
                "max_results": results,
                "max_total_results": results * uses,
                "max_characters": tool.max_characters or DEFAULT_CHARACTERS,
                **_domains(tool.domains, excluded="excluded_domains"),
            }
        case WebFetch():
            parameters = {
                "engine": _fetch_engine(tool).value,
                "max_uses": uses,
                "max_content_tokens": tool.max_content_tokens or DEFAULT_CONTENT_TOKENS,
                **_domains(tool.domains, excluded="blocked_domains"),
            }
    return {"type": tool.policy_name, "parameters": parameters}


def _use(tool: ServerTool) -> ServerToolUse:
    uses = _max_uses(tool)
    match tool:
        case WebSearch():
            engine: str = _search_engine(tool)
            is_limited = engine in _LIMITED_SEARCH
            results = (tool.max_results or DEFAULT_RESULTS) * uses
            characters = tool.max_characters or DEFAULT_CHARACTERS
        case WebFetch():
            engine = _fetch_engine(tool)
            is_limited = engine in _LIMITED_FETCH
            results = uses
            characters = (tool.max_content_tokens or DEFAULT_CONTENT_TOKENS) * _CHARACTERS_PER_TOKEN
    tokens = results * (characters * _TOKENS_PER_CHARACTER + _FRAME_TOKENS)
    return ServerToolUse(
        tool=tool.policy_name, engine=str(engine), max_uses=uses, result_tokens=tokens if is_limited else None
    )


def _search_engine(search: WebSearch) -> SearchEngine:
    return search.engine or SearchEngine.EXA


def _fetch_engine(fetch: WebFetch) -> FetchEngine:
    return fetch.engine or FetchEngine.OPENROUTER


def _domains(domains: Domains, *, excluded: str) -> Mapping[str, list[str]]:
    lists = {"allowed_domains": list(domains.allowed), excluded: list(domains.excluded)}
    return {name: each for name, each in lists.items() if each}
