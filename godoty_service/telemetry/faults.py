"""An exception as text: its type, its way through the code, its cause; its words only where they are safe.

The words of a foreign exception may quote a prompt (a validation error shows its input, a provider's error
the refused message), so without leave to log content only those are printed that speak of machines.
"""

import traceback
from collections.abc import Iterator

MAX_FRAMES = 20
MAX_CHAIN = 5

SAFE_ROOTS = frozenset({"godoty_service"})  # our own texts hold no prompt: errors.py promises it
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


def describe(fault: BaseException, *, content: bool) -> str:
    """Lay out an exception, its frames and its causes.

    Args:
        fault: The exception.
        content: Whether every exception's own text may be shown.
    """
    return "\n".join(_lines(fault, content=content))


def type_name(fault: BaseException) -> str:
    """Name an exception's type with its module, as in `pymongo.errors.AutoReconnect`."""
    return _qualified(type(fault))


def _lines(fault: BaseException, *, content: bool) -> Iterator[str]:
    current: BaseException | None = fault
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


def _headline(fault: BaseException, *, content: bool) -> str:
    words = str(fault)
    if not words:
        return type_name(fault)
    if content or _is_safe(type(fault)):
        return f"{type_name(fault)}: {words}"
    return f"{type_name(fault)} ({len(words)} characters withheld)"


def _is_safe(kind: type[BaseException]) -> bool:
    if kind.__module__.partition(".")[0] in SAFE_ROOTS:
        return True
    return any(_qualified(base) in SAFE_TYPES for base in kind.__mro__)


def _qualified(kind: type[BaseException]) -> str:
    # httpx and httpx2 set `__module__` of their exceptions to the package's own name.
    return f"{kind.__module__}.{kind.__qualname__}"
