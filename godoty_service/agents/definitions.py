"""Agent definitions as values: what a tenant writes of an agent, and its immutable versions. Pure."""

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from godoty_service.agents.approval import Approval
from godoty_service.agents.client_tools import ClientTool
from godoty_service.agents.server_tools import ServerTool, WebFetch, WebSearch
from godoty_service.ledger.entries import FIRST_AGENT

ASSISTANT = FIRST_AGENT  # every tenant has it: until the tenant applies one of this name, it is the server's own
SUB_AGENT_PREFIX = "agent_"  # of the names of tools that are agents
_MAX_VERSION = 2**31 - 1
BUILT_IN_VERSION = 0  # of the server's own; a tenant's versions are 1, 2, 3 …


class HistoryMode(StrEnum):
    """What the model sees of messages that have left the window of the history."""

    SLIDING = "sliding"  # nothing
    SUMMARY = "summary"


class ReasoningEffort(StrEnum):
    """How much a model reasons before it answers."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class Override(StrEnum):
    """A field of a request that may replace the definition's."""

    MODEL = "model"
    FALLBACK_MODELS = "fallback_models"
    PARAMETERS = "parameters"
    OUTPUT_SCHEMA = "output_schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """The reasoning before an answer: exactly one field is set.

    Attributes:
        effort: The effort.
        max_tokens: Maximum tokens of reasoning of one call.
    """

    effort: ReasoningEffort | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParameters:
    """Parameters of the agent's own model calls, not of summaries. None and empty: the provider's default.

    Attributes:
        temperature: 0 to 2.
        top_p: Above 0, at most 1.
        max_output_tokens: Maximum output tokens of one call.
        reasoning: The reasoning before an answer.
        seed: The seed of the sampling.
        stop: Texts at which an answer ends.
        provider: OpenRouter's provider routing preferences, in its own format.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning: Reasoning | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    provider: dict[str, Any] | None = None

    def overridden(self, by: "ModelParameters") -> "ModelParameters":
        """Return the parameters with those that `by` sets in place of their own."""
        values = {each.name: getattr(by, each.name) for each in fields(by)}
        return replace(self, **{name: value for name, value in values.items() if value not in (None, ())})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltInTool:
    """A tool of the server.

    Attributes:
        name: Its name in `agents/tools/registry.py`.
        approval: The approval that its calls need; None: none.
        idempotent: A call may be made again if its outcome is unknown.
    """

    name: str
    approval: Approval | None = None
    idempotent: bool = False

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows it."""
        return self.name

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return len(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpTools:
    """Tools of one of the tenant's MCP servers.

    Attributes:
        server: The name of the server.
        allow: The names of the tools, as the server lists them; empty: all that the server's own lists allow.
        approval: The approval that calls of them need; None: none.
        idempotent: A call may be made again if its outcome is unknown.
    """

    server: str
    allow: tuple[str, ...] = ()
    approval: Approval | None = None
    idempotent: bool = False

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows them: they go together."""
        return f"mcp:{self.server}"

    @property
    def size(self) -> int:
        """Characters of their texts."""
        return len(self.server) + sum(map(len, self.allow))


@dataclass(frozen=True, slots=True)
class AgentReference:
    """An agent as a request names it.

    Attributes:
        name: The name.
        version: The version; None: the newest.
    """

    name: str
    version: int | None = None

    @property
    def label(self) -> str:
        """The text that names it: `name` or `name@version`."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> "AgentReference":
        """Parse `name` or `name@version`.

        Raises:
            ValueError: The version is not a whole number from 0 to 2^31-1.
        """
        name, at, version = text.partition("@")
        if not at:
            return cls(name)
        if not (version.isascii() and version.isdecimal() and len(version) <= len(str(_MAX_VERSION))):
            raise ValueError("not a version")
        if int(version) > _MAX_VERSION:
            raise ValueError("not a version")
        return cls(name, int(version))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgent:
    """Another agent of the tenant, which the model calls as a tool.

    Attributes:
        agent: The agent, and perhaps the version.
        description: What it can do, for the model that calls it.
        approval: The approval that calls of it need; None: none.
        idempotent: A call may be made again if its outcome is unknown.
    """

    agent: AgentReference
    description: str
    approval: Approval | None = None
    idempotent: bool = False

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows it as a tool."""
        return f"agent:{self.agent.name}"

    @property
    def tool_name(self) -> str:
        """The name of the tool that the model sees."""
        return f"{SUB_AGENT_PREFIX}{self.agent.name}"

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return len(self.agent.name) + len(self.description)


