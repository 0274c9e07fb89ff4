"""Converts agent definitions to JSON text, as the database stores them, and back.

One text for each content: equal definitions have equal texts, so that content is compared as text. A reader ignores
what only a later build knows.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from godoty_service.agents.approval import Approval
from godoty_service.agents.client_tools import ClientTool
from godoty_service.agents.definitions import (
    AgentDefinition,
    AgentLimits,
    AgentReference,
    BuiltInTool,
    HistoryMode,
    HistorySettings,
    McpTools,
    ModelParameters,
    Override,
    Reasoning,
    ReasoningEffort,
    SubAgent,
    ToolEntry,
)
from godoty_service.agents.server_tools import (
    fetch_from_fields,
    fetch_to_fields,
    search_from_fields,
    search_to_fields,
)

Member = TypeVar("Member", bound=StrEnum)
Fields = dict[str, Any]
_FIRST_OVERRIDES = frozenset({Override.MODEL, Override.FALLBACK_MODELS, Override.PARAMETERS})


def definition_to_text(definition: AgentDefinition) -> str:
    """Encode a definition without its name."""
    limits, history = definition.limits, definition.history
    content = {
        "description": definition.description,
        "system_prompt": definition.system_prompt,
        "model": definition.model,
        "fallback_models": list(definition.fallback_models),
        "parameters": parameters_to_fields(definition.parameters),
        "tools": [_tool_to_fields(each) for each in definition.tools],
        "limits": _set_fields(
            max_model_calls=limits.max_model_calls,
            max_output_tokens=limits.max_output_tokens,
            max_cost=None if limits.max_cost is None else format(limits.max_cost, "f"),
        ),
        "history": _set_fields(messages=history.messages, mode=history.mode),
        # Always there: an empty list is another content than the default.
        "overridable": sorted(definition.overridable & _FIRST_OVERRIDES),
        **_later_overrides(definition.overridable),
        **({"prompt_caching": True} if definition.prompt_caching else {}),
        **({"output_schema": definition.output_schema} if definition.output_schema else {}),
        **search_to_fields(definition.web_search),
        **fetch_to_fields(definition.web_fetch),
    }
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def definition_from_text(name: str, text: str) -> AgentDefinition:
    """Decode the definition of a name."""
    content = json.loads(text)
    limits, history = content["limits"], content["history"]
    return AgentDefinition(
        name=name,
        description=content["description"],
        system_prompt=content["system_prompt"],
        model=content["model"],
        fallback_models=tuple(content["fallback_models"]),
        parameters=parameters_from_fields(content["parameters"]),
        tools=tuple(tool for each in content["tools"] if (tool := _tool_from_fields(each)) is not None),
        limits=AgentLimits(
            max_model_calls=limits.get("max_model_calls"),
            max_output_tokens=limits.get("max_output_tokens"),
            max_cost=Decimal(limits["max_cost"]) if "max_cost" in limits else None,
        ),
        history=HistorySettings(messages=history.get("messages"), mode=_member(HistoryMode, history.get("mode"))),
        overridable=_overrides_from(content),
        prompt_caching=content.get("prompt_caching", False),
        output_schema=content.get("output_schema", ""),
        web_search=search_from_fields(content.get("web_search")),
        web_fetch=fetch_from_fields(content.get("web_fetch")),
    )


def _later_overrides(overridable: frozenset[Override]) -> Fields:
    """Return what a definition says of the override that the first builds did not have, unless it is the default.

    By default it is there if all others are: "all of them", as those builds wrote it, is the same text.
    """
    has = Override.OUTPUT_SCHEMA in overridable
    return {} if has == (overridable >= _FIRST_OVERRIDES) else {"output_schema_overridable": has}


def _overrides_from(content: Fields) -> frozenset[Override]:
    first = frozenset(each for text in content["overridable"] if (each := _member(Override, text)) is not None)
    has = content.get("output_schema_overridable", first >= _FIRST_OVERRIDES)
    return first | {Override.OUTPUT_SCHEMA} if has else first - {Override.OUTPUT_SCHEMA}


def parameters_to_fields(parameters: ModelParameters) -> Fields:
    """Encode parameters of model calls."""
    reasoning = parameters.reasoning
    return _set_fields(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_output_tokens=parameters.max_output_tokens,
        reasoning=reasoning and _set_fields(effort=reasoning.effort, max_tokens=reasoning.max_tokens),
        seed=parameters.seed,
        stop=list(parameters.stop) or None,
        provider=parameters.provider,
    )


def parameters_from_fields(content: Fields) -> ModelParameters:
    """Decode parameters of model calls."""
    reasoning = content.get("reasoning", {})
    effort, max_tokens = _member(ReasoningEffort, reasoning.get("effort")), reasoning.get("max_tokens")
    return ModelParameters(
        temperature=content.get("temperature"),
        top_p=content.get("top_p"),
        max_output_tokens=content.get("max_output_tokens"),
        # An effort that only a later build knows is the provider's default.
        reasoning=Reasoning(effort=effort, max_tokens=max_tokens) if effort or max_tokens else None,
        seed=content.get("seed"),
        stop=tuple(content.get("stop", ())),
        provider=content.get("provider"),
    )


def _tool_to_fields(tool: ToolEntry) -> Fields:
    """Encode a tool. Builds that know no approval know no tool that needs one: they must not run it without."""
    match tool:
        case BuiltInTool():
            fields: Fields = {"builtin": tool.name, **_rules_to_fields(tool)}
        case McpTools():
            fields = {"mcp": tool.server, "allow": list(tool.allow), **_rules_to_fields(tool)}
        case SubAgent():
            fields = {"agent": tool.agent.label, "description": tool.description, **_rules_to_fields(tool)}
        case ClientTool():
            fields = {"client": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            fields |= {"closes_on_expiry": True} if tool.closes_on_expiry else {}
    return {"asks": fields} if "approval" in fields else fields


def _rules_to_fields(tool: BuiltInTool | McpTools | SubAgent) -> Fields:
    """Return when calls need approval, and whether they may be made again; nothing: neither."""
    fields: Fields = {"idempotent": True} if tool.idempotent else {}
    if (approval := tool.approval) is not None:
        fields["approval"] = _set_fields(
            condition=approval.condition or None,
            reviewer=approval.reviewer or None,
            why=approval.why or None,
            closes_on_expiry=approval.closes_on_expiry or None,
        )
    return fields


def _rules_from_fields(content: Fields) -> Fields:
    approval = content.get("approval")
    return {
        "idempotent": content.get("idempotent", False),
        "approval": None
        if approval is None
        else Approval(
            condition=approval.get("condition", ""),
            reviewer=approval.get("reviewer", False),
            why=approval.get("why", ""),
            closes_on_expiry=approval.get("closes_on_expiry", False),
        ),
    }


_TOOLS: dict[str, Callable[[Fields], ToolEntry]] = {
    "builtin": lambda content: BuiltInTool(name=content["builtin"], **_rules_from_fields(content)),
    "mcp": lambda content: McpTools(
        server=content["mcp"], allow=tuple(content["allow"]), **_rules_from_fields(content)
    ),
    "agent": lambda content: SubAgent(
        agent=AgentReference.parse(content["agent"]),
        description=content["description"],
        **_rules_from_fields(content),
    ),
    "client": lambda content: ClientTool(
        name=content["client"],
        description=content["description"],
        input_schema=content["input_schema"],
        closes_on_expiry=content.get("closes_on_expiry", False),
    ),
}


def _tool_from_fields(content: Fields) -> ToolEntry | None:
    """Decode a tool; None: only a later build knows its kind."""
    known = content.get("asks", content)
    return next((decode(known) for kind, decode in _TOOLS.items() if kind in known), None)


def _set_fields(**values: Any) -> Fields:
    return {name: value for name, value in values.items() if value is not None}


def _member(kind: type[Member], text: str | None) -> Member | None:
    return kind(text) if text in set(kind) else None
