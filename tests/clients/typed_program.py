"""A program of a user, for mypy alone: what it uses has precise types. It is checked with the tests and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_type

from godoty import (
    Action,
    ActionResult,
    AppliedWebhook,
    Approve,
    AsyncGodoty,
    AsyncTurn,
    Attachment,
    Decision,
    Deny,
    Godoty,
    LedgerEntry,
    OnBusy,
    Session,
    SessionBusy,
    StartedTurn,
    StopReason,
    TextDelta,
    Tool,
    ToolCallStarted,
    Turn,
    TurnEvent,
    TurnFinished,
    TurnSummary,
    Webhook,
    WebhookDelivery,
)
from pydantic import BaseModel


class City(BaseModel):
    """A value of a turn."""

    name: str


def blocking() -> None:
    """Use the blocking client."""
    with Godoty(timeout=5) as client, client.converse("hi", session="demo", on_busy=OnBusy.WAIT, timeout=3) as turn:
        assert_type(turn, Turn[None])
        for event in turn:
            assert_type(event, TurnEvent)
            match event:
                case TextDelta(text):
                    assert_type(text, str)
                case ToolCallStarted(name=name):
                    assert_type(name, str)
                case TurnFinished(stop_reason=reason):
                    assert_type(reason, StopReason)
                case _:
                    assert_type(event.time, datetime | None)
        assert_type(turn.cost, Decimal | None)
        assert_type(client.sessions.get("demo"), Session)
        assert_type(client.sessions.list(), Iterator[Session])
        assert_type(client.billing.export(), Iterator[LedgerEntry])
        assert_type(client.attachments.upload(b""), Attachment)
        assert_type(client.converse("hi", output_schema=City).wait().output, City | None)
        assert_type(client.converse("hi", output_schema={"type": "object"}), Turn[Any])


async def asynchronous() -> None:
    """Use the asynchronous client."""
    async with AsyncGodoty() as client, client.converse("hi") as turn:
        assert_type(turn, AsyncTurn[None])
        async for text in turn.text_stream:
            assert_type(text, str)
        assert_type(await client.sessions.get("demo"), Session)
        assert_type(client.sessions.list(user="eve"), AsyncIterator[Session])
        assert_type((await client.converse("hi", output_schema=City).wait()).output, City | None)
        try:
            await client.sessions.delete("demo")
        except SessionBusy as error:
            assert_type(error.reason, str)


def tools_and_approvals(client: Godoty) -> None:
    """Register tools, decide on actions, and answer them."""

    @client.tool
    def look_up(number: int) -> str:
        return str(number)

    @client.tool(name="later", timeout=5)
    async def look_up_later(number: int) -> str:
        return str(number)

    assert_type(look_up(7), str)
    assert_type(client.tools["look_up"], Tool)

    def approve(action: Action) -> Decision:
        return Approve(input={"amount": 90}) if action.name == "refund" else Deny("no")

    turn = client.converse("hi", tools=[look_up, Tool(look_up_later)], approve=approve).wait()
    assert_type(turn.actions, tuple[Action, ...])
    assert_type(turn.turn_ids, tuple[str, ...])
    assert_type(turn.answer({"act_1": Approve(), "act_2": "two pens"}, timeout=5).wait(), Turn[None])
    assert_type(client.converse("hi", output_schema=City).answer({"act_1": True}), Turn[City])
    assert_type(client.converse(action_results=[ActionResult(action_id="act_1")], session="demo"), Turn[None])
    assert_type(client.actions.list(state="open"), Iterator[Action])
    assert_type(client.actions.decide("act_1", Deny("no"), user="eve"), Action)
    assert_type(client.turns.start("hi", session="demo"), StartedTurn)
    assert_type(client.turns.wait("turn_1", timeout=5), TurnSummary)
    assert_type(client.sessions.export("demo"), Iterator[str])
    assert_type(client.sessions.import_(["{}"]), Session)
    assert_type(client.webhooks.apply(Webhook(name="crm", url="https://example.com")), AppliedWebhook)
    assert_type(client.webhooks.deliveries("crm"), Iterator[WebhookDelivery])


async def asynchronous_tools_and_approvals(client: AsyncGodoty) -> None:
    """The same in an event loop."""

    @client.tool
    async def look_up(number: int) -> str:
        return str(number)

    assert_type(await look_up(7), str)

    async def approve(action: Action) -> bool:
        return action.name == "refund"

    turn = await client.converse("hi", tools=[look_up], approve=approve).wait()
    assert_type(turn.answer({"act_1": Approve()}), AsyncTurn[None])
    assert_type(client.actions.list(state="open"), AsyncIterator[Action])
    assert_type(await client.turns.start("hi"), StartedTurn)
    assert_type(client.sessions.export("demo"), AsyncIterator[str])


def refused(client: Godoty) -> None:
    """Pass what is none of the options."""
    client.converse("hi", sesion="demo")  # type: ignore[call-overload] # a misspelt option
    client.sessions.get(7)  # type: ignore[arg-type] # an id is a text
    client.sessions.list("eve")  # type: ignore[call-arg] # it is named
    client.turns.start("hi", tools=[])  # type: ignore[call-arg] # nothing would run them
