"""What the person types, or the pipe brings."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from godoty.chat.screen import Screen

with contextlib.suppress(ImportError):  # Windows has none
    import readline  # noqa: F401 - gives input() its editing and its history


def lines(screen: Screen) -> Iterator[str]:
    """Yields each line that is not blank, until Ctrl-D, Ctrl-C or the pipe's end."""
    interactive = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input("> ") if interactive else _next_of_pipe()
        except (EOFError, KeyboardInterrupt):
            screen.line("")
            return
        if not line.strip():
            continue
        if not interactive:
            screen.line(f"> {line.strip()}", style="bold")
        yield line.strip()


def _next_of_pipe() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
