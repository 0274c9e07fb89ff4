"""What the service answers, and what it is asked for. Made from the protos by `make gen`: not to be edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events of a turn have."""

    sequence: int = 0
    """Strictly increasing within a turn; a `heartbeat` repeats the last number sent (0: none). A message covers all
    events since the previous message.
    """
    turn_id: str = ""
    """The turn."""
    time: datetime | None = None
    """The time of the last event that the message covers, to within the interval at which logs are stored (0.2
    seconds); the same whenever and from whichever server it is read. Of a `heartbeat`: the time at which it is sent.
    Unset: the log was stored by a version that did not record times.
    """
    agent_path: str = ""
    """The sub-agent that the event is of: for each agent from the one that the turn's agent called to this one, its
    name and the number of its call in the turn, such as "researcher#1/checker#3". Empty: the turn's own agent. Sub-
    agents have the events `model_call_finished`, `tool_call_started`, `tool_progress`, `tool_call_finished` and
    `action_required`. They never have `text_delta`, `reasoning_delta` or `annotations`: these are always of the
    answer, and what a sub-agent answers is the `output` of the tool call that runs it. Ids of tool calls are unique
    within one `agent_path`.
    """


__all__ = [
    "Action",
    "ActionApproval",
    "ActionDecider",
    "ActionDecision",
    "ActionDenial",
    "ActionKind",
    "ActionResult",
    "ActionState",
    "AdjustedCall",
    "Adjustment",
    "AdminActor",
    "AdminActorKind",
    "AdminChange",
    "Agent",
    "AgentDefinition",
    "AgentHistory",
    "AgentOverride",
    "AgentOverrides",
    "AgentSummary",
    "AgentTool",
    "AgentTotals",
    "AgentVersion",
    "Annotations",
    "ApiKey",
    "ApiScope",
    "AppliedAgent",
    "AppliedMcpServer",
    "AppliedWebhook",
    "Attachment",
    "Budget",
    "BudgetAlert",
    "BudgetStatus",
    "BudgetWindow",
    "CacheSavings",
    "CallPurpose",
    "CallState",
    "CatalogueState",
    "Citation",
    "ClientTool",
    "ClientToolOutput",
    "ContentBlock",
    "CostSource",
    "CreatedApiKey",
    "DeliveryState",
    "Erasure",
    "Event",
    "Fork",
    "HistoryMode",
    "LatencySummary",
    "LedgerEntry",
    "McpHeader",
    "McpOAuthClient",
    "McpServer",
    "McpServerCheck",
    "McpTool",
    "McpToolset",
    "Message",
    "Model",
    "ModelCall",
    "ModelCallFinished",
    "ModelParameters",
    "ModelPrices",
    "ModelReasoning",
    "ModelTotals",
    "OnBusy",
    "OnDisconnect",
    "Policy",
    "ProviderLatency",
    "ReasoningDelta",
    "ReasoningEffort",
    "Role",
    "RotatedApiKey",
    "Run",
    "Session",
    "SessionContentPiece",
    "SessionExportBegin",
    "SessionExportEnd",
    "SessionMetrics",
    "SessionOrigin",
    "SessionRecord",
    "StartedTurn",
    "StopReason",
    "SubAgent",
    "Tenant",
    "TenantPolicy",
    "TenantState",
    "TextDelta",
    "TokenUsage",
    "ToolApproval",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolCallStatus",
    "ToolProgress",
    "ToolResult",
    "ToolSummary",
    "ToolUse",
    "Totals",
    "TurnEvent",
    "TurnFinished",
    "TurnLimits",
    "TurnStarted",
    "TurnState",
    "TurnSummary",
    "UnitPrices",
    "UsageGroup",
    "UsageKey",
    "UsageReport",
    "UsageRow",
    "UserMessage",
    "WebFetch",
    "WebFetchEngine",
    "WebSearch",
    "WebSearchEngine",
    "Webhook",
    "WebhookDelivery",
]


class ActionKind(StrEnum):
    """What an action needs."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    APPROVAL = "APPROVAL"
    """An approval or a denial of a call of a tool that the server runs."""
    CLIENT_TOOL = "CLIENT_TOOL"
    """The caller runs a tool of its own, and answers with its result."""


class ActionDecider(StrEnum):
    """Who may answer an action."""

    UNSPECIFIED = "UNSPECIFIED"
    """ACTION_DECIDER_CALLER."""
    CALLER = "CALLER"
    """A key of the scope `converse` or `approve`."""
    REVIEWER = "REVIEWER"
    """A key of the scope `approve`; Converse needs a key with both scopes."""


class ActionState(StrEnum):
    """The state of an action."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    OPEN = "OPEN"
    """It waits for an answer."""
    DECIDED = "DECIDED"
    """It was answered."""
    EXPIRED = "EXPIRED"
    """No answer came in time: it counts as denied."""
    CLOSED = "CLOSED"
    """It was not carried out: a new message came instead of the answer, or the API key that asked was revoked."""


class WebSearchEngine(StrEnum):
    """Who searches the web."""

    UNSPECIFIED = "UNSPECIFIED"
    """WEB_SEARCH_ENGINE_EXA."""
    AUTO = "AUTO"
    """The search of the model's provider if it has one, else Exa. It has no upper bound."""
    NATIVE = "NATIVE"
    """The search of the model's provider, which ignores most limits. It has no upper bound."""
    EXA = "EXA"
    """Exa."""
    PARALLEL = "PARALLEL"
    """Parallel."""
    PERPLEXITY = "PERPLEXITY"
    """Perplexity."""


class WebFetchEngine(StrEnum):
    """Who fetches a web page."""

    UNSPECIFIED = "UNSPECIFIED"
    """WEB_FETCH_ENGINE_OPENROUTER."""
    AUTO = "AUTO"
    """The fetching of the model's provider if it has one, else Exa. It has no upper bound."""
    NATIVE = "NATIVE"
    """The fetching of the model's provider. It has no upper bound."""
    OPENROUTER = "OPENROUTER"
    """OpenRouter itself, by HTTP."""
    EXA = "EXA"
    """Exa."""
    PARALLEL = "PARALLEL"
    """Parallel."""


class ReasoningEffort(StrEnum):
    """How much a model reasons."""

    UNSPECIFIED = "UNSPECIFIED"
    """No effort is set."""
    NONE = "NONE"
    """The model does not reason, if it can do without."""
    MINIMAL = "MINIMAL"
    """Minimal."""
    LOW = "LOW"
    """Low."""
    MEDIUM = "MEDIUM"
    """Medium."""
    HIGH = "HIGH"
    """High."""
    XHIGH = "XHIGH"
    """Higher than high."""
    MAX = "MAX"
    """The highest of the model."""


class HistoryMode(StrEnum):
    """What a model sees of the messages that have left the history's window."""

    UNSPECIFIED = "UNSPECIFIED"
    """The server's setting."""
    SLIDING = "SLIDING"
    """Nothing."""
    SUMMARY = "SUMMARY"
    """A summary, which a model call makes when the window is full (CALL_PURPOSE_SUMMARY)."""


class AgentOverride(StrEnum):
    """A field of ConverseRequest that may replace the definition's."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    MODEL = "MODEL"
    """`model`, also of the session's next turns if the definition has none."""
    FALLBACK_MODELS = "FALLBACK_MODELS"
    """`fallback_models`."""
    PARAMETERS = "PARAMETERS"
    """`parameters`: those that the request sets replace the definition's, one by one."""
    OUTPUT_SCHEMA = "OUTPUT_SCHEMA"
    """`output_schema`. A version that lists fields and was applied by a build without this one does not have it, unless
    it lists all others.
    """


class UsageGroup(StrEnum):
    """A dimension to group totals by."""

    UNSPECIFIED = "UNSPECIFIED"
    """No group."""
    HOUR = "HOUR"
    """The hour, in the request's time zone."""
    DAY = "DAY"
    """The day, in the request's time zone."""
    MONTH = "MONTH"
    """The month, in the request's time zone."""
    MODEL = "MODEL"
    """The model that served; the requested model if none served."""
    PROVIDER = "PROVIDER"
    """The provider that served."""
    AGENT = "AGENT"
    """The agent."""
    USER = "USER"
    """The tenant's end user."""
    SESSION = "SESSION"
    """The session."""
    API_KEY = "API_KEY"
    """The API key that started the turn."""
    AGENT_VERSION = "AGENT_VERSION"
    """The agent and its version, such as "support@3"."""


class BudgetWindow(StrEnum):
    """The period that a budget covers. Days and months are those of `Tenant.time_zone`; if the clocks change, a day has
    23 or 25 hours.
    """

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    DAY = "DAY"
    """A day, in the tenant's time zone."""
    MONTH = "MONTH"
    """A month, in the tenant's time zone."""
    TOTAL = "TOTAL"
    """All time."""


class CostSource(StrEnum):
    """The source of a call's cost."""

    UNSPECIFIED = "UNSPECIFIED"
    """The call is still open, or its cost is unknown."""
    BILLED = "BILLED"
    """The charge reported in the provider's response."""
    RECONCILED = "RECONCILED"
    """The charge reported in the provider's generation record."""
    CATALOGUE = "CATALOGUE"
    """Computed from the provider's catalogue: the response had usage, but no cost."""


class CallState(StrEnum):
    """The state of a model call's cost."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    PENDING = "PENDING"
    """The entry was written before the request was sent; the cost is not yet known."""
    SETTLED = "SETTLED"
    """The cost is known and final."""
    UNRESOLVED = "UNRESOLVED"
    """The request was sent, and no record has its cost; `upper_bound_usd` covers it."""
    VOID = "VOID"
    """The request was never sent and cost nothing."""


class CallPurpose(StrEnum):
    """What a model call was made for."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not stored: the entry is of an earlier build."""
    AGENT = "AGENT"
    """An answer of the agent: one cycle of its loop."""
    SUMMARY = "SUMMARY"
    """A summary of messages that leave the history's window."""
    SUB_AGENT = "SUB_AGENT"
    """An answer of an agent that another agent called as its tool: one cycle of its loop. `ModelCall.agent` is the
    agent that answered.
    """
    STRUCTURED_OUTPUT = "STRUCTURED_OUTPUT"
    """Another answer of an agent, or of one that it called (`ModelCall.agent_path`), because its answer before was not
    valid by the `output_schema`.
    """


class CatalogueState(StrEnum):
    """The state of the provider's catalogue, as the server knows it."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    CURRENT = "CURRENT"
    """The provider confirmed the catalogue recently."""
    STALE = "STALE"
    """The provider has not confirmed the catalogue for three times the interval at which it is fetched."""
    MISSING = "MISSING"
    """No catalogue was fetched yet: models are not listed, prices are unknown, and requests may name any model."""


class Role(StrEnum):
    """The author of a message."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    USER = "USER"
    """The user; also tool results, which the model receives as user messages."""
    ASSISTANT = "ASSISTANT"
    """The agent."""


