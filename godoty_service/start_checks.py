"""Checks of the settings before a server starts, for both `godoty serve` and `godoty config check`."""

import os
from collections.abc import Callable

from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.price_file import load_price_file
from godoty_service.rpc.listener import check_plaintext
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.exporters import otlp_protocol


def start_errors(settings: Settings) -> list[str]:
    """Return the errors in settings and files that would keep a server from starting, one line each."""

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
        lambda: load_price_file(settings.price_file) if settings.price_file is not None else None,
    )
    return [error for check in checks if (error := _error(check)) is not None]


def check_default_model(settings: Settings, catalogue: Catalogue | None) -> None:
    """Refuse a default model that the provider does not list.

    Args:
        settings: The settings.
        catalogue: The list that was just fetched; None, or one without models, is not checked.

    Raises:
        ValueError: The list has models, but not this one.
    """
    if catalogue is not None and catalogue.models and not catalogue.knows(settings.default_model):
        raise ValueError(
            f"GODOTY_DEFAULT_MODEL: got {settings.default_model}, takes the id of a model that the provider lists."
            f" It lists {len(catalogue.models)} models, but not this one."
        )


def _error(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ValueError as error:
        return str(error)
    return None
