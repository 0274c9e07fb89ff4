"""A program of a user, for mypy alone: what it uses has precise types. It is checked with the tests and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_type

from godoty import (
    AsyncGodoty,
    AsyncTurn,
    Attachment,
    Godoty,
    LedgerEntry,
    OnBusy,
    Session,
    SessionBusy,
    StopReason,
    TextDelta,
    ToolCallStarted,
    Turn,
    TurnEvent,
    TurnFinished,
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


def refused(client: Godoty) -> None:
    """Pass what is none of the options."""
    client.converse("hi", sesion="demo")  # type: ignore[call-overload] # a misspelt option
    client.sessions.get(7)  # type: ignore[arg-type] # an id is a text
    client.sessions.list("eve")  # type: ignore[call-arg] # it is named
