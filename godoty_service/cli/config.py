"""`godoty config`: checks the settings without serving."""

import asyncio

import structlog
import typer

from godoty_service.cli.session import err, out, read_settings
from godoty_service.environment import WrongSettings, read_environment
from godoty_service.errors import GodotyError
from godoty_service.settings import Settings

log = structlog.get_logger(__name__)

config_app = typer.Typer(help="The settings.", no_args_is_help=True)


@config_app.callback()
def config() -> None:
    """Keep `check` a command of its own, although it is the only one."""


@config_app.command()
def check() -> None:
    """Say what `godoty serve` would say of the environment, without serving; exit status 0: it would start.

    The provider is asked for its models, because the default model must be one of them; the database is not reached.
    """
    unknown = read_environment().unknown
    settings = read_settings(level="ERROR")
    if unknown:
        err.print(f"godoty: no settings, ignored: {', '.join(unknown)}", style="yellow", markup=False)
    refuse_faults(settings)
    asyncio.run(_check_default_model(settings))
    out.print("The settings are good.")


def warn_of_unknown() -> None:
    """Log, once, the variables that start as ours do and are no setting."""
    if unknown := read_environment().unknown:
        log.warning("unknown_settings", names=list(unknown), note="they are ignored")


def refuse_faults(settings: Settings) -> None:
    """Refuse settings with which no server starts.

    Raises:
        WrongSettings: They are such; the text has a line for each fault.
    """
    from godoty_service.start_checks import start_faults  # noqa: PLC0415 - `godoty health` needs none of what it loads

    if faults := start_faults(settings):
        raise WrongSettings("\n".join(faults))


async def _check_default_model(settings: Settings) -> None:
    """Check that the provider lists the default model, where its list can be read.

    Raises:
        ValueError: It does not.
    """
    from godoty_service.rooms import read_catalogue  # noqa: PLC0415 - the same
    from godoty_service.start_checks import check_default_model  # noqa: PLC0415 - the same

    try:
        catalogue = await read_catalogue(settings)
    except (GodotyError, ValueError) as error:
        err.print(f"godoty: the default model is not checked: {error}", style="yellow", markup=False)
        return
    check_default_model(settings, catalogue)
