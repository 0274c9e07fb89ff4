"""The settings of the environment, with their defaults, ranges and units; no other module reads the environment."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from godoty_service.ids import key_id_of
from godoty_service.settings.types import (
    BaseUrl,
    DatabaseName,
    HeaderText,
    Key,
    Keys,
    ModelId,
    MongoUri,
    Url,
    crosses_public_network,
)
from godoty_service.settings.webhooks import WebhookSettings
from godoty_service.telemetry.traces import otlp_configured
from godoty_service.tenancy.encryption import SecretBox

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
_MIN_LEASE_HEARTBEATS = 2  # a late heartbeat must not end a lease
_OTHER_FIELDS = 256 * 1024  # bytes of all fields of a request but its text: the definition of an agent, variables
_INLINE = 1024 * 1024  # bytes of the attachments in a request
# Seconds. With the 3 for which a key is cached, and half of one for the read, it makes the 5 within which a turn of a
# revoked key or of a suspended tenant makes no further model call.
_LONGEST_KEY_WATCH = 1.5
_SHORTEST_ERASURE_DELAY = 30  # seconds: by then all servers know of a deletion, and what they had begun has ended


class Settings(WebhookSettings):
    """All settings, read from variables with the prefix `GODOTY_` unless a setting names another.

    Each number has a range; `environment.py` describes the values that a setting takes.
    """

    # Keys.
    key_use_interval: float = Field(
        60.0, ge=0.05, le=86_400, description="Seconds between two writes of which API keys were used."
    )
    key_watch_interval: float = Field(
        1.0,
        ge=0.05,
        le=_LONGEST_KEY_WATCH,
        description="Seconds between two checks of the API keys and tenants of running turns.",
    )
    wrong_key_lookups: float = Field(
        5.0,
        ge=0.1,
        le=1_000_000,
        description="Unknown API keys per second that are looked up for an address which sent many wrong ones.",
    )
    encryption_keys: Keys | None = Field(
        None,
        description="Keys for tenants' own provider keys: Base64 of 32 bytes each, by commas; the first one encrypts.",
    )

    # The database.
    mongodb_uri: MongoUri | None = Field(None, description="URI of the MongoDB replica set.")
    mongodb_database: DatabaseName = Field("godoty", description="Name of its database.")
    mongodb_driver: Literal["motor", "pymongo"] = Field("pymongo", description="MongoDB driver.")
    storage_timeout: float = Field(10.0, ge=0.05, le=3600, description="Seconds that one database operation may take.")
    storage_probe_interval: float = Field(
        1.0, ge=0.05, le=60, description="Seconds between two probes of the database."
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
        description="Seconds by which the system clock may differ from the database's; beyond, health is NOT_SERVING.",
    )

    # The provider.
    openrouter_api_key: Key | None = Field(
        None, validation_alias=AliasChoices("OPENROUTER_API_KEY"), description="The account's API key."
    )
    openrouter_old_api_keys: Keys | None = Field(
        None,
        description="The account's earlier keys, by commas; they only read the records of calls made with them.",
    )
    openrouter_base_url: BaseUrl = Field(
        "https://openrouter.ai/api/v1", description="Base URL of OpenRouter, or of a compatible gateway."
    )
    allow_plaintext_provider: bool = Field(
        False,
        description="Allow sending the account's key over http:// to a host that is not loopback or private.",
    )
    site_url: Url = Field("https://godoty.app", description="Attribution: HTTP-Referer.")
    app_name: HeaderText = Field("Godoty", description="Attribution: X-Title.")
    default_model: ModelId = Field(
        "openai/gpt-4o-mini", description="Model of turns whose request and session name none."
    )
    connect_timeout: float = Field(5.0, ge=0.05, le=600, description="Seconds to connect to the provider.")
    read_timeout: float = Field(120.0, ge=0.05, le=3600, description="Seconds without data after which a stream fails.")
    catalogue_refresh: float = Field(
        600.0, ge=0.05, le=604_800, description="Seconds between two fetches of the catalogue."
    )
    catalogue_least_share: float = Field(
        0.5, ge=0, le=1, description="Least share of the last catalogue's priced models that a new one must have."
    )
    price_file: Path | None = Field(
        None, description="TOML file of prices for models that the upstream lists without prices (accounting.md)."
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
        1000, ge=1, le=10_000, description="Reasoning details of one answer; if there are more, none is stored."
    )
    answer_reasoning_details_bytes: int = Field(
        2 * 1024 * 1024,
        ge=1024,
        le=2 * 1024 * 1024,
        description="Reasoning details of one answer in bytes of JSON; if they are larger, none is stored.",
    )
    answer_drain: float = Field(
        2.0,
        ge=0,
        le=60,
        description="Seconds for which an answer that is too large is read on, for its usage and cost.",
    )

    # Turns.
    max_text_bytes: int = Field(
        256 * 1024, ge=1024, le=8 * 1024 * 1024, description="Largest text of a request, in bytes of UTF-8."
    )
    tool_output_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Largest result of a tool, in bytes of UTF-8; larger ones are truncated.",
    )
    max_model_calls: int = Field(25, ge=1, le=10_000, description="Model calls of a turn whose request sets no limit.")
    longest_turn: float = Field(
        3600.0, ge=0.1, le=604_800, description="Seconds that a turn may take, including its time in the queue."
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
        False, description="Summarize messages that leave that window, at the cost of an occasional model call."
    )
    summary_max_output_tokens: int = Field(
        1024,
        ge=16,
        le=100_000,
        description="Most output tokens of one such summary, in addition to the caller's max_output_tokens.",
    )
    turn_log_retention: float = Field(
        86_400.0,
        ge=1,
        le=31_536_000,
        description="Seconds for which a turn's log and request id are stored; those of an interrupted turn until its"
        " session goes on, at most GODOTY_ACTION_RETENTION longer.",
    )
    turn_log_interval: float = Field(
        0.2, ge=0.005, le=60, description="Seconds between two writes of all running turns' logs."
    )
    turn_watch_interval: float = Field(
        0.2, ge=0.01, le=3600, description="Seconds between two checks for cancellations and lost leases."
    )

    # Deleted tenants.
    erasure_interval: float = Field(
        5.0,
        ge=0.05,
        le=86_400,
        description="Seconds between two checks whether data of deleted tenants are to be erased.",
    )
    erasure_delay: float = Field(
        60.0,
        ge=_SHORTEST_ERASURE_DELAY,
        le=31_536_000,
        description="Seconds after a tenant's deletion until its data are erased, so that every server knows of it.",
    )

    # Reconciliation.
    reconcile_interval: float = Field(
        0.5, ge=0.01, le=86_400, description="Seconds between two checks for calls that are due."
    )
    rollup_interval: float = Field(
        5.0,
        ge=0.01,
        le=86_400,
        description="Seconds between two roll-ups of usage, and between two replacements of stored user names.",
    )
    usage_piece_entries: int = Field(
        10_000,
        ge=100,
        le=200_000,
        description="Ledger entries that one database operation of GetUsage sums, or of a filtered list examines.",
    )
    usage_max_entries: int = Field(
        5_000_000,
        ge=1000,
        le=100_000_000,
        description="Ledger entries that one answer of GetUsage may read one by one.",
    )
    record_patience: float = Field(
        3600.0, ge=0, le=604_800, description="Seconds for which a call waits for its generation record."
    )
    record_patience_with_usage: float = Field(
        120.0, ge=0, le=604_800, description="The same if the stream reported usage that the catalogue can price."
    )
    record_patience_after_error: float = Field(
        300.0,
        ge=0,
        le=604_800,
        description="The same if the provider answered with an error, without output or usage.",
    )

    generation_records: Literal["auto", "kept", "none"] = Field(
        "auto",
        description="Whether the upstream stores generation records; auto: OpenRouter does, others are probed.",
    )
    max_record_bytes: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest body of a generation record, in bytes."
    )
    max_error_bytes: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest body of an error answer to a call, in bytes."
    )
    error_body_timeout: float = Field(
        5.0, ge=0.01, le=60, description="Seconds in which the body of an error answer must arrive."
    )
    max_listing_bytes: int = Field(
        16 * 1024 * 1024, ge=64 * 1024, le=1024**3, description="Largest body of the provider's listings, in bytes."
    )

    # Metrics, log and traces.
    metrics_timeout: float = Field(
        5.0, ge=0.1, le=60, description="Seconds in which a request for the metrics page must be read and answered."
    )
    trace_flush_timeout: float = Field(
        2.0, ge=0, le=60, description="Seconds for which a stopping server waits for the export of its spans."
    )
    log_format: Literal["json", "console"] = Field("json", description="Format of log lines.")
    log_level: LogLevel = Field("INFO", description="Lowest level that is logged.")
    log_content: bool = Field(False, description="Allow prompts and answers in the log.")
    trace_content: bool = Field(False, description="Allow prompts, answers and tool data in spans.")

    # `godoty dev`.
    local_dir: Path = Field(Path(".local"), description="Directory of the data of `godoty dev`.")

    @property
    def database_uri(self) -> str:
        """The URI of MongoDB.

        Raises:
            ValueError: It is not set.
        """
        if self.mongodb_uri is None:
            raise ValueError("GODOTY_MONGODB_URI is not set: set the URI of a replica set, or use `godoty dev`.")
        return self.mongodb_uri

    @property
    def provider_key(self) -> str:
        """The account's API key.

        Raises:
            ValueError: It is not set.
        """
        if self.openrouter_api_key is None:
            raise ValueError("OPENROUTER_API_KEY is not set: set the account's key, or use `godoty dev`.")
        return self.openrouter_api_key.get_secret_value()

    @property
    def max_request_bytes(self) -> int:
        """Bytes of the largest request: the largest text, 1 MiB of attachments, and 256 KiB for all other fields."""
        return self.max_text_bytes + _INLINE + _OTHER_FIELDS

    @property
    def openrouter_key_id(self) -> str:
        """The id of the account's key, which does not reveal the key; empty if there is none."""
        return key_id_of(self.openrouter_api_key.get_secret_value()) if self.openrouter_api_key else ""

    @property
    def old_openrouter_keys(self) -> dict[str, str]:
        """The account's earlier keys by their ids."""
        named = self.openrouter_old_api_keys.get_secret_value() if self.openrouter_old_api_keys else ""
        return {key_id_of(key): key for each in named.split(",") if (key := each.strip())}

    @property
    def otlp_configured(self) -> bool:
        """Whether the standard OTLP variables configure an endpoint for traces."""
        return otlp_configured(os.environ)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any) -> Any:
        """Refuse an empty variable: an unset one has the default, an empty one is a mistake.

        Raises:
            ValueError: The value is empty.
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


def contradictions(settings: Settings) -> list[str]:
    """Return the contradictions between settings, one line each, which names the variable."""
    checks = (_lease, _usage_pieces, _uploads, _provider_in_clear, _metrics_listen, _encryption_keys)
    return [line for check in checks if (line := check(settings)) is not None]


def _lease(settings: Settings) -> str | None:
    if settings.lease >= _MIN_LEASE_HEARTBEATS * settings.heartbeat:
        return None
    return (
        f"GODOTY_LEASE: got {settings.lease:g}, takes at least {_MIN_LEASE_HEARTBEATS} times GODOTY_HEARTBEAT"
        f" ({settings.heartbeat:g}): a server whose heartbeat comes late would count as dead."
    )


def _usage_pieces(settings: Settings) -> str | None:
    if settings.usage_piece_entries <= settings.usage_max_entries:
        return None
    return (
        f"GODOTY_USAGE_PIECE_ENTRIES: got {settings.usage_piece_entries}, takes at most GODOTY_USAGE_MAX_ENTRIES"
        f" ({settings.usage_max_entries})."
    )


def _uploads(settings: Settings) -> str | None:
    if settings.attachment_upload_bytes >= 2 * settings.attachment_bytes:
        return None
    return (
        f"GODOTY_ATTACHMENT_UPLOAD_BYTES: got {settings.attachment_upload_bytes}, takes at least twice"
        f" GODOTY_ATTACHMENT_BYTES ({settings.attachment_bytes}): a tenant gets half of it."
    )


def _provider_in_clear(settings: Settings) -> str | None:
    if settings.allow_plaintext_provider or not crosses_public_network(settings.openrouter_base_url):
        return None
    return (
        f"GODOTY_OPENROUTER_BASE_URL: got {settings.openrouter_base_url}, takes https://, or http:// to loopback or a"
        " private address: the account's key would cross the network unencrypted. If it may, set"
        " GODOTY_ALLOW_PLAINTEXT_PROVIDER=true."
    )


def _metrics_listen(settings: Settings) -> str | None:
    if settings.metrics_listen != settings.listen or settings.listen.endswith(":0"):
        return None
    return f"GODOTY_METRICS_LISTEN: got {settings.metrics_listen}, takes another address than GODOTY_LISTEN."


def _encryption_keys(settings: Settings) -> str | None:
    try:
        SecretBox.of(settings.encryption_keys.get_secret_value() if settings.encryption_keys else "")
    except ValueError as error:
        return str(error)
    return None
