"""The settings of the listener: its address, TLS, its connections, and the limits of what clients may use."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from godoty_service.settings.types import ListenAddress, Network, Networks, TcpAddress, read_networks
from godoty_service.tls import Certificates


class ListenerSettings(BaseSettings):
    """The settings of the listener and of its calls."""

    model_config = SettingsConfigDict(env_prefix="GODOTY_", extra="ignore", hide_input_in_errors=True)

    listen: ListenAddress = Field("127.0.0.1:50051", description="host:port of the gRPC listener.")
    metrics_listen: TcpAddress | None = Field(
        None, description="host:port of the metrics page for Prometheus; unset: none."
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes that share the listener's port; more than one needs Linux.",
    )
    reflection: bool = Field(True, description="Serve gRPC reflection.")
    tls_cert: Path | None = Field(None, description="PEM file of the listener's certificate chain; unset: plain text.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities whose client certificates are accepted (mTLS); unset: all clients.",
    )
    allow_plaintext: bool = Field(False, description="Allow listening in plain text on addresses other than loopback.")
    keepalive_time: float = Field(
        20.0, ge=1, le=86_400, description="Seconds of silence on a client's connection after which it is pinged."
    )
    keepalive_timeout: float = Field(
        10.0,
        ge=1,
        le=600,
        description="Seconds without an answer to a ping after which the connection is closed, and its calls end.",
    )
    min_ping_interval: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="Least seconds between two pings of a client without a call; faster ones disconnect it.",
    )
    max_connections: int = Field(
        4096, ge=1, le=1_000_000, description="Open connections of a server; at most half of its open files."
    )
    max_connection_streams: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Open calls of one connection, each until the server has released it; more are refused.",
    )
    handshake_timeout: float = Field(
        10.0,
        ge=0.1,
        le=600,
        description="Seconds in which a new connection must complete its TLS and HTTP/2 handshakes.",
    )
    connection_idle: float = Field(
        300.0, ge=1, le=86_400, description="Seconds after which a connection without a call is closed."
    )
    connection_age: float = Field(
        3600.0, ge=1, le=864_000, description="Seconds after which a connection accepts no new calls."
    )
    connection_grace: float = Field(
        3660.0, ge=1, le=864_000, description="Seconds in which the calls of such a connection must finish."
    )
    request_timeout: float = Field(
        10.0, ge=0.1, le=600, description="Seconds in which the message of a call must arrive."
    )
    open_files: int = Field(
        65_536,
        ge=256,
        le=10_000_000,
        description="Soft limit of open files that the server sets at its start; at most the hard limit.",
    )
    keyless_calls_per_source: int = Field(
        100, ge=1, le=100_000, description="Open calls without an API key (health, reflection) from one address."
    )
    keyless_calls: int = Field(
        2000, ge=1, le=1_000_000, description="Open calls without an API key from all addresses together."
    )
    trusted_proxies: Networks | None = Field(
        None, description="Networks of proxies, separated by commas, whose x-forwarded-for names the source of a call."
    )
    page_bytes: int = Field(
        1024 * 1024,
        ge=64 * 1024,
        le=2 * 1024 * 1024,
        description="Bytes after which a page of a list ends, and to which a message in ListMessages is cut.",
    )
    content_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024 * 1024,
        le=1024**3,
        description="Bytes of message contents that concurrent ListMessages, ReadMessage and ExportSession calls may"
        " hold in memory; those of one tenant half of them.",
    )
    drain_grace: float = Field(
        20.0, ge=0, le=3600, description="Seconds in which running turns may finish on shutdown."
    )

    # Limits of one tenant on one server.
    default_turns_per_minute: int = Field(
        3000,
        ge=1,
        le=10_000_000,
        description="Turns that a tenant may start in a minute if its policy sets no limit.",
    )
    default_concurrent_turns: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Concurrent turns of a tenant if its policy sets no limit.",
    )
    tenant_streams: int = Field(
        2000, ge=1, le=1_000_000, description="Open calls of a tenant to Converse, StartTurn, WaitTurn and ResumeTurn."
    )
    tenant_calls: int = Field(100, ge=1, le=1_000_000, description="Open calls of a tenant to all other methods.")

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """The networks of the proxies whose forwarded addresses count."""
        return read_networks(self.trusted_proxies) if self.trusted_proxies is not None else ()

    @property
    def certificates(self) -> Certificates | None:
        """The listener's certificates; None: it has none.

        Raises:
            ValueError: One of the files that belong together is not named.
        """
        if self.tls_cert is None and self.tls_key is None and self.tls_client_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise ValueError("TLS needs both GODOTY_TLS_CERT and GODOTY_TLS_KEY.")
        return Certificates(cert=self.tls_cert, key=self.tls_key, client_ca=self.tls_client_ca)
