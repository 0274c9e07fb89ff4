"""Log records of libraries, cleaned of what their arguments may quote.

Strands logs a tool's broken input (`raw_input=<%s>`) and names that the model made up; asyncio logs the repr
of an exception; pydantic warns with the value it could not serialise. A list of such places would be out of
date with the next release. So a record of a library keeps its template, its numbers and the arguments under
names known to be harmless; everything else is withheld.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

WITHHELD = "[withheld]"
MAX_TEMPLATE = 200

# Their records speak of sockets and exporters, never of a conversation.
TRUSTED = ("godoty_service", "godoty", "uvicorn.error", "opentelemetry.exporter")
SAFE_NAMES = frozenset(
    {
        "error_type",
        "exception",
        "message_count",
        "new_stop_reason",
        "original_stop_reason",
        "stop_reason",
        "tool_count",
        "tool_name",
        "tool_use_id",
        "window_size",
    }
)

_PLACEHOLDER = re.compile(r"(?:(\w+)=<)?%(?:\((\w+)\))?[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]|%%")
_PLAIN = re.compile(r"[\w.:/-]{1,64}")
_NAMED = re.compile(r"(\w+)=<([^<>]*)>")
_WARNING = re.compile(r"^.*?:\d+: \w+")
_QUOTE_BEGINS = re.compile(r"""[:{<"'\[`\n]""")


def is_trusted(name: str) -> bool:
    """Whether a logger's records are shown as they are."""
    return any(name == root or name.startswith(f"{root}.") for root in TRUSTED)


def clean(record: logging.LogRecord) -> str:
    """The text of a library's record without what it may quote."""
    if not isinstance(record.msg, str):
        return f"{WITHHELD} {type(record.msg).__name__}"
    if record.name == "py.warnings":
        found = _WARNING.match(record.getMessage())
        return found.group() if found else "warning"
    if record.args:
        return _fill(record.msg, record.args)
    return _literal(record.msg)


def _fill(template: str, args: Any) -> str:
    named = args if isinstance(args, Mapping) else None
    values = iter(() if named is not None else args)

    def one(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        name, key = match.group(1), match.group(2)
        value = named.get(key) if named is not None and key else next(values, None)
        shown = _shown(name or key, value)
        return f"{name}=<{shown}" if name else shown

    return _PLACEHOLDER.sub(one, template[:MAX_TEMPLATE])


def _shown(name: str | None, value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    text = str(value)
    return text if name in SAFE_NAMES and _PLAIN.fullmatch(text) else WITHHELD


def _literal(text: str) -> str:
    """A text without arguments is a constant, or was put together before: then a quote follows a mark."""
    pairs = [f"{name}=<{_shown(name, value)}>" for name, value in _NAMED.findall(text)]
    if pairs:
        tail = _NAMED.sub("", text).lstrip(" ,|")
        return f"{', '.join(pairs)} | {_until_quote(tail)}"
    return _until_quote(text)


def _until_quote(text: str) -> str:
    return _QUOTE_BEGINS.split(text, maxsplit=1)[0].rstrip()[:MAX_TEMPLATE]
