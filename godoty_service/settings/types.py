"""Types of settings with a format: addresses, URLs, keys and names."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, core_schema

from godoty_service.agents.outbound.hosts import read_hosts

_PORT = re.compile(r"[0-9]{1,5}")
_LARGEST_PORT = 65_535
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_VISIBLE = re.compile(r"[!-~]{1,512}")
_URL_LENGTH = 2048
_MOST_NETWORKS = 1000
_MOST_HOSTS = 1000


@dataclass(frozen=True, slots=True)
class Form:
    """The format of a text: pydantic refuses a value for which `accepts` returns False.

    Attributes:
        takes: The description of the format, for the error.
        accepts: Returns whether a text has the format.
        secret: Whether values must not be shown.
    """

    takes: str
    accepts: Callable[[str], bool]
    secret: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate the text after pydantic has converted it."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str | SecretStr) -> str | SecretStr:
        if not self.accepts(value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ValueError(f"takes {self.takes}")
        return value


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks, separated by commas, such as "10.0.0.0/8, 192.0.2.1".

    Raises:
        ValueError: One of them is neither an address nor a network.
    """
    return tuple(ipaddress.ip_network(each.strip(), strict=False) for each in text.split(","))


def is_loopback_host(host: str) -> bool:
    """Return whether a host of a URL or address is this machine, without resolving a name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def crosses_public_network(url: str) -> bool:
    """Return whether requests to a URL cross a public network unencrypted; a host name counts as public."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or is_loopback_host(host):
        return False
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return True


def _is_host_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return _is_host(host) and bool(_PORT.fullmatch(port)) and int(port) <= _LARGEST_PORT


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return bool(_HOST.fullmatch(text))
    try:
        ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return text.endswith("]")


def _is_listener(text: str) -> bool:
    kind, _, path = text.partition(":")
    if kind in ("unix", "unix-abstract"):
        return bool(_VISIBLE.fullmatch(path))
    return _is_host_and_port(text)


def _is_url(text: str) -> bool:
    """Check the characters first: `urlsplit` drops line ends silently."""
    if len(text) > _URL_LENGTH or not re.fullmatch(r"[!-~]+", text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_base_url(text: str) -> bool:
    if not _is_url(text):
        return False
    parts = urlsplit(text)
    return parts.username is None and not parts.query and not parts.fragment and "?" not in text


def _is_mongodb_uri(text: str) -> bool:
    scheme, _, rest = text.partition("://")
    return scheme in ("mongodb", "mongodb+srv") and bool(re.fullmatch(r"[!-~]+", rest))


def _is_key(text: str) -> bool:
    return bool(_VISIBLE.fullmatch(text))


def _are_keys(text: str) -> bool:
    return len(text) <= 64 * 1024 and all(_is_key(each.strip(" ")) for each in text.split(","))


def _are_networks(text: str) -> bool:
    try:
        return len(read_networks(text)) <= _MOST_NETWORKS
    except ValueError:
        return False


def _are_hosts(text: str) -> bool:
    try:
        return len(read_hosts(text)) <= _MOST_HOSTS
    except ValueError:
        return False


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: bool(compiled.fullmatch(text))


ListenAddress = Annotated[
    str,
    Form("host:port with a port from 0 to 65535, such as 127.0.0.1:50051 or [::1]:50051, or unix:PATH", _is_listener),
]
TcpAddress = Annotated[
    str, Form("host:port with a port from 0 to 65535, such as 127.0.0.1:9464 or [::1]:9464", _is_host_and_port)
]
Url = Annotated[str, Form("a URL with http:// or https:// and a host", _is_url)]
BaseUrl = Annotated[
    str, Form("a URL with https:// (or http://) and a host, without user, query or fragment", _is_base_url)
]
MongoUri = Annotated[
    str, Form("a URI that starts with mongodb:// or mongodb+srv://, without spaces", _is_mongodb_uri, secret=True)
]
DatabaseName = Annotated[str, Form("1 to 63 of A-Z, a-z, 0-9, _ and -", _matches(r"[A-Za-z0-9_-]{1,63}"))]
Key = Annotated[
    SecretStr, Form("a key: 1 to 512 visible ASCII characters, without spaces or line ends", _is_key, secret=True)
]
Keys = Annotated[
    SecretStr,
    Form("keys, separated by commas: each of 1 to 512 visible ASCII characters", _are_keys, secret=True),
]
Networks = Annotated[
    str, Form("addresses and networks, separated by commas, such as 10.0.0.0/8, 2001:db8::1", _are_networks)
]
Hosts = Annotated[
    str,
    Form("hosts, separated by commas, such as example.com, *.example.org, 10.0.0.1:8080, [::1]:8080, or *", _are_hosts),
]
ModelId = Annotated[str, Form("the id of a model, such as openai/gpt-4o-mini", _matches(r"[A-Za-z0-9._:/~@-]{1,128}"))]
HeaderText = Annotated[str, Form("1 to 200 printable ASCII characters", _matches(r"[!-~]([ -~]{0,198}[!-~])?"))]
