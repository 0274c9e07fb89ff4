"""Converts the server tools of definitions between messages of agent.proto and domain values, and checks them."""

import re
from collections.abc import Sequence
from typing import Any

from godoty.v1 import agent_pb2 as pb

from godoty_service.agents.server_tools import Domains, FetchEngine, SearchEngine, WebFetch, WebSearch
from godoty_service.rpc.validation import COUNTS, LENGTHS, Violations

DOMAIN = re.compile(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(/[A-Za-z0-9._~%/-]*)?")
# By field: the smallest and the largest value.
BOUNDS = {
    "max_uses": (1, 10),
    "max_results": (1, 20),
    "max_characters": (100, 20_000),
    "max_content_tokens": (100, 100_000),
}
_SEARCH_NAMES = {engine: f"WEB_SEARCH_ENGINE_{engine.name}" for engine in SearchEngine}
_SEARCH = {pb.WebSearchEngine.Value(name): engine for engine, name in _SEARCH_NAMES.items()}
_FETCH_NAMES = {engine: f"WEB_FETCH_ENGINE_{engine.name}" for engine in FetchEngine}
_FETCH = {pb.WebFetchEngine.Value(name): engine for engine, name in _FETCH_NAMES.items()}


def read_web_search(path: str, message: pb.AgentDefinition, violations: Violations) -> WebSearch | None:
    """Return the web search of a definition; add its invalid fields.

    Args:
        path: The path of the definition in the request, with a full stop.
        message: The definition.
        violations: Gets the invalid fields.
    """
    if not message.HasField("web_search"):
        return None
    path, search = f"{path}web_search.", message.web_search
    return WebSearch(
        engine=_engine(path, search.engine, _SEARCH, violations),
        max_uses=_limit(path, search, "max_uses", violations),
        max_results=_limit(path, search, "max_results", violations),
        max_characters=_limit(path, search, "max_characters", violations),
        domains=_domains(path, search.allowed_domains, search.excluded_domains, violations),
    )


def read_web_fetch(path: str, message: pb.AgentDefinition, violations: Violations) -> WebFetch | None:
    """Return the web fetch of a definition; add its invalid fields. The arguments are those of `read_web_search`."""
    if not message.HasField("web_fetch"):
        return None
    path, fetch = f"{path}web_fetch.", message.web_fetch
    return WebFetch(
        engine=_engine(path, fetch.engine, _FETCH, violations),
        max_uses=_limit(path, fetch, "max_uses", violations),
        max_content_tokens=_limit(path, fetch, "max_content_tokens", violations),
        domains=_domains(path, fetch.allowed_domains, fetch.excluded_domains, violations),
    )


def web_search_message(search: WebSearch | None) -> pb.WebSearch | None:
    """Convert a web search."""
    if search is None:
        return None
    return pb.WebSearch(
        engine=_SEARCH_NAMES[search.engine] if search.engine is not None else None,
        max_uses=search.max_uses,
        max_results=search.max_results,
        max_characters=search.max_characters,
        allowed_domains=search.domains.allowed,
        excluded_domains=search.domains.excluded,
    )


def web_fetch_message(fetch: WebFetch | None) -> pb.WebFetch | None:
    """Convert a web fetch."""
    if fetch is None:
        return None
    return pb.WebFetch(
        engine=_FETCH_NAMES[fetch.engine] if fetch.engine is not None else None,
        max_uses=fetch.max_uses,
        max_content_tokens=fetch.max_content_tokens,
        allowed_domains=fetch.domains.allowed,
        excluded_domains=fetch.domains.excluded,
    )


def _engine(path: str, number: int, engines: dict[int, Any], violations: Violations) -> Any:
    if number and number not in engines:
        violations.add(f"{path}engine", "must be one of its values")
    return engines.get(number)


def _limit(path: str, message: Any, name: str, violations: Violations) -> int | None:
    if not message.HasField(name):
        return None
    value, (least, most) = int(getattr(message, name)), BOUNDS[name]
    if not least <= value <= most:
        violations.add(f"{path}{name}", f"must be {least} to {most}")
    return value


def _domains(path: str, allowed: Sequence[str], excluded: Sequence[str], violations: Violations) -> Domains:
    for name, domains in (("allowed_domains", allowed), ("excluded_domains", excluded)):
        most, longest = COUNTS[name], LENGTHS[name]
        if len(domains) > most or not all(len(each) <= longest and DOMAIN.fullmatch(each) for each in domains):
            violations.add(
                f"{path}{name}",
                f"must be at most {most}, each a domain of at most {longest} characters, such as example.com, "
                "*.example.com or example.com/docs",
            )
    if allowed and excluded:
        violations.add(f"{path}excluded_domains", "must be empty with allowed_domains")
    return Domains(allowed=tuple(allowed), excluded=tuple(excluded))
