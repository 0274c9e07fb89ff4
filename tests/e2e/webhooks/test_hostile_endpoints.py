"""Endpoints that answer without end, or drop by drop: each costs its own webhook an attempt, and no one else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from godoty.v1 import webhook_pb2 as pb
from structlog.testing import capture_logs

from tests.conftest import Start
from tests.e2e.webhooks.conftest import SETTINGS, Become
from tests.support.receiver import Receiver

Receive = Callable[[], Awaitable[Receiver]]
OK = b"HTTP/1.1 200 OK\r\n"
# Answers without end: how they begin, what they repeat, and whether the event counts as taken.
ENDLESS = {
    "headers": (OK, b"X-Filler: " + b"a" * 1000 + b"\r\n", False),
    "header": (OK + b"X-Filler: ", b"a" * 1000, False),
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40, False),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200, True),
}
SLOW = {"headers": (OK, b"X-A: b\r\n", False), "body": (OK + b"Content-Length: 9999\r\n\r\n", b"x", True)}
MOST = 16 * 1024 * 1024  # bytes that the system may take for a reader that has stopped


def repeating(begin: bytes, piece: bytes, *, pause: float = 0.0) -> Callable[[], AsyncIterator[bytes]]:
    """Return an answer that begins and never ends."""

    async def pieces() -> AsyncIterator[bytes]:
        yield begin
        while True:
            yield piece
            await asyncio.sleep(pause)

    return pieces


async def test_answer_without_end_is_read_up_to_a_bound(serve: Start, become: Become, receive: Receive) -> None:
    """Long before the time of an attempt is over, and no log line has the secrets of its webhook."""
    tenant = become(await serve(**SETTINGS | {"webhook_retry_delay": 3600.0}, webhook_timeout=60.0))
    receivers = {name: await receive() for name in ENDLESS}
    secrets = []
    for name, (begin, piece, _) in ENDLESS.items():
        receivers[name].pieces = repeating(begin, piece)
        secrets.append(await tenant.apply(receivers[name].url("/hook?token=hidden"), name=name))
    with capture_logs() as lines:
        await tenant.caller.converse("hello")
        found = {name: await tenant.attempted(1, name=name) for name in ENDLESS}

    for name, (_, _, taken) in ENDLESS.items():
        assert found[name].attempts == 1, name
        assert found[name].state == (pb.DELIVERY_STATE_DELIVERED if taken else pb.DELIVERY_STATE_PENDING), name
        assert found[name].last_error == ("" if taken else "The connection to the server broke."), name
        assert receivers[name].sent < MOST, name
    assert not any(text in str(lines) for text in (*secrets, "hidden", "whsec_"))


async def test_answer_drop_by_drop_ends_with_the_time_of_the_attempt(
    serve: Start, become: Become, receive: Receive
) -> None:
    """Headers that never end are no answer; of a body that never ends the status counts."""
    tenant = become(await serve(**SETTINGS, webhook_timeout=0.5))
    for name, (begin, piece, _) in SLOW.items():
        receiver = await receive()
        receiver.pieces = repeating(begin, piece, pause=0.02)
        await tenant.apply(receiver.url(), name=name)
    await tenant.caller.converse("hello")
    headers = await tenant.attempted(1, name="headers")
    (body,) = await tenant.delivered(1, name="body")  # on a busy machine by a later attempt

    assert (headers.state, headers.last_error) == (
        pb.DELIVERY_STATE_PENDING,
        "The endpoint did not answer within 0.5 s.",
    )
    assert body.last_status == 200