class ToolCallStatus(StrEnum):
    """The outcome of a tool call."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    SUCCESS = "SUCCESS"
    """The tool returned a result."""
    ERROR = "ERROR"
    """The tool failed; the model receives the error."""


class TenantState(StrEnum):
    """What a tenant may do."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    ACTIVE = "ACTIVE"
    """Everything that its policy allows."""
    SUSPENDED = "SUSPENDED"
    """It starts no turns, and its running turns make no further model call. Its own keys read usage, ledger and
    budgets, list and revoke keys, and erase end users; every other call by them is refused as TENANT_SUSPENDED.
    """
    DELETED = "DELETED"
    """Its keys are invalid. Its ledger, usage and recorded changes remain; all else is erased."""


class ApiScope(StrEnum):
    """The services that an API key may call."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    CONVERSE = "CONVERSE"
    """AgentService."""
    BILLING = "BILLING"
    """BillingService."""
    ADMIN = "ADMIN"
    """A key of the operator: AdminService and BillingService, for all tenants. Another one: the methods of AdminService
    that manage the API keys of its own tenant.
    """
    AGENTS = "AGENTS"
    """AgentDefinitionService."""
    APPROVE = "APPROVE"
    """ListActions and DecideAction of AgentService; and, with API_SCOPE_CONVERSE, answers by Converse to actions of
    ACTION_DECIDER_REVIEWER.
    """


class AdminActorKind(StrEnum):
    """What can make a change."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    KEY = "KEY"
    """A call with an API key."""
    CLI = "CLI"
    """The command line, on a machine that reaches the database."""
    SYSTEM = "SYSTEM"
    """The service itself, in the background."""


class OnBusy(StrEnum):
    """Behaviour of a turn while another turn of its session is running."""

    UNSPECIFIED = "UNSPECIFIED"
    """REJECT."""
    REJECT = "REJECT"
    """The call ends with SESSION_BUSY."""
    WAIT = "WAIT"
    """The turn waits in order of arrival on one server, at most until the call's deadline and `disconnect_grace` after
    it.
    """


class OnDisconnect(StrEnum):
    """Behaviour of a turn once it has no reader."""

    UNSPECIFIED = "UNSPECIFIED"
    """CANCEL."""
    CANCEL = "CANCEL"
    """The turn is cancelled after `disconnect_grace`; up to a few seconds later if its last reader was on another
    server.
    """
    CONTINUE = "CONTINUE"
    """The turn runs to its end; ResumeTurn returns the events missed."""


class StopReason(StrEnum):
    """The reason why a turn ended."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    END_TURN = "END_TURN"
    """The agent has completed its answer."""
    MAX_OUTPUT_TOKENS = "MAX_OUTPUT_TOKENS"
    """The answer reached the model's or the turn's limit of output tokens."""
    MAX_MODEL_CALLS = "MAX_MODEL_CALLS"
    """The turn reached its limit of model calls."""
    CONTENT_FILTERED = "CONTENT_FILTERED"
    """The provider's filter stopped the answer."""
    INTERRUPTED = "INTERRUPTED"
    """The server that ran the turn died. The partial answer is persisted and marked; `cycle_durations` and `tools` are
    unknown.
    """
    BUDGET = "BUDGET"
    """The tenant's hard budget or the turn's `max_cost_usd` is exhausted: the answer was truncated at the output tokens
    that the remaining amount covers, or the next model call was not made.
    """
    OUTPUT_INVALID = "OUTPUT_INVALID"
    """None of the model's answers was valid by the turn's `output_schema`: 3, each a model call of the turn. They are
    not streamed and not stored.
    """
    ACTION_REQUIRED = "ACTION_REQUIRED"
    """The turn waits for answers to actions (`turn_finished.actions`). Converse with `action_results`, or DecideAction,
    goes on; a new message closes them.
    """


class TurnState(StrEnum):
    """The state of a turn."""

    UNSPECIFIED = "UNSPECIFIED"
    """Never sent."""
    WAITING = "WAITING"
    """The turn waits for another turn of its session (ON_BUSY_WAIT) and has not begun."""
    RUNNING = "RUNNING"
    """The turn is running, or about to begin."""
    ENDED = "ENDED"
    """The turn has ended, with a stop reason or with an error."""


