"""The only reader of the environment. Each setting, its default and its unit stand here and nowhere else."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from godoty_service.certificates import Certificates
from godoty_service.ids import key_id_of
from godoty_service.telemetry.traces import otlp_configured

Seconds = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """What the environment says, `GODOTY_` before each name unless another name is given."""

    model_config = SettingsConfigDict(env_prefix="GODOTY_", extra="ignore", hide_input_in_errors=True)

    # The service.
    listen: str = Field("127.0.0.1:50051", description="host:port of the gRPC listener.")
    metrics_listen: str | None = Field(None, description="host:port of Prometheus' page; unset: none.")
    workers: int = Field(
        1, ge=1, description="Processes that share the listener's port, each a server of its own; several need Linux."
    )
    reflection: bool = Field(True, description="Serve gRPC reflection.")
    tls_cert: Path | None = Field(None, description="PEM file of the listener's certificate chain; unset: plain text.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities whose client certificates are let in (mTLS); unset: all clients."
    )
    allow_plaintext: bool = Field(False, description="Listen in plain text elsewhere than on loopback.")
    max_request_bytes: int = Field(4 * 1024 * 1024, description="Largest request message.")
    keepalive_time: Annotated[float, Field(ge=1)] = Field(
        20.0, description="Seconds of silence on a client's connection after which it is pinged."
    )
    keepalive_timeout: Annotated[float, Field(ge=1)] = Field(
        10.0, description="Seconds that a ping may stay unanswered before the connection is closed, and its calls end."
    )
    drain_grace: Seconds = Field(20.0, description="Seconds that running turns get to finish on shutdown.")

    # What one tenant may have of one server (docs/limits.md).
    default_turns_per_minute: int = Field(
        3000, ge=1, description="Turns that a tenant may start in a minute where its policy does not say."
    )
    default_concurrent_turns: int = Field(
        1000, ge=1, description="Turns of a tenant that may run at the same time where its policy does not say."
    )
    tenant_streams: int = Field(2000, ge=1, description="Open calls of a tenant to Converse and ResumeTurn.")
    tenant_calls: int = Field(100, ge=1, description="Open calls of a tenant to all other methods.")

    # Keys.
    key_use_interval: Seconds = Field(60.0, description="Seconds between two writes of which API keys were used.")
    refusal_delay: Seconds = Field(2.0, description="Longest wait for a refusal, after several in a row; 0: none.")
    encryption_keys: SecretStr | None = Field(
        None,
        description="For tenants' own provider keys: Base64 of 32 bytes each, by commas. The first encrypts, all open.",
    )

    # The database.
    mongodb_uri: str | None = Field(None, description="Where MongoDB is: a replica set.")
    mongodb_database: str = Field("godoty", description="Its database.")
    mongodb_driver: Literal["motor", "pymongo"] = Field("pymongo", description="Which driver speaks to it.")
    storage_timeout: Seconds = Field(10.0, description="Seconds that one database operation may take.")
    clock_tolerance: Seconds = Field(
        60.0, description="Seconds that the system clock may be off the database's time; beyond, health is NOT_SERVING."
    )

    # The provider.
    openrouter_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("OPENROUTER_API_KEY"), description="The account's key."
    )
    openrouter_old_api_keys: SecretStr | None = Field(
        None,
        description="The account's earlier keys, by commas: they only read the records of the calls that they made.",
    )
    openrouter_base_url: str = Field(
        "https://openrouter.ai/api/v1", description="OpenRouter, or any gateway that speaks as it does."
    )
    site_url: str = Field("https://godoty.app", description="Attribution: HTTP-Referer.")
    app_name: str = Field("Godoty", description="Attribution: X-Title.")
    default_model: str = Field("openai/gpt-4o-mini", description="Asked when neither request nor session says.")
    connect_timeout: Seconds = Field(5.0, description="Seconds to connect to the provider.")
    read_timeout: Seconds = Field(120.0, description="Seconds that a stream may be silent.")
    catalogue_refresh: Seconds = Field(600.0, description="Seconds between two fetches of the catalogue.")
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
    max_text_bytes: int = Field(256 * 1024, description="Largest text of a request, in bytes of UTF-8.")
    max_model_calls: int = Field(25, ge=1, description="Model calls of a turn that names no bound of its own.")
    longest_turn: Seconds = Field(3600.0, description="Seconds that a turn may take, its waiting in line included.")
    lease: Seconds = Field(15.0, description="Seconds after its last heartbeat that a server counts as dead.")
    heartbeat: Seconds = Field(2.0, description="Seconds between two heartbeats.")

    stream_heartbeat: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds of silence after which Converse and ResumeTurn send a heartbeat event; 0: none.",
    )

    history_messages: int = Field(40, ge=4, description="Newest messages of a session that the model sees.")
    history_summary: bool = Field(
        False, description="Sum up what falls out of that window: one more model call now and then."
    )
    summary_max_output_tokens: int = Field(
        1024,
        ge=16,
        le=100_000,
        description="Most tokens of one such summary, beside the caller's max_output_tokens.",
    )
    turn_log_retention: Seconds = Field(86_400.0, description="Seconds that a turn's log and request id are kept.")
    turn_log_interval: Seconds = Field(0.2, description="Seconds between two writes of all running turns' logs.")
    turn_watch_interval: Seconds = Field(0.2, description="Seconds between two looks for cancels and lost leases.")

    # Reconciliation.
    reconcile_interval: Seconds = Field(0.5, description="Seconds between two looks for calls that are due.")
    rollup_interval: Seconds = Field(5.0, description="Seconds between two roll-ups of usage.")
    usage_piece_entries: int = Field(
        10_000, ge=100, le=200_000, description="Ledger entries that one database operation of GetUsage sums."
    )
    usage_max_entries: int = Field(
        5_000_000,
        ge=1000,
        le=100_000_000,
        description="Ledger entries that one answer of GetUsage may read one by one.",
    )
    record_patience: Seconds = Field(3600.0, description="Seconds that a call waits for its record.")
    record_patience_with_usage: Seconds = Field(
        120.0, description="The same where the catalogue can price the usage that the stream told."
    )
    record_patience_after_error: Seconds = Field(
        300.0, description="The same where the provider answered with an error, and with no output or usage."
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
        5.0, gt=0, le=60, description="Seconds in which the body of an error answer to a call is read."
    )
    max_listing_bytes: int = Field(
        16 * 1024 * 1024, ge=64 * 1024, le=1024**3, description="Largest body of the provider's listings, in bytes."
    )

    # What is told of it.
    log_format: Literal["json", "console"] = Field("json", description="How log lines look.")
    log_level: str = Field("INFO", description="The least level that is logged.")
    log_content: bool = Field(False, description="Let prompts and answers into the log.")
    trace_content: bool = Field(False, description="Let prompts, answers and tool data into spans.")

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

    # `godoty dev`.
    local_dir: Path = Field(Path(".local"), description="Where `godoty dev` keeps its data.")