ToolEntry = BuiltInTool | McpTools | SubAgent | ClientTool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """Limits of one turn; a request, a policy or the server can only lower them. None: no limit of the agent's.

    Attributes:
        max_model_calls: Maximum number of model calls.
        max_output_tokens: Maximum output tokens of all calls together.
        max_cost: Maximum cost in US dollars.
    """

    max_model_calls: int | None = None
    max_output_tokens: int | None = None
    max_cost: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """The part of a session that the model sees. None: the server's setting.

    Attributes:
        messages: The number of newest messages.
        mode: What it sees of older ones.
    """

    messages: int | None = None
    mode: HistoryMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefinition:
    """What an agent is: the content of a version.

    Attributes:
        name: Its name in the tenant: 1 to 64 of `[a-z0-9-]`.
        description: What it does, for people, and for agents that call it.
        system_prompt: A template (`agents/templates.py`); empty: none.
        model: The OpenRouter model; None: the session's last model, else the default.
        fallback_models: Models to try if it cannot answer; they need a model.
        parameters: Parameters of its model calls.
        tools: Its tools, in the order in which the model sees them.
        limits: Limits of one turn.
        history: The part of a session that the model sees.
        overridable: The fields of a request that may replace the definition's.
        prompt_caching: Requests are marked for prompt caches that need it.
        output_schema: The JSON schema by which it answers, as `OutputSchema.text` has it; empty: it answers with text.
        web_search: The provider's web search; None: its model calls have none.
        web_fetch: The provider's reading of web pages; None: likewise.
    """

    name: str
    description: str = ""
    system_prompt: str = ""
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    parameters: ModelParameters = field(default_factory=ModelParameters)
    tools: tuple[ToolEntry, ...] = ()
    limits: AgentLimits = field(default_factory=AgentLimits)
    history: HistorySettings = field(default_factory=HistorySettings)
    overridable: frozenset[Override] = frozenset(Override)
    prompt_caching: bool = False
    output_schema: str = ""
    web_search: WebSearch | None = None
    web_fetch: WebFetch | None = None

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """The approvals that calls of its tools need."""
        found = (each.approval for each in self.tools if not isinstance(each, ClientTool))
        return tuple(each for each in found if each is not None)

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names that models see of its tools, without those of MCP servers."""
        named = (each for each in self.tools if not isinstance(each, McpTools))
        return tuple(each.tool_name if isinstance(each, SubAgent) else each.name for each in named)

    @property
    def client_tools(self) -> tuple[ClientTool, ...]:
        """The tools that its callers run."""
        return tuple(each for each in self.tools if isinstance(each, ClientTool))

    @property
    def server_tools(self) -> tuple[ServerTool, ...]:
        """The tools that the provider runs."""
        return tuple(each for each in (self.web_search, self.web_fetch) if each is not None)

    @property
    def policy_names(self) -> tuple[str, ...]:
        """The names by which a policy allows its tools."""
        return tuple(each.policy_name for each in (*self.tools, *self.server_tools))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVersion:
    """A version of an agent, which never changes.

    Attributes:
        definition: Its content.
        version: 1, 2, 3 … by name; 0: the server's own, which an upgrade of the server may change.
        create_time: When it was applied; None: it is the server's own.
        by: Who applied it: the id of an API key; empty: it is the server's own.
    """

    definition: AgentDefinition
    version: int
    create_time: datetime | None = None
    by: str = ""

    @property
    def name(self) -> str:
        """The name of the agent."""
        return self.definition.name

    @property
    def size(self) -> int:
        """The number of characters of its long texts: at most the bytes of its message."""
        own = self.definition
        texts = len(own.system_prompt) + len(own.description) + len(own.output_schema)
        return texts + sum(each.size for each in own.tools) + sum(each.size for each in own.approvals)

    @property
    def label(self) -> str:
        """Name and version as requests write them, such as `support@3`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent of a tenant, as it is now.

    Attributes:
        newest: Its newest version.
        deleted: Its name is hidden: no session begins with it, and those that have it go on with the newest version.
        revision: Counts its changes.
    """

    newest: AgentVersion
    deleted: bool = False
    revision: int = 0

    @property
    def name(self) -> str:
        """The name."""
        return self.newest.name

    @property
    def etag(self) -> str:
        """Identifies this state of the agent."""
        return f"{self.newest.version}-{self.revision}"