class DeliveryState(StrEnum):
    """What has become of a delivery."""

    UNSPECIFIED = "UNSPECIFIED"
    """Of a request: any state. In a response: one of a later version."""
    PENDING = "PENDING"
    """It is to be attempted, for the first time or again."""
    DELIVERED = "DELIVERED"
    """The endpoint has taken the event."""
    FAILED = "FAILED"
    """All attempts have failed."""
    NOT_SENT = "NOT_SENT"
    """It is not attempted: it reports that this webhook itself was switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionApproval:
    """An approval of a tool call."""

    input_json: str = ""
    """Another input of the call: a JSON object as text, of at most 16384 characters. The model sees that the input was
    changed. Empty: the input that the model gave.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDenial:
    """A denial of a tool call."""

    why: str = ""
    """Why, for the model: at most 1000 printable characters. Empty: no reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientToolOutput:
    """The result of a tool that the caller ran. The model sees it as far as the server's limit on tool outputs allows.
    """

    output_text: str | None = None
    """A text of at most 65536 characters."""
    output_json: str | None = None
    """A JSON value as text, of at most 32768 characters."""
    attachment_id: str | None = None
    """The id of an image that was uploaded before."""
    error: str | None = None
    """Why the tool failed, for the model: 1 to 1000 printable characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """An answer to an action."""

    action_id: str = ""
    """The action."""
    approve: ActionApproval | None = None
    """The tool is called."""
    deny: ActionDenial | None = None
    """The tool is not called."""
    output: ClientToolOutput | None = None
    """The result of a tool that the caller ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDecision:
    """The answer to an action, and who gave it."""

    result: ActionResult = field(default_factory=ActionResult)
    """The answer."""
    api_key_id: str = ""
    """The id (never the text) of the API key that answered."""
    user: str = ""
    """The person who answered, as the request named them. Empty: it did not."""
    time: datetime = EPOCH
    """The time of the answer."""


@dataclass(frozen=True, slots=True)
class Action(Event):
    """A tool call that waits for an answer: an approval, or the result of a tool that the caller runs. A turn with open
    actions ends with STOP_REASON_ACTION_REQUIRED; the session goes on when they are answered, on any server, at most
    until `expire_time`.
    """

    action_id: str = ""
    """The id."""
    kind: ActionKind = ActionKind.UNSPECIFIED
    """What is needed."""
    session_id: str = ""
    """The session."""
    turn_id: str = ""
    """The turn that asked."""
    agent_path: str = ""
    """The agent whose model called the tool, as in `TurnEvent.agent_path`. Empty: the turn's own agent."""
    tool_call_id: str = ""
    """The id of the tool call, assigned by the model."""
    name: str = ""
    """The name of the tool, as the model knows it."""
    input_json: str = ""
    """The input of the tool call, as JSON. Empty in `turn_finished`: the `action_required` of the same turn has it."""
    reason: str = ""
    """Why approval is needed, in the definition's words. Empty: they do not say."""
    decider: ActionDecider = ActionDecider.UNSPECIFIED
    """Who may answer."""
    state: ActionState = ActionState.UNSPECIFIED
    """The state."""
    create_time: datetime = EPOCH
    """The time at which the turn asked."""
    expire_time: datetime = EPOCH
    """The time at which the action expires: it then counts as denied."""
    decision: ActionDecision | None = None
    """The answer. Unset: there is none."""
    next_turn_id: str = ""
    """The turn that took the answer, or that closed the action: it is in ListTurns. Empty: none has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTool:
    """A tool that the caller runs. When the model calls it, the turn ends with an action of ACTION_KIND_CLIENT_TOOL."""

    tool_name: str = ""
    """The name that the model sees: 1 to 64 of `[A-Za-z0-9_-]`, the first a letter. No other tool of the agent has it.
    """
    description: str = ""
    """What the tool does, for the model: at most 1000 printable characters."""
    input_schema: str = ""
    """The JSON Schema of its input, as JSON text: of an object; at most 8192 characters and 32 levels. The server does
    not check inputs by it. Empty: an object without members.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolApproval:
    """When calls of a tool need approval, and whose."""

    condition: str = ""
    """A JSON Schema (2020-12) as JSON text: a call needs approval if its input is valid by it, such as `{"required":
    ["amount"], "properties": {"amount": {"exclusiveMinimum": 100}}}`. At most 4096 characters; other bounds are
    those of `AgentDefinition.output_schema`. A call whose input is too large to be checked needs approval. Empty:
    every call needs it.
    """
    decider: ActionDecider = ActionDecider.UNSPECIFIED
    """Who may answer. Unspecified: ACTION_DECIDER_CALLER."""
    why: str = ""
    """Why, for those who decide: at most 1000 printable characters. Empty: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key, without its secret."""

    api_key_id: str = ""
    """The key's id, the middle part of its text."""
    tenant_id: str = ""
    """The tenant."""
    display_name: str = ""
    """The display name. Empty: none."""
    scopes: tuple[ApiScope, ...] = ()
    """The scopes."""
    operator: bool = False
    """The key is the operator's: its scope `admin` holds for all methods and all tenants. So does that of each key that
    was created before keys could be bound to their tenant.
    """
    models: tuple[str, ...] = ()
    """The models that its turns may request: ids, or patterns with `*`. Empty: those that the tenant's policy allows. A
    model must be allowed by both.
    """
    turns_per_minute: int | None = None
    """Maximum number of turns that the key starts in a minute, on all servers together; the policy's limit holds for
    it, too. Unset: no bound of its own. 0: it starts none.
    """
    create_time: datetime = EPOCH
    """The time of creation."""
    expire_time: datetime | None = None
    """The time of expiry. Unset: it does not expire."""
    revoke_time: datetime | None = None
    """The time of revocation. Unset: it is not revoked."""
    last_use_time: datetime | None = None
    """The time of last use, accurate to a minute. Unset: never used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedApiKey:
    """The new API key."""

    api_key: ApiKey = field(default_factory=ApiKey)
    """The key."""
    text: str = field(default="", repr=False)
    """The key's text, `gdt_...`; it cannot be retrieved again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedApiKey:
    """The new API key."""

    api_key: ApiKey = field(default_factory=ApiKey)
    """The key."""
    text: str = field(default="", repr=False)
    """The key's text, `gdt_...`; it cannot be retrieved again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget. The stream of the turn that reaches 50, 80 or 100 per cent has a `budget_alert`."""

    window: BudgetWindow = BudgetWindow.UNSPECIFIED
    """The period that the budget covers."""
    limit_usd: Decimal | None = None
    """The amount: a plain decimal above 0, at most 1000000, at most 25 decimals."""
    hard: bool = False
    """A call that might exceed the budget is rejected, so that it is never exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A tenant's limits and defaults. Unset sets no bound; a number of 0 means that none is allowed, so that every turn
    is refused before a model is called.
    """

    etag: str = ""
    """Changes with every change of the policy; for `UpdatePolicyRequest.etag`. Output only: ignored in requests."""
    allowed_models: tuple[str, ...] = ()
    """The models that may be requested: at most 100 ids, or patterns with `*`, such as "openai/*". Empty: all models.
    """
    default_model: str | None = None
    """The model used if neither request nor session names one. Unset or empty: the server's default model."""
    default_fallback_models: tuple[str, ...] = ()
    """Models to try, in this order, if the default model is unavailable; at most 8. They need a `default_model`."""
    max_output_tokens: int | None = None
    """Maximum number of output tokens of one turn. Unset: no bound. 0: every turn is refused as OUTPUT_NOT_ALLOWED."""
    turns_per_minute: int | None = None
    """Maximum number of turns that start in a minute, on all servers together. Unset: each server's own limit, 3000 by
    default. 0: every turn is refused as RATE_LIMITED.
    """
    concurrent_turns: int | None = None
    """Maximum number of concurrent turns, on all servers together. A turn in its server's queue does not count. Unset:
    each server's own limit, 1000 by default. 0: every turn is refused as TOO_MANY_TURNS.
    """
    provider_json: str | None = None
    """OpenRouter's provider routing preferences: the JSON object of its request field `provider`, at most 8192
    characters. Unset or empty: none.
    """
    zero_data_retention: bool | None = None
    """Use only providers without data retention. Unset: false."""
    budgets: tuple[Budget, ...] = ()
    """At most one for each window. Empty: no budget."""
    allowed_agents: tuple[str, ...] = ()
    """The agents whose turns may run: at most 100 names, or patterns with `*`, such as "support-*". Empty: all agents.
    """
    allowed_tools: tuple[str, ...] = ()
    """The tools that agents may have: at most 100 names of the server's tools, such as "calculator", or patterns with
    `*`. An agent with another tool can neither be applied nor run. Empty: all tools.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """The tenant's policy."""

    policy: Policy = field(default_factory=Policy)
    """The policy, with its etag. Without any field: none was set."""
    has_provider_key: bool = False
    """The tenant has an OpenRouter key of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens by kind, as the provider counted them. An unset field was not reported."""

    input_tokens: int | None = None
    """All tokens of the prompt, including those read from and written to a cache."""
    output_tokens: int | None = None
    """All tokens of the answer, including those of its reasoning."""
    total_tokens: int | None = None
    """The sum of input and output tokens."""
    cache_read_tokens: int | None = None
    """Prompt tokens read from the provider's prompt cache."""
    cache_write_tokens: int | None = None
    """Prompt tokens written to the provider's prompt cache."""
    reasoning_tokens: int | None = None
    """Answer tokens spent on reasoning. Some providers report more of them than output tokens."""
    audio_input_tokens: int | None = None
    """Prompt tokens of audio."""
    audio_cache_read_tokens: int | None = None
    """Audio tokens read from the provider's prompt cache, a part of `cache_read_tokens`."""
    audio_output_tokens: int | None = None
    """Answer tokens of audio."""
    image_output_tokens: int | None = None
    """Answer tokens of images."""
    video_input_tokens: int | None = None
    """Prompt tokens of video."""
    web_search_requests: int | None = None
    """Web searches that the provider ran, each charged separately."""
    server_tool_calls: int | None = None
    """Tool calls that OpenRouter ran itself. Their fees are in no list of models; a web search among them is one of
    `web_search_requests` as well.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A correction of a call with a final state: a new entry, which does not change the call's own entry."""

    adjustment_id: str = ""
    """The id of the adjustment, generated by this service."""
    call_id: str = ""
    """The call that is corrected."""
    session_id: str = ""
    """The session of the call."""
    turn_id: str = ""
    """The turn of the call."""
    number: int = 0
    """The entry's number in the session."""
    agent: str = ""
    """The agent that made the call."""
    purpose: CallPurpose = CallPurpose.UNSPECIFIED
    """What the call was made for. Unspecified: as for the call, or the adjustment is of an earlier build."""
    api_key_id: str = ""
    """The id of the API key that started the turn of the call; `by` names who made the adjustment. Empty: as for the
    call, or the adjustment is of an earlier build.
    """
    cost_usd: Decimal | None = None
    """The amount added to the cost."""
    usage: TokenUsage | None = None
    """The tokens added to the usage. Unset: none."""
    resolves: bool = False
    """The adjustment sets the cost of an unresolved call. Otherwise it changes a known cost."""
    create_time: datetime = EPOCH
    """The time of creation."""
    why: str = ""
    """The reason."""
    by: str = ""
    """The author."""
    request_id: str = ""
    """The id of the request that created it. Empty: none."""
    agent_version: int | None = None
    """The number of the version of `agent` that made the call. Unset: as for the call, or the adjustment is of an
    earlier build.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustedCall:
    """The adjustment."""

    adjustment: Adjustment = field(default_factory=Adjustment)
    """The new entry, or the entry that the same request created before."""
    total_cost_usd: Decimal | None = None
    """The call's total with all its adjustments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The user is erased."""

    user_reference: str = ""
    """The reference of the user, which ledger entries and the recorded change have."""
    sessions: int = 0
    """The number of sessions that were deleted."""
    messages: int = 0
    """The number of messages that were deleted with them."""
    turns: int = 0
    """The number of turns whose records and event logs were deleted; those of earlier turns had expired."""
    erase_time: datetime = EPOCH
    """The time at which the erasure was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReasoning:
    """The reasoning of a model before an answer: an effort, or a number of tokens. A model that cannot reason ignores
    it.
    """

    effort: ReasoningEffort = ReasoningEffort.UNSPECIFIED
    """The effort. Unspecified: `max_tokens` is set."""
    max_tokens: int | None = None
    """Maximum number of tokens of reasoning of one model call: at least 1. They count as output tokens. Unset: `effort`
    is set.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParameters:
    """Parameters of an agent's model calls; those of summaries have none of them. Unset: the provider's default."""

    temperature: float | None = None
    """The temperature of the sampling: 0 to 2."""
    top_p: float | None = None
    """The share of probability from which tokens are sampled: above 0, at most 1."""
    max_output_tokens: int | None = None
    """Maximum number of output tokens of one model call: at least 1. An answer truncated by it ends the turn with
    STOP_REASON_MAX_OUTPUT_TOKENS.
    """
    reasoning: ModelReasoning | None = None
    """The reasoning before an answer."""
    seed: int | None = None
    """The seed of the sampling: at least 0. Not every provider is deterministic with one."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends: at most 4, each of 1 to 256 characters."""
    provider_json: str = ""
    """OpenRouter's provider routing preferences: the JSON object of its request field `provider`, at most 8192
    characters. The preferences of the tenant's policy hold over them. If neither has `require_parameters`, `only` or
    `order`, requests with tools or `stop` texts have `require_parameters`, where the listing has all of their
    parameters for the model. Empty: none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class McpToolset:
    """Tools of an MCP server. A turn takes those that the server lists when it begins. If the server cannot be reached
    then, and has not been before, the turn goes on without them, and the prompt says so; likewise without those
    beyond 512 tools, or 1 MiB of schemas and descriptions, of all servers of an agent. A call that fails, or takes
    too long, is an error that the model sees.
    """

    mcp_server: str = ""
    """The name of the server, which must exist (MCP_SERVER_NOT_FOUND)."""
    allow: tuple[str, ...] = ()
    """The tools: the server's names of them, or patterns with `*`; at most 100. Empty: all that `McpServer.allow` and
    `McpServer.deny` leave.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgent:
    """An agent as a tool of another one. The model sees it as the tool `agent_NAME`, whose input is a text: the task.
    For each call the agent starts with an empty history and the task as its user's message; its last text is the
    tool's result, cut as the results of other tools are. Calls may run side by side, also of the same agent. A turn
    takes the newest version of the agent at its first call, unless the definition names one; prompts get the `user`
    and the `variables` of the turn's request.

    Everything that sub-agents spend counts for the turn: its limits, `max_cost_usd` and the tenant's budgets hold
    for all of its agents together. The `limits` of a sub-agent's own definition hold for each of its calls, with the
    agents that it calls. Where one limit of tokens or cost is shared, a model call waits while another one has
    reserved what is left.

    Agents call one another at most 3 deep below the turn's agent, and a turn makes at most 50 calls of sub-agents. A
    call that is not possible (no such agent, a circle, too deep, too many, not allowed by the tenant's policy, a
    limit or a budget that is reached), an agent that fails, and one that takes longer than 15 minutes are errors
    that the calling model sees; the turn goes on.
    """

    agent: str = ""
    """The name of the agent, at most 58 characters; or `name@version`, such as "researcher@3". It must exist when the
    definition is applied (AGENT_NOT_FOUND), and must not call the agent that is defined, directly or through others;
    a definition through which agents would call one another deeper than is possible is refused, too.
    """
    description: str = ""
    """What the agent can do and when to ask it, for the model that calls it: at most 1000 printable characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTool:
    """A tool of an agent."""

    builtin: str | None = None
    """A tool of the server: "calculator", "current_time", "notebook" (notes that last as long as the session),
    "session_cost" (what the session has cost so far) or "http_fetch" (texts from the hosts that the operator permits
    with GODOTY_FETCH_HOSTS; without it, INVALID_FIELD).
    """
    mcp: McpToolset | None = None
    """Tools of one of the tenant's MCP servers."""
    agent: SubAgent | None = None
    """Another agent of the tenant, which answers a task that the model gives it."""
    client: ClientTool | None = None
    """A tool that the callers of the agent run."""
    approval: ToolApproval | None = None
    """When calls of the tool need approval: such a call ends the turn with an action. Of an MCP server: all tools of
    the entry. Not for a `client` tool, which asks by itself. Unset: never.
    """
    idempotent: bool = False
    """Calling the tool twice with one input does no more than calling it once. If a server dies while the tool runs in
    a step that waits for actions, such a call is made again, with the same id; another one is answered with an error
    that says that its outcome is unknown.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """Limits of one turn. Unset: the server's limit applies."""

    max_model_calls: int | None = None
    """Maximum number of model calls of the turn, with those of its sub-agents: at least 1. Reaching it ends the turn
    with STOP_REASON_MAX_MODEL_CALLS.
    """
    max_output_tokens: int | None = None
    """Maximum number of output tokens of all model calls of the turn together: at least 1. Reaching it ends the turn
    with STOP_REASON_MAX_OUTPUT_TOKENS.
    """
    max_cost_usd: Decimal | None = None
    """Maximum cost of the turn in US dollars: a plain decimal above 0, at most 1000000, at most 25 decimals. The output
    tokens of each model call are limited to those that the remaining amount covers. An answer truncated by this
    limit ends the turn with STOP_REASON_BUDGET. So does a remaining amount that does not cover 256 output tokens (or
    the remainder of `max_output_tokens`, if smaller): the model call is not made.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHistory:
    """The part of a session that the model sees; of a sub-agent: what it sees of its own loop, beside its task."""

    messages: int | None = None
    """The number of newest messages: 4 to 1000, and at most those that have 8 MiB together. Unset: the server's
    setting, 40 by default.
    """
    mode: HistoryMode = HistoryMode.UNSPECIFIED
    """What the model sees of older messages. Unspecified: the server's setting, HISTORY_MODE_SLIDING by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOverrides:
    """The fields of a request that may replace those of the definition."""

    fields: tuple[AgentOverride, ...] = ()
    """The fields; at most 8. Empty: none, so that a request with any of them is INVALID_FIELD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSearch:
    """The provider's web search. The model decides whether and what it searches; the provider searches and lets the
    model go on, all within one model call, whose usage and cost include it. The pages come as `Annotations`. Each of
    the model's answers within a call may have as many output tokens as the call, so that limits on output tokens
    hold for each of them.

    A hard budget and `max_cost_usd` need an upper bound of each call's cost: WEB_SEARCH_ENGINE_EXA, PARALLEL and
    PERPLEXITY have one once the provider's prices are known; with another engine the turn is COST_UNBOUNDED. The
    bound grows with `max_uses`, `max_results` and `max_characters`, and is reserved while the call is open.
    """

    engine: WebSearchEngine = WebSearchEngine.UNSPECIFIED
    """Who searches. Unspecified: WEB_SEARCH_ENGINE_EXA."""
    max_uses: int | None = None
    """Maximum number of searches of one model call: 1 to 10. Unset: 3."""
    max_results: int | None = None
    """Maximum number of results of one search: 1 to 20. Unset: 5."""
    max_characters: int | None = None
    """Maximum number of characters of one result: 100 to 20000. Unset: 2000."""
    allowed_domains: tuple[str, ...] = ()
    """The only domains whose pages it finds, such as "example.com", "*.example.com" or "example.com/docs": at most 20.
    Empty: all.
    """
    excluded_domains: tuple[str, ...] = ()
    """Domains whose pages it does not find: at most 20, and none with `allowed_domains`. Empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFetch:
    """The provider's reading of web pages and PDFs. The model names the addresses; the rest is as with `WebSearch`. For
    a hard budget and `max_cost_usd`, WEB_FETCH_ENGINE_OPENROUTER, EXA and PARALLEL have an upper bound.
    """

    engine: WebFetchEngine = WebFetchEngine.UNSPECIFIED
    """Who fetches. Unspecified: WEB_FETCH_ENGINE_OPENROUTER."""
    max_uses: int | None = None
    """Maximum number of pages of one model call: 1 to 10. Unset: 3."""
    max_content_tokens: int | None = None
    """Maximum length of one page in tokens, as the provider estimates them: 100 to 100000. Unset: 5000."""
    allowed_domains: tuple[str, ...] = ()
    """The only domains whose pages it fetches, as in `WebSearch`. Empty: all."""
    excluded_domains: tuple[str, ...] = ()
    """Domains whose pages it does not fetch, as in `WebSearch`. Empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefinition:
    """What an agent is: at most 262,144 bytes. A definition with fields that the server does not know is refused, also
    those inside its messages: the agent would not act as it is written.
    """

    name: str = ""
    """The name, which identifies the agent in its tenant: 1 to 64 of `[a-z0-9-]`, the first a letter, the last no
    hyphen. The tenant's default agent is "assistant": every tenant has it, and may apply a definition of its own.
    """
    description: str = ""
    """What the agent does, for people who choose one: at most 1000 printable characters. Empty: none."""
    system_prompt: str = ""
    """The prompt before every conversation: at most 32768 characters. Placeholders are replaced at the start of each
    turn: `{{today}}` by the date in UTC, such as 2026-03-01; `{{user}}` by the `user` of the request;
    `{{variables.NAME}}` by one of its `variables`. There may be 64. A turn whose request lacks one of them is
    INVALID_FIELD. Nothing in a prompt is executed, and values are not searched for placeholders. Empty: no prompt.
    """
    model: str = ""
    """The OpenRouter model of every turn whose request names none. Empty: the session's last model, else the tenant's
    default.
    """
    fallback_models: tuple[str, ...] = ()
    """Models to try, in this order, if `model` is unavailable; at most 8. They need a `model`."""
    parameters: ModelParameters | None = None
    """Parameters of the agent's model calls. Unset: the provider's defaults."""
    tools: tuple[AgentTool, ...] = ()
    """The tools, in the order in which the model sees them; at most 64, each once. Empty: none."""
    limits: TurnLimits | None = None
    """Limits of each turn. A request can only lower them. Unset: the agent sets no limit."""
    history: AgentHistory | None = None
    """The part of a session that the model sees. Unset: the server's settings."""
    overridable: AgentOverrides | None = None
    """The fields of a request that may replace those of the definition. Unset: all of them."""
    prompt_caching: bool = False
    """Marks the requests of the agent's model calls for the prompt caches of providers that cache on request alone,
    such as Anthropic: what is the same at the beginning of the next request is then read at a lower price, and
    written at a higher one. `TokenUsage` has both. Other providers cache by themselves, or not at all.
    """
    web_search: WebSearch | None = None
    """The provider's web search, which the model may use within a model call. Its fees are part of the call's cost. A
    policy allows it as the tool "openrouter:web_search". Unset: none.
    """
    output_schema: str = ""
    """A JSON Schema (2020-12) as JSON text, by which the agent answers: a turn ends with a value that is valid by it
    (`turn_finished.output_json`), or with STOP_REASON_OUTPUT_INVALID. An agent that another one calls gives the
    value as its result. At most 32768 characters, 4000 values and members, 64 levels, 200 references and 64 patterns
    of at most 512 characters each; references lead into the schema itself; patterns have no look-around and no back-
    references; at most 500 subschemas apply to one place of a value. `format` is not checked. Empty: the agent
    answers with text.
    """
    web_fetch: WebFetch | None = None
    """The provider's reading of web pages and PDFs by their addresses, which the model may use within a model call. Its
    fees are part of the call's cost. A policy allows it as the tool "openrouter:web_fetch". Unset: none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVersion:
    """A version of an agent. It never changes."""

    definition: AgentDefinition = field(default_factory=AgentDefinition)
    """The definition."""
    version: int = 0
    """The number: 1, 2, 3 … by name, not used again. 0: the server's own definition of "assistant", which is in force
    until the tenant applies one; it may change with an upgrade of the server.
    """
    create_time: datetime | None = None
    """The time at which it was applied. Unset: it is the server's own."""
    api_key_id: str = ""
    """The id (never the text) of the API key that applied it. Empty: it is the server's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSummary:
    """An agent as the callers of its conversations see it."""

    name: str = ""
    """The name, for `ConverseRequest.agent`."""
    description: str = ""
    """What the agent does. Empty: its definition does not say."""
    version: int = 0
    """The number of its newest version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedAgent:
    """The newest version of the agent."""

    agent_version: AgentVersion = field(default_factory=AgentVersion)
    """The version: a new one, or the newest one if the content is the same."""
    changed: bool = False
    """The version is new, or its agent was deleted before."""
    etag: str = ""
    """Identifies the state of the agent, for `ApplyAgentRequest.etag`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent."""

    agent_version: AgentVersion = field(default_factory=AgentVersion)
    """The version."""
    etag: str = ""
    """Identifies the state of the agent, for `ApplyAgentRequest.etag`. Empty: the request named a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedTurn:
    """The turn has begun."""

    turn_id: str = ""
    """The turn."""
    session_id: str = ""
    """The session: that of the request, or the generated id of a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A sum of ledger entries."""

    cost_usd: Decimal | None = None
    """The cost of all settled entries. Pending and unresolved calls are not included; they are counted below."""
    usage: TokenUsage = field(default_factory=TokenUsage)
    """Tokens of the settled calls, and the known tokens of the unresolved ones."""
    model_calls: int = 0
    """Requests to the provider, including open ones."""
    turns: int = 0
    """Turns with at least one request sent: turns with void calls alone are not counted."""
    pending_calls: int = 0
    """Calls with a cost that is not yet known."""
    unresolved_calls: int = 0
    """Calls with a cost that is in no record."""
    unresolved_bound_usd: Decimal | None = None
    """The sum of the unresolved calls' upper bounds. Unset: one of them has no finite bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals:
    """A sum of ledger entries of one model."""

    model: str = ""
    """The id, in the provider's listing, of the model that served the calls; of the requested model if none served."""
    totals: Totals = field(default_factory=Totals)
    """The sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The calls of one turn that were served by one model."""

    time: datetime = EPOCH
    """The start of the first call."""
    model: str = ""
    """The served model."""
    cost_usd: Decimal | None = None
    """The cost. Unset: none of the calls is settled."""
    turn_id: str = ""
    """The turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Median, 95th percentile and newest of a measured time."""

    median: timedelta = timedelta(0)
    """The median."""
    p95: timedelta = timedelta(0)
    """The 95th percentile."""
    last: timedelta = timedelta(0)
    """The newest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLatency:
    """The latency of a provider."""

    provider: str = ""
    """The provider; empty for all providers together."""
    model_calls: int = 0
    """The number of calls measured."""
    time_to_first_token: LatencySummary | None = None
    """Time from sending the request to the first token. Unset: none of the calls received a token."""
    duration: LatencySummary = field(default_factory=LatencySummary)
    """Time from sending the request to the end of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTotals:
    """A sum of ledger entries of one agent."""

    agent: str = ""
    """The name of the agent that made the calls."""
    totals: Totals = field(default_factory=Totals)
    """The sum of its calls that are not pending. A turn is counted for the agent that made its first call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSavings:
    """What prompt caches have saved, by the prices at which each call was charged."""

    saved_usd: Decimal | None = None
    """The sum of `ModelCall.cache_savings_usd` over the calls that have it. Unset: calls have used a cache, and of none
    of them it is known what was saved.
    """
    model_calls: int = 0
    """The calls that have it."""
    unknown_model_calls: int = 0
    """Calls that read from a prompt cache or wrote to one without having it: they are not in the sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMetrics:
    """Cost and usage of a session."""

    totals: Totals = field(default_factory=Totals)
    """The totals of the session."""
    by_model: tuple[ModelTotals, ...] = ()
    """The totals by served model, highest cost first."""
    recent_runs: tuple[Run, ...] = ()
    """The newest 50 pairs of turn and served model, newest first."""
    latency: tuple[ProviderLatency, ...] = ()
    """Latency of the newest 100 calls: of all calls first, then by provider."""
    create_time: datetime = EPOCH
    """The time of creation."""
    update_time: datetime = EPOCH
    """The time of last use."""
    by_agent: tuple[AgentTotals, ...] = ()
    """The totals by agent, highest cost first."""
    cache_savings: CacheSavings | None = None
    """What prompt caches have saved in the calls that are not pending. Unset: not known of the whole session, as a
    server of an earlier build has counted some of its calls; the entries of the ledger have it by call.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrigin:
    """What a session was forked from."""

    session_id: str = ""
    """The session. It may be deleted since, and another session may have its id."""
    number: int = 0
    """The number of the last message that was copied. 0: none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation, without its messages."""

    session_id: str = ""
    """The session id."""
    user: str = ""
    """The tenant's end user. Empty: none was given."""
    model: str = ""
    """The model requested by the last turn."""
    message_count: int = 0
    """The number of messages."""
    cost_usd: Decimal | None = None
    """The cost: the sum of the settled calls."""
    create_time: datetime = EPOCH
    """The time of creation."""
    update_time: datetime = EPOCH
    """The time of last use."""
    agent: str = ""
    """The name of its agent."""
    agent_version: int | None = None
    """The number of the agent's version with which it began, and which its turns take. Unset: they take the newest one.
    """
    origin: SessionOrigin | None = None
    """What it was forked from. Unset: it is no fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An image (PNG, JPEG, WebP or GIF) or a PDF document, without its bytes: GetAttachment returns those. It is
    deleted with the last session whose messages name it, and a day after its upload if no session has named it.
    """

    attachment_id: str = ""
    """The id, assigned by the server."""
    media_type: str = ""
    """The media type, by its content: "image/png", "image/jpeg", "image/webp", "image/gif" or "application/pdf"."""
    size_bytes: int = 0
    """The size in bytes."""
    width: int = 0
    """The width of an image in pixels. 0: it is no image."""
    height: int = 0
    """The height of an image in pixels. 0: it is no image."""
    pages: int = 0
    """The number of pages of a document. 0: it is an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """What a user says in one message."""

    text: str = ""
    """The text."""
    attachments: tuple[Attachment, ...] = ()
    """The images and documents that it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """The fork."""

    session: Session = field(default_factory=Session)
    """The fork."""
    next_message: UserMessage | None = None
    """The user's message before which the fork ends: send it, or another one, by Converse. The fork names its
    attachments. Unset: the fork ends after an answer.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageKey:
    """What the entries of a group have in common."""

    time: datetime | None = None
    """The start of the hour, day or month, in the response's time zone; it may be before `start_time`."""
    model: str | None = None
    """The model, as its listed id."""
    provider: str | None = None
    """The name of the provider."""
    agent: str | None = None
    """The name of the agent."""
    user: str | None = None
    """The name of the tenant's end user."""
    session_id: str | None = None
    """The session."""
    api_key_id: str | None = None
    """The id of the API key."""
    agent_version: str | None = None
    """The agent and its version, such as "support@3"; the agent alone for entries of builds that stored no version."""
    user_reference: str = ""
    """By end user: the user's random reference, by which these rows are ordered; it remains when the user is erased.
    Empty: another group, or calls without an end user.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The totals of a group."""

    keys: tuple[UsageKey, ...] = ()
    """The group's keys: one for each entry of `group_by`, in its order."""
    totals: Totals = field(default_factory=Totals)
    """The totals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Usage totals."""

    rows: tuple[UsageRow, ...] = ()
    """One row for each group with totals that are not all zero, in the order of their keys."""
    totals: Totals = field(default_factory=Totals)
    """The sum of all rows, including those of other pages."""
    as_of: datetime = EPOCH
    """The time as of which the totals are known. Use it as `as_of` to reproduce this response."""
    adjusted_later_usd: Decimal | None = None
    """The amount by which settlements and adjustments after `as_of` have changed the cost of calls in the time range.
    Unset: `as_of` was not given.
    """
    time_zone: str = ""
    """The time zone of hours, days and months: that of the request, or "UTC"."""
    next_page_token: str = ""
    """The `page_token` of the next page. Empty: this is the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """The current status of a budget."""

    window: BudgetWindow = BudgetWindow.UNSPECIFIED
    """The period that the budget covers."""
    limit_usd: Decimal | None = None
    """The amount of the budget."""
    hard: bool = False
    """A call that might exceed the budget is rejected."""
    spent_usd: Decimal | None = None
    """The cost of the window's calls; an unresolved call counts with its upper bound."""
    reserved_usd: Decimal | None = None
    """The sum of the open calls' upper bounds."""
    window_start_time: datetime | None = None
    """The start of the window. Unset: the budget covers all time."""


