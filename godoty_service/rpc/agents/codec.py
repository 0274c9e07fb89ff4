"""Converts between the messages of agent.proto and domain values, and checks definitions."""

from collections.abc import Collection, Sequence

from godoty.v1 import agent_definition_service_pb2 as service_pb
from godoty.v1 import agent_pb2 as pb
from google.protobuf.message import Message

from godoty_service.agents.definitions import (
    AgentDefinition,
    AgentReference,
    AgentVersion,
    HistoryMode,
    HistorySettings,
    Override,
)
from godoty_service.agents.lists import AgentSummary
from godoty_service.agents.output.schemas import NO_SCHEMA, ReadSchema
from godoty_service.agents.templates import Template
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.agents.fields import (
    limits_message,
    parameters_message,
    read_agent,
    read_limits,
    read_parameters,
)
from godoty_service.rpc.agents.server_tools import (
    read_web_fetch,
    read_web_search,
    web_fetch_message,
    web_search_message,
)
from godoty_service.rpc.agents.tool_codec import read_tools, tool_message
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import (
    AGENT_NAME,
    COUNTS,
    LENGTHS,
    MAX_FALLBACK_MODELS,
    MODEL_ID,
    Violations,
    unknown_model,
)

_PATH = "definition."
MAX_BYTES = 256 * 1024  # of a definition: its fields could have some MB together
_MESSAGES = (4, 1_000)  # fewest and most of a history
_MODE_NAMES = {mode: f"HISTORY_MODE_{mode.name}" for mode in HistoryMode}
_MODES = {pb.HistoryMode.Value(name): mode for mode, name in _MODE_NAMES.items()}
_OVERRIDE_NAMES = {override: f"AGENT_OVERRIDE_{override.name}" for override in Override}
_OVERRIDES = {pb.AgentOverride.Value(name): override for override, name in _OVERRIDE_NAMES.items()}


def parse_application(
    request: service_pb.ApplyAgentRequest,
    *,
    output: ReadSchema = NO_SCHEMA,
    conditions: Sequence[ReadSchema] = (),
    catalogue: Catalogue | None,
    tools: Collection[str],
) -> AgentDefinition:
    """Return the definition to apply.

    Args:
        request: The request.
        output: The definition's `output_schema`.
        conditions: The conditions under which its tools need approval, in the order of the tools.
        catalogue: The provider's models; None: unknown, so any model is accepted.
        tools: The names of the server's tools.

    Raises:
        InvalidRequest: One or more fields are invalid, or unknown.
        UnknownModel: A model does not exist.
    """
    message = request.definition
    violations = Violations()
    if not request.HasField("definition"):
        violations.add("definition", "must be set")
    else:
        _check_texts(message, violations)
    _check_models(message, violations)
    if message.ByteSize() > MAX_BYTES:
        violations.add("definition", f"must have at most {MAX_BYTES:,} bytes")
    if (path := _unknown_field(message, "definition")) is not None:
        violations.add(path, "must have no field that this server does not know")
    if output.fault is not None:
        violations.add(f"{_PATH}output_schema", output.fault)
    definition = AgentDefinition(
        name=message.name,
        description=message.description,
        system_prompt=message.system_prompt,
        model=message.model or None,
        fallback_models=tuple(message.fallback_models),
        parameters=read_parameters(f"{_PATH}parameters.", message.parameters, violations),
        tools=read_tools(_PATH, message, tools, violations, conditions),
        limits=read_limits(f"{_PATH}limits.", message.limits, violations),
        history=_read_history(message, violations),
        overridable=_read_overrides(message, violations),
        prompt_caching=message.prompt_caching,
        output_schema=output.schema.text if output.schema is not None else "",
        web_search=read_web_search(_PATH, message, violations),
        web_fetch=read_web_fetch(_PATH, message, violations),
    )
    violations.raise_if_any()
    for field, models in (("model", [message.model]), ("fallback_models", message.fallback_models)):
        for model in filter(None, models):
            if catalogue is not None and not catalogue.knows(model):
                raise unknown_model(f"{_PATH}{field}", model)
    return definition


def parse_agent(text: str) -> AgentReference:
    """Return the agent, and perhaps the version, that a request names.

    Raises:
        InvalidRequest: It cannot be an agent.
    """
    violations = Violations()
    reference = read_agent("agent", text, violations)
    violations.raise_if_any()
    return reference


def parse_agent_name(text: str) -> str:
    """Return the agent that a request names without a version.

    Raises:
        InvalidRequest: It cannot be the name of an agent.
    """
    violations = Violations()
    if not AGENT_NAME.fullmatch(text):
        violations.add("agent", f"must be the name of an agent: {AGENT_NAME.pattern}")
    violations.raise_if_any()
    return text


