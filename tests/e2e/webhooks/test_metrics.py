"""Deliveries on the metrics page."""

import re

import httpx

from tests.conftest import Start
from tests.e2e.webhooks.conftest import SETTINGS, Become
from tests.support.ports import hold_port
from tests.support.receiver import Received, Receiver, status
from tests.support.service import eventually

_ATTEMPTS = re.compile(r'^godoty_webhook_attempts_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


async def test_attempts_are_counted_by_outcome(serve: Start, become: Become, receiver: Receiver) -> None:
    """And the age of the oldest event that is not delivered is there."""
    with hold_port() as held:  # so that no other process has it when the server starts
        port = held.getsockname()[1]
        tenant = become(await serve(metrics_listen=f"127.0.0.1:{port}", **SETTINGS))

    async def answer(_: Received) -> bytes:
        return status(500 if len(receiver.received) == 1 else 204)

    receiver.answer = answer
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await tenant.delivered(1)

    async def counted() -> str:  # a moment after the attempt is stored
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        return page if "delivered" in dict(_ATTEMPTS.findall(page)) else ""

    async with httpx.AsyncClient() as client:
        page = await eventually(counted)
    assert {name: float(number) for name, number in _ATTEMPTS.findall(page)} == {"retry": 1, "delivered": 1}
    assert re.search(r"^godoty_webhook_oldest_pending_seconds \d", page, re.MULTILINE)