@dataclass(frozen=True, slots=True)
class BudgetAlert(Event):
    """The tenant's spending has reached 50, 80 or 100 per cent of a budget. Each alert is sent once per window and
    limit: to the turn that reached the share, or to the next turn if it was not reached by a turn's call.
    """

    window: BudgetWindow = BudgetWindow.UNSPECIFIED
    """The period that the budget covers."""
    percent: int = 0
    """The share reached, in per cent."""
    spent_usd: Decimal | None = None
    """The amount spent so far."""
    limit_usd: Decimal | None = None
    """The amount of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """The unit prices of a call, in USD per token (or per request), and their source: the prices in effect when the
    call started and, once its prompt is counted, for a prompt of that length. Unset prices are unknown.
    """

    input_usd: Decimal | None = None
    """A prompt token."""
    output_usd: Decimal | None = None
    """An answer token."""
    cache_read_usd: Decimal | None = None
    """A prompt token read from the cache. If none is listed, the price of a prompt token."""
    cache_write_usd: Decimal | None = None
    """A prompt token written to the cache."""
    audio_input_usd: Decimal | None = None
    """A prompt token of audio."""
    audio_cache_read_usd: Decimal | None = None
    """A prompt token of audio read from the cache."""
    audio_output_usd: Decimal | None = None
    """An answer token of audio."""
    image_output_usd: Decimal | None = None
    """An answer token of an image."""
    request_usd: Decimal | None = None
    """One request."""
    web_search_usd: Decimal | None = None
    """One web search."""
    catalogue_hash: str = ""
    """SHA-256 of the catalogue in effect, in hexadecimal."""
    catalogue_time: datetime = EPOCH
    """The time at which that catalogue was first seen."""
    provider_prices_hash: str = ""
    """SHA-256 of the list of the model's providers, in hexadecimal, if the prices are from it. Empty: they are from the
    catalogue.
    """
    provider_prices_time: datetime | None = None
    """The time at which that list was first seen. Unset: the prices are from the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One request to the provider: an entry of the ledger. Every cycle of the agent's loop, every retry and every side
    call has one.
    """

    call_id: str = ""
    """The id of the call, generated by this service."""
    session_id: str = ""
    """The session of the call."""
    turn_id: str = ""
    """The turn of the call."""
    number: int = 0
    """The entry's number in the session: 1, 2, 3 …"""
    state: CallState = CallState.UNSPECIFIED
    """The state of the cost."""
    purpose: CallPurpose = CallPurpose.UNSPECIFIED
    """What the answer was for. Unspecified: an entry of an earlier build, which did not store it."""
    agent: str = ""
    """The name of the agent that made the call."""
    api_key_id: str = ""
    """The id (never the text) of the API key that started the turn. Empty: an entry of an earlier build, which did not
    store it.
    """
    requested_model: str = ""
    """The model requested."""
    served_model: str = ""
    """The model that served, and whose price applies: its id in the provider's listing, never a dated slug; for an
    unlisted model, the provider's name for it. Empty until known.
    """
    served_slug: str = ""
    """The served model's name as the provider sent it: an id or a dated slug, at most 256 characters. Empty until
    known.
    """
    provider: str = ""
    """The provider that served. Empty until known."""
    generation_id: str = ""
    """The provider's id of the generation. Empty until known."""
    usage: TokenUsage | None = None
    """Tokens, as the provider counted them. Unset until known."""
    cost_usd: Decimal | None = None
    """The charge to the account."""
    cost_source: CostSource = CostSource.UNSPECIFIED
    """The source of `cost_usd`."""
    catalogue_cost_usd: Decimal | None = None
    """The cost of the usage at the catalogue's prices; its difference to `cost_usd` is the drift."""
    upper_bound_usd: Decimal | None = None
    """The maximum cost of the call, computed before it was sent. Unset: no finite bound could be computed."""
    upstream_cost_usd: Decimal | None = None
    """The charge of the provider behind OpenRouter. Under bring-your-own-key it is paid in addition to `cost_usd`."""
    byok: bool | None = None
    """The call used the account's own provider key. Unset: not reported."""
    provider_key_id: str = ""
    """The id (never the text) of the provider key that made the call: its generation record can only be read with that
    key.
    """
    unit_prices: UnitPrices | None = None
    """The prices in effect when the call started. Unset: the model was not in the catalogue."""
    start_time: datetime = EPOCH
    """The time at which the entry was written, just before the request was sent."""
    settle_time: datetime | None = None
    """The time at which the state became final. Unset while the call is pending."""
    time_to_first_token: timedelta | None = None
    """Time from sending the request to the first token. Unset: no token was received."""
    duration: timedelta | None = None
    """Time from sending the request to the end of the answer. Unset while open."""
    attempt: int = 0
    """1 for the first attempt of a request, 2 and 3 for its retries."""
    finish_reason: str = ""
    """The provider's finish reason ("stop", "tool_calls", "length"). Empty: not reported."""
    error: str = ""
    """A short description of the error. Empty: no error."""
    error_message: str = ""
    """The provider's error message, at most 500 characters, with keys masked and control characters removed. Empty:
    none, or one that concerns only the service's account with the provider.
    """
    agent_version: int | None = None
    """The number of the version of `agent` that made the call; 0: the server's own. Unset: an entry of an earlier
    build, which did not store it.
    """
    agent_path: str = ""
    """The sub-agent that made the call, also for its summaries, as in `TurnEvent.agent_path`. Empty: the turn's own
    agent did.
    """
    tool_fees_usd: Decimal | None = None
    """The part of `cost_usd` that is fees for what the provider ran for the answer: web searches, fetched pages, read
    files. Unset: the provider did not report it, which does not mean that there were none.
    """
    cache_savings_usd: Decimal | None = None
    """What prompt caches saved in this call: the tokens read, each at the difference between the prices of a prompt
    token and of one read from the cache, less what writing cost beyond the price of prompt tokens. Negative: writing
    cost more than reading saved. Unset: the call used no cache as far as is known, its cost is not known, or it is
    not exactly what `unit_prices` make of its usage, so that these need not be the prices at which it was charged.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """An entry of the ledger."""

    call: ModelCall | None = None
    """A request to the provider."""
    adjustment: Adjustment | None = None
    """A correction of a call with a final state."""
    user: str = ""
    """The name of the tenant's end user. Empty: none was given, or the user was erased."""
    user_reference: str = ""
    """The random reference of the end user, which remains when the user is erased. Empty: no user was given, or the
    entry is of a build before 1.0 whose name has not been replaced yet.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class McpHeader:
    """An HTTP header with a secret value."""

    name: str = ""
    """The name of the header, such as "Authorization": at most 64 characters. Those that HTTP or MCP use themselves are
    refused, and "Authorization" beside `oauth`.
    """
    secret: str | None = field(default=None, repr=False)
    """The header's value: 1 to 2048 printable ASCII characters. Unset in a request: the value that is stored for this
    header, if the URL still has the same scheme, host and port. Always unset in responses.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOAuthClient:
    """An OAuth 2.0 client that gets access tokens with its own credentials (grant type `client_credentials`)."""

    token_url: str = ""
    """The URL of the token endpoint; as `McpServer.url`."""
    client_id: str = ""
    """The client's id: at most 256 printable ASCII characters."""
    client_secret: str | None = field(default=None, repr=False)
    """The client's secret: 1 to 1024 printable ASCII characters; stored encrypted. Unset in a request: the one that is
    stored, if `token_url` still has the same scheme, host and port. Always unset in responses.
    """
    oauth_scope: str = ""
    """The scopes to request, separated by spaces: at most 1024 characters. Empty: none are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server of the Model Context Protocol (MCP), whose tools the tenant's agents can use: those whose definition
    names it. It speaks Streamable HTTP. A change reaches the next turn on every server within 2 seconds.
    """

    name: str = ""
    """The name, unique within the tenant: 1 to 32 of `[a-z0-9-]`, with a letter first and no hyphen at the end."""
    url: str = ""
    """The URL of its endpoint: `https://`, and an address of the public internet; or one of the operator's networks
    (GODOTY_MCP_NETWORKS), also with `http://`. At most 2048 characters, without user, password and fragment. The URL
    is shown to those who may read the server: a secret belongs in `headers`. Redirects (307, 308) are followed if
    their address is permitted, too; another host gets neither the headers nor the access token.
    """
    headers: tuple[McpHeader, ...] = ()
    """HTTP headers that authorize the tenant's agents: at most 8. Their values are stored encrypted, and never shown.
    """
    oauth: McpOAuthClient | None = None
    """The OAuth 2.0 client with whose access tokens requests are authorized. Unset: none."""
    allow: tuple[str, ...] = ()
    """The tools that agents may use: the server's names of them, or patterns with `*`; at most 100. Empty: all."""
    deny: tuple[str, ...] = ()
    """The tools that no agent may use, also if `allow` has them: names or patterns with `*`; at most 100."""
    prefix: str = ""
    """What the names by which models know its tools begin with, before an underscore: 1 to 32 of `[A-Za-z0-9_]`. Empty:
    the server's name, with `_` in place of `-`.
    """
    timeout: timedelta | None = None
    """The time that one call of a tool may take: more than 0, at most 600 seconds. After it the call is cancelled, and
    the model sees an error. Unset: 60 seconds.
    """
    output_bytes: int | None = None
    """The most bytes of a tool's result in UTF-8: 256 to 1,048,576. A larger one is cut, with a note that the model
    sees. Unset: the limit of the service alone (GODOTY_TOOL_OUTPUT_BYTES), which applies in any case.
    """
    etag: str = ""
    """Changes with every change of the server; for the `etag` of requests that change it."""
    create_time: datetime = EPOCH
    """The time of creation."""
    update_time: datetime = EPOCH
    """The time of the last change; at first that of creation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpTool:
    """A tool of an MCP server."""

    name: str = ""
    """The server's name of the tool, which `allow` and `deny` use."""
    offered_name: str = ""
    """The name by which models know it: the prefix, an underscore and the name, with `_` in place of characters that
    models do not accept; a long one is cut and ends with a hash.
    """
    description: str = ""
    """What it does, in the server's words: at most 4,099 characters."""
    input_schema_json: str = ""
    """The JSON schema of its input, unchanged. Empty: `problem` is set."""
    problem: str = ""
    """Why no agent can use it, such as a schema that is too large. Empty: agents can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMcpServer:
    """The server as it is now."""

    server: McpServer = field(default_factory=McpServer)
    """The server, without its secrets."""
    changed: bool = False
    """The server is new, or differs from what it was before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServerCheck:
    """What a server offers, and how fast it answers."""

    problem: str = ""
    """Why its tools cannot be used, such as "The server cannot be reached.". Empty: they can."""
    protocol_version: str = ""
    """The version of MCP that it speaks, such as "2025-11-25". Empty: it could not be connected to."""
    software: str = ""
    """The name and version of its software, in its own words. Empty: it does not say."""
    connect_duration: timedelta | None = None
    """The time that it took to connect. Unset: it could not be connected to."""
    list_duration: timedelta | None = None
    """The time that it took to list the tools. Unset: it did not list them."""
    tools: tuple[McpTool, ...] = ()
    """The tools, in the server's order: at most 128."""
    tools_left_out: int = 0
    """The number of tools beyond those, of the first 500 of each page; no agent can use them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrices:
    """The listed prices of a model, in USD per token (or per request). Providers may charge other prices for the same
    model.
    """

    input_usd: Decimal | None = None
    """A prompt token."""
    output_usd: Decimal | None = None
    """An answer token."""
    cache_read_usd: Decimal | None = None
    """A prompt token read from the cache. If none is listed, the price of a prompt token."""
    cache_write_usd: Decimal | None = None
    """A prompt token written to the cache."""
    audio_input_usd: Decimal | None = None
    """A prompt token of audio."""
    audio_cache_read_usd: Decimal | None = None
    """A prompt token of audio read from the cache."""
    audio_output_usd: Decimal | None = None
    """An answer token of audio."""
    image_output_usd: Decimal | None = None
    """An answer token of an image."""
    request_usd: Decimal | None = None
    """One request."""
    web_search_usd: Decimal | None = None
    """One web search."""
    uncounted_fees: bool = False
    """The model searches the web by itself, and no counter shows what that costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the provider's catalogue."""

    model_id: str = ""
    """The id, by which a request names the model."""
    display_name: str = ""
    """The name for people, at most 200 characters. Empty: the catalogue has none."""
    alias_of: str = ""
    """The id of the model that answers in place of this one, with its prices. Empty: this is no alias."""
    prices: ModelPrices = field(default_factory=ModelPrices)
    """The prices at the time of the response, for a short prompt."""
    prices_vary: bool = False
    """The prices depend on the length of the prompt or on the time of day. A call's own `unit_prices` are exact."""
    context_length: int | None = None
    """Maximum number of tokens of prompt and answer together. Unset: unknown."""
    max_output_tokens: int | None = None
    """Maximum number of tokens of an answer. Unset: unknown."""
    input_modalities: tuple[str, ...] = ()
    """What a prompt may contain: "text", "image", "file", "audio", "video", or other words of the catalogue. Empty:
    unknown.
    """
    output_modalities: tuple[str, ...] = ()
    """What an answer may contain, in the same words. Empty: unknown."""
    tools: bool | None = None
    """The model can call tools. Unset: unknown."""
    reasoning: bool | None = None
    """The model can reason before it answers. Unset: unknown."""
    structured_output: bool | None = None
    """The model can answer by a JSON schema. Unset: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A tool call requested by the model."""

    tool_call_id: str = ""
    """The id of the call, assigned by the model."""
    name: str = ""
    """The name of the tool."""
    input_json: str = ""
    """The input, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of a tool call."""

    tool_call_id: str = ""
    """The id of the call, assigned by the model."""
    status: ToolCallStatus = ToolCallStatus.UNSPECIFIED
    """The outcome."""
    output: str = ""
    """The output that the model receives, as text; a line names each of its images."""
    attachments: tuple[Attachment, ...] = ()
    """The images of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentBlock:
    """A content block of a message."""

    text: str | None = None
    """Text."""
    reasoning: str | None = None
    """The model's reasoning, if the provider returned it."""
    tool_use: ToolUse | None = None
    """A tool call requested by the model."""
    tool_result: ToolResult | None = None
    """The result of a tool call."""
    attachment: Attachment | None = None
    """An image or a document that the message carries."""
    truncated: bool = False
    """The block's text is truncated; ReadMessage returns all of it. The text is `text`, `reasoning`,
    `tool_use.input_json` (which is then not valid JSON) or `tool_result.output`.
    """
    size: int = 0
    """The size of the complete text in bytes of UTF-8. Set only with `truncated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A web page that an answer cites, as the provider's search found it; not checked. Without control characters."""

    url: str = ""
    """The address, of http or https: at most 2048 characters."""
    title: str = ""
    """The title of the page, cut to 300 characters. Empty: not reported."""
    content: str = ""
    """The part of the page that the model read, cut to 1000 characters. Empty: not reported."""
    start_index: int | None = None
    """The position at which the text that it supports begins in the answer's text, as the provider counts characters.
    Unset: the provider does not say what it supports.
    """
    end_index: int | None = None
    """The position at which that text ends. Unset: as for `start_index`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation."""

    number: int = 0
    """The number of the message in the session: 1, 2, 3 …"""
    role: Role = Role.UNSPECIFIED
    """The author."""
    content: tuple[ContentBlock, ...] = ()
    """The content blocks, in order."""
    create_time: datetime = EPOCH
    """The time at which the message was persisted."""
    turn_id: str = ""
    """The turn of the message. Empty: the message was copied from another session."""
    citations: tuple[Citation, ...] = ()
    """The web pages that the message cites: at most 100, and 128 KiB. Models do not see them in later turns. An answer
    that was completed after its server had died has none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExportBegin:
    """The first line of an exported session."""

    format: int = 0
    """The version of the format: 1. It is raised when an import of an earlier version could not read the lines."""
    export_time: datetime = EPOCH
    """The time of the export."""
    session: Session = field(default_factory=Session)
    """The session. An import takes the model, the agent and the end user from it, unless its request names them."""
    totals: Totals = field(default_factory=Totals)
    """Cost and usage of the session. An import does not take them: what it makes has cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContentPiece:
    """A piece of a message's content: a content block, or a part of one with a long text."""

    block_index: int = 0
    """The index of the block in the message's content: 0, 1, 2 …"""
    block: ContentBlock = field(default_factory=ContentBlock)
    """The piece. The text of a block is the concatenation of the texts of its pieces: `text`, `reasoning`,
    `tool_use.input_json` or `tool_result.output`. All other fields are the same in each piece. An attachment is
    named, and not contained: GetAttachment has its bytes.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExportEnd:
    """The last line of an exported session."""

    message_count: int = 0
    """The number of messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A line of an exported session: its protobuf JSON is one line of at most 256 KiB, with the field names of this
    file. The lines come in this order: `begin`; for each message `message`, its `citation` lines and its `content`
    lines; the `state_json` lines; `end`. An import skips records and fields that it does not know.
    """

    begin: SessionExportBegin | None = None
    """The first line: the session."""
    message: Message | None = None
    """A message, without its content and its citations, which follow."""
    citation: Citation | None = None
    """A citation of the message before."""
    content: SessionContentPiece | None = None
    """A piece of the content of the message before."""
    state_json: str | None = None
    """A piece of the agent's state as JSON text: the state is all pieces together. Without lines of it, it is empty."""
    end: SessionExportEnd | None = None
    """The last line: an export without it is not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant: who is billed, and whose data no other tenant sees."""

    tenant_id: str = ""
    """The tenant's id: the one that its creator chose, or a generated one. It never belongs to another tenant, also not
    after the tenant is deleted.
    """
    display_name: str = ""
    """The display name: 1 to 200 printable characters."""
    time_zone: str = ""
    """The IANA time zone whose days and months the tenant's budgets cover, such as "Europe/Berlin"; "UTC" by default.
    """
    time_zone_start_time: datetime | None = None
    """When `time_zone` comes into force: the start of the first month that it cuts. Until then the windows are those of
    the time zone before. Unset: it is in force since the tenant was created.
    """
    state: TenantState = TenantState.UNSPECIFIED
    """What the tenant may do."""
    create_time: datetime = EPOCH
    """The time of creation."""
    update_time: datetime = EPOCH
    """The time of the last change by UpdateTenant, SuspendTenant, ResumeTenant or DeleteTenant; at first that of
    creation.
    """
    suspend_time: datetime | None = None
    """The time of the suspension. Unset: the tenant is not suspended."""
    delete_time: datetime | None = None
    """The time of the deletion. Unset: the tenant is not deleted."""
    erase_time: datetime | None = None
    """When the erasure of a deleted tenant's data was complete. Unset: the tenant is not deleted, or its data are still
    being erased.
    """
    etag: str = ""
    """Changes with every change of the tenant; for the `etag` of the requests that change it. Output only: ignored in
    requests.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminActor:
    """The author of a change."""

    kind: AdminActorKind = AdminActorKind.UNSPECIFIED
    """What made the change."""
    id: str = ""
    """The id of the API key, the user of the command line, or the name of the service's job."""
    peer: str = ""
    """The address of the caller, of a KEY only; behind a trusted proxy, the address that it forwards. Empty: unknown.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange:
    """A change made by an administrator, or by the service itself. It is recorded before it is made, so a change whose
    write failed is listed, too.
    """

    change_id: str = ""
    """The id of the change."""
    time: datetime = EPOCH
    """The time of the change."""
    actor: AdminActor = field(default_factory=AdminActor)
    """The author."""
    method: str = ""
    """The method, such as "UpdatePolicy"; from the command line also "ResealProviderKeys", "ResolveCall" and
    "RepairTimes". An "EraseUser" has the user's reference, not the name.
    """
    tenant_id: str = ""
    """The tenant concerned. Empty: none."""
    old_value_json: str = ""
    """The values before the change, as a JSON object of the fields that it concerns. Empty: there were none, or the
    change was recorded by a build that did not record them. It contains no secrets.
    """
    new_value_json: str = ""
    """The values set, as a JSON object. It contains no secrets."""


@dataclass(frozen=True, slots=True)
class TurnStarted(Event):
    """The turn has begun."""

    session_id: str = ""
    """The session."""
    session_created: bool = False
    """The session was created by this turn."""
    totals: Totals = field(default_factory=Totals)
    """Cost and usage of the session before this turn."""
    agent: str = ""
    """The name of the agent that answers. Empty: the log was stored by a version that did not record it."""
    agent_version: int | None = None
    """The number of the agent's version that the turn takes. Unset: as for `agent`."""


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """A part of the answer's text."""

    text: str = ""
    """The text, to be appended."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta(Event):
    """A part of the model's reasoning, if the provider returns it."""

    text: str = ""
    """The text, to be appended."""


