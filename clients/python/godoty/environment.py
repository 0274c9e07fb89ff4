"""Where the server is, and with what key: from arguments, else from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

DEFAULT_LISTEN = "127.0.0.1:50051"

_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound
_SWITCH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


@dataclass(frozen=True)
class Endpoint:
    """A server, and the key for it.

    Attributes:
        target: The server, as "host:port".
        api_key: The API key.
        tls: None: plain text to this machine and TLS to any other. True: always TLS, False: always plain text;
            credentials: TLS with these credentials.
    """

    target: str
    api_key: str = field(repr=False)
    tls: bool | grpc.ChannelCredentials | None = None


def endpoint(
    target: str | None,
    api_key: str | None,
    tls: bool | grpc.ChannelCredentials | None,  # noqa: FBT001 - it is named by its callers
    environment: Mapping[str, str] = os.environ,
) -> Endpoint:
    """Return the endpoint; what is None is read from the environment.

    GODOTY_LISTEN is the server, GODOTY_API_KEY the key. GODOTY_TLS ("on", "off") decides on TLS; GODOTY_TLS_CA names
    a PEM file of the authorities that are trusted, GODOTY_TLS_CLIENT_CERT and GODOTY_TLS_CLIENT_KEY those of a client
    certificate.

    Raises:
        ValueError: There is no key, or GODOTY_TLS has another value.
        OSError: A PEM file cannot be read.
    """
    if target is None:
        target = dial_address(environment.get("GODOTY_LISTEN") or DEFAULT_LISTEN)
    if api_key is None:
        api_key = environment.get("GODOTY_API_KEY", "")
        if not api_key:
            raise ValueError("there is no API key: set GODOTY_API_KEY, or pass api_key")
    if tls is None:
        tls = _tls(environment)
    return Endpoint(target, api_key, tls)


def dial_address(listen: str) -> str:
    """Return the address to connect to for a listen address: a wildcard host becomes the loopback address."""
    host, colon, port = listen.rpartition(":")
    return _WILDCARDS.get(host, host) + colon + port


def _tls(environment: Mapping[str, str]) -> bool | grpc.ChannelCredentials | None:
    switch = environment.get("GODOTY_TLS", "").lower()
    if switch and switch not in _SWITCH:
        raise ValueError(f"GODOTY_TLS is {switch!r}: set it to on or off, or unset it")
    names = ("GODOTY_TLS_CA", "GODOTY_TLS_CLIENT_KEY", "GODOTY_TLS_CLIENT_CERT")
    paths = [environment.get(name) for name in names]
    if any(paths) and _SWITCH.get(switch) is not False:
        roots, key, chain = (Path(path).read_bytes() if path else None for path in paths)
        return grpc.ssl_channel_credentials(roots, key, chain)
    return _SWITCH.get(switch)
