"""Formats totals, durations and texts. Amounts of money are shown as the server sent them."""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from decimal import Decimal

from godoty.types import Attachment, CacheSavings, TokenUsage, Totals


def printable(text: str) -> str:
    """Remove control characters, so that an answer cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


def short(text: str, width: int) -> str:
    """Return the text as one line of at most `width` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def format_cost(cost_usd: Decimal | None) -> str:
    """Format an amount; None is unknown, which is not 0."""
    return "unknown" if cost_usd is None else f"${cost_usd:f}"


def count_of(number: int, noun: str) -> str:
    """Format a number with its noun: "1 turn", "2 turns"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_attachment(attachment: Attachment) -> str:
    """Format an attachment: its type, its size, and its pixels or pages."""
    extent = f"{attachment.width} x {attachment.height}" if attachment.width else count_of(attachment.pages, "page")
    return f"{attachment.media_type}, {extent}, {count_of(attachment.size_bytes, 'byte')}"


def format_tokens(usage: TokenUsage) -> str:
    """Format the number of tokens, if the provider reported it."""
    return "tokens unknown" if usage.total_tokens is None else count_of(usage.total_tokens, "token")


def open_calls(totals: Totals) -> list[str]:
    """Format the number of calls with a cost that is not in the sum; empty without such calls."""
    parts = []
    if totals.pending_calls:
        parts.append(f"{count_of(totals.pending_calls, 'call')} pending")
    if totals.unresolved_calls:
        bounded = totals.unresolved_bound_usd is not None
        bound = f"at most {format_cost(totals.unresolved_bound_usd)}" if bounded else "no upper bound"
        parts.append(f"{count_of(totals.unresolved_calls, 'call')} unresolved ({bound})")
    return parts


def format_totals(totals: Totals, *, turns: bool = True) -> str:
    """Format the cost and usage of a turn or a session."""
    parts = [format_cost(totals.cost_usd)]
    if turns:
        parts.append(count_of(totals.turns, "turn"))
    no_tokens_yet = not totals.model_calls and totals.usage.total_tokens is None
    parts.append("0 tokens" if no_tokens_yet else format_tokens(totals.usage))
    return ", ".join(parts + open_calls(totals))


def format_cache_savings(savings: CacheSavings | None) -> str:
    """Format what prompt caches have saved; empty if no call has used one as far as is known."""
    if savings is None or not (savings.model_calls or savings.unknown_model_calls):
        return ""
    unknown = count_of(savings.unknown_model_calls, "call")
    note = f" (not known of {unknown})" if savings.unknown_model_calls else ""
    return f"saved by prompt caches: {format_cost(savings.saved_usd)}{note}"


def format_duration(duration: timedelta) -> str:
    """Format a duration: "12 ms", "1.5 s"."""
    seconds = duration.total_seconds()
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
