"""Turns of both kinds of clients against the real service."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from godoty import (
    AsyncGodoty,
    DeadlineExceeded,
    Godoty,
    InvalidApiKey,
    InvalidField,
    MaxCostTooLow,
    ModelCallFinished,
    SessionBusy,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallStatus,
    TurnCancelled,
    TurnFinished,
    TurnLimits,
    TurnStarted,
    TurnState,
    TurnSummary,
)
from pydantic import BaseModel

from tests.clients.conftest import GRACE
from tests.support.media import png
from tests.support.service import eventually, soon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.clients.kinds import Driver
    from tests.support.service import Service

VISION = "anthropic/claude-haiku-4.5"  # a model that takes images


class City(BaseModel):
    """A value of a turn."""

    name: str
    inhabitants: int


def paused(hold: str) -> str:
    """Return a text whose answer waits after three of its tokens."""
    return f"@sandbox plain tokens=9 hold_after=3 hold={hold} record_ms=-1"


async def ended(driver: Driver, turn_id: str) -> TurnSummary:
    """Wait until a turn has ended, and return what is known of it."""

    async def summary() -> TurnSummary | None:
        found: TurnSummary = await driver.do(driver.client.turns.get, turn_id)
        return found if found.state is TurnState.ENDED else None

    found = await eventually(summary)
    assert found is not None
    return found


async def test_turn_has_its_events_text_and_cost(driver: Driver, service: Service, session_id: str) -> None:
    """`TurnStarted` first, `TurnFinished` last, rising sequences; the cost is that of the invoice."""
    turn = driver.client.converse("@sandbox tool-loop calls=2 tool=calculator", session=session_id)
    events = await driver.all(turn)

    assert isinstance(events[0], TurnStarted)
    assert events[0].session_created
    assert isinstance(events[-1], TurnFinished)
    assert (turn.started, turn.finished) == (events[0], events[-1])
    assert [each.sequence for each in events] == sorted({each.sequence for each in events})
    assert {each.turn_id for each in events} == {turn.turn_id}
    assert turn.text == "".join(each.text for each in events if isinstance(each, TextDelta)) != ""
    (begun,) = [each for each in events if isinstance(each, ToolCallStarted)]
    (tool,) = [each for each in events if isinstance(each, ToolCallFinished)]
    assert (begun.name, tool.tool_call_id, tool.status) == ("calculator", begun.tool_call_id, ToolCallStatus.SUCCESS)
    costs = [each.call.cost_usd for each in events if isinstance(each, ModelCallFinished)]
    assert turn.cost == sum(filter(None, costs)) == service.invoiced(session_id) > 0
    assert turn.stop_reason is StopReason.END_TURN
    assert turn.totals.model_calls == 2


async def test_text_stream_has_the_answer(driver: Driver, session_id: str) -> None:
    """Its pieces make the text."""
    turn = driver.client.converse("@sandbox plain tokens=5", session=session_id)

    assert "".join(await driver.all(turn.text_stream)) == turn.text == "t0 t1 t2 t3 t4 "


async def test_leaving_early_cancels_the_turn(driver: Driver, service: Service, session_id: str) -> None:
    """At once, although the grace is long; the ledger has the call."""
    client = driver.client
    turn = client.converse(paused(session_id), session=session_id)
    await driver.until_text(turn, "t2 ")
    await driver.do(turn.__exit__ if driver.blocking else turn.__aexit__, None, None, None)

    summary = await ended(driver, turn.turn_id)
    assert (summary.error_reason, summary.stop_reason) == ("TURN_CANCELLED", StopReason.UNSPECIFIED)
    (entry,) = service.entries(session_id)
    assert entry.turn_id == turn.turn_id
    assert await driver.next(turn) is None
    assert turn.cost is None


async def test_forgotten_turn_is_cancelled(driver: Driver, session_id: str) -> None:
    """One to which the last reference is gone, without a `with` block."""
    turn = driver.client.converse(paused(session_id), session=session_id)
    await driver.until_text(turn, "t2 ")
    turn_id = turn.turn_id
    del turn
    gc.collect()

    assert (await ended(driver, turn_id)).error_reason == "TURN_CANCELLED"


async def test_forgotten_turn_is_cancelled_before_its_client_is_closed(
    driver: Driver, service: Service, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """A loop that is left by `break`, at the end of the client's `with` block."""
    other = connect_to(service.target, service.api_key, disconnect_grace=GRACE)
    turn = other.client.converse(paused(session_id), session=session_id)
    await other.until_text(turn, "t2 ")
    turn_id = turn.turn_id
    del turn
    await other.do(other.client.close)

    assert (await ended(driver, turn_id)).error_reason == "TURN_CANCELLED"


