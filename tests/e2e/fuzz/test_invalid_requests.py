"""A server answers any request with a status that names its fault, and continues to serve.

2,000 requests; GODOTY_TEST_LONG=1 sends 100,000. GODOTY_TEST_SEED=n sends the same ones again.
"""

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from godoty_service.tenancy.auth import Scope
from tests.conftest import StartProcess
from tests.e2e.fuzz.request_fuzzer import FuzzedRequest, RequestFuzzer
from tests.support.caller import Caller
from tests.support.service import Service

REQUESTS = 100_000 if os.environ.get("GODOTY_TEST_LONG") else 2_000
SEED = int(os.environ.get("GODOTY_TEST_SEED") or secrets.randbelow(2**32))
AT_ONCE = 32
CODES = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS),
    *(grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED),
}


class Sender:
    """Sends requests and collects the faults of the responses."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.codes: Counter[str] = Counter()
        self.faults: list[str] = []

    async def send(self, request: FuzzedRequest) -> None:
        """Send a request and read its whole answer."""
        code, text, details = await self._answer(request)
        self.codes[code.name] += 1
        wrong = _wrong(code, text, details)
        if wrong:
            self.faults.append(f"{wrong}: {request} was answered {code}: {text[:200]}")

    async def _answer(self, request: FuzzedRequest) -> tuple[grpc.StatusCode, str, bytes | None]:
        channel: Any = self._channel
        try:
            if request.streams:
                call = channel.unary_stream(request.method)(request.body, metadata=request.metadata, timeout=60)
                async for _ in call:
                    pass
            else:
                await channel.unary_unary(request.method)(request.body, metadata=request.metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            trailing: Any = error.trailing_metadata() or ()
            return error.code(), error.details() or "", dict(trailing).get("grpc-status-details-bin")
        return grpc.StatusCode.OK, "", None


def _wrong(code: grpc.StatusCode, text: str, details: bytes | None) -> str | None:
    """Say what is wrong with an answer."""
    if code not in CODES:
        return "no status for bad input"
    if any(sign in text for sign in ("Traceback", 'File "', "Error(", "Exception", "<class")):
        return "Python's words"
    if code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED):
        return None
    if details is None:
        return "no details"
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(details)
    return None if any(each.Unpack(info) and info.reason for each in status.details) else "no reason"


async def test_fuzzed_requests_get_a_status_with_a_reason(
    serve_process: StartProcess, issue: Callable[..., str], connect: Callable[[Service], Caller]
) -> None:
    """Each gets a status with a reason, never INTERNAL or UNKNOWN; the log has no fault; a turn runs after it."""
    process, service = await serve_process(GODOTY_DEFAULT_MODEL="openai/gpt-4o-mini")
    victim = service.another_tenant()  # whose id and keys may be found, and so be changed
    turn = await connect(victim).converse("hi")
    keys = [
        issue(service, scopes=frozenset(scopes)) for scopes in ([Scope.CONVERSE], [Scope.BILLING], [Scope.ADMIN], Scope)
    ]
    words = [
        victim.tenant_id,
        victim.tenant_id,
        victim.key_id,
        turn.responses[0].turn_id,
        "talk",
        *(each.call_id for each in turn.calls),
    ]
    fuzzer = RequestFuzzer(seed=SEED, keys=[*keys, *keys, *keys[3:] * 4, f"gdt_{'0' * 16}_{'A' * 43}"], words=words)
    async with grpc.aio.insecure_channel(service.target) as channel:
        sender = Sender(channel)
        left = iter(range(REQUESTS))

        async def send_all() -> None:
            for _ in left:
                await sender.send(fuzzer.generate())

        await asyncio.gather(*(send_all() for _ in range(AT_ONCE)))

    print(f"seed {SEED}: {dict(sender.codes)}")  # noqa: T201 - for who reads the test's output
    assert sender.faults == [], f"seed {SEED}: {len(sender.faults)} faults, the first: {sender.faults[0]}"
    assert sum(sender.codes.values()) == REQUESTS
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"} <= set(sender.codes)
    log = process.log.read_text()
    assert "call_fault" not in log, f"seed {SEED}"
    assert "Traceback" not in log, f"seed {SEED}"
    assert (await connect(service).converse("hi", session_id="after")).finished


async def test_too_large_request_is_refused(caller: Caller) -> None:
    """A request above the limit and metadata above gRPC's are RESOURCE_EXHAUSTED, with no reason: gRPC answers them."""
    service, channel = caller.service, cast("Any", caller.channel)
    many = tuple((f"k{number}", "x" * 1000) for number in range(40))
    for metadata, body in ((service.metadata, b"\x0a" * (5 * 1024 * 1024)), (service.metadata + many, b"")):
        for _ in range(3):
            call = channel.unary_unary("/godoty.v1.AgentService/ListSessions")(body, metadata=metadata, timeout=20)
            try:
                await call
                code = grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                code = error.code()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    assert (await caller.converse("hi")).finished
