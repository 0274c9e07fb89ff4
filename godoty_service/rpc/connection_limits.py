"""Bounds of the listener's connections, as gRPC's channel arguments."""

import resource
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

_WINDOW = 256 * 1024  # bytes of a request that may be on their way: the largest needs two round trips
_IDENTITY_ONLY = 1  # the bit set of `grpc_compression_algorithm` that holds GRPC_COMPRESS_NONE alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of the listener's connections. Times are in seconds.

    Attributes:
        connections: Open connections.
        streams: Open calls of one connection.
        handshake: In which a new connection must speak HTTP/2, and TLS where the listener has it.
        idle: After which a connection without a call is closed.
        age: After which a connection takes no new calls.
        grace: That its open calls get after that.
        keepalive_time: Of silence after which a client is pinged.
        keepalive_timeout: That a ping may stay unanswered.
        ping_interval: Between two pings of a client without a call; one that pings more often is disconnected.
        request_bytes: Of a request message.
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
        """Return the server's options.

        Compressed requests are refused: gRPC bounds a message before it is decompressed, and not after.
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
            ("grpc.http2.max_pings_without_data", 0),  # no bound: a model may think for long
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.ping_interval)),
            ("grpc.max_receive_message_length", self.request_bytes),
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
            ("grpc.per_message_decompression", 0),
            # Else gRPC widens what a connection may have under way, up to megabytes for each of its requests.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
        ]


def raise_file_limit(wanted: int) -> int:
    """Raise the process's soft limit of open files, as far as the hard one lets it; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def bounded_connections(wanted: int, *, files: int) -> int:
    """Return how many connections the listener may have: at most half of the files that the process may open.

    The other half is for the database, the provider and the log.
    """
    most = max(1, files // 2)
    if wanted > most:
        log.warning("connections_bounded_by_files", wanted=wanted, connections=most, files=files)
    return min(wanted, most)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
