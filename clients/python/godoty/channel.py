"""Channels to a server: TLS or plain text, retries of what is idempotent, and the metadata with the API key."""

from __future__ import annotations

import ipaddress
from importlib.resources import files
from typing import Any

import grpc
import grpc.aio

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),  # a page of long messages exceeds gRPC's default of 4 MiB
    # A connection that is lost without a sign is noticed within 30 s; servers permit a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found again within 2 s; gRPC's default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_NO_PROXY = ("grpc.enable_http_proxy", 0)  # plain text to this machine must not leave it through a proxy

Credentials = bool | grpc.ChannelCredentials | None


def service_config() -> str:
    """Return the service config: the methods that gRPC retries while no server answers. Converse is none of them."""
    return files("godoty").joinpath("service_config.json").read_text(encoding="utf-8")


def open_channel(target: str, *, tls: Credentials) -> grpc.aio.Channel:
    """Open a channel of grpc.aio to "host:port"; `tls` is documented in `environment.Endpoint`."""
    credentials, options = _security(target, tls)
    if credentials is not None:
        return grpc.aio.secure_channel(target, credentials, options=options)
    return grpc.aio.insecure_channel(target, options=options)


def open_blocking_channel(target: str, *, tls: Credentials) -> grpc.Channel:
    """Open a blocking channel to "host:port"; `tls` is documented in `environment.Endpoint`."""
    credentials, options = _security(target, tls)
    if credentials is not None:
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=options)


def is_loopback(target: str) -> bool:
    """Return whether "host:port" is an address of this machine."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authorization(api_key: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with the API key.

    Raises:
        ValueError: The key cannot be sent. gRPC would reject it too, but with the key in the error's text.
    """
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise ValueError("the API key is empty or has invalid characters: copy the whole key, which begins with gdt_")
    return (("authorization", f"Bearer {api_key}"),)


def _security(target: str, tls: Credentials) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, Any]]]:
    """Return the credentials, None for plain text, and the options of a channel."""
    loopback = is_loopback(target)
    options = [*_OPTIONS, ("grpc.service_config", service_config())]
    if isinstance(tls, grpc.ChannelCredentials):
        return tls, options
    if tls or (tls is None and not loopback):
        return grpc.ssl_channel_credentials(), options
    return None, [*options, _NO_PROXY] if loopback else options
