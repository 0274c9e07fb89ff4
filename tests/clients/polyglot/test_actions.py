"""The clients in other languages run tools and answer approvals, against the real service."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from godoty.v1 import action_pb2

from godoty_service.tenancy.auth import Scope
from tests.clients.polyglot.conformance import Conformance, Result
from tests.e2e.actions.conftest import REFUND, Asker
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.media import png
from tests.support.service import Service, format_amount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.clients.polyglot.programs import Language
    from tests.support.caller import Caller

_FIND: dict[str, Any] = {
    "name": "look_up",
    "description": "Finds an order.",
    "input_schema": '{"type": "object", "properties": {"number": {"enum": [7, 8]}}, "required": ["number"]}',
    "returns": {"pens": 2},
}
_CALCULATOR: dict[str, Any] = {"builtin": "calculator", "approval": {"why": "It is expensive."}}
_END, _WAITS = "STOP_REASON_END_TURN", "STOP_REASON_ACTION_REQUIRED"


def _names(result: Result, event: str) -> list[str]:
    return [each["name"] for each in result.events if each["event"] == event]


def _seen(service: Service) -> dict[str, str]:
    """Return what the model was sent of the last step's tools, by name."""
    messages = service.requests("talk")[-1]["messages"]
    names = {call["id"]: call["function"]["name"] for each in messages for call in each.get("tool_calls") or ()}
    return {names[each["tool_call_id"]]: str(each["content"]) for each in messages if each["role"] == "tool"}


async def test_tool_and_approval_lead_to_the_end_with_exact_cost(
    language: Language, caller: Caller, issue: Callable[..., str]
) -> None:
    """Two steps, each with a tool and an approval: three turns of the server, which are one of the client."""
    service = caller.service
    await Asker(caller, issue).agent(_CALCULATOR)
    billing = issue(service, scopes=frozenset({Scope.BILLING}))
    script = "@sandbox tool-loop calls=3 parallel=2"
    async with Conformance.of(language, service) as program:
        turn = await program.ask(
            "converse", session_id="talk", text=script, agent="support", tools=[_FIND], approval={"approve": True}
        )
        metrics = await program.ask("metrics", session_id="talk")
        export = await program.ask("export", api_key=billing)

    assert (turn.error, turn.done["stop_reason"], turn.done["actions"]) == ({}, _END, [])
    kinds = [each["event"] for each in turn.events]
    assert [kinds.count(f"turn_{each}") for each in ("started", "finished")] == [3, 3]
    assert _names(turn, "tool_ran") == ["look_up"] * 2
    assert _names(turn, "approval_asked") == ["calculator"] * 2
    assert [each["input"] for each in turn.events if each["event"] == "tool_ran"] == [{"number": 7}] * 2
    assert {each["reason"] for each in turn.events if each["event"] == "approval_asked"} == {"It is expensive."}
    assert '"pens": 2' in _seen(service)["look_up"].replace('":2', '": 2')
    messages = await caller.messages()
    assert turn.text == turn.done["text"] == messages[-1].content[0].text != ""
    assert_valid_history(messages)
    assert_valid_request(service.requests("talk")[-1]["messages"])
    entries = service.entries("talk")
    cost = format_amount(sum((each.cost or Decimal() for each in entries), Decimal()))
    assert turn.done["cost_usd"] == metrics.done["cost_usd"] == cost == format_amount(service.invoiced("talk"))
    assert (len(entries), metrics.done["model_calls"]) == (3, 3)
    assert export.done["entries"] == [each.call_id for each in entries]


async def test_errors_and_denials_are_results_for_the_model(
    language: Language, caller: Caller, issue: Callable[..., str]
) -> None:
    """A tool that fails, one that the program does not have, and a call that is denied; then another input."""
    await Asker(caller, issue).agent(_CALCULATOR, {"client": REFUND})
    tools = [{**_FIND, "fails": "no\nshop"}]
    script = "@sandbox tool-loop calls=2"
    async with Conformance.of(language, caller.service) as program:
        fields: dict[str, Any] = {"session_id": "talk", "agent": "support", "tools": tools}
        turn = await program.ask(
            "converse", text=f"{script} parallel=3", approval={"deny": "not before Monday"}, **fields
        )
        seen = _seen(caller.service)
        changed = await program.ask(
            "converse", text=f"{script} tool=calculator", approval={"input": '{"expression": "1 + 1"}'}, **fields
        )

    assert (turn.error, turn.done["stop_reason"], changed.done["stop_reason"]) == ({}, _END, _END)
    assert _names(turn, "tool_ran") == ["look_up"]
    assert "no shop" in seen["look_up"]
    assert 'there is no tool "refund" here' in seen["refund"]
    assert "not before Monday" in seen["calculator"]
    assert "1 + 1" in str(caller.service.requests("talk")[-1]["messages"][-1]["content"])


