"""`godoty config`: checks the settings without starting a server."""

import asyncio

import structlog
import typer

from godoty_service.cli.context import err, out, read_settings
from godoty_service.errors import GodotyError
from godoty_service.settings.environment import WrongSettings, read_environment
from godoty_service.settings.settings import Settings

log = structlog.get_logger(__name__)

config_app = typer.Typer(help="Check the settings.", no_args_is_help=True)


@config_app.callback()
def config() -> None:
    """Make `check` a subcommand: typer would turn an only command into the group itself."""


@config_app.command()
def check() -> None:
    """Check the environment as `godoty serve` does, without serving. Exit status 0: it would start.

    The check fetches the provider's models, because the default model must be one of them. It does not access the
    database.
    """
    unknown = read_environment().unknown
    settings = read_settings(level="ERROR")
    if unknown:
        err.print(f"godoty: unknown settings are ignored: {', '.join(unknown)}", style="yellow", markup=False)
    refuse_faults(settings)
    asyncio.run(_check_default_model(settings))
    out.print("The settings are valid.")


def warn_of_unknown() -> None:
    """Log the environment variables that have the prefix of a setting and are none."""
    if unknown := read_environment().unknown:
        log.warning("unknown_settings", names=list(unknown), note="unknown settings are ignored")


def refuse_faults(settings: Settings) -> None:
    """Refuse settings with which a server cannot start.

    Raises:
        WrongSettings: They have faults; the text has a line for each.
    """
    from godoty_service.start_checks import start_errors  # noqa: PLC0415 - `godoty health` does not need what it imports

    if errors := start_errors(settings):
        raise WrongSettings("\n".join(errors))


async def _check_default_model(settings: Settings) -> None:
    """Check that the provider lists the default model; warn if its list cannot be fetched.

    Raises:
        ValueError: The provider does not list it.
    """
    from godoty_service.bootstrap.provider import read_catalogue  # noqa: PLC0415 - the same
    from godoty_service.start_checks import check_default_model  # noqa: PLC0415 - the same

    try:
        catalogue = await read_catalogue(settings)
    except (GodotyError, ValueError) as error:
        err.print(f"godoty: the default model was not checked: {error}", style="yellow", markup=False)
        return
    check_default_model(settings, catalogue)
