"""Lists of sessions, models, agents and costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeVar

from godoty.chat.formatting import (
    format_cache_savings,
    format_cost,
    format_duration,
    format_price,
    format_tokens,
    format_totals,
    visible,
)
from godoty.errors import GodotyError

if TYPE_CHECKING:
    from godoty.chat.screen import Screen
    from godoty.chat.turn import TurnRecord
    from godoty.client import AsyncGodoty
    from godoty.types import LatencySummary, Model, Session

_T = TypeVar("_T")

_SESSIONS = 100
_MODELS = 2000
_AGENTS = 500
_MAX_DETAIL = 8000  # characters of a text that are shown


async def pick_session(client: AsyncGodoty, screen: Screen) -> str | None:
    """Return the session that the user picks of the most recently used ones."""
    sessions = await _first(client.sessions.list(), _SESSIONS)
    if not sessions:
        screen.line("There are no sessions yet.")
        return None
    columns = ("session", "cost", "messages", "model", "last used (UTC)")
    chosen = await screen.pick("Sessions", columns, [_session_row(each) for each in sessions])
    return None if chosen is None else sessions[chosen].session_id


async def pick_model(client: AsyncGodoty, screen: Screen) -> str | None:
    """Return the model that the user picks."""
    models = await _first(client.models.list(), _MODELS)
    rows = [(each.model_id, *_prices(each), _context(each)) for each in models]
    columns = ("model", "input", "output", "context")
    chosen = await screen.pick("Models, USD per 1M tokens", columns, rows)
    return None if chosen is None else models[chosen].model_id


async def pick_agent(client: AsyncGodoty, screen: Screen) -> str | None:
    """Return the agent that the user picks; prices are those of its model, if the key may read definitions."""
    agents = await _first(client.agents.list(), _AGENTS)
    models: dict[str, str] = {}
    prices: dict[str, tuple[str, str]] = {}
    try:
        for version in await _first(client.agents.definitions(), _AGENTS):
            models[version.definition.name] = version.definition.model
        prices = {each.model_id: _prices(each) for each in await _first(client.models.list(), _MODELS)}
    except GodotyError:  # another scope, or an earlier server
        models = {}
    rows = []
    for each in agents:
        model = models.get(each.name, "")
        rows.append((each.name, *prices.get(model, ("", "")), model, f"{each.version}", each.description))
    columns = ("agent", "input", "output", "model", "version", "what it does")
    chosen = await screen.pick("Agents, USD per 1M tokens", columns, rows)
    return None if chosen is None else agents[chosen].name


async def show_cost(client: AsyncGodoty, screen: Screen, session_id: str) -> None:
    """Show the cost and the latency of a session."""
    if not session_id:
        screen.line("The session starts with the first message; so far it has no cost.")
        return
    metrics = await client.sessions.metrics(session_id)
    screen.line(f"{session_id}: {format_totals(metrics.totals)}", style="green")
    if savings := format_cache_savings(metrics.cache_savings):
        screen.line(savings)
    by_model = [
        (each.model, format_cost(each.totals.cost_usd), str(each.totals.model_calls), format_tokens(each.totals.usage))
        for each in metrics.by_model
    ]
    screen.table("By model", ("model", "cost", "calls", "tokens"), by_model)
    latency = [
        (
            each.provider or "all",
            str(each.model_calls),
            _summary(each.time_to_first_token) if each.time_to_first_token is not None else "no token received",
            _summary(each.duration),
        )
        for each in metrics.latency
    ]
    title = "Latency: median / 95th percentile / last"
    screen.table(title, ("provider", "calls", "first token", "whole answer"), latency)


def show_details(screen: Screen, record: TurnRecord) -> None:
    """Show what the turn's lines have left out."""
    if not record.turn_id:
        screen.line("There was no turn yet.")
        return
    if record.reasoning:
        screen.line("Reasoning", style="bold")
        screen.stream(_excerpt("".join(record.reasoning)), reasoning=True)
        screen.end_answer()
    for call in record.tools.values():
        screen.line(f"Tool call {call.started.name}", style="bold")
        screen.line(_excerpt(visible(call.started.input_json)))
        if call.finished is not None:
            screen.line(_excerpt(call.finished.output), style="dim")
    rows = [
        (
            each.served_model or each.requested_model,
            format_cost(each.cost_usd),
            "" if each.usage is None else format_tokens(each.usage),
            each.provider,
            "" if each.duration is None else format_duration(each.duration),
            each.finish_reason or each.error,
        )
        for each in record.calls
    ]
    columns = ("model", "cost", "tokens", "provider", "duration", "end")
    screen.table(f"Model calls of turn {record.turn_id}", columns, rows)


async def _first(items: AsyncIterator[_T], count: int) -> list[_T]:
    found: list[_T] = []
    async for item in items:
        found.append(item)
        if len(found) == count:
            break
    return found


def _session_row(session: Session) -> tuple[str, ...]:
    used = f"{session.update_time:%Y-%m-%d %H:%M:%S}"
    return session.session_id, format_cost(session.cost_usd), str(session.message_count), session.model, used


def _prices(model: Model) -> tuple[str, str]:
    mark = "*" if model.prices_vary else ""
    return format_price(model.prices.input_usd) + mark, format_price(model.prices.output_usd) + mark


def _context(model: Model) -> str:
    return "" if model.context_length is None else f"{model.context_length:,}"


def _summary(summary: LatencySummary) -> str:
    return " / ".join(format_duration(duration) for duration in (summary.median, summary.p95, summary.last))


def _excerpt(text: str) -> str:
    return text if len(text) <= _MAX_DETAIL else f"{text[:_MAX_DETAIL]}\n… {len(text):,} characters in all …"
