"""Whoever tries keys waits longer and longer; whoever has one never does."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc.refusals import Refusals, source_of
from godoty_service.sandbox.mongod import free_port
from godoty_service.tenancy.principal import Scope
from tests.conftest import Start
from tests.service.caller import Caller, failure_of


class Slept:
    """A clock that sleeping moves on."""

    def __init__(self, *, longest: float = 2.0) -> None:
        self.now = 0.0
        self.refusals = Refusals(longest=longest, tick=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    async def wait(self, peer: str) -> float:
        """Be refused, and tell how long it took."""
        begun = self.now
        await self.refusals.wait(peer)
        return round(self.now - begun, 3)


async def test_each_refusal_in_a_row_takes_longer_up_to_two_seconds() -> None:
    """Three cost nothing; then it doubles, up to the longest."""
    slept = Slept()
    waits = [await slept.wait("ipv4:10.0.0.1:5000") for _ in range(12)]

    assert waits == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2]


async def test_a_row_is_forgotten_after_a_minute() -> None:
    """A minute without a refusal, and it begins anew; 59 seconds are none."""
    slept = Slept()
    for _ in range(8):
        await slept.wait("ipv4:10.0.0.1:5000")
    slept.now += 59
    assert await slept.wait("ipv4:10.0.0.1:5000") == 2

    slept.now += 61
    assert await slept.wait("ipv4:10.0.0.1:5000") == 0


async def test_sources_are_apart_and_ports_are_not() -> None:
    """Another connection of the same host goes on in its row; another host has its own."""
    slept = Slept()
    for port in range(5000, 5008):
        await slept.wait(f"ipv4:10.0.0.1:{port}")

    assert await slept.wait("ipv4:10.0.0.1:9") == 2
    assert await slept.wait("ipv4:10.0.0.2:9") == 0


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("unix:", "unix"),
        ("", ""),
        ("ipv6:nonsense", ""),
    ],
)
def test_a_source_is_an_address_or_a_network(peer: str, source: str) -> None:
    """Of IPv6 the network: a host has as many addresses in it as it likes."""
    assert source_of(peer) == source


async def test_memory_is_bounded() -> None:
    """However many sources there are, a bounded number is remembered: the oldest are forgotten."""
    slept = Slept()
    for number in range(30_000):
        await slept.wait(f"ipv4:{number >> 16}.{number >> 8 & 255}.{number & 255}.1:1")

    assert len(slept.refusals._counts) == 10_000


async def test_waiting_refusals_are_bounded() -> None:
    """A thousand wait; what comes on top of them is answered at once."""
    hold = asyncio.Event()
    waiting = 0

    async def sleep(_: float) -> None:
        nonlocal waiting
        waiting += 1
        await hold.wait()

    refusals = Refusals(longest=2.0, sleep=sleep)
    tasks = [asyncio.create_task(refusals.wait("ipv4:1.1.1.1:1")) for _ in range(1500)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert waiting == 1000
    assert sum(task.done() for task in tasks) == 500

    hold.set()
    await asyncio.gather(*tasks)
    assert refusals._waiting == 0


async def test_a_good_key_of_the_same_source_is_never_slowed(serve: Start, connect: Callable[..., Any]) -> None:
    """Refused calls take longer, counted without an address; a good key between them does not."""
    page = free_port()
    service = await serve(refusal_delay=2.0, metrics_listen=f"127.0.0.1:{page}")
    caller: Caller = connect(service)
    bad = (("authorization", f"Bearer gdt_{'0' * 16}_{'A' * 43}"),)

    async def refused() -> float:
        begun = time.monotonic()
        failure = await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=bad, timeout=20))
        assert failure.reason == "INVALID_API_KEY"
        return time.monotonic() - begun

    waits = sorted(await asyncio.gather(*(refused() for _ in range(12))))
    begun = time.monotonic()
    slow = [asyncio.create_task(refused()) for _ in range(20)]
    for _ in range(20):
        await caller.call("ListSessions", pb.ListSessionsRequest())
    taken = time.monotonic() - begun
    assert not any(task.done() for task in slow)
    await asyncio.gather(*slow)

    assert waits[0] < 1.0
    assert 1.9 < waits[-1] < 4
    assert taken < 1.9
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{page}/metrics")).text
    assert "godoty_refused_keys_total 32.0" in text.splitlines()
    assert not any("127.0.0.1" in line for line in text.splitlines())


async def test_a_missing_key_counts_and_a_missing_scope_does_not(
    serve: Start, connect: Callable[..., Any], issue: Callable[..., str]
) -> None:
    """No key at all is an attempt; a good key for something else is none."""
    service = await serve(refusal_delay=1.0)
    caller: Caller = connect(service)
    billing = (("authorization", f"Bearer {issue(service, scopes=frozenset({Scope.BILLING}))}"),)
    begun = time.monotonic()
    for _ in range(12):
        denied = await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=billing, timeout=20))
        assert denied.code is grpc.StatusCode.PERMISSION_DENIED
    assert time.monotonic() - begun < 1.0

    begun = time.monotonic()
    for _ in range(6):
        await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), timeout=20))
    assert time.monotonic() - begun > 0.69
