"""What one turn takes of its agent: a version of the definition, with what the request sets in place of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

from strands.types.tools import AgentTool

from godoty_service.agents.client_tools import ClientTool, name_key
from godoty_service.agents.definitions import (
    AgentDefinition,
    AgentVersion,
    BuiltInTool,
    HistoryMode,
    ModelParameters,
    Override,
)
from godoty_service.agents.output.schema import OutputSchema
from godoty_service.agents.templates import MissingValue, Template, TemplateValues
from godoty_service.errors import FieldViolation, InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefaults:
    """What applies if a definition sets nothing.

    Attributes:
        window_size: The number of newest messages that the model sees.
        summarize: Messages that fall out of the window are summarized first, by a model call.
    """

    window_size: int = 40
    summarize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInput:
    """What a request sets for the agent. None and empty: nothing.

    Attributes:
        model: The model, in place of the definition's.
        fallback_models: Models to try if it cannot answer.
        parameters: Parameters, in place of the definition's, one by one.
        user: The tenant's end user.
        variables: Values for the prompt.
        output: The schema of the answer, in place of the definition's.
        client_tools: Tools that the caller runs.
    """

    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    parameters: ModelParameters | None = None
    user: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    output: OutputSchema | None = None
    client_tools: tuple[ClientTool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProfile:
    """An agent for the time of a turn.

    Attributes:
        version: The version.
        system_prompt: The prompt, with values in place of its placeholders.
        parameters: The parameters of its model calls.
        tools: Its tools, which other turns may share.
        window_size: The number of newest messages that the model sees.
        summarize: Messages that fall out of the window are summarized first, by a model call.
        output: The schema by which it answers; None: it answers with text.
    """

    version: AgentVersion
    system_prompt: str
    parameters: ModelParameters
    tools: tuple[AgentTool, ...]
    window_size: int
    summarize: bool
    output: OutputSchema | None = None

    @property
    def name(self) -> str:
        """The name of the agent."""
        return self.version.name

    @property
    def definition(self) -> AgentDefinition:
        """The definition."""
        return self.version.definition


def agent_profile(
    version: AgentVersion,
    given: AgentInput,
    *,
    today: date,
    tools: Mapping[str, AgentTool],
    defaults: AgentDefaults,
    output: OutputSchema | None = None,
) -> AgentProfile:
    """Return what a turn takes of a version.

    Args:
        version: The version.
        given: What the turn's request sets.
        today: The date.
        tools: The tools of the server, by name.
        defaults: What applies if the definition sets nothing.
        output: The schema of the answer, that of the request or the definition's.

    Raises:
        InvalidRequest: The request overrides what it may not, or lacks a value that the prompt needs.
    """
    _check_overrides(version, given)
    _check_client_tools(version, given)
    definition = version.definition
    history, parameters = definition.history, definition.parameters
    return AgentProfile(
        version=version,
        system_prompt=_system_prompt(version, TemplateValues(today=today, user=given.user, variables=given.variables)),
        parameters=parameters.overridden(given.parameters) if given.parameters is not None else parameters,
        tools=tuple(_tools_of(definition, tools)),
        window_size=history.messages or defaults.window_size,
        summarize=history.mode is HistoryMode.SUMMARY if history.mode is not None else defaults.summarize,
        output=output,
    )


def _check_overrides(version: AgentVersion, given: AgentInput) -> None:
    """Check that a request sets no field that the definition does not let it set.

    Raises:
        InvalidRequest: It does; the error names them all.
    """
    is_set = {
        Override.MODEL: given.model is not None,
        Override.FALLBACK_MODELS: bool(given.fallback_models),
        Override.PARAMETERS: given.parameters is not None,
        Override.OUTPUT_SCHEMA: given.output is not None,
    }
    description = f"must be unset: the agent {version.label} does not let requests override it"
    violations = [
        FieldViolation(field=each.value, description=description)
        for each, refused in is_set.items()
        if refused and each not in version.definition.overridable
    ]
    if violations:
        raise InvalidRequest("; ".join(f"{each.field}: {description}" for each in violations), violations=violations)


def _check_client_tools(version: AgentVersion, given: AgentInput) -> None:
    """Check that the tools of a request have names that no tool of the agent has.

    Raises:
        InvalidRequest: One has.
    """
    taken = {name_key(each) for each in version.definition.tool_names}
    if found := [each.name for each in given.client_tools if name_key(each.name) in taken]:
        raise InvalidRequest.of("client_tools", f"must not have the name of a tool of the agent: {found[0]}")


def _system_prompt(version: AgentVersion, values: TemplateValues) -> str:
    """Return the prompt of a turn.

    Raises:
        InvalidRequest: The request lacks a value that it needs.
    """
    try:
        return Template(version.definition.system_prompt).render(values)
    except MissingValue as missing:
        text = f"must be set: the prompt of the agent {version.label} needs it"
        raise InvalidRequest.of(missing.field, text) from None


def _tools_of(definition: AgentDefinition, tools: Mapping[str, AgentTool]) -> Iterator[AgentTool]:
    """Yield the tools of the server that a definition names; those that only a later build has are omitted."""
    for entry in definition.tools:
        if isinstance(entry, BuiltInTool) and (tool := tools.get(entry.name)) is not None:
            yield tool