async def test_turn_ends_with_its_actions_if_nothing_answers_them(
    language: Language, caller: Caller, issue: Callable[..., str]
) -> None:
    """They are answered later by hand; a tool that the agent's definition declares needs no description here."""
    await Asker(caller, issue).agent(_CALCULATOR, {"client": REFUND})
    script = "@sandbox tool-loop calls=2 parallel=2"
    refund: dict[str, Any] = {"name": "refund", "returns": "done"}
    async with Conformance.of(language, caller.service) as program:
        waits = await program.ask("converse", session_id="talk", text=script, agent="support")
        calculator, tool = waits.done["actions"]
        answers = [
            {"action_id": calculator["action_id"], "approve": True},
            {"action_id": tool["action_id"], "output": "by hand"},
        ]
        answered = await program.ask("converse", session_id="talk", answers=answers)
        seen = _seen(caller.service)
        own = await program.ask("converse", session_id="talk", text=script, tools=[refund], approval={"approve": True})

    assert (waits.done["stop_reason"], answered.done["stop_reason"], own.done["stop_reason"]) == (_WAITS, _END, _END)
    assert [(each["kind"], each["name"]) for each in (calculator, tool)] == [
        ("ACTION_KIND_APPROVAL", "calculator"),
        ("ACTION_KIND_CLIENT_TOOL", "refund"),
    ]
    assert calculator["input_json"] == '{"expression": "6 * 7"}'
    assert (seen["refund"], _seen(caller.service)["refund"]) == ("by hand", "done")
    assert {each["function"]["name"] for each in caller.service.requests("talk")[-1]["tools"]} == {
        "calculator",
        "refund",
    }


async def test_action_for_a_reviewer_is_left_open(
    language: Language, caller: Caller, issue: Callable[..., str]
) -> None:
    """The program is not asked; what it can answer is answered, and the turn ends with the rest."""
    reviewed = {"builtin": "calculator", "approval": {"decider": action_pb2.ACTION_DECIDER_REVIEWER}}
    asker = Asker(caller, issue)
    await asker.agent(reviewed)
    script = "@sandbox tool-loop calls=2 parallel=2"
    async with Conformance.of(language, caller.service) as program:
        turn = await program.ask(
            "converse", session_id="talk", text=script, agent="support", tools=[_FIND], approval={"approve": True}
        )

    assert (turn.error, turn.done["stop_reason"]) == ({}, _WAITS)
    assert (_names(turn, "approval_asked"), _names(turn, "tool_ran")) == ([], ["look_up"])
    assert [each["name"] for each in turn.done["actions"]] == ["calculator"]
    (still_open,) = await asker.actions(state=action_pb2.ACTION_STATE_OPEN)
    assert still_open.name == "calculator"


async def test_attachment_is_uploaded_from_bytes_and_from_a_file(
    language: Language, caller: Caller, tmp_path: Path
) -> None:
    """In as many pieces as it needs; what is refused, or cannot be read, is an error."""
    small, large = png(30, 20), png(size=700_000)
    (tmp_path / "photo.png").write_bytes(large)
    async with Conformance.of(language, caller.service) as program:
        found = [
            await program.ask("upload", data=base64.b64encode(small).decode()),
            await program.ask("upload", path=str(tmp_path / "photo.png")),
        ]
        refused = await program.ask("upload", data=base64.b64encode(b"an invoice, as text").decode())
        missing = await program.ask("upload", path=str(tmp_path / "missing.png"))

    stored = list(caller.service.database["attachments"].find({"tenant_id": caller.service.tenant_id}))
    assert len(stored) == 2
    assert [each.done.get("size_bytes") for each in found] == [len(small), len(large)], found
    assert {each.done["media_type"] for each in found} == {"image/png"}
    assert refused.error["reason"] == "ATTACHMENT_REJECTED"
    assert "missing.png" in missing.error["text"]
