"""Totals, durations and texts as a person reads them. Money stays as the server sent it."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from godoty.v1.metering_pb2 import TokenUsage, Totals


def printable(text: str) -> str:
    """Takes control characters out, so that no answer can steer the terminal."""
    if text.isprintable():
        return text
    return "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")


def short(text: str, width: int) -> str:
    """Makes one line of at most `width` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def money(cost_usd: str) -> str:
    """Names an amount; an empty one is not known, which is not nothing."""
    return f"${cost_usd}" if cost_usd else "unknown"


def counted(number: int, noun: str) -> str:
    """Counts things: "1 turn", "2 turns"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def tokens(usage: TokenUsage) -> str:
    """Counts tokens, where the provider told them."""
    return counted(usage.total_tokens, "token") if usage.HasField("total_tokens") else "tokens unknown"


def open_calls(totals: Totals) -> list[str]:
    """Tells of the calls whose cost is not in the sum; nothing where there are none."""
    parts = []
    if totals.pending_calls:
        parts.append(f"{counted(totals.pending_calls, 'call')} pending")
    if totals.unresolved_calls:
        bounded = totals.HasField("unresolved_bound_usd")
        bound = f"at most {money(totals.unresolved_bound_usd)}" if bounded else "no bound is known"
        parts.append(f"{counted(totals.unresolved_calls, 'call')} unresolved ({bound})")
    return parts


def spent(totals: Totals, *, turns: bool = True) -> str:
    """Says what a turn or a session has cost and used."""
    parts = [money(totals.cost_usd)]
    if turns:
        parts.append(counted(totals.turns, "turn"))
    no_tokens_yet = not totals.model_calls and not totals.usage.HasField("total_tokens")
    parts.append("0 tokens" if no_tokens_yet else tokens(totals.usage))
    return ", ".join(parts + open_calls(totals))


def took(duration: Duration) -> str:
    """Says how long something took: "12 ms", "1.5 s"."""
    seconds = duration.ToTimedelta().total_seconds()
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
