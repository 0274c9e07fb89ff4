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
    import readline  # gives input() its editing and its history

    if "libedit" not in (readline.__doc__ or ""):  # which has no such mode
        # The terminal marks what is pasted, so that several lines are one text and wait for Enter; Python turns it off.
        readline.parse_and_bind("set enable-bracketed-paste on")


def lines(screen: Screen) -> Iterator[str]:
    """Yields each line or pasted text that is not blank, until Ctrl-D, Ctrl-C or the pipe's end."""
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