def version_message(version: AgentVersion) -> pb.AgentVersion:
    """Convert a version."""
    return pb.AgentVersion(
        definition=definition_message(version.definition),
        version=version.version,
        create_time=timestamp(version.create_time) if version.create_time is not None else None,
        api_key_id=version.by,
    )


def definition_message(definition: AgentDefinition) -> pb.AgentDefinition:
    """Convert a definition; what it does not set stays unset."""
    history, overridable = definition.history, definition.overridable
    message = pb.AgentDefinition(
        name=definition.name,
        description=definition.description,
        system_prompt=definition.system_prompt,
        model=definition.model or "",
        fallback_models=definition.fallback_models,
        parameters=parameters_message(definition.parameters),
        tools=[tool_message(each) for each in definition.tools],
        limits=limits_message(definition.limits),
        prompt_caching=definition.prompt_caching,
        output_schema=definition.output_schema,
        web_search=web_search_message(definition.web_search),
        web_fetch=web_fetch_message(definition.web_fetch),
    )
    if history != HistorySettings():
        mode = _MODE_NAMES[history.mode] if history.mode is not None else None
        message.history.CopyFrom(pb.AgentHistory(messages=history.messages, mode=mode))
    if overridable != frozenset(Override):
        message.overridable.CopyFrom(pb.AgentOverrides(fields=[_OVERRIDE_NAMES[each] for each in sorted(overridable)]))
    return message


def summary_message(summary: AgentSummary) -> pb.AgentSummary:
    """Convert an agent without its definition."""
    return pb.AgentSummary(name=summary.name, description=summary.description, version=summary.version)


def _check_texts(message: pb.AgentDefinition, violations: Violations) -> None:
    if not AGENT_NAME.fullmatch(message.name):
        violations.add(f"{_PATH}name", f"must match {AGENT_NAME.pattern}")
    longest = LENGTHS["description"]
    if len(message.description) > longest or not message.description.isprintable():
        violations.add(f"{_PATH}description", f"must have at most {longest} printable characters")
    longest = LENGTHS["system_prompt"]
    if len(message.system_prompt) > longest:
        violations.add(f"{_PATH}system_prompt", f"must have at most {longest} characters")
        return
    try:
        Template(message.system_prompt).check()
    except ValueError as error:
        violations.add(f"{_PATH}system_prompt", str(error))


def _check_models(message: pb.AgentDefinition, violations: Violations) -> None:
    if message.model and not MODEL_ID.fullmatch(message.model):
        violations.add(f"{_PATH}model", "must be the id of a model, such as openai/gpt-4o-mini")
    fallbacks = message.fallback_models
    if len(fallbacks) > MAX_FALLBACK_MODELS or not all(MODEL_ID.fullmatch(model) for model in fallbacks):
        violations.add(f"{_PATH}fallback_models", f"must be at most {MAX_FALLBACK_MODELS}, each the id of a model")
    elif fallbacks and not message.model:
        violations.add(f"{_PATH}fallback_models", "need a model")


def _read_history(message: pb.AgentDefinition, violations: Violations) -> HistorySettings:
    history = message.history
    messages = history.messages if history.HasField("messages") else None
    fewest, most = _MESSAGES
    if messages is not None and not fewest <= messages <= most:
        violations.add(f"{_PATH}history.messages", f"must be {fewest} to {most}")
    if history.mode and history.mode not in _MODES:
        violations.add(f"{_PATH}history.mode", "must be one of its values")
    return HistorySettings(messages=messages, mode=_MODES.get(history.mode))


def _read_overrides(message: pb.AgentDefinition, violations: Violations) -> frozenset[Override]:
    if not message.HasField("overridable"):
        return frozenset(Override)
    fields, most = message.overridable.fields, COUNTS["fields"]
    if len(fields) > most or not all(each in _OVERRIDES for each in fields):
        violations.add(f"{_PATH}overridable.fields", f"must be at most {most}, each one of its values")
    return frozenset(_OVERRIDES[each] for each in fields[:most] if each in _OVERRIDES)


def _unknown_field(message: Message, path: str) -> str | None:
    """Return the path of a message that has a field which this build does not know; None: there is none.

    Sizes are compared, since a message may have a hundred thousand unknown fields.
    """
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() == message.ByteSize():
        return None
    for field, value in message.ListFields():
        if field.message_type is not None:
            for index, each in enumerate(value if field.is_repeated else [value]):
                place = f"{path}.{field.name}[{index}]" if field.is_repeated else f"{path}.{field.name}"
                if (found := _unknown_field(each, place)) is not None:
                    return found
    return path
