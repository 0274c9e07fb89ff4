"""The only reader of the environment. Each setting, its default and its unit stand here and nowhere else."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from godoty_service.certificates import Certificates
from godoty_service.ids import key_id_of
from godoty_service.setting_checks import contradictions
from godoty_service.setting_types import (
    BaseUrl,
    DatabaseName,
    HeaderText,
    Key,
    Keys,
    ListenAddress,
    ModelId,
    MongoUri,
    Network,
    Networks,
    TcpAddress,
    Url,
    read_networks,
)
from godoty_service.telemetry.traces import otlp_configured

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
_OTHER_FIELDS = 64 * 1024  # bytes of all fields of a request but its text


class Settings(BaseSettings):
    """What the environment says, `GODOTY_` before each name unless another name is given.

    Each number has a range; `environment.py` says what a wrong value is to be.
    """

    model_config = SettingsConfigDict(env_prefix="GODOTY_", extra="ignore", hide_input_in_errors=True)

    # The service.
    listen: ListenAddress = Field("127.0.0.1:50051", description="host:port of the gRPC listener.")
    metrics_listen: TcpAddress | None = Field(None, description="host:port of Prometheus' page; unset: none.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that share the listener's port, each a server of its own; several need Linux.",
    )
    reflection: bool = Field(True, description="Serve gRPC reflection.")
    tls_cert: Path | None = Field(None, description="PEM file of the listener's certificate chain; unset: plain text.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities whose client certificates are let in (mTLS); unset: all clients."
    )
    allow_plaintext: bool = Field(False, description="Listen in plain text elsewhere than on loopback.")
    keepalive_time: float = Field(
        20.0, ge=1, le=86_400, description="Seconds of silence on a client's connection after which it is pinged."
    )
    keepalive_timeout: float = Field(
        10.0,
        ge=1,
        le=600,
        description="Seconds that a ping may stay unanswered before the connection is closed, and its calls end.",
    )
    min_ping_interval: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="Seconds between two pings of a client without a call; more often: disconnected.",
    )
    max_connections: int = Field(
        4096, ge=1, le=1_000_000, description="Open connections of a server; at most half of its open files."
    )
    max_connection_streams: int = Field(1000, ge=1, le=100_000, description="Open calls of one connection.")
    handshake_timeout: float = Field(
        10.0, ge=0.1, le=600, description="Seconds in which a new connection must speak TLS and HTTP/2."
    )
    connection_idle: float = Field(
        300.0, ge=1, le=86_400, description="Seconds after which a connection without a call is closed."
    )
    connection_age: float = Field(
        3600.0, ge=1, le=864_000, description="Seconds after which a connection takes no new calls."
    )
    connection_grace: float = Field(
        3660.0, ge=1, le=864_000, description="Seconds that the calls of such a connection get to finish."
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
        100, ge=1, le=100_000, description="Open calls without an API key (health, reflection) of one address."
    )
    keyless_calls: int = Field(
        2000, ge=1, le=1_000_000, description="Open calls without an API key of all addresses together."
    )
    trusted_proxies: Networks | None = Field(
        None, description="Networks of proxies, by commas, whose x-forwarded-for names the source of a call."
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
        description="Message contents that ListMessages and ReadMessage hold at the same time, in bytes.",
    )
    drain_grace: float = Field(20.0, ge=0, le=3600, description="Seconds that running turns get to finish on shutdown.")

    # What one tenant may have of one server (docs/limits.md).
    default_turns_per_minute: int = Field(
        3000,
        ge=1,
        le=10_000_000,
        description="Turns that a tenant may start in a minute where its policy does not say.",
    )
    default_concurrent_turns: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Turns of a tenant that may run at the same time where its policy does not say.",
    )
    tenant_streams: int = Field(
        2000, ge=1, le=1_000_000, description="Open calls of a tenant to Converse and ResumeTurn."
    )
    tenant_calls: int = Field(100, ge=1, le=1_000_000, description="Open calls of a tenant to all other methods.")

    # Keys.
    key_use_interval: float = Field(
        60.0, ge=0.05, le=86_400, description="Seconds between two writes of which API keys were used."
    )
    key_watch_interval: float = Field(
        1.0,
        ge=0.05,
        le=4,
        description="Seconds between two looks whether the keys of running turns were revoked or have expired.",
    )
    wrong_key_lookups: float = Field(
        5.0,
        ge=0.1,
        le=1_000_000,
        description="Unknown API keys a second that are looked up for an address which sent many wrong ones.",
    )
    encryption_keys: Keys | None = Field(
        None,
        description="For tenants' own provider keys: Base64 of 32 bytes each, by commas. The first encrypts, all open.",
    )

    # The database.
    mongodb_uri: MongoUri | None = Field(None, description="Where MongoDB is: a replica set.")
    mongodb_database: DatabaseName = Field("godoty", description="Its database.")
    mongodb_driver: Literal["motor", "pymongo"] = Field("pymongo", description="Which driver speaks to it.")
    storage_timeout: float = Field(10.0, ge=0.05, le=3600, description="Seconds that one database operation may take.")
    storage_probe_interval: float = Field(
        1.0, ge=0.05, le=60, description="Seconds between two probes of whether the database answers."
    )
    storage_probe_timeout: float = Field(
        3.0,
        ge=0.05,
        le=60,
        description="Seconds without an answer to a probe after which health is NOT_SERVING and calls are refused.",
    )
    clock_tolerance: float = Field(
        60.0,
        ge=0.01,
        le=31_536_000,
        description="Seconds that the system clock may be off the database's time; beyond, health is NOT_SERVING.",
    )

    # The provider.
    openrouter_api_key: Key | None = Field(
        None, validation_alias=AliasChoices("OPENROUTER_API_KEY"), description="The account's key."
    )
    openrouter_old_api_keys: Keys | None = Field(
        None,
        description="The account's earlier keys, by commas: they only read the records of the calls that they made.",
    )
    openrouter_base_url: BaseUrl = Field(
        "https://openrouter.ai/api/v1", description="OpenRouter, or any gateway that speaks as it does."
    )
    allow_plaintext_provider: bool = Field(
        False, description="Send the account's key over http:// to a host that is not loopback and no private address."
    )
    site_url: Url = Field("https://godoty.app", description="Attribution: HTTP-Referer.")
    app_name: HeaderText = Field("Godoty", description="Attribution: X-Title.")
    default_model: ModelId = Field("openai/gpt-4o-mini", description="Asked when neither request nor session says.")
    connect_timeout: float = Field(5.0, ge=0.05, le=600, description="Seconds to connect to the provider.")
    read_timeout: float = Field(120.0, ge=0.05, le=3600, description="Seconds that a stream may be silent.")
    catalogue_refresh: float = Field(
        600.0, ge=0.05, le=604_800, description="Seconds between two fetches of the catalogue."
    )
    catalogue_least_share: float = Field(
        0.5, ge=0, le=1, description="Least share of the priced models that a new catalogue may have of the last one."
    )

    # One answer of the provider.
    answer_text_bytes: int = Field(
        12 * 1024 * 1024,
        ge=64 * 1024,
        le=12 * 1024 * 1024,
        description="Largest text and reasoning of an answer together, in bytes of JSON.",
    )
    answer_tool_calls: int = Field(128, ge=1, le=1024, description="Tool calls that one answer may have.")
    answer_tool_input_bytes: int = Field(
        1024 * 1024, ge=1024, le=2 * 1024 * 1024, description="Largest input of one tool call, in bytes of JSON."
    )
    answer_reasoning_details: int = Field(
        1000, ge=1, le=10_000, description="Reasoning details of one answer; if there are more, none is kept."
    )
    answer_reasoning_details_bytes: int = Field(
        2 * 1024 * 1024,
        ge=1024,
        le=2 * 1024 * 1024,
        description="Reasoning details of one answer in bytes of JSON; if they are larger, none is kept.",
    )
    answer_drain: float = Field(
        2.0, ge=0, le=60, description="Seconds that an answer which is too large is still read, for its usage and cost."
    )

    # Turns.
    max_text_bytes: int = Field(
        256 * 1024, ge=1024, le=8 * 1024 * 1024, description="Largest text of a request, in bytes of UTF-8."
    )
    tool_output_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Largest result of a tool, in bytes of UTF-8; longer ones are cut.",
    )
    max_model_calls: int = Field(
        25, ge=1, le=10_000, description="Model calls of a turn that names no bound of its own."
    )
    longest_turn: float = Field(
        3600.0, ge=0.1, le=604_800, description="Seconds that a turn may take, its waiting in line included."
    )
    lease: float = Field(
        15.0, ge=0.5, le=86_400, description="Seconds after its last heartbeat that a server counts as dead."
    )
    heartbeat: float = Field(2.0, ge=0.02, le=3600, description="Seconds between two heartbeats.")

    stream_heartbeat: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds of silence after which Converse and ResumeTurn send a heartbeat event; 0: none.",
    )

    history_messages: int = Field(40, ge=4, le=10_000, description="Newest messages of a session that the model sees.")
    history_summary: bool = Field(
        False, description="Sum up what falls out of that window: one more model call now and then."
    )
    summary_max_output_tokens: int = Field(
        1024,
        ge=16,
        le=100_000,
        description="Most tokens of one such summary, beside the caller's max_output_tokens.",
    )
    turn_log_retention: float = Field(
        86_400.0, ge=1, le=31_536_000, description="Seconds that a turn's log and request id are kept."
    )
    turn_log_interval: float = Field(
        0.2, ge=0.005, le=60, description="Seconds between two writes of all running turns' logs."
    )
    turn_watch_interval: float = Field(
        0.2, ge=0.01, le=3600, description="Seconds between two looks for cancels and lost leases."
    )

    # Reconciliation.
    reconcile_interval: float = Field(
        0.5, ge=0.01, le=86_400, description="Seconds between two looks for calls that are due."
    )
    rollup_interval: float = Field(5.0, ge=0.01, le=86_400, description="Seconds between two roll-ups of usage.")
    usage_piece_entries: int = Field(
        10_000, ge=100, le=200_000, description="Ledger entries that one database operation of GetUsage sums."
    )
    usage_max_entries: int = Field(
        5_000_000,
        ge=1000,
        le=100_000_000,
        description="Ledger entries that one answer of GetUsage may read one by one.",
    )
    record_patience: float = Field(3600.0, ge=0, le=604_800, description="Seconds that a call waits for its record.")
    record_patience_with_usage: float = Field(
        120.0, ge=0, le=604_800, description="The same where the catalogue can price the usage that the stream told."
    )
    record_patience_after_error: float = Field(
        300.0,
        ge=0,
        le=604_800,
        description="The same where the provider answered with an error, and with no output or usage.",
    )

    generation_records: Literal["auto", "kept", "none"] = Field(
        "auto",
        description="Whether the upstream keeps generation records; auto: OpenRouter does, others are asked.",
    )
    max_record_bytes: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest body of a generation record, in bytes."
    )
    max_error_bytes: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest body of an error answer to a call, in bytes."
    )
    error_body_timeout: float = Field(
        5.0, ge=0.01, le=60, description="Seconds in which the body of an error answer to a call is read."
    )
    max_listing_bytes: int = Field(
        16 * 1024 * 1024, ge=64 * 1024, le=1024**3, description="Largest body of the provider's listings, in bytes."
    )

    # Metrics, log and traces.
    metrics_timeout: float = Field(
        5.0, ge=0.1, le=60, description="Seconds in which a request for the metrics page is read and answered."
    )
    trace_flush_timeout: float = Field(
        2.0, ge=0, le=60, description="Seconds for which a stopping server waits for the collector to take its spans."
    )
    log_format: Literal["json", "console"] = Field("json", description="How log lines look.")
    log_level: LogLevel = Field("INFO", description="The least level that is logged.")
    log_content: bool = Field(False, description="Let prompts and answers into the log.")
    trace_content: bool = Field(False, description="Let prompts, answers and tool data into spans.")

    # `godoty dev`.
    local_dir: Path = Field(Path(".local"), description="Where `godoty dev` keeps its data.")

    @property
    def database_uri(self) -> str:
        """Return where MongoDB is.

        Raises:
            ValueError: It is not set.
        """
        if self.mongodb_uri is None:
            raise ValueError("GODOTY_MONGODB_URI is not set: say where MongoDB is, or use `godoty dev`.")
        return self.mongodb_uri

    @property
    def provider_key(self) -> str:
        """Return the account's key.

        Raises:
            ValueError: It is not set.
        """
        if self.openrouter_api_key is None:
            raise ValueError("OPENROUTER_API_KEY is not set: name the account's key, or use `godoty dev`.")
        return self.openrouter_api_key.get_secret_value()

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """The networks of the proxies whose forwarded addresses count."""
        return read_networks(self.trusted_proxies) if self.trusted_proxies is not None else ()

    @property
    def max_request_bytes(self) -> int:
        """Bytes of the largest request: the largest text, and room for all other fields."""
        return self.max_text_bytes + _OTHER_FIELDS

    @property
    def openrouter_key_id(self) -> str:
        """The id of the account's key: it names the key without telling it. Empty: there is none."""
        return key_id_of(self.openrouter_api_key.get_secret_value()) if self.openrouter_api_key else ""

    @property
    def old_openrouter_keys(self) -> dict[str, str]:
        """The account's earlier keys by their ids."""
        named = self.openrouter_old_api_keys.get_secret_value() if self.openrouter_old_api_keys else ""
        return {key_id_of(key): key for each in named.split(",") if (key := each.strip())}

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

    @property
    def otlp_configured(self) -> bool:
        """Whether the standard OTLP variables ask for traces."""
        return otlp_configured(os.environ)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any) -> Any:
        """Refuse an empty variable: an unset one has the default, an empty one is a mistake.

        Raises:
            ValueError: It is empty.
        """
        if isinstance(value, str) and not value:
            raise ValueError("an empty value")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check settings that depend on each other.

        Raises:
            ValueError: Some contradict each other; one line for each.
        """
        if faults := contradictions(self):
            raise ValueError("\n".join(faults))
        return self
