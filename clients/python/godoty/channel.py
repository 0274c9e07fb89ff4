"""The connection to a server: TLS or plain text, and the metadata with the API key."""

from __future__ import annotations

import ipaddress

import grpc.aio

_UNBOUNDED = ("grpc.max_receive_message_length", -1)  # a page of long messages exceeds gRPC's default of 4 MiB
_NO_PROXY = ("grpc.enable_http_proxy", 0)  # plain text to this machine must not leave it through a proxy


def open_channel(target: str, *, tls: bool | grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Open a channel to "host:port"; `tls` is documented in `GodotyClient`."""
    if isinstance(tls, grpc.ChannelCredentials):
        return grpc.aio.secure_channel(target, tls, options=[_UNBOUNDED])
    loopback = is_loopback(target)
    if tls or (tls is None and not loopback):
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=[_UNBOUNDED])
    options = [_UNBOUNDED, _NO_PROXY] if loopback else [_UNBOUNDED]
    return grpc.aio.insecure_channel(target, options=options)


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
