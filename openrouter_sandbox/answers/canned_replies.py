"""Default replies: short texts that show that the conversation and the tool results arrived."""

import re
from collections.abc import Sequence

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SUM = re.compile(r"[\d(][\d\s.()]*(?:\*\*|[-+*/%^x\u00d7\u00f7])[-+*/%^\d\s.()x\u00d7\u00f7]*\d\)?")
_TIME = re.compile(
    r"\b(?:what(?:'s| is)? the time|what time|current time|time is it|date today|what day)\b", re.IGNORECASE
)
_OPERATORS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "x": "*"})  # multiplication and division signs in prose
_MAX_QUOTE = 120  # characters


def arithmetic(text: str) -> str | None:
    """Return the arithmetic expression in a text, with Python's operators; None without one."""
    found = _SUM.search(_DATE.sub(" ", text))
    if found is None:
        return None
    expression = found.group().strip().translate(_OPERATORS).replace("^", "**")
    return expression + ")" * (expression.count("(") - expression.count(")"))


def asks_time(text: str) -> bool:
    """Return whether a text asks for the time or the date."""
    return _TIME.search(text) is not None


def chat_reply(user_texts: Sequence[str]) -> str:
    """Return a reply that quotes the last two user messages and counts all of them."""
    last = user_texts[-1] if user_texts else ""
    lines = [f'You said "{_quoted(last)}", and I heard you.' if last.strip() else "I am listening."]
    if len(user_texts) > 1:
        lines.append(f'Before that it was "{_quoted(user_texts[-2])}".')
    lines.append(f"This is message {len(user_texts)} of our conversation.")
    return " ".join(lines)


def tool_results_reply(results: Sequence[tuple[str, str]]) -> str:
    """Return a reply with the tool results, pairs of tool name and result."""
    templates = {"calculator": "That makes {}.", "current_time": "It is {} now."}
    return " ".join(
        templates.get(name, "The tool {name} says: {}").format(_quoted(result), name=name) for name, result in results
    )


def words(text: str) -> list[str]:
    """Split a text into words, each with the white space after it."""
    return re.findall(r"\S+\s*|\s+", text)


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_QUOTE else text[: _MAX_QUOTE - 1] + "…"
