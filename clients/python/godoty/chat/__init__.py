"""The terminal chat: a conversation with its cost."""

from __future__ import annotations

import sys

_PACKAGES = {"markdown_it", "prompt_toolkit", "rich", "typer"}


def main() -> None:
    """Run the chat, or exit with the command that installs its dependencies."""
    try:
        from godoty.chat.app import app  # noqa: PLC0415 - the library works without the chat's packages

        app(prog_name="godoty-chat")
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        sys.exit(f"{error.name} is missing: pip install 'godoty-client[chat]'")
