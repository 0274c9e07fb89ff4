"""The step in which a session waits for answers: found, answered, or closed by a new message."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from strands.types.content import ContentBlock, Message

from godoty_service.actions.action import ActionState, Answer, CallKind, Step, StepCall, Verdict
from godoty_service.actions.errors import ActionClosed, ActionNotFound, ReviewerOnly
from godoty_service.actions.stores import ActionStores
from godoty_service.attachments.attachment import IMAGE
from godoty_service.attachments.store import AttachmentStore
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.entries import ModelCall
from godoty_service.sessions import history_repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim
from godoty_service.tenancy.api_keys import KeyState
from godoty_service.turns.actions.kept_request import continued, output_schema_of
from godoty_service.turns.agents.call_rules import refusal_of, verdict_of
from godoty_service.turns.agents.client_output import client_output
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.turn import Turn, TurnRequest, WaitedStep

ANSWERS: Final = "[Answers to actions]"  # the text of a lease whose turn has none
_WENT_ON: Final = "[What was open here was not carried out: the user sent another message.]"
_FITTING: Final = {
    CallKind.APPROVAL: (Verdict.APPROVE, Verdict.DENY),
    CallKind.CLIENT: (Verdict.OUTPUT, Verdict.DENY),
}


async def waiting_step(stores: ActionStores, messages: MessageStore, claim: Claim) -> Step | None:
    """Return the step whose calls are the last message of a session; None: it waits for nothing."""
    session = claim.session
    if claim.created:
        return None
    if claim.taken_from is not None:  # the dead turn may have asked
        step = await stores.steps.newest(session.tenant_id, session.uid)
        last = await messages.highest(session.tenant_id, session.uid) if step is not None else 0
        lost = step is None or step.message != last
        await stores.calls.close_others(session.tenant_id, session.uid, "" if lost or step is None else step.step_id)
    else:
        step = await stores.steps.get(session.tenant_id, session.waiting_step) if session.waiting_step else None
        last = session.message_count
    return step if step is not None and step.message == last else None


def check_fits(action: StepCall, answer: Answer, field: str) -> None:
    """Check that an answer is one to an action.

    Raises:
        InvalidRequest: It is none.
    """
    if answer.verdict not in _FITTING[action.kind]:
        needed = " or ".join(each.value for each in _FITTING[action.kind])
        raise InvalidRequest.of(field, f"must be {needed}: the action {action.call_id} needs it")


async def name_image(attachments: AttachmentStore, action: StepCall, answer: Answer, field: str) -> None:
    """Record that a session names the image that is the answer to an action, if it is one.

    Raises:
        AttachmentNotFound: The tenant has no such attachment.
        InvalidRequest: It is no image.
    """
    if answer.attachment_id is None:
        return
    found = await attachments.get(action.tenant_id, answer.attachment_id)
    if found.attachment.input != IMAGE:
        raise InvalidRequest.of(f"{field}.output.attachment_id", "must be that of an image")
    await attachments.name(action.tenant_id, answer.attachment_id, session_uid=action.session_uid)


async def take_answers(dependencies: TurnDependencies, turn: Turn, claim: Claim) -> None:
    """Store the answers of a turn's request, and give the turn what it goes on with.

    Raises:
        ActionNotFound: The session has no such action.
        ActionClosed: The session has gone on, or the API key that asked was revoked.
        ActionDecided: An action has another answer.
        ActionExpired: No answer to an action came in time.
        ReviewerOnly: The key lacks the scope approve, which an action needs.
        InvalidRequest: An answer does not fit its action, or the request sets something else than the asking one.
    """
    if turn.request.step_id:
        await dependencies.key_monitor.check(turn)  # no caller has been authenticated
    stores, request, session = dependencies.actions, turn.request, claim.session
    step = await waiting_step(stores, dependencies.messages, claim)
    calls = await stores.calls.of_step(turn.tenant_id, step.step_id) if step is not None else []
    answered = await _answered(stores, turn, claim, {each.call_id: each for each in calls if each.asks})
    if step is None or step.closed:
        raise _closed(request, answered)
    if step.key_id is not None and await dependencies.key_monitor.state(step.key_id) is KeyState.ENDED:
        await close(stores, step, turn_id="")
        raise _closed(request, answered)
    names = await dependencies.users.names(turn.tenant_id, [session.user_reference])
    request = continued(
        request,
        step.request,
        output=await dependencies.schemas.stored(output_schema_of(step.request)),
        user=names.get(session.user_reference or "", session.user),
    )
    for index, (action, answer) in enumerate(answered):
        await name_image(dependencies.attachments.store, action, answer, f"action_results[{index}]")
    for action, answer in answered:
        await stores.calls.decide(action, answer, request.decider)
    await stores.steps.continue_in(step, turn.turn_id)
    await stores.calls.name_turn(turn.tenant_id, step.step_id, turn.turn_id)
    entries = await dependencies.ledger.of_turns(turn.tenant_id, step.turn_ids)
    turn.continue_with(
        request,
        WaitedStep(
            step=replace(step, turn_ids=tuple(dict.fromkeys((*step.turn_ids, turn.turn_id)))),
            calls=tuple(await stores.calls.of_step(turn.tenant_id, step.step_id)),
            version=await dependencies.agents.get_version(turn.tenant_id, step.agent, step.agent_version),
            entries=tuple(each for each in entries if isinstance(each, ModelCall)),
        ),
    )


async def _answered(
    stores: ActionStores, turn: Turn, claim: Claim, known: Mapping[str, StepCall]
) -> list[tuple[StepCall, Answer]]:
    """Return the actions that a request answers; all answers are checked before one is stored."""
    found: list[tuple[StepCall, Answer]] = []
    for index, answer in enumerate(turn.request.answers):
        action = known.get(answer.action_id) or await stores.calls.get(turn.tenant_id, answer.action_id)
        if action.session_uid != claim.session.uid:
            raise ActionNotFound.of(answer.action_id)
        if action.reviewer and not turn.request.decider.reviews:
            raise ReviewerOnly.of(answer.action_id)
        if answer.action_id not in known:
            raise ActionClosed.of(answer.action_id, turn_id=action.next_turn_id)
        check_fits(action, answer, f"action_results[{index}]")
        stores.calls.check(action, answer, turn.request.decider)
        found.append((action, answer))
    return found


def _closed(request: TurnRequest, answered: list[tuple[StepCall, Answer]]) -> ActionClosed:
    if answered:
        return ActionClosed.of(answered[0][0].call_id, turn_id=answered[0][0].next_turn_id)
    return ActionClosed.of(request.step_id)


async def close(stores: ActionStores, step: Step, *, turn_id: str) -> None:
    """Close a step: what is open is not carried out. The step comes last: until then it is closed again."""
    await stores.calls.close(step.tenant_id, step.step_id, turn_id=turn_id)
    await stores.steps.close(step)


async def close_for_message(dependencies: TurnDependencies, claim: Claim) -> int | None:
    """Close the step in which a session waits, as a new message came, and complete the session's messages.

    Returns:
        The number of the session's last message; None: it did not wait.

    Raises:
        SessionLost: A turn that was considered dead is still writing.
    """
    stores, messages, session = dependencies.actions, dependencies.messages, claim.session
    step = await waiting_step(stores, messages, claim)
    if step is None:
        return None
    await close(stores, step, turn_id=claim.turn_id)
    calls = [each for each in await stores.calls.of_step(step.tenant_id, step.step_id) if not each.path]
    results = {each.tool_call_id: await _result(dependencies, each) for each in calls if each.number == step.message}
    stored = await messages.newest(session.tenant_id, session.uid, after=step.message - 1, limit=10)
    history = [Message(role=each.role, content=each.content) for each in stored]  # type: ignore[typeddict-item] # as written
    missing = history_repair.missing_messages(history, note=_WENT_ON, results=results)
    last = stored[-1].number if stored else step.message
    if missing:
        await messages.append(
            session.tenant_id, session.uid, number=last + 1, turn_id=step.turn_ids[-1], messages=missing
        )
    return last + len(missing)


async def _result(dependencies: TurnDependencies, call: StepCall) -> ContentBlock:
    """Return the result of a call of a step that is closed, as a message has it."""
    result: dict[str, Any] | None = call.result
    if result is None and call.state is ActionState.DECIDED and verdict_of(call) is Verdict.OUTPUT:
        result = await client_output(dependencies.attachments.store, call)
    if result is None:
        begun = call.started and call.callee is None
        text = history_repair.UNKNOWN_OUTCOME if begun else refusal_of(call) or "The call was not carried out."
        result = {"status": "error", "content": [{"text": text}]}
    return history_repair.result_of(call.tool_call_id, result)
