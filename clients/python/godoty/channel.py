"""The connection to a server: where plain text is allowed, and how the API key travels."""

from __future__ import annotations

import ipaddress

import grpc.aio

_UNBOUNDED = ("grpc.max_receive_message_length", -1)  # a page of long messages passes gRPC's 4 MiB
_NO_PROXY = ("grpc.enable_http_proxy", 0)  # plain text that is meant for this machine stays on it


def open_channel(target: str, *, tls: bool | grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Opens a channel to "host:port": see `GodotyClient` for what `tls` means."""
    if isinstance(tls, grpc.ChannelCredentials):
        return grpc.aio.secure_channel(target, tls, options=[_UNBOUNDED])
    loopback = is_loopback(target)
    if tls or (tls is None and not loopback):
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=[_UNBOUNDED])
    options = [_UNBOUNDED, _NO_PROXY] if loopback else [_UNBOUNDED]
    return grpc.aio.insecure_channel(target, options=options)


def is_loopback(target: str) -> bool:
    """Tells whether "host:port" names this machine."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authorization(api_key: str) -> tuple[tuple[str, str], ...]:
    """Makes the metadata that carries the key.

    Raises:
        ValueError: Such a key cannot be sent. gRPC would refuse it too, with the key in its text.
    """
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise ValueError("the API key is empty or has characters that no key has")
    return (("authorization", f"Bearer {api_key}"),)
