"""Converts steps, their calls and the answers to documents and back. A reader ignores what only a later build knows."""

import json
from dataclasses import fields
from typing import Any

from godoty_service.actions.action import ActionState, Answer, Callee, CallKind, Decision, Step, StepCall, Verdict

Document = dict[str, Any]
_ANSWER = tuple(each.name for each in fields(Answer))
_CALL = tuple(each.name for each in fields(StepCall))
_STEP = tuple(each.name for each in fields(Step))
_CALLEE = tuple(each.name for each in fields(Callee))


def call_to_document(call: StepCall) -> Document:
    """Encode a call; what is not there is left out."""
    document = {name: getattr(call, name) for name in _CALL if name != "call_id"}
    document["kind"] = call.kind.value
    document["state"] = call.state.value if call.asks else None
    document["decision"] = decision_to_document(call.decision) if call.decision is not None else None
    document["callee"] = callee_to_document(call.callee) if call.callee is not None else None
    document["result"] = result_to_text(call.result) if call.result is not None else None
    return {"_id": call.call_id, **{name: value for name, value in document.items() if value is not None}}


def call_from_document(document: Document) -> StepCall:
    """Decode a call."""
    known = {name: document[name] for name in _CALL if name in document}
    known |= {"call_id": document["_id"], "kind": CallKind(document["kind"])}
    known["state"] = ActionState(document.get("state", ActionState.OPEN.value))
    if "decision" in known:
        known["decision"] = decision_from_document(known["decision"])
    if "callee" in known:
        known["callee"] = Callee(**{name: known["callee"][name] for name in _CALLEE})
    if "result" in known:
        known["result"] = json.loads(known["result"])
    return StepCall(**known)


def result_to_text(result: dict[str, Any]) -> str:
    """Encode the result of a call."""
    text = json.dumps(result, ensure_ascii=False)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def callee_to_document(callee: Callee) -> Document:
    """Encode a sub-agent that waits."""
    return {name: getattr(callee, name) for name in _CALLEE}


def decision_to_document(decision: Decision) -> Document:
    """Encode an answer that counts."""
    answer = {name: value for name in _ANSWER if (value := getattr(decision.answer, name)) not in ("", None, False)}
    return {"answer": answer, "key_id": decision.key_id, "user": decision.user, "time": decision.time}


def _is_default(name: str, value: Any) -> bool:
    return value is None or value is False or (value == "" and name in ("input_json", "why"))


def decision_from_document(document: Document) -> Decision:
    """Decode an answer that counts."""
    stored = document["answer"]
    known = {name: stored[name] for name in _ANSWER if name in stored} | {"verdict": Verdict(stored["verdict"])}
    return Decision(answer=Answer(**known), key_id=document["key_id"], user=document["user"], time=document["time"])


def step_to_document(step: Step) -> Document:
    """Encode a step."""
    document = {name: getattr(step, name) for name in _STEP if name != "step_id"}
    return {"_id": step.step_id, **document, "turn_ids": list(step.turn_ids)}


def step_from_document(document: Document) -> Step:
    """Decode a step."""
    known = {name: document[name] for name in _STEP if name in document}
    return Step(**{**known, "step_id": document["_id"], "turn_ids": tuple(document["turn_ids"])})
