"""Checks of settings that depend on each other."""

from typing import TYPE_CHECKING

from godoty_service.setting_types import crosses_public_network
from godoty_service.tenancy.sealing import Sealer

if TYPE_CHECKING:
    from godoty_service.settings import Settings

_HEARTBEATS = 2  # that a lease is long at least: one that comes late must not end it


def contradictions(settings: "Settings") -> list[str]:
    """Return what is wrong with settings together: one line for each fault, which names the variable."""
    faults = (_lease, _usage_pieces, _provider_in_clear, _metrics_listen, _encryption_keys)
    return [line for fault in faults if (line := fault(settings)) is not None]


def _lease(settings: "Settings") -> str | None:
    if settings.lease >= _HEARTBEATS * settings.heartbeat:
        return None
    return (
        f"GODOTY_LEASE: got {settings.lease:g}, takes at least {_HEARTBEATS} times GODOTY_HEARTBEAT"
        f" ({settings.heartbeat:g}): a server whose heartbeat comes late would count as dead."
    )


def _usage_pieces(settings: "Settings") -> str | None:
    if settings.usage_piece_entries <= settings.usage_max_entries:
        return None
    return (
        f"GODOTY_USAGE_PIECE_ENTRIES: got {settings.usage_piece_entries}, takes at most GODOTY_USAGE_MAX_ENTRIES"
        f" ({settings.usage_max_entries})."
    )


def _provider_in_clear(settings: "Settings") -> str | None:
    if settings.allow_plaintext_provider or not crosses_public_network(settings.openrouter_base_url):
        return None
    return (
        f"GODOTY_OPENROUTER_BASE_URL: got {settings.openrouter_base_url}, takes https://, or http:// to loopback or a"
        " private address: the account's key would cross the network unencrypted. If it may, set"
        " GODOTY_ALLOW_PLAINTEXT_PROVIDER=true."
    )


def _metrics_listen(settings: "Settings") -> str | None:
    if settings.metrics_listen != settings.listen or settings.listen.endswith(":0"):
        return None
    return f"GODOTY_METRICS_LISTEN: got {settings.metrics_listen}, takes another address than GODOTY_LISTEN."


def _encryption_keys(settings: "Settings") -> str | None:
    try:
        Sealer.of(settings.encryption_keys.get_secret_value() if settings.encryption_keys else "")
    except ValueError as error:
        return str(error)
    return None
