"""Connections that are lost, and servers that die, in the middle of a turn."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from godoty import ConnectionFailed, StopReason

from tests.clients.cutting_proxy import CuttingProxy
from tests.support.leases import LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.clients.kinds import Driver
    from tests.conftest import StartProcess
    from tests.support.service import Service

CUTS = 30
PATIENT = {"disconnect_grace": 600.0, "connect_timeout": 600.0}  # a busy machine is slow


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(service.target) as started:
        yield started


def text_of(tokens: int) -> str:
    """Return the sandbox's answer of a number of tokens."""
    return "".join(f"t{number} " for number in range(tokens))


async def test_text_is_exact_through_thirty_cuts(
    service: Service, proxy: CuttingProxy, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """Cut after any number of bytes, also within the handshakes: each event comes once, and there is one charge."""
    rng = random.Random(20)
    driver = connect_to(proxy.address, service.api_key, **PATIENT)
    tokens = 400
    text = f"@sandbox plain tokens={tokens} hold_after=1 hold={session_id}"
    turn = driver.client.converse(text, session=session_id)
    await driver.until_text(turn, "t0 ")
    sequences, allowed = [turn.sequence], 1
    while proxy.cuts < CUTS:
        if not proxy.armed:
            proxy.cut_after(rng.randint(0, 400))
        more = rng.randint(1, 3)
        allowed += more
        service.backends.allow(session_id, more)
        while turn.text != text_of(allowed):
            event = await driver.next(turn)
            sequences.append(event.sequence)
    service.backends.allow(session_id)
    rest = await driver.all(turn)

    assert allowed < tokens
    assert turn.text == text_of(tokens)
    assert turn.stop_reason is StopReason.END_TURN
    sequences += [each.sequence for each in rest]
    assert sequences == sorted(set(sequences))
    assert proxy.cuts >= CUTS
    assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 1
    assert turn.cost == service.invoiced(session_id)


async def test_request_without_an_answer_is_sent_again_and_charged_once(
    service: Service, proxy: CuttingProxy, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """The connection is lost after the server has begun the turn, and before its first event has arrived."""
    driver = connect_to(proxy.address, service.api_key, **PATIENT)
    await driver.all(driver.client.agents.list())  # the connection is open
    proxy.mute()
    turn = driver.client.converse("@sandbox plain tokens=7", session=session_id)
    reading = asyncio.create_task(driver.do(turn.wait))
    await soon(lambda: len(service.invoice(session_id)) == 1 if service.session(session_id) else False)
    assert turn.turn_id == ""
    proxy.cut()
    await reading

    assert turn.text == text_of(7)
    assert service.database["turns"].count_documents({"request_id": turn.request_id}) == 1
    assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 1


async def test_turn_of_a_killed_server_ends_interrupted_and_the_next_one_works(
    serve_process: StartProcess, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """The client waits for the server to come back; what was shown stays."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT)
    driver = connect_to(service.target, service.api_key, **PATIENT)
    turn = driver.client.converse(f"@sandbox plain tokens=9 hold_after=3 hold={session_id}", session=session_id)
    await driver.until_text(turn, "t2 ")
    await process.kill()
    end_leases(service.database, process.replica_id)
    reading = asyncio.create_task(driver.do(turn.wait))
    await process.start()
    await reading
    after = await driver.turn("@sandbox plain tokens=4", session=session_id)

    assert (turn.text, turn.stop_reason) == (text_of(3), StopReason.INTERRUPTED)
    assert (after.text, after.stop_reason) == (text_of(4), StopReason.END_TURN)
    totals = (await driver.do(driver.client.sessions.metrics, session_id)).totals
    assert (totals.turns, totals.model_calls) == (2, 2)
    assert (after.session_totals.turns, after.session_totals.model_calls) == (2, 2)


async def test_turn_whose_connection_stays_away_is_given_up(
    service: Service, proxy: CuttingProxy, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """After the grace the error is `ConnectionFailed`, and the server has cancelled the turn."""
    driver = connect_to(proxy.address, service.api_key, disconnect_grace=0.5)
    turn = driver.client.converse(f"@sandbox plain tokens=9 hold_after=3 hold={session_id}", session=session_id)
    await driver.until_text(turn, "t2 ")
    proxy.refuses = True
    proxy.cut()
    with pytest.raises(ConnectionFailed):
        await driver.do(turn.wait)

    await soon(lambda: (service.session(session_id) or {"lease": ""})["lease"] is None)


async def test_server_that_is_not_there_is_an_error(connect_to: Callable[..., Driver]) -> None:
    """After the time to connect."""
    driver = connect_to("127.0.0.1:1", "gdt_a_b", connect_timeout=0.5)

    assert isinstance(await driver.failure("hi"), ConnectionFailed)


async def test_lost_connection_ends_the_turn_without_a_grace(
    service: Service, proxy: CuttingProxy, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """With a grace of 0 the client does not come back, and the turn is cancelled at once."""
    driver = connect_to(proxy.address, service.api_key, disconnect_grace=0)
    turn = driver.client.converse(f"@sandbox plain tokens=9 hold_after=3 hold={session_id}", session=session_id)
    await driver.until_text(turn, "t2 ")
    proxy.cut()
    with pytest.raises(ConnectionFailed):
        await driver.do(turn.wait)

    await soon(lambda: (service.session(session_id) or {"lease": ""})["lease"] is None)


async def test_export_goes_on_after_each_cut(
    service: Service, proxy: CuttingProxy, connect_to: Callable[..., Driver], issue: Callable[..., str], session_id: str
) -> None:
    """Each entry comes once."""
    from godoty_service.tenancy.auth import Scope  # noqa: PLC0415 - the service's, for a key alone

    direct = connect_to(service.target, service.api_key)
    for number in range(3):
        await direct.turn("@sandbox tool-loop calls=4", session=f"{session_id}-{number}")
    key = issue(service, scopes=frozenset({Scope.BILLING}))
    driver = connect_to(proxy.address, key)
    proxy.cut_after(1500)
    entries = await driver.all(driver.client.billing.export())

    assert proxy.cuts == 1
    assert len({each.call.call_id for each in entries}) == len(entries) == 12
