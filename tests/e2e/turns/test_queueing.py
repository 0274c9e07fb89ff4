"""One turn at a time in a session: queued turns are served, others are refused, and nothing is lost or duplicated."""

import asyncio
import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.e2e.turns.conftest import LONG
from tests.e2e.turns.streams import CONTINUE, SLOW, cancel, free, until_text
from tests.support.caller import Caller, Turn
from tests.support.history import assert_valid_history
from tests.support.service import soon

CLIENTS, TURNS = (64, 50) if LONG else (24, 2)
FAST = "@sandbox plain tokens=1 flat=1"
WAIT = turn_pb.ON_BUSY_WAIT


async def all_messages(caller: Caller, session_id: str = "talk") -> list[session_pb.Message]:
    """Read a session's messages, page by page."""
    found: list[session_pb.Message] = []
    token = ""
    while True:
        page = await caller.call(
            "ListMessages", pb.ListMessagesRequest(session_id=session_id, page_size=500, page_token=token)
        )
        found.extend(page.messages)
        token = page.next_page_token
        if not token:
            return found


def assert_sums(caller: Caller, turns: list[Turn], totals: turn_pb.TurnFinished) -> None:
    """Check that turns, entries and the provider's invoice have the same sum."""
    entries = caller.service.entries("talk")
    assert [entry.number for entry in entries] == list(range(1, len(turns) + 1))
    assert {entry.turn_id for entry in entries} == {turn.responses[0].turn_id for turn in turns}
    cost = sum((Decimal(turn.finished.turn_totals.cost_usd) for turn in turns), Decimal(0))
    assert cost == caller.service.invoiced("talk") == Decimal(totals.session_totals.cost_usd)
    assert totals.session_totals.turns == totals.session_totals.model_calls == len(turns)
    assert totals.session_totals.usage.total_tokens == sum(t.finished.turn_totals.usage.total_tokens for t in turns)


@pytest.mark.parametrize("servers", [1, 2])
async def test_many_queued_turns_are_served_once_each(caller: Caller, second_caller: Caller, servers: int) -> None:
    """Many clients take their turns with WAIT, on one server and spread over two: all served, each once, in turns."""
    begun, rounds = time.monotonic(), TURNS if LONG or servers == 1 else 1

    async def client(number: int) -> list[Turn]:
        client = (caller, second_caller)[number % servers]
        return [
            await client.converse(f"{FAST} client {number} turn {turn}", on_busy=WAIT, timeout=1200.0)
            for turn in range(rounds)
        ]

    by_client = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    turns = [turn for each in by_client for turn in each]
    took = time.monotonic() - begun
    print(f"[in line] {len(turns)} turns on {servers} servers in {took:.1f} s")  # noqa: T201 - shown with -s

    assert all(turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN for turn in turns)
    messages = await all_messages(caller)
    assert len(messages) == 2 * CLIENTS * rounds
    assert_valid_history(messages)
    texts = Counter(each.content[0].text for each in messages if each.role == session_pb.ROLE_USER)
    assert texts == Counter({f"{FAST} client {c} turn {t}": 1 for c in range(CLIENTS) for t in range(rounds)})
    assert all(
        question.turn_id == answer.turn_id for question, answer in zip(messages[::2], messages[1::2], strict=True)
    )
    last = max(turns, key=lambda turn: turn.finished.session_totals.turns)
    assert_sums(caller, turns, last.finished)
    assert (await second_caller.metrics()).totals == last.finished.session_totals


@pytest.mark.parametrize("servers", [1, 2])
async def test_reject_is_served_or_refused(caller: Caller, second_caller: Caller, servers: int) -> None:
    """With REJECT each turn succeeds or is ABORTED as SESSION_BUSY with a retry time, and leaves no record."""

    async def client(number: int) -> list[Turn]:
        client = (caller, second_caller)[number % servers]
        return [await client.converse(f"{FAST} {number}.{turn}") for turn in range(TURNS)]

    turns = [turn for each in await asyncio.gather(*(client(n) for n in range(CLIENTS // 2))) for turn in each]
    served = [turn for turn in turns if turn.failure is None]
    for turn in turns:
        if turn.failure is not None:
            assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
            assert turn.failure.retry_after
            assert turn.responses == ()
    assert served
    messages = await all_messages(caller)
    assert len(messages) == 2 * len(served)
    assert_valid_history(messages)
    assert_sums(caller, served, max(served, key=lambda turn: turn.finished.session_totals.turns).finished)
    tenant = {"tenant_id": caller.service.tenant_id}
    await soon(lambda: caller.service.database["turns"].count_documents(tenant) == len(served))


async def test_queued_turns_are_served_in_order(caller: Caller) -> None:
    """On one server queued turns are served in the order of their arrival."""
    call = caller.start(SLOW)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    waiting = []
    for number in range(12):
        waiting.append(asyncio.create_task(caller.converse(f"{FAST} {number}", on_busy=WAIT)))
        await soon(partial(_in_line, caller, number + 2))
    await cancel(caller, turn_id)
    await asyncio.gather(*waiting)

    texts = [each.content[0].text for each in await caller.messages() if each.role == session_pb.ROLE_USER]
    assert texts == [SLOW, *(f"{FAST} {number}" for number in range(12))]


def _in_line(caller: Caller, count: int) -> bool:
    turns = caller.service.database["turns"]
    return turns.count_documents({"tenant_id": caller.service.tenant_id}) == count


@pytest.mark.parametrize("on_disconnect", [turn_pb.ON_DISCONNECT_CANCEL, CONTINUE])
async def test_expired_queued_turn_leaves_no_record(
    caller: Caller, second_caller: Caller, on_disconnect: turn_pb.OnDisconnect
) -> None:
    """A turn whose deadline passes in the queue never runs, on either server, also under CONTINUE; the others do."""
    call = caller.start(SLOW)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    fields: dict[str, Any] = {"on_busy": WAIT, "on_disconnect": on_disconnect}
    late = [
        client.converse("too late", timeout=0.4, request_id=f"late{n}", **fields)
        for n, client in enumerate((caller, second_caller))
    ]
    patient = [asyncio.create_task(client.converse("patient", on_busy=WAIT)) for client in (caller, second_caller)]
    for turn in await asyncio.gather(*late):
        assert turn.failure is not None
        assert turn.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert turn.responses == ()
    late_ids = {"tenant_id": caller.service.tenant_id, "request_id": {"$in": ["late0", "late1"]}}
    turns = caller.service.database["turns"]
    await soon(lambda: turns.count_documents(late_ids) == 0)  # a client knows of its deadline first
    await cancel(second_caller, turn_id)
    for turn in await asyncio.gather(*patient):
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN

    await free(caller.service)
    texts = [each.content[0].text for each in await caller.messages() if each.role == session_pb.ROLE_USER]
    assert texts == [SLOW, "patient", "patient"]
    assert len(caller.service.entries("talk")) == 3
    assert turns.count_documents(late_ids) == 0
