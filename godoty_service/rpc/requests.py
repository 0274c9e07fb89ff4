"""Checks requests and turns them into domain values. All that is refused is named at once."""

import hashlib
import re
from decimal import Decimal

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.errors import FieldViolation, InvalidRequest, UnknownModel
from godoty_service.ids import new_id
from godoty_service.metering import money
from godoty_service.metering.catalogue import Catalogue
from godoty_service.turns.turn import TurnRequest

_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TURN_ID = re.compile(r"turn_[0-9a-f]{28}")
_MODEL = re.compile(r"[A-Za-z0-9._:/~@-]{1,128}")
_FALLBACKS = 8
_USER = 128


def turn_request(request: pb.ConverseRequest, *, catalogue: Catalogue | None, max_text_bytes: int) -> TurnRequest:
    """Check what a caller says.

    Args:
        request: The request.
        catalogue: The models that there are; None: not known, so any may be asked for.
        max_text_bytes: The largest text.

    Raises:
        InvalidRequest: Fields are refused.
        UnknownModel: There is no such model.
    """
    violations = [
        *_violations_of_text(request.text, max_text_bytes),
        *_violations_of_models(request),
        *_violations_of_limits(request.limits),
    ]
    if request.session_id and not _SESSION_ID.fullmatch(request.session_id):
        violations.append(_violation("session_id", "must match [A-Za-z0-9._:-]{1,128}, or be empty"))
    if len(request.user) > _USER:
        violations.append(_violation("user", f"must have at most {_USER} characters"))
    if request.request_id and not _SESSION_ID.fullmatch(request.request_id):
        violations.append(_violation("request_id", "must match [A-Za-z0-9._:-]{1,128}, or be empty"))
    violations.extend(_violations_of_choices(request))
    if violations:
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidRequest(text, violations=violations)
    for model in filter(None, (request.model, *request.fallback_models)):
        if catalogue is not None and not catalogue.knows(model):
            raise UnknownModel(
                "The provider's catalogue has no such model.",
                metadata={"model": model},
                violations=[_violation("model" if model == request.model else "fallback_models", "no such model")],
            )
    limits = request.limits
    return TurnRequest(
        session_id=request.session_id or new_id("session"),
        new_session=not request.session_id,
        text=request.text,
        model=request.model or None,
        fallback_models=tuple(request.fallback_models),
        max_model_calls=limits.max_model_calls if limits.HasField("max_model_calls") else None,
        max_output_tokens=limits.max_output_tokens if limits.HasField("max_output_tokens") else None,
        max_cost=_max_cost(limits),
        user=request.user or None,
        request_id=request.request_id or None,
        fingerprint=_fingerprint(request) if request.request_id else "",
        wait=request.on_busy == pb.ON_BUSY_WAIT,
        go_on=request.on_disconnect == pb.ON_DISCONNECT_CONTINUE,
    )


def session_id(text: str) -> str:
    """Check the id of a session that is asked for.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if not _SESSION_ID.fullmatch(text):
        raise InvalidRequest.of("session_id", "must match [A-Za-z0-9._:-]{1,128}")
    return text


def message_number(number: int) -> int:
    """Check the number of a message that is asked for.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if number < 1:
        raise InvalidRequest.of("number", "must be at least 1")
    return number


def turn_id(text: str) -> str:
    """Check the id of a turn that is asked for.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if not _TURN_ID.fullmatch(text):
        raise InvalidRequest.of("turn_id", "must be the id of a turn")
    return text


def resumption(request: pb.ResumeTurnRequest) -> tuple[str, int]:
    """Check which turn is to be resumed, and after what.

    Raises:
        InvalidRequest: A field is refused.
    """
    if request.after_sequence < 0:
        raise InvalidRequest.of("after_sequence", "must not be negative")
    return turn_id(request.turn_id), request.after_sequence


def _fingerprint(request: pb.ConverseRequest) -> str:
    """Tell a request from another: all of it counts but its own id."""
    rest = pb.ConverseRequest()
    rest.CopyFrom(request)
    rest.ClearField("request_id")
    return hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()


def _max_cost(limits: pb.TurnLimits) -> Decimal | None:
    """Read the turn's bound on its cost.

    Raises:
        ValueError: It is no plain decimal above 0 within `money.AMOUNT_RULE`.
    """
    if not limits.HasField("max_cost_usd"):
        return None
    amount = money.read_amount(limits.max_cost_usd)
    if amount <= 0:
        raise ValueError("not above 0")
    return amount


def _violations_of_choices(request: pb.ConverseRequest) -> list[FieldViolation]:
    return [
        _violation(name, "must be one of its values")
        for name, values in (("on_busy", pb.OnBusy), ("on_disconnect", pb.OnDisconnect))
        if getattr(request, name) not in values.values()
    ]


def _violations_of_text(text: str, largest: int) -> list[FieldViolation]:
    if len(text) > largest or len(text.encode()) > largest:
        return [_violation("text", f"must have at most {largest} bytes of UTF-8")]
    return [] if text.strip() else [_violation("text", "must not be blank")]


def _violations_of_models(request: pb.ConverseRequest) -> list[FieldViolation]:
    violations = []
    if request.model and not _MODEL.fullmatch(request.model):
        violations.append(_violation("model", "must be the id of a model, such as openai/gpt-4o-mini"))
    if len(request.fallback_models) > _FALLBACKS:
        violations.append(_violation("fallback_models", f"must be at most {_FALLBACKS}"))
    elif not all(_MODEL.fullmatch(model) for model in request.fallback_models):
        violations.append(_violation("fallback_models", "each must be the id of a model"))
    elif request.fallback_models and not request.model:
        violations.append(_violation("fallback_models", "need a model"))
    return violations


def _violations_of_limits(limits: pb.TurnLimits) -> list[FieldViolation]:
    violations = [
        _violation(f"limits.{name}", "must be at least 1")
        for name in ("max_model_calls", "max_output_tokens")
        if limits.HasField(name) and getattr(limits, name) < 1
    ]
    try:
        _max_cost(limits)
    except ValueError:
        text = f'must be a plain decimal above 0 such as "0.05", {money.AMOUNT_RULE}'
        violations.append(_violation("limits.max_cost_usd", text))
    return violations


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
