"""Runs a `godoty` command in the test's process, on a server's database."""

from typer.testing import CliRunner

from godoty_service.cli.app import app
from tests.support.backends import ACCOUNT
from tests.support.logging_configuration import restored_logging
from tests.support.service import Service

_WAITING = '"event": "waiting_for_database"'


def invoke(service: Service, *arguments: str, typed: str | None = None, **environment: str) -> str:
    """Run a command and return its output, but for the log line of a slow database; raise its exception.

    Args:
        service: The service whose database it uses.
        arguments: The arguments of `godoty`.
        typed: Its input.
        environment: Variables in addition to the server's settings.
    """
    known = {
        "GODOTY_MONGODB_URI": service.backends.mongodb_uri,
        "GODOTY_MONGODB_DATABASE": service.database.name,
        "GODOTY_OPENROUTER_BASE_URL": service.backends.sandbox.base_url,
        "OPENROUTER_API_KEY": ACCOUNT,
    }
    with restored_logging():
        outcome = CliRunner().invoke(app, arguments, env=known | environment, input=typed)
    if outcome.exception is not None:
        raise outcome.exception
    return without_waiting(outcome.output)


def without_waiting(output: str) -> str:
    """Return a command's output without the log line of a slow database."""
    return "".join(line for line in output.splitlines(keepends=True) if _WAITING not in line)
