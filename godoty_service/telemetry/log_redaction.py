"""Redacts log lines: masks keys, withholds what libraries quote of a conversation, and describes exceptions safely.

The text of a foreign exception may quote a prompt (a validation error shows its input, a provider's error the refused
message), so unless content may be logged, only texts of exceptions that concern machines are printed.

Libraries do the same: Strands logs a tool's broken input (`raw_input=<%s>`) and names that the model made up; asyncio
logs the repr of an exception; pydantic warns with the value it could not serialise. A list of such places would be out
of date with the next release. So a library's record keeps its template, its numbers and the arguments under names known
to be harmless; everything else is withheld.
"""

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "[key]"
WITHHELD = "[withheld]"
MAX_DEPTH = 12
MAX_TEMPLATE = 200
MAX_FRAMES = 20
MAX_CHAIN = 5

_KEYS = re.compile(
    r"""
    \bgdt_[A-Za-z0-9]+_[A-Za-z0-9_-]+      # our own API keys, including the secret
  | \bsk-[A-Za-z0-9][A-Za-z0-9_-]{7,}      # OpenRouter's sk-or-..., OpenAI's and others' sk-...
  | (?i:\bbearer\s+)[^\s"',;]+             # an authorization header
  | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)        # user and password of a database URI
    """,
    re.VERBOSE,
)

SAFE_ROOTS = frozenset({"godoty_service"})  # our own texts contain no prompt: see errors.py
SAFE_TYPES = frozenset(
    {
        "builtins.ArithmeticError",
        "builtins.AttributeError",
        "builtins.ImportError",
        "builtins.NameError",
        "builtins.OSError",
        "httpx.TransportError",
        "httpx2.TransportError",
        "pymongo.errors.ConnectionFailure",
    }
)

# Loggers whose records concern sockets and exporters, never a conversation.
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


def mask_text(text: str) -> str:
    """Replace each key in a text."""
    return _KEYS.sub(MASK, text)


def mask(value: Any, depth: int = 0) -> Any:
    """Replace each key in a value, also in nested ones.

    Numbers, booleans and None are returned unchanged. A value that a renderer would print by its `repr` becomes text
    here, so that it is masked as well.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mask_text(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {mask_text(str(key)): mask(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [mask(item, depth + 1) for item in value]
    return mask_text(str(value))


def is_trusted(name: str) -> bool:
    """Return whether a logger's records are logged unchanged."""
    return any(name == root or name.startswith(f"{root}.") for root in TRUSTED)


def clean(record: logging.LogRecord) -> str:
    """Return the text of a library's record without what it may quote."""
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
    """Clean a text without arguments: a constant, or formatted already; then a quote follows a punctuation mark."""
    pairs = [f"{name}=<{_shown(name, value)}>" for name, value in _NAMED.findall(text)]
    if pairs:
        tail = _NAMED.sub("", text).lstrip(" ,|")
        return f"{', '.join(pairs)} | {_until_quote(tail)}"
    return _until_quote(text)


def _until_quote(text: str) -> str:
    return _QUOTE_BEGINS.split(text, maxsplit=1)[0].rstrip()[:MAX_TEMPLATE]


def describe(error: BaseException, *, content: bool) -> str:
    """Return the lines of an exception: its type, its frames and its causes.

    Args:
        error: The exception.
        content: Whether the text of every exception may be shown.
    """
    return "\n".join(_lines(error, content=content))


def type_name(error: BaseException) -> str:
    """Return an exception's type with its module, as in `pymongo.errors.AutoReconnect`."""
    return _qualified(type(error))


def _lines(error: BaseException, *, content: bool) -> Iterator[str]:
    current: BaseException | None = error
    for _ in range(MAX_CHAIN):
        if current is None:
            return
        yield _headline(current, content=content)
        frames = traceback.extract_tb(current.__traceback__)
        yield from (f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-MAX_FRAMES:])
        if isinstance(current, BaseExceptionGroup):
            yield from (f"  + {_headline(inner, content=content)}" for inner in current.exceptions)
        cause = current.__cause__
        current = cause or (None if current.__suppress_context__ else current.__context__)
        if current is not None:
            yield "caused by" if current is cause else "while handling"


def _headline(error: BaseException, *, content: bool) -> str:
    text = str(error)
    if not text:
        return type_name(error)
    if content or _is_safe(type(error)):
        return f"{type_name(error)}: {text}"
    return f"{type_name(error)} ({len(text)} characters withheld)"


def _is_safe(kind: type[BaseException]) -> bool:
    if kind.__module__.partition(".")[0] in SAFE_ROOTS:
        return True
    return any(_qualified(base) in SAFE_TYPES for base in kind.__mro__)


def _qualified(kind: type[BaseException]) -> str:
    # httpx and httpx2 set `__module__` of their exceptions to the package's own name.
    return f"{kind.__module__}.{kind.__qualname__}"