@dataclass(frozen=True, slots=True)
class Annotations(Event):
    """Citations of the answer that the model is giving, as the provider's search reports them: before, within or after
    its text. Several events of one answer add up; each citation comes once.
    """

    citations: tuple[Citation, ...] = ()
    """The citations: at most 100 of one answer, and 128 KiB."""


@dataclass(frozen=True, slots=True)
class ToolCallStarted(Event):
    """A tool call has started."""

    tool_call_id: str = ""
    """The id of the call, assigned by the model."""
    name: str = ""
    """The name of the tool."""
    input_json: str = ""
    """The input, as JSON."""
    sub_agent_path: str = ""
    """The `agent_path` of the sub-agent that the call runs. Empty: the tool is not an agent."""


@dataclass(frozen=True, slots=True)
class ToolProgress(Event):
    """A running tool call has reported its progress, as tools of MCP servers may. At most 20 reports of a call are all
    sent, later ones at most once a second.
    """

    tool_call_id: str = ""
    """The id of the call, assigned by the model."""
    progress: float = 0.0
    """The progress until now, in a unit of the tool's own: each report of a call should have a larger value."""
    total: float | None = None
    """The value of `progress` at the end of the call. Unset: unknown."""
    message: str = ""
    """What the tool is doing, in its own words: at most 503 characters. Empty: it does not say."""


