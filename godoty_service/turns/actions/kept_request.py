"""What a turn that goes on with answers keeps of the request of the turn that asked, as JSON text."""

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from godoty_service import exact_json
from godoty_service.agents.client_tools import ClientTool
from godoty_service.agents.codec import parameters_from_fields, parameters_to_fields
from godoty_service.agents.output.schema import OutputSchema
from godoty_service.errors import FieldViolation, InvalidRequest
from godoty_service.turns.turn import TurnRequest

_FIELDS = {  # where the request for a turn has what must be the same
    "model": "model",
    "fallback_models": "fallback_models",
    "max_model_calls": "limits.max_model_calls",
    "max_output_tokens": "limits.max_output_tokens",
    "max_cost": "limits.max_cost_usd",
    "variables": "variables",
    "parameters": "parameters",
    "client_tools": "client_tools",
}


def request_to_text(request: TurnRequest) -> str:
    """Encode what a request sets for the agent, without the end user, whom the session has."""
    content: dict[str, Any] = {
        "model": request.model,
        "fallback_models": list(request.fallback_models),
        "max_model_calls": request.max_model_calls,
        "max_output_tokens": request.max_output_tokens,
        "max_cost": None if request.max_cost is None else format(request.max_cost, "f"),
        "variables": dict(request.variables),
        "parameters": None if request.parameters is None else parameters_to_fields(request.parameters),
        "output_schema": request.output.text if request.output is not None else "",
        "client_tools": [
            [each.name, each.description, each.input_schema, each.closes_on_expiry] for each in request.client_tools
        ],
    }
    return json.dumps({name: value for name, value in content.items() if value}, ensure_ascii=False)


def output_schema_of(text: str) -> str:
    """Return the output schema of a request that was encoded; empty: it had none."""
    schema: str = exact_json.loads(text).get("output_schema", "")
    return schema


def continued(request: TurnRequest, text: str, *, output: OutputSchema | None, user: str | None) -> TurnRequest:
    """Return a request with answers with all that the asking request had set.

    Args:
        request: The request with answers.
        text: The asking request, as `request_to_text` encoded it.
        output: Its output schema.
        user: The end user of the session.

    Raises:
        InvalidRequest: The request with answers sets something else.
    """
    content = exact_json.loads(text)
    parameters = content.get("parameters")
    kept = replace(
        request,
        model=content.get("model"),
        fallback_models=tuple(content.get("fallback_models", ())),
        max_model_calls=content.get("max_model_calls"),
        max_output_tokens=content.get("max_output_tokens"),
        max_cost=Decimal(content["max_cost"]) if "max_cost" in content else None,
        variables=content.get("variables", {}),
        parameters=None if parameters is None else parameters_from_fields(parameters),
        output=output,
        client_tools=tuple(
            ClientTool(name=name, description=description, input_schema=schema, closes_on_expiry=any(rest[:1]))
            for name, description, schema, *rest in content.get("client_tools", ())
        ),
        user=user,
    )
    if violations := list(_differences(request, kept)):
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidRequest(text, violations=violations)
    return kept


def _differences(request: TurnRequest, kept: TurnRequest) -> Iterator[FieldViolation]:
    """Yield what a request with answers sets otherwise than the asking one."""
    description = "must be unset, or what the turn that asked has"
    for name, field in _FIELDS.items():
        value = getattr(request, name)
        if value not in (None, (), {}) and value != getattr(kept, name):
            yield FieldViolation(field=field, description=description)
    schemas = [each.text if each is not None else None for each in (request.output, kept.output)]
    if schemas[0] not in (None, schemas[1]):
        yield FieldViolation(field="output_schema", description=description)
    if request.user is not None and kept.user is not None and request.user != kept.user:
        yield FieldViolation(field="user", description=description)
