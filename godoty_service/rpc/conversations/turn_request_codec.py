"""Reads the request of a turn, and checks it."""

import hashlib
from dataclasses import replace
from datetime import timedelta

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.actions.action import NO_DECIDER, Decider
from godoty_service.agents.outbound.addresses import PUBLIC, AddressRules
from godoty_service.agents.output.schemas import NO_SCHEMA, ReadSchema
from godoty_service.agents.templates import VARIABLE_NAME
from godoty_service.ids import new_id
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.agents.fields import read_agent, read_limits, read_parameters
from godoty_service.rpc.agents.tool_codec import read_client_tools
from godoty_service.rpc.conversations.action_codec import read_answers
from godoty_service.rpc.conversations.attachment_codec import read_sources
from godoty_service.rpc.validation import (
    COUNTS,
    LENGTHS,
    MAX_FALLBACK_MODELS,
    MODEL_ID,
    Violations,
    unknown_model,
)
from godoty_service.turns.turn import TurnRequest

_MAX_GRACE = timedelta(minutes=10)


def parse_turn_request(
    request: pb.ConverseRequest,
    *,
    output: ReadSchema = NO_SCHEMA,
    catalogue: Catalogue | None,
    max_text_bytes: int,
    rules: AddressRules = PUBLIC,
    decider: Decider = NO_DECIDER,
) -> TurnRequest:
    """Return the turn to run.

    Args:
        request: The request.
        output: Its `output_schema`.
        catalogue: The provider's models; None: unknown, so any model is accepted.
        max_text_bytes: Maximum bytes of the text.
        rules: The addresses from which attachments may be fetched.
        decider: Who answers actions.

    Raises:
        InvalidRequest: One or more fields are invalid.
        UnknownModel: A model does not exist.
    """
    violations = Violations()
    answers = read_answers("action_results", request.action_results, violations)
    if not request.action_results:
        _check_text(request.text, max_text_bytes, violations)
    client_tools = read_client_tools("client_tools", request.client_tools, violations)
    _check_models(request, violations)
    limits = read_limits("limits.", request.limits, violations)
    _check_ids(request, violations)
    agent = read_agent("agent", request.agent, violations) if request.agent else None
    variables = _read_variables(request, violations)
    attachments = read_sources(request.attachments, rules, violations)
    parameters = None
    if request.HasField("parameters"):
        parameters = read_parameters("parameters.", request.parameters, violations)
    for name, values in (("on_busy", turn_pb.OnBusy), ("on_disconnect", turn_pb.OnDisconnect)):
        if getattr(request, name) not in values.values():
            violations.add(name, "must be one of its values")
    if output.fault is not None:
        violations.add("output_schema", output.fault)
    grace = violations.read_duration("disconnect_grace", request.disconnect_grace, most=_MAX_GRACE)
    if answers and not violations.found:
        _check_answering(request, violations)
    violations.raise_if_any()
    for model in filter(None, (request.model, *request.fallback_models)):
        if catalogue is not None and not catalogue.knows(model):
            raise unknown_model("model" if model == request.model else "fallback_models", model)
    return TurnRequest(
        session_id=request.session_id or new_id("session"),
        new_session=not request.session_id,
        text=request.text,
        model=request.model or None,
        fallback_models=tuple(request.fallback_models),
        max_model_calls=limits.max_model_calls,
        max_output_tokens=limits.max_output_tokens,
        max_cost=limits.max_cost,
        user=request.user or None,
        request_id=request.request_id or None,
        fingerprint=_fingerprint(request) if request.request_id else "",
        wait=request.on_busy == turn_pb.ON_BUSY_WAIT,
        go_on=request.on_disconnect == turn_pb.ON_DISCONNECT_CONTINUE,
        disconnect_grace=grace,
        agent=agent,
        variables=variables,
        parameters=parameters,
        output=output.schema,
        attachments=attachments,
        client_tools=client_tools,
        answers=answers,
        decider=replace(decider, user=request.user),
    )


def _check_answering(request: pb.ConverseRequest, violations: Violations) -> None:
    """Add what a request with answers must not have, and the session that it needs."""
    for name in ("text", "attachments"):
        if getattr(request, name):
            violations.add(name, "must be empty: the request has action_results")
    if not request.session_id:
        violations.add("session_id", "must be set: the request has action_results")


def _fingerprint(request: pb.ConverseRequest) -> str:
    """Return a hash of all that makes a request another one: its id does not, nor when a turn without a reader ends."""
    rest = pb.ConverseRequest()
    rest.CopyFrom(request)
    rest.ClearField("request_id")
    rest.ClearField("disconnect_grace")
    return hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()


def _check_text(text: str, max_bytes: int, violations: Violations) -> None:
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        violations.add("text", f"must have at most {max_bytes} bytes of UTF-8")
    elif not text.strip():
        violations.add("text", "must not be blank")


def _check_models(request: pb.ConverseRequest, violations: Violations) -> None:
    if request.model and not MODEL_ID.fullmatch(request.model):
        violations.add("model", "must be the id of a model, such as openai/gpt-4o-mini")
    if len(request.fallback_models) > MAX_FALLBACK_MODELS:
        violations.add("fallback_models", f"must be at most {MAX_FALLBACK_MODELS}")
    elif not all(MODEL_ID.fullmatch(model) for model in request.fallback_models):
        violations.add("fallback_models", "each must be the id of a model")
    elif request.fallback_models and not request.model:
        violations.add("fallback_models", "need a model")


def _check_ids(request: pb.ConverseRequest, violations: Violations) -> None:
    violations.check_caller_id("session_id", request.session_id)
    violations.check_length("user", request.user)
    violations.check_caller_id("request_id", request.request_id)


def _read_variables(request: pb.ConverseRequest, violations: Violations) -> dict[str, str]:
    """Return the variables of the agent's prompt; add a violation if one cannot be a variable."""
    most, longest, variables = COUNTS["variables"], LENGTHS["value"], request.variables
    if len(variables) > most or not all(VARIABLE_NAME.fullmatch(name) for name in variables):
        violations.add("variables", f"must be at most {most}, each with a name of {VARIABLE_NAME.pattern}")
        return {}
    if not all(len(value) <= longest for value in variables.values()):
        violations.add("variables", f"each value must have at most {longest} characters")
    return dict(variables)
