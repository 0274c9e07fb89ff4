"""What the sandbox's model says on its own: friendly, short, and it remembers."""

import re
from collections.abc import Sequence

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SUM = re.compile(r"[\d(][\d\s.()]*(?:\*\*|[-+*/%^x\u00d7\u00f7])[-+*/%^\d\s.()x\u00d7\u00f7]*\d\)?")
_TIME = re.compile(
    r"\b(?:what(?:'s| is)? the time|what time|current time|time is it|date today|what day)\b", re.IGNORECASE
)
_OPERATORS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "x": "*"})  # as people write them
_QUOTE = 120


def arithmetic(text: str) -> str | None:
    """The arithmetic that a text asks for, in Python's operators; None when it asks for none."""
    found = _SUM.search(_DATE.sub(" ", text))
    if found is None:
        return None
    expression = found.group().strip().translate(_OPERATORS).replace("^", "**")
    return expression + ")" * (expression.count("(") - expression.count(")"))


def asks_time(text: str) -> bool:
    """Whether a text asks for the time or the date."""
    return _TIME.search(text) is not None


def reply(user_texts: Sequence[str]) -> str:
    """An answer that shows that the conversation arrived."""
    said = user_texts[-1] if user_texts else ""
    lines = [f'You said "{_quoted(said)}", and I heard you.' if said.strip() else "I am listening."]
    if len(user_texts) > 1:
        lines.append(f'Before that it was "{_quoted(user_texts[-2])}".')
    lines.append(f"This is message {len(user_texts)} of our conversation.")
    return " ".join(lines)


def with_results(results: Sequence[tuple[str, str]]) -> str:
    """An answer from what tools returned: (tool name, result) each."""
    said = {"calculator": "That makes {}.", "current_time": "It is {} now."}
    return " ".join(
        said.get(name, "The tool {name} says: {}").format(_quoted(result), name=name) for name, result in results
    )


def words(text: str) -> list[str]:
    """The text in words, each with the space after it."""
    return re.findall(r"\S+\s*|\s+", text)


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _QUOTE else text[: _QUOTE - 1] + "…"
