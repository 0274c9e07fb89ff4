"""The terminal chat: a conversation that shows what it costs."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the chat, or says what to install for it."""
    try:
        from godoty.chat.app import app  # noqa: PLC0415 - the library works without the chat's packages
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        sys.exit(f"{error.name} is missing: pip install 'godoty-client[chat]'")
    app(prog_name="godoty-chat")