@dataclass(frozen=True, slots=True)
class ToolCallFinished(Event):
    """A tool call has finished."""

    tool_call_id: str = ""
    """The id of the call, assigned by the model."""
    status: ToolCallStatus = ToolCallStatus.UNSPECIFIED
    """The outcome."""
    output: str = ""
    """The output that the model receives, as text."""
    duration: timedelta = timedelta(0)
    """The duration of the call."""


@dataclass(frozen=True, slots=True)
class ModelCallFinished(Event):
    """A request to the provider has ended."""

    call: ModelCall = field(default_factory=ModelCall)
    """Its ledger entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSummary:
    """Statistics of a tool in a turn."""

    name: str = ""
    """The name of the tool."""
    calls: int = 0
    """Number of calls."""
    errors: int = 0
    """Number of failed calls."""
    duration: timedelta = timedelta(0)
    """Total duration of the calls."""


@dataclass(frozen=True, slots=True)
class TurnFinished(Event):
    """The turn has ended. It does not wait for the provider's records: calls without a known cost count as pending."""

    stop_reason: StopReason = StopReason.UNSPECIFIED
    """The reason why the turn ended."""
    turn_totals: Totals = field(default_factory=Totals)
    """Cost and usage of this turn."""
    session_totals: Totals = field(default_factory=Totals)
    """Cost and usage of the session, including this turn."""
    cycle_durations: tuple[timedelta, ...] = ()
    """The duration of each cycle of the agent's loop: a model call and the tool calls that it requested."""
    tools: tuple[ToolSummary, ...] = ()
    """The tools used."""
    output_json: str | None = None
    """The value of a turn with an `output_schema`, as JSON text: valid by the schema, at most 1 MiB, with the numbers
    as the model wrote them. The turn's last `text_delta` events have the same text. Unset: the turn has no schema,
    or `stop_reason` says why there is no value.
    """
    actions: tuple[Action, ...] = ()
    """The open actions, without their inputs, with STOP_REASON_ACTION_REQUIRED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSummary:
    """A turn, without its events. The state of a turn that another server runs may be up to a second old."""

    turn_id: str = ""
    """The turn id."""
    session_id: str = ""
    """The session."""
    state: TurnState = TurnState.UNSPECIFIED
    """The state."""
    stop_reason: StopReason = StopReason.UNSPECIFIED
    """The reason why the turn ended. Unset: it has not ended, or ended with an error."""
    error_reason: str = ""
    """The reason of the error that the turn ended with, as in the ErrorInfo that its readers received, such as
    "TURN_CANCELLED" (errors.proto). Empty: it has not ended, or ended without an error.
    """
    model: str = ""
    """The model that the request named. Empty: none, so the session's last model or the default was used."""
    user: str = ""
    """The tenant's end user of the session. Empty: none was given."""
    request_id: str = ""
    """The request id. Empty: none was given."""
    totals: Totals = field(default_factory=Totals)
    """Cost and usage of the turn up to now, including what was settled after its end."""
    create_time: datetime = EPOCH
    """The time at which the server accepted the turn."""
    end_time: datetime | None = None
    """The time of its end. Unset: it has not ended, or was ended by a version that did not record the time."""
    agent: str = ""
    """The name of the agent. Empty: the turn has made no model call."""
    agent_version: int | None = None
    """The number of the agent's version. Unset: as for `agent`, or an earlier build ran the turn."""
    output_json: str | None = None
    """The value of a turn with an `output_schema`, as in `TurnFinished.output_json`. GetTurn alone returns it. Unset:
    there is none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An endpoint that is notified of events by HTTP POST, signed by the Standard Webhooks scheme
    (https://www.standardwebhooks.com): headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.

    The body is JSON: {"id", "type", "timestamp", "data"}. `id` is that of the header; `timestamp` and all other
    times are RFC 3339 in UTC; amounts are exact decimals as texts; what is unknown is null. Later versions may add
    fields. `data` has `tenant_id`, and by `type`:

    - `turn.finished`: a turn has ended, in any way. turn_id, session_id, agent, agent_version, end_time; stop_reason
    (as `StopReason` without its prefix), or error_reason (as `ErrorReason` without its prefix) of one that failed;
    turn_totals, session_totals (null for one that failed). - `turn.action_required`: a turn has ended and waits for
    actions. The same fields. - `budget.threshold`: a tenant's spending has reached 50, 80 or 100 per cent of a
    budget. window (DAY, MONTH, TOTAL), window_key (such as "2026-11-29"), percent, spent_usd, limit_usd, hard. -
    `call.unresolved`: no record states what a model call has cost. call_id, turn_id, session_id, number, model,
    provider, generation_id, start_time, unresolved_time, upper_bound_usd. - `webhook.disabled`: the server has
    switched off another webhook of the tenant. webhook, disable_time, reason.

    Totals have cost_usd, input_tokens, output_tokens, total_tokens, model_calls, turns, pending_calls,
    unresolved_calls and unresolved_bound_usd, as `Totals` and `TokenUsage`.

    Each event is delivered at least once, each time under the same id. Any answer of 200 to 299 within the server's
    time limit (GODOTY_WEBHOOK_TIMEOUT, 15 s by default) takes it; redirects are not followed. Otherwise it is
    attempted again after 5 s, 20 s, 80 s and so on, at most 4 hours apart, for a day. If all attempts of a delivery
    have failed, and none of any other had success meanwhile, or the endpoint answers 410, the webhook is switched
    off. Events of a turn are delivered in their order; those of a session in the order of its turns, unless one must
    be attempted again.
    """

    name: str = ""
    """The name, unique within the tenant: 1 to 32 of `[a-z0-9-]`, with a letter first and no hyphen at the end."""
    url: str = ""
    """The URL of the endpoint: `https://`, and an address of the public internet; or one of the operator's networks
    (GODOTY_WEBHOOK_NETWORKS), also with `http://`. At most 2048 characters, without user, password and fragment.
    """
    event_types: tuple[str, ...] = ()
    """The types of events that it gets, such as "turn.finished"; at most 16. Empty: all, also those of later versions.
    """
    enabled: bool | None = None
    """Whether it gets events. One that is not enabled gets none, also not later; its pending deliveries go on when it
    is enabled. The server sets it to false when it switches a dead endpoint off. Unset in a request: true.
    """
    description: str = ""
    """What it is for: at most 1000 characters."""
    etag: str = ""
    """Changes with every change of the webhook; for the `etag` of requests that change it."""
    create_time: datetime = EPOCH
    """The time of creation."""
    update_time: datetime = EPOCH
    """The time of the last change; at first that of creation."""
    disabled_reason: str = ""
    """Why the server has switched it off. Empty: it has not."""
    disable_time: datetime | None = None
    """When the server has switched it off. Unset: it has not."""
    last_success_time: datetime | None = None
    """The time of the last attempt with success. Unset: there was none."""
    secret_create_time: datetime = EPOCH
    """When its newest secret was created. The value is in the response of ApplyWebhook that created it, and in no
    other.
    """
    rotation_end_time: datetime | None = None
    """When the earlier secrets have ended to sign: until then each attempt has a signature by each of them. Unset:
    there is one secret.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """An event for one webhook, and what has become of it. It is stored for 7 days by default
    (GODOTY_WEBHOOK_RETENTION).
    """

    event_id: str = ""
    """The id of the event: the header `webhook-id`."""
    event_type: str = ""
    """The type of the event, such as "turn.finished"."""
    webhook: str = ""
    """The name of the webhook."""
    state: DeliveryState = DeliveryState.UNSPECIFIED
    """What has become of it."""
    body_json: str = ""
    """The body, as it is sent: JSON."""
    turn_id: str = ""
    """The turn that the event concerns. Empty: none."""
    session_id: str = ""
    """The session of that turn. Empty: none."""
    attempts: int = 0
    """The number of attempts, since it was last delivered again by RedeliverEvent."""
    create_time: datetime = EPOCH
    """When it was created."""
    next_attempt_time: datetime | None = None
    """When the next attempt is due. Unset: it is not pending."""
    last_attempt_time: datetime | None = None
    """The time of the last attempt. Unset: there was none."""
    last_status: int | None = None
    """The HTTP status of the last answer. Unset: there was none."""
    last_error: str = ""
    """Why the last attempt failed, such as "The server cannot be reached.". Empty: it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedWebhook:
    """The webhook as it is now."""

    webhook: Webhook = field(default_factory=Webhook)
    """The webhook."""
    changed: bool = False
    """The webhook is new, or differs from what it was before."""
    secret: str = field(default="", repr=False)
    """The new secret, `whsec_` and Base64, if the webhook is new or its secret was rotated: it is shown this once, and
    stored encrypted. Empty: there is no new one.
    """


