"""Converts between action.proto and domain values, and checks the answers to actions."""

from collections.abc import Sequence

from godoty.v1 import action_pb2 as pb
from godoty.v1 import agent_service_pb2 as service_pb

from godoty_service import exact_json
from godoty_service.actions.action import ActionState, Answer, CallKind, Decider, Decision, StepCall, Verdict
from godoty_service.errors import InvalidRequest
from godoty_service.openrouter.decoding.tool_calls import input_fault
from godoty_service.rpc.agents.tool_codec import check_words
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import COUNTS, LENGTHS, Violations
from godoty_service.tenancy.auth import Principal, Scope

_STATES = {pb.ActionState.Value(f"ACTION_STATE_{each.name}"): each for each in ActionState}
_KINDS = {CallKind.APPROVAL: pb.ACTION_KIND_APPROVAL, CallKind.CLIENT: pb.ACTION_KIND_CLIENT_TOOL}


def read_answers(field: str, messages: Sequence[pb.ActionResult], violations: Violations) -> tuple[Answer, ...]:
    """Return the answers of a request; add each that is invalid, or there twice."""
    most = COUNTS["action_results"]
    if len(messages) > most:
        violations.add(field, f"must be at most {most}")
        return ()
    found = [_read_answer(f"{field}[{index}].", each, violations) for index, each in enumerate(messages)]
    if len({each.action_id for each in found}) < len(found):
        violations.add(field, "must not answer an action twice")
    return tuple(found)


def parse_decision(request: service_pb.DecideActionRequest, principal: Principal) -> tuple[Answer, Decider]:
    """Return an answer, and who gives it.

    Raises:
        InvalidRequest: A field is invalid.
    """
    if not request.HasField("action_result"):
        raise InvalidRequest.of("action_result", "must be set")
    violations = Violations()
    answer = _read_answer("action_result.", request.action_result, violations)
    violations.check_length("user", request.user)
    violations.raise_if_any()
    return answer, decider_of(principal, user=request.user)


def decider_of(principal: Principal, *, user: str = "") -> Decider:
    """Return who answers with a key."""
    return Decider(key_id=principal.key_id, reviews=Scope.APPROVE in principal.scopes, user=user)


def parse_state(state: int) -> ActionState | None:
    """Return the state of the actions to list; None: any.

    Raises:
        InvalidRequest: There is no such state.
    """
    if state and state not in _STATES:
        raise InvalidRequest.of("state", "must be one of its values, or unset")
    return _STATES.get(state)


def action_message(action: StepCall) -> pb.Action:
    """Convert an action."""
    message = pb.Action(
        action_id=action.call_id,
        kind=_KINDS[action.kind],
        session_id=action.session_id,
        turn_id=action.turn_id,
        agent_path=action.path,
        tool_call_id=action.tool_call_id,
        name=action.name,
        input_json=action.input_json,
        reason=action.why,
        decider=pb.ACTION_DECIDER_REVIEWER if action.reviewer else pb.ACTION_DECIDER_CALLER,
        state=f"ACTION_STATE_{action.state.name}",
        create_time=timestamp(action.create_time),
        expire_time=timestamp(action.expire_time),
        next_turn_id=action.next_turn_id,
        on_expiry=pb.ACTION_EXPIRY_CLOSE if action.closes_on_expiry else pb.ACTION_EXPIRY_DENY,
    )
    if action.decision is not None:
        message.decision.CopyFrom(_decision_message(action.decision))
    return message


def _decision_message(decision: Decision) -> pb.ActionDecision:
    answer = decision.answer
    result = pb.ActionResult(action_id=answer.action_id)
    match answer.verdict:
        case Verdict.APPROVE:
            result.approve.CopyFrom(pb.ActionApproval(input_json=answer.input_json))
        case Verdict.DENY:
            result.deny.CopyFrom(pb.ActionDenial(why=answer.why))
        case Verdict.OUTPUT:
            result.output.SetInParent()
            if answer.failed:
                result.output.error = answer.why
            elif answer.attachment_id is not None:
                result.output.attachment_id = answer.attachment_id
            elif answer.output_json is not None:
                result.output.output_json = answer.output_json
            else:
                result.output.output_text = answer.output_text or ""
    return pb.ActionDecision(
        result=result, api_key_id=decision.key_id, user=decision.user, time=timestamp(decision.time)
    )


def _read_answer(path: str, message: pb.ActionResult, violations: Violations) -> Answer:
    longest = LENGTHS["action_id"]
    if not 0 < len(message.action_id) <= longest:
        violations.add(f"{path}action_id", f"must have 1 to {longest} characters")
    match message.WhichOneof("result"):
        case "approve":
            text = message.approve.input_json
            _check_json(f"{path}approve.input_json", text, "input_json", violations, is_input=True)
            return Answer(action_id=message.action_id, verdict=Verdict.APPROVE, input_json=text)
        case "deny":
            check_words(f"{path}deny.why", message.deny.why, violations)
            return Answer(action_id=message.action_id, verdict=Verdict.DENY, why=message.deny.why)
        case "output":
            return _read_output(f"{path}output.", message, violations)
    violations.add(f"{path}result", "must have an answer: approve, deny or output")
    return Answer(action_id=message.action_id, verdict=Verdict.DENY)


def _read_output(path: str, message: pb.ActionResult, violations: Violations) -> Answer:
    output = message.output
    answer = Answer(action_id=message.action_id, verdict=Verdict.OUTPUT)
    match output.WhichOneof("output"):
        case "output_text":
            if len(output.output_text) > LENGTHS["output_text"]:
                violations.add(f"{path}output_text", f"must have at most {LENGTHS['output_text']} characters")
            return Answer(action_id=answer.action_id, verdict=answer.verdict, output_text=output.output_text)
        case "output_json":
            _check_json(f"{path}output_json", output.output_json, "output_json", violations, is_input=False)
            return Answer(action_id=answer.action_id, verdict=answer.verdict, output_json=output.output_json)
        case "attachment_id":
            if not 0 < len(output.attachment_id) <= LENGTHS["attachment_id"]:
                violations.add(f"{path}attachment_id", f"must have 1 to {LENGTHS['attachment_id']} characters")
            return Answer(action_id=answer.action_id, verdict=answer.verdict, attachment_id=output.attachment_id)
        case "error":
            check_words(f"{path}error", output.error, violations)
            if not output.error.strip():
                violations.add(f"{path}error", "must not be blank")
            return Answer(action_id=answer.action_id, verdict=answer.verdict, failed=True, why=output.error)
    violations.add(f"{path}output", "must have a text, a JSON value, an image or an error")
    return answer


def _check_json(field: str, text: str, name: str, violations: Violations, *, is_input: bool) -> None:
    """Add a field whose text is no JSON, or no input of a tool; an empty text is no other input."""
    if is_input and not text:
        return
    if len(text) > LENGTHS[name]:
        violations.add(field, f"must have at most {LENGTHS[name]} characters")
        return
    try:
        value = exact_json.loads(text)
    except (ValueError, RecursionError):
        violations.add(field, "must be JSON")
        return
    fault = input_fault(value if is_input else {"value": value})
    if fault is not None:
        violations.add(field, f"cannot be taken: {fault}")
