"""Reads the user's input from a terminal or a pipe."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from godoty.chat.screen import Screen

with contextlib.suppress(ImportError):  # not available on Windows
    import readline  # adds line editing and history to input()

    if "libedit" not in (readline.__doc__ or ""):  # libedit has no bracketed paste
        # With bracketed paste, several pasted lines are one text and wait for Enter; Python disables it by default.
        readline.parse_and_bind("set enable-bracketed-paste on")


def lines(screen: Screen) -> Iterator[str]:
    """Yield each line or pasted text that is not blank, until Ctrl-D, Ctrl-C or the end of the pipe."""
    interactive = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input("> ") if interactive else _read_pipe_line()
        except (EOFError, KeyboardInterrupt):
            screen.line("")
            return
        if not line.strip():
            continue
        if not interactive:
            screen.line(f"> {line.strip()}", style="bold")
        yield line.strip()


def _read_pipe_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
