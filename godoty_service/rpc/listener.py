"""Opens the listener: TLS, mTLS with client authorities, or plain text on loopback; and limits its connections."""

import ipaddress
import resource
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import structlog

from godoty_service.tls import Certificates, TlsMaterial, health_authority

log = structlog.get_logger(__name__)

_WINDOW = 256 * 1024  # bytes of a request in flight: the largest request needs two round trips
_IDENTITY_ONLY = 1  # the bit set of `grpc_compression_algorithm` that has GRPC_COMPRESS_NONE alone


class ListenError(ValueError):
    """The address cannot be bound: another process uses it, or it is not this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of the listener's connections. Times are in seconds.

    Attributes:
        connections: Maximum open connections.
        streams: Maximum open calls per connection.
        handshake: Time in which a new connection must complete TLS, if the listener has it, and HTTP/2.
        idle: Time after which a connection without a call is closed.
        age: Time after which a connection accepts no new calls.
        grace: Time that its open calls get after that.
        keepalive_time: Silence after which a client is pinged.
        keepalive_timeout: Time in which it must answer a ping.
        ping_interval: Minimum time between two pings of a client without a call; a faster one is disconnected.
        request_bytes: Maximum size of a request message.
    """

    connections: int
    streams: int
    handshake: float
    idle: float
    age: float
    grace: float
    keepalive_time: float
    keepalive_timeout: float
    ping_interval: float
    request_bytes: int

    def options(self) -> list[tuple[str, int]]:
        """Return the limits as gRPC channel arguments.

        Compressed requests are refused: gRPC limits the size of a message before decompression, not after.
        """
        ping_timeout = _milliseconds(self.keepalive_timeout)
        return [
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.idle)),
            ("grpc.max_connection_age_ms", _milliseconds(self.age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.grace)),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_time)),
            ("grpc.keepalive_timeout_ms", ping_timeout),
            ("grpc.http2.ping_timeout_ms", ping_timeout),  # gRPC's default is a minute
            ("grpc.http2.max_pings_without_data", 0),  # no limit: a model may think for a long time
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.ping_interval)),
            ("grpc.max_receive_message_length", self.request_bytes),
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
            ("grpc.per_message_decompression", 0),
            # Otherwise gRPC widens a connection's flow-control window, up to megabytes per request.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
        ]


def raise_file_limit(wanted: int) -> int:
    """Raise the process's soft limit of open files within its hard limit; return the soft limit afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def bounded_connections(wanted: int, *, files: int) -> int:
    """Return the maximum number of connections: at most half of the files that the process may open.

    The other half is for the database, the provider and the log.
    """
    most = max(1, files // 2)
    if wanted > most:
        log.warning("connections_limited_by_files", wanted=wanted, connections=most, files=files)
    return min(wanted, most)


def bind(server: grpc.aio.Server, *, listen: str, certificates: Certificates | None, allow_plaintext: bool) -> int:
    """Bind a server to its address; return the port.

    Args:
        server: The server, not started.
        listen: host:port.
        certificates: Its files; None: plain text. Changed files are read again for later connections.
        allow_plaintext: Plain text may leave the machine.

    Raises:
        ListenError: The address cannot be bound.
        ValueError: A file is invalid, or plain text would leave the machine.
    """
    check_plaintext(listen, certificates=certificates, allowed=allow_plaintext)
    try:
        if certificates is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, _credentials(certificates))
    except RuntimeError as error:
        raise ListenError(f"GODOTY_LISTEN={listen}: the address cannot be listened on.") from error


def check_plaintext(listen: str, *, certificates: Certificates | None, allowed: bool) -> None:
    """Refuse a plain text listener that other machines can reach, unless it is allowed.

    Raises:
        ValueError: It is one.
    """
    if certificates is None and not (allowed or is_loopback(listen)):
        raise ValueError(
            f"GODOTY_LISTEN={listen} is open to the network without TLS: set GODOTY_TLS_CERT and GODOTY_TLS_KEY, or,"
            " behind a proxy that terminates TLS, GODOTY_ALLOW_PLAINTEXT=true."
        )


def is_loopback(listen: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials that read changed files again, so that certificates are renewed without a restart."""
    first = certificates.read()
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        _renewals(certificates),  # type: ignore[arg-type] # None means unchanged
        require_client_authentication=first.authorities is not None,
    )


def _renewals(certificates: Certificates) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Return the function that gRPC calls at each handshake, in a thread of its own; it returns None if unchanged."""
    read_version = certificates.modified_at()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal read_version
        version = certificates.modified_at()
        if version == read_version:
            return None
        read_version = version
        try:
            material = certificates.read()
        except ValueError as error:  # half-written: keep the old files, and retry at the next change
            log.error("certificates_not_renewed", error=str(error))  # noqa: TRY400 - the text suffices
            return None
        log.info("certificates_renewed")
        return _configuration(material)

    return renewed


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    authorities = material.authorities and material.authorities.rstrip() + b"\n" + health_authority(material.key)
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], root_certificates=authorities)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
