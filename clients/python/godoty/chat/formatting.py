"""Formats totals, durations and texts. Amounts of money are shown as the server sent them."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

from rich.cells import cell_len, set_cell_size

from godoty.types import Attachment, CacheSavings, TokenUsage, Totals

# Control characters, by which a text would control the terminal, and those that reorder what is shown.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MILLION = 1_000_000


def printable(text: str) -> str:
    """Remove control characters, so that an answer cannot control the terminal."""
    return text if text.isprintable() else _UNPRINTABLE.sub("", text)


def visible(text: str) -> str:
    """Replace control characters by their escapes in JSON, where nothing may be missing."""
    return text if text.isprintable() else _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def short(text: str, width: int) -> str:
    """Return the text as one line of at most `width` columns."""
    start = text[: 16 * width]
    line = " ".join(printable(start).split())
    if cell_len(line) <= width and len(start) == len(text):
        return line
    return set_cell_size(line, min(cell_len(line), max(width - 1, 0))).rstrip() + "…"


def format_cost(cost_usd: Decimal | None) -> str:
    """Format an amount; None is unknown, which is not 0."""
    return "unknown" if cost_usd is None else f"${cost_usd:f}"


def format_price(price_usd: Decimal | None) -> str:
    """Format the price of a token as that of a million."""
    return "unknown" if price_usd is None else f"${(price_usd * _MILLION).normalize():f}"


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