TurnEvent: TypeAlias = (
    TurnStarted | TextDelta | ReasoningDelta | ToolCallStarted | ToolCallFinished | ModelCallFinished | BudgetAlert | TurnFinished | ToolProgress | Annotations | Action
)
"""An event of a turn. Later versions of the contract add some: a `match` needs a case for those."""

EVENTS: Mapping[str, type[Event]] = {
    "turn_started": TurnStarted,
    "text_delta": TextDelta,
    "reasoning_delta": ReasoningDelta,
    "tool_call_started": ToolCallStarted,
    "tool_call_finished": ToolCallFinished,
    "model_call_finished": ModelCallFinished,
    "budget_alert": BudgetAlert,
    "turn_finished": TurnFinished,
    "tool_progress": ToolProgress,
    "annotations": Annotations,
    "action_required": Action,
}
"""The classes of events by their fields in `godoty.v1.TurnEvent`."""

CLASSES: Mapping[str, type[object]] = {
    "godoty.v1.Action": Action,
    "godoty.v1.ActionDecision": ActionDecision,
    "godoty.v1.ActionResult": ActionResult,
    "godoty.v1.ActionApproval": ActionApproval,
    "godoty.v1.ActionDenial": ActionDenial,
    "godoty.v1.ClientToolOutput": ClientToolOutput,
    "godoty.v1.ClientTool": ClientTool,
    "godoty.v1.ToolApproval": ToolApproval,
    "godoty.v1.CreateApiKeyResponse": CreatedApiKey,
    "godoty.v1.RotateApiKeyResponse": RotatedApiKey,
    "godoty.v1.GetPolicyResponse": TenantPolicy,
    "godoty.v1.AdjustCallResponse": AdjustedCall,
    "godoty.v1.EraseUserResponse": Erasure,
    "godoty.v1.AgentDefinition": AgentDefinition,
    "godoty.v1.WebSearch": WebSearch,
    "godoty.v1.WebFetch": WebFetch,
    "godoty.v1.ModelParameters": ModelParameters,
    "godoty.v1.ModelReasoning": ModelReasoning,
    "godoty.v1.AgentTool": AgentTool,
    "godoty.v1.SubAgent": SubAgent,
    "godoty.v1.McpToolset": McpToolset,
    "godoty.v1.AgentHistory": AgentHistory,
    "godoty.v1.AgentOverrides": AgentOverrides,
    "godoty.v1.AgentVersion": AgentVersion,
    "godoty.v1.AgentSummary": AgentSummary,
    "godoty.v1.ApplyAgentResponse": AppliedAgent,
    "godoty.v1.GetAgentResponse": Agent,
    "godoty.v1.StartTurnResponse": StartedTurn,
    "godoty.v1.GetSessionMetricsResponse": SessionMetrics,
    "godoty.v1.ForkSessionResponse": Fork,
    "godoty.v1.Attachment": Attachment,
    "godoty.v1.GetUsageResponse": UsageReport,
    "godoty.v1.UsageRow": UsageRow,
    "godoty.v1.UsageKey": UsageKey,
    "godoty.v1.Budget": Budget,
    "godoty.v1.BudgetStatus": BudgetStatus,
    "godoty.v1.BudgetAlert": BudgetAlert,
    "godoty.v1.LedgerEntry": LedgerEntry,
    "godoty.v1.Adjustment": Adjustment,
    "godoty.v1.McpServer": McpServer,
    "godoty.v1.McpHeader": McpHeader,
    "godoty.v1.McpOAuthClient": McpOAuthClient,
    "godoty.v1.McpTool": McpTool,
    "godoty.v1.ApplyMcpServerResponse": AppliedMcpServer,
    "godoty.v1.CheckMcpServerResponse": McpServerCheck,
    "godoty.v1.TokenUsage": TokenUsage,
    "godoty.v1.UnitPrices": UnitPrices,
    "godoty.v1.ModelCall": ModelCall,
    "godoty.v1.Totals": Totals,
    "godoty.v1.CacheSavings": CacheSavings,
    "godoty.v1.ModelTotals": ModelTotals,
    "godoty.v1.AgentTotals": AgentTotals,
    "godoty.v1.Run": Run,
    "godoty.v1.LatencySummary": LatencySummary,
    "godoty.v1.ProviderLatency": ProviderLatency,
    "godoty.v1.Model": Model,
    "godoty.v1.ModelPrices": ModelPrices,
    "godoty.v1.Session": Session,
    "godoty.v1.SessionOrigin": SessionOrigin,
    "godoty.v1.UserMessage": UserMessage,
    "godoty.v1.Message": Message,
    "godoty.v1.Citation": Citation,
    "godoty.v1.ContentBlock": ContentBlock,
    "godoty.v1.ToolUse": ToolUse,
    "godoty.v1.ToolResult": ToolResult,
    "godoty.v1.SessionRecord": SessionRecord,
    "godoty.v1.SessionExportBegin": SessionExportBegin,
    "godoty.v1.SessionContentPiece": SessionContentPiece,
    "godoty.v1.SessionExportEnd": SessionExportEnd,
    "godoty.v1.Tenant": Tenant,
    "godoty.v1.ApiKey": ApiKey,
    "godoty.v1.Policy": Policy,
    "godoty.v1.AdminChange": AdminChange,
    "godoty.v1.AdminActor": AdminActor,
    "godoty.v1.TurnLimits": TurnLimits,
    "godoty.v1.TurnStarted": TurnStarted,
    "godoty.v1.TextDelta": TextDelta,
    "godoty.v1.ReasoningDelta": ReasoningDelta,
    "godoty.v1.Annotations": Annotations,
    "godoty.v1.ToolCallStarted": ToolCallStarted,
    "godoty.v1.ToolProgress": ToolProgress,
    "godoty.v1.ToolCallFinished": ToolCallFinished,
    "godoty.v1.ModelCallFinished": ModelCallFinished,
    "godoty.v1.TurnFinished": TurnFinished,
    "godoty.v1.ToolSummary": ToolSummary,
    "godoty.v1.Turn": TurnSummary,
    "godoty.v1.Webhook": Webhook,
    "godoty.v1.WebhookDelivery": WebhookDelivery,
    "godoty.v1.ApplyWebhookResponse": AppliedWebhook,
    "godoty.v1.ActionKind": ActionKind,
    "godoty.v1.ActionDecider": ActionDecider,
    "godoty.v1.ActionState": ActionState,
    "godoty.v1.WebSearchEngine": WebSearchEngine,
    "godoty.v1.WebFetchEngine": WebFetchEngine,
    "godoty.v1.ReasoningEffort": ReasoningEffort,
    "godoty.v1.HistoryMode": HistoryMode,
    "godoty.v1.AgentOverride": AgentOverride,
    "godoty.v1.UsageGroup": UsageGroup,
    "godoty.v1.BudgetWindow": BudgetWindow,
    "godoty.v1.CostSource": CostSource,
    "godoty.v1.CallState": CallState,
    "godoty.v1.CallPurpose": CallPurpose,
    "godoty.v1.CatalogueState": CatalogueState,
    "godoty.v1.Role": Role,
    "godoty.v1.ToolCallStatus": ToolCallStatus,
    "godoty.v1.TenantState": TenantState,
    "godoty.v1.ApiScope": ApiScope,
    "godoty.v1.AdminActorKind": AdminActorKind,
    "godoty.v1.OnBusy": OnBusy,
    "godoty.v1.OnDisconnect": OnDisconnect,
    "godoty.v1.StopReason": StopReason,
    "godoty.v1.TurnState": TurnState,
    "godoty.v1.DeliveryState": DeliveryState,
}
"""The classes by their messages and enums in `godoty.v1`."""
