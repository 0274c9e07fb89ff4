"""Checks of what a server needs before it starts: `godoty serve` and `godoty config check` make the same."""

import os
from collections.abc import Callable

from godoty_service.metering.catalogue import Catalogue
from godoty_service.rpc.listener import check_plaintext
from godoty_service.settings import Settings
from godoty_service.telemetry.exporters import otlp_protocol


def start_faults(settings: Settings) -> list[str]:
    """Return what keeps a server from starting, as far as settings and files show it: one line for each fault."""

    def certificates() -> object:
        return settings.certificates.read() if settings.certificates is not None else None

    def plaintext() -> None:
        allowed = settings.allow_plaintext or settings.tls_cert is not None or settings.tls_key is not None
        check_plaintext(settings.listen, certificates=None, allowed=allowed)

    checks: tuple[Callable[[], object], ...] = (
        lambda: settings.database_uri,
        lambda: settings.provider_key,
        certificates,
        plaintext,
        lambda: otlp_protocol(os.environ),
    )
    return [fault for check in checks if (fault := _fault(check)) is not None]


def check_default_model(settings: Settings, catalogue: Catalogue | None) -> None:
    """Refuse a default model that the provider does not list.

    Args:
        settings: The settings.
        catalogue: The list that was just read; one without models says nothing.

    Raises:
        ValueError: It lists models, and not this one.
    """
    if catalogue is not None and catalogue.models and not catalogue.knows(settings.default_model):
        raise ValueError(
            f"GODOTY_DEFAULT_MODEL: got {settings.default_model}, takes the id of a model that the provider lists."
            f" It lists {len(catalogue.models)}, and not this one."
        )


def _fault(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ValueError as error:
        return str(error)
    return None