async def test_closing_the_client_cancels_its_turns(
    driver: Driver, service: Service, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """Those that have not ended."""
    other = connect_to(service.target, service.api_key, disconnect_grace=GRACE)
    turn = other.client.converse(paused(session_id), session=session_id)
    await other.until_text(turn, "t2 ")
    await other.do(other.client.close)

    assert (await ended(driver, turn.turn_id)).error_reason == "TURN_CANCELLED"


async def test_turn_that_has_not_begun_is_cancelled_when_it_is_left(client: AsyncGodoty, session_id: str) -> None:
    """It waits for another turn: no event of it has come, and yet it does not run later."""
    running = client.converse(paused(session_id), session=session_id)
    async for event in running:
        if isinstance(event, TextDelta):
            break
    waiting = client.converse("and now?", session=session_id, on_busy="wait")
    reading = asyncio.create_task(waiting.wait())
    await eventually(lambda: _waits(client, session_id))
    reading.cancel()
    await asyncio.wait([reading])

    await eventually(lambda: _all_ended_but(client, session_id, running.turn_id))
    await running.close()


async def _waits(client: AsyncGodoty, session_id: str) -> bool:
    states = [each.state async for each in client.turns.list(session_id=session_id)]
    return TurnState.WAITING in states


async def _all_ended_but(client: AsyncGodoty, session_id: str, running: str) -> bool:
    turns = [each async for each in client.turns.list(session_id=session_id)]
    return all(each.state is TurnState.ENDED for each in turns if each.turn_id != running)


async def test_turn_may_run_on_without_its_reader(driver: Driver, service: Service, session_id: str) -> None:
    """With `continue` leaving does not cancel; `resume` reads the rest, and leaving that does not either."""
    turn = driver.client.converse(paused(session_id), session=session_id, on_disconnect="continue")
    await driver.until_text(turn, "t2 ")
    await driver.do(turn.close)
    glance = driver.client.resume(turn.turn_id)
    await driver.until_text(glance, "t2 ")
    await driver.do(glance.close)
    rest = driver.client.resume(turn.turn_id, after_sequence=turn.sequence)
    service.backends.allow(session_id)
    await driver.do(rest.wait)

    assert rest.stop_reason is StopReason.END_TURN
    assert turn.text + rest.text == "".join(f"t{number} " for number in range(9))


async def test_cancelled_turn_ends_with_its_error(driver: Driver, session_id: str) -> None:
    """`cancel` is the server's: the reader sees the end."""
    turn = driver.client.converse(paused(session_id), session=session_id)
    await driver.until_text(turn, "t2 ")
    await driver.do(turn.cancel)

    with pytest.raises(TurnCancelled):
        await driver.do(turn.wait)


async def test_deadline_cancels_the_turn(driver: Driver, session_id: str) -> None:
    """The error is `DeadlineExceeded`, and the turn has ended on the server although the grace is long."""
    turn = driver.client.converse(paused(session_id), session=session_id, timeout=2.0)
    with pytest.raises(DeadlineExceeded):
        await driver.do(turn.wait)

    async def over() -> bool:
        turns = await driver.all(driver.client.turns.list(session_id=session_id))
        return all(each.error_reason == "TURN_CANCELLED" for each in turns)  # on a slow machine, none has begun

    await eventually(over)


async def test_busy_session_is_an_error_with_a_delay(driver: Driver, service: Service, session_id: str) -> None:
    """Or with `wait`, the turn follows the one that runs."""
    running = driver.client.converse(paused(session_id), session=session_id)
    await driver.until_text(running, "t2 ")
    failure = await driver.failure("hi", session=session_id)
    waiting = asyncio.create_task(driver.turn("@sandbox plain tokens=2", session=session_id, on_busy="wait"))
    service.backends.allow(session_id)
    await driver.do(running.wait)

    assert isinstance(failure, SessionBusy)
    assert failure.retry_delay is not None
    assert (await waiting).text == "t0 t1 "


async def test_wrong_key_is_refused_without_showing_it(
    service: Service, connect_to: Callable[..., Driver], caplog: pytest.LogCaptureFixture
) -> None:
    """The error has its reason; neither it nor the client shows the key."""
    driver = connect_to(service.target, "gdt_no_such_key")
    failure = await driver.failure("hi")

    assert isinstance(failure, InvalidApiKey)
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    shown = f"{failure!r} {failure} {failure.__context__!r} {driver.client!r} {vars(driver.client)} {caplog.text}"
    assert "no_such_key" not in shown


async def test_refused_fields_are_named(driver: Driver) -> None:
    """A bad field comes back as a violation that names it."""
    failure = await driver.failure("hi", session="not a session id")

    assert isinstance(failure, InvalidField)
    assert [violation.field for violation in failure.field_violations] == ["session_id"]
    assert failure.field_violations[0].description
    assert failure.request_id


async def test_limit_of_the_cost_is_a_decimal(driver: Driver) -> None:
    """One that covers no answer is refused with its amounts."""
    failure = await driver.failure("hi", limits=TurnLimits(max_cost_usd=Decimal("0.0000001")))

    assert isinstance(failure, MaxCostTooLow)
    assert Decimal(failure.metadata["limit_usd"]) == Decimal("0.0000001")


async def test_same_request_id_is_charged_once(driver: Driver, service: Service, session_id: str) -> None:
    """A program that sends its request again reads the same turn."""
    options = {"session": session_id, "request_id": f"order-{session_id}"}
    first = await driver.turn("@sandbox plain tokens=4", **options)
    again = await driver.turn("@sandbox plain tokens=4", **options)

    assert (again.turn_id, again.text, again.cost) == (first.turn_id, first.text, first.cost)
    assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 1


async def test_value_is_an_instance_of_the_pydantic_class(driver: Driver) -> None:
    """By a class it is the instance, by a schema what JSON has."""
    by_class = await driver.turn("Name a city.", output_schema=City)
    by_schema = await driver.turn("Name a city.", output_schema=City.model_json_schema())
    without = await driver.turn("Name a city.")

    assert isinstance(by_class.output, City)
    assert set(by_schema.output) == {"name", "inhabitants"}
    assert without.output is None


async def test_invalid_value_is_none(driver: Driver, service: Service) -> None:
    """The stop reason says why there is none."""
    wrong = {"scenario": "default", "params": {"wrong": "9"}, "repeat": 3}
    service.backends.ask(lambda: service.backends.sandbox.scenarios.add(wrong))
    turn = await driver.turn("Name a city.", output_schema=City)

    assert (turn.output, turn.stop_reason) == (None, StopReason.OUTPUT_INVALID)


async def test_attachments_are_files_bytes_and_ids(driver: Driver, session_id: str, tmp_path: Path) -> None:
    """What a request cannot carry itself is uploaded before it; the order is that of the arguments."""
    large, small, other = (tmp_path / name for name in ("large", "small", "other"))
    large.write_bytes(png(30, 20, size=1_200_000))
    small.write_bytes(png(12, 10))
    other.write_bytes(png(14, 10))
    uploaded = [await driver.do(driver.client.attachments.upload, each) for each in (str(other), png(16, 10))]
    inputs: list[Any] = [large, str(small), png(8, 9), uploaded[0], uploaded[1].attachment_id]
    await driver.turn("look", session=session_id, model=VISION, attachments=inputs)

    asked, _ = await driver.all(driver.client.sessions.messages(session_id))
    stored = [block.attachment for block in asked.content if block.attachment is not None]
    assert [(each.width, each.height) for each in stored] == [(30, 20), (12, 10), (8, 9), (14, 10), (16, 10)]
    read = await driver.all(driver.client.attachments.get(stored[0].attachment_id))
    assert b"".join(read) == large.read_bytes()


async def test_file_that_is_missing_is_an_error(driver: Driver) -> None:
    """Before anything is sent."""
    with pytest.raises(FileNotFoundError):
        await driver.turn("look", attachments=["/no/such/file.png"])
    with pytest.raises(FileNotFoundError):
        await driver.do(driver.client.attachments.upload, "/no/such/file.png")


def test_threads_share_a_blocking_client(service: Service, session_id: str) -> None:
    """Each reads its own turn."""

    async def main() -> list[str]:
        with Godoty(service.target, service.api_key) as client:

            def run(number: int) -> str:
                return client.converse(f"@sandbox plain tokens={number}", session=f"{session_id}-{number}").wait().text

            return await asyncio.gather(*(asyncio.to_thread(run, number) for number in range(1, 9)))

    texts = asyncio.run(main())
    assert texts == ["".join(f"t{each} " for each in range(number)) for number in range(1, 9)]


async def test_reader_that_is_interrupted_reads_on(client: AsyncGodoty, service: Service, session_id: str) -> None:
    """A read that is cancelled by a timeout ends gRPC's call, and the next read resumes the turn."""
    async with client.converse(paused(session_id), session=session_id) as turn:
        while "t2 " not in turn.text:
            await anext(turn)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(turn), 0.1)
        service.backends.allow(session_id)
        await turn.wait()

    assert turn.text == "".join(f"t{number} " for number in range(9))
    await soon(lambda: len(service.invoice(session_id)) == 1)


PROGRAM = """
from godoty import Godoty
with Godoty(disconnect_grace=600) as client, client.converse({text!r}, session={session!r}) as turn:
    for text in turn.text_stream:
        print(turn.turn_id, text, flush=True)
"""


async def test_interrupted_program_cancels_its_turn(driver: Driver, service: Service, session_id: str) -> None:
    """Ctrl-C in a blocking read leaves the `with` block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM.format(text=paused(session_id), session=session_id)),
        env=os.environ | {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    while b"t2 " not in line:  # then it waits for the next one
        line = await process.stdout.readline()
    turn_id = line.decode().split()[0]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()

    assert err.rstrip().endswith(b"KeyboardInterrupt")
    assert (await ended(driver, turn_id)).error_reason == "TURN_CANCELLED"
