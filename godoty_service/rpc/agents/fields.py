"""Checks and converts the fields that definitions and requests for turns have in common."""

import json
from decimal import Decimal
from typing import Any

from godoty.v1 import agent_pb2 as pb
from godoty.v1 import turn_pb2

from godoty_service.agents.definitions import AgentLimits, AgentReference, ModelParameters, Reasoning, ReasoningEffort
from godoty_service.pricing import money
from godoty_service.rpc.validation import AGENT_NAME, COUNTS, LENGTHS, Violations
from godoty_service.tenancy.routing import read_preferences

_EFFORT_NAMES = {effort: f"REASONING_EFFORT_{effort.name}" for effort in ReasoningEffort}
_EFFORTS = {pb.ReasoningEffort.Value(name): effort for effort, name in _EFFORT_NAMES.items()}
_MAX_TEMPERATURE = 2.0


def read_agent(field: str, text: str, violations: Violations) -> AgentReference:
    """Return the agent that a field names, by `name` or `name@version`; add the field if it cannot be one."""
    try:
        reference = AgentReference.parse(text)
    except ValueError:
        reference = AgentReference("")
    if not AGENT_NAME.fullmatch(reference.name):
        violations.add(field, f"must be the name of an agent ({AGENT_NAME.pattern}), or name@version")
    return reference


def read_limits(path: str, limits: turn_pb2.TurnLimits, violations: Violations) -> AgentLimits:
    """Return limits of a turn; add each invalid one.

    Args:
        path: The path of the message in the request, with a dot at its end.
        limits: The message.
        violations: Gets what is invalid.
    """
    for name in ("max_model_calls", "max_output_tokens"):
        if limits.HasField(name) and getattr(limits, name) < 1:
            violations.add(f"{path}{name}", "must be at least 1")
    max_cost = None
    try:
        max_cost = _max_cost(limits)
    except ValueError:
        text = f'must be a plain decimal above 0 such as "0.05", {money.AMOUNT_RULE}'
        violations.add(f"{path}max_cost_usd", text)
    return AgentLimits(
        max_model_calls=limits.max_model_calls if limits.HasField("max_model_calls") else None,
        max_output_tokens=limits.max_output_tokens if limits.HasField("max_output_tokens") else None,
        max_cost=max_cost,
    )


def read_parameters(path: str, message: pb.ModelParameters, violations: Violations) -> ModelParameters:
    """Return parameters of model calls; add each invalid one. See `read_limits` for the arguments."""
    temperature = message.temperature if message.HasField("temperature") else None
    if temperature is not None and not 0 <= temperature <= _MAX_TEMPERATURE:
        violations.add(f"{path}temperature", f"must be 0 to {_MAX_TEMPERATURE:g}")
    top_p = message.top_p if message.HasField("top_p") else None
    if top_p is not None and not 0 < top_p <= 1:
        violations.add(f"{path}top_p", "must be above 0, and at most 1")
    tokens = message.max_output_tokens if message.HasField("max_output_tokens") else None
    if tokens is not None and tokens < 1:
        violations.add(f"{path}max_output_tokens", "must be at least 1")
    seed = message.seed if message.HasField("seed") else None
    if seed is not None and seed < 0:
        violations.add(f"{path}seed", "must not be negative")
    most, longest = COUNTS["stop"], LENGTHS["stop"]
    if len(message.stop) > most or not all(0 < len(text) <= longest for text in message.stop):
        violations.add(f"{path}stop", f"must be at most {most} texts of 1 to {longest} characters")
    provider = None
    try:
        provider = read_preferences(message.provider_json)
    except ValueError as error:
        violations.add(f"{path}provider_json", str(error))
    return ModelParameters(
        temperature=temperature,
        top_p=top_p,
        max_output_tokens=tokens,
        reasoning=_read_reasoning(path, message, violations),
        seed=seed,
        stop=tuple(message.stop),
        provider=provider,
    )


def limits_message(limits: AgentLimits) -> turn_pb2.TurnLimits | None:
    """Convert limits of a turn; None if there are none."""
    if limits == AgentLimits():
        return None
    return turn_pb2.TurnLimits(
        max_model_calls=limits.max_model_calls,
        max_output_tokens=limits.max_output_tokens,
        max_cost_usd=money.format_usd(limits.max_cost),
    )


def parameters_message(parameters: ModelParameters) -> pb.ModelParameters | None:
    """Convert parameters of model calls; None if there are none."""
    if parameters == ModelParameters():
        return None
    message = pb.ModelParameters(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_output_tokens=parameters.max_output_tokens,
        seed=parameters.seed,
        stop=parameters.stop,
        provider_json=provider_json(parameters.provider),
    )
    if (reasoning := parameters.reasoning) is not None:
        effort = _EFFORT_NAMES[reasoning.effort] if reasoning.effort is not None else None
        message.reasoning.CopyFrom(pb.ModelReasoning(effort=effort, max_tokens=reasoning.max_tokens))
    return message


def provider_json(provider: dict[str, Any] | None) -> str:
    """Return routing preferences as JSON: the same text for the same preferences; empty if there are none."""
    return json.dumps(provider, ensure_ascii=False, sort_keys=True) if provider else ""


def _read_reasoning(path: str, message: pb.ModelParameters, violations: Violations) -> Reasoning | None:
    if not message.HasField("reasoning"):
        return None
    reasoning = message.reasoning
    effort = _EFFORTS.get(reasoning.effort)
    max_tokens = reasoning.max_tokens if reasoning.HasField("max_tokens") else None
    if reasoning.effort and effort is None:
        violations.add(f"{path}reasoning.effort", "must be one of its values")
    elif max_tokens is not None and max_tokens < 1:
        violations.add(f"{path}reasoning.max_tokens", "must be at least 1")
    elif (effort is None) == (max_tokens is None):
        violations.add(f"{path}reasoning", "must have an effort or max_tokens, and not both")
    return Reasoning(effort=effort, max_tokens=max_tokens)


def _max_cost(limits: turn_pb2.TurnLimits) -> Decimal | None:
    """Return the maximum cost, or None if it is unset.

    Raises:
        ValueError: It is not a plain decimal above 0 within `money.AMOUNT_RULE`.
    """
    if not limits.HasField("max_cost_usd"):
        return None
    amount = money.read_amount(limits.max_cost_usd)
    if amount <= 0:
        raise ValueError("not above 0")
    return amount
