"""A `godoty` command in the test's own process, on a server's database."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from typer.testing import CliRunner

from godoty_service.cli.main import app
from tests.service.service import Service
from tests.service.surroundings import ACCOUNT


def invoke(service: Service, *arguments: str, typed: str | None = None, **environment: str) -> str:
    """Run a command, and tell what it printed. What it raises is raised.

    Args:
        service: Whose server's database it works on.
        arguments: What follows `godoty`.
        typed: Its input.
        environment: What it finds beside the server's settings.
    """
    known = {
        "GODOTY_MONGODB_URI": service.surroundings.mongodb_uri,
        "GODOTY_MONGODB_DATABASE": service.database.name,
        "GODOTY_OPENROUTER_BASE_URL": service.surroundings.sandbox.base_url,
        "OPENROUTER_API_KEY": ACCOUNT,
    }
    with _logging_as_it_was():
        outcome = CliRunner().invoke(app, arguments, env=known | environment, input=typed)
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.output


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Commands set logging up; put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
