"""A source that tries API keys is throttled; valid keys of the same source are not."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from godoty.v1 import agent_service_pb2 as pb
from structlog.testing import capture_logs

from godoty_service.mongo.collection import Collection
from godoty_service.rpc.auth_throttle import AuthThrottle, TooManyWrongKeys
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start
from tests.support.caller import Caller, Failure, failure_of
from tests.support.service import Service, eventually

Connect = Callable[[Service], Caller]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> AuthThrottle:
    return AuthThrottle(lookups_per_second=5.0, tick=clock)


def lookups(throttle: AuthThrottle, source: str, tries: int = 1000) -> int:
    """Look up wrong keys of a source; return how many were admitted."""
    passed = 0
    for _ in range(tries):
        check = throttle.check(source)
        try:
            with check:
                passed += 1
        except TooManyWrongKeys:
            pass
        check.refuse()
    return passed


def test_throttled_source_gets_five_lookups_a_second(throttle: AuthThrottle, clock: Clock) -> None:
    """Ten wrong keys are looked up at once, then five a second, however many are tried."""
    assert lookups(throttle, "10.0.0.1") == 10
    for _ in range(10):
        clock.now += 1
        assert lookups(throttle, "10.0.0.1") == 5


def test_refusal_states_the_retry_delay(throttle: AuthThrottle, clock: Clock) -> None:
    """After that delay, one more key is looked up."""
    lookups(throttle, "10.0.0.1")
    with pytest.raises(TooManyWrongKeys) as refused, throttle.check("10.0.0.1"):
        pass
    assert refused.value.retry_after == pytest.approx(0.2)

    clock.now += 0.2001
    assert lookups(throttle, "10.0.0.1") == 1


def test_valid_keys_use_no_tokens(throttle: AuthThrottle) -> None:
    """However many new valid keys a source has, each is looked up."""
    for _ in range(1000):
        check = throttle.check("10.0.0.1")
        with check:
            pass
        check.accept()

    assert lookups(throttle, "10.0.0.1") == 10


def test_sources_are_throttled_separately(throttle: AuthThrottle) -> None:
    """Throttling one source does not affect another."""
    lookups(throttle, "10.0.0.1")

    assert lookups(throttle, "10.0.0.2") == 10


def test_sources_are_bounded_and_the_oldest_is_evicted(throttle: AuthThrottle) -> None:
    """10,000 sources are tracked; one that continues is not evicted for new ones."""
    for number in range(12_000):
        lookups(throttle, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", tries=1)
        lookups(throttle, "192.0.2.1", tries=1)

    assert len(throttle._sources) == 10_000
    assert lookups(throttle, "192.0.2.1") == 0


def test_concurrent_lookups_of_all_sources_are_limited(throttle: AuthThrottle) -> None:
    """Of a thousand sources at once, 32 keys are looked up; each end admits another."""
    begun = []
    for number in range(1000):
        check = throttle.check(f"10.0.{number >> 8}.{number & 255}")
        try:
            check.__enter__()
        except TooManyWrongKeys:
            continue
        begun.append(check)
    assert len(begun) == 32

    for check in begun:
        check.__exit__(None, None, None)
    assert lookups(throttle, "192.0.2.1") == 10


def test_each_refused_source_is_logged_once_a_minute(throttle: AuthThrottle, clock: Clock) -> None:
    """Two sources are two lines, however many calls are refused; the next line has the calls of its minute."""
    with capture_logs() as lines:
        for seconds, calls in ((0, 100), (59, 40), (1, 1), (59, 7)):
            clock.now += seconds
            for _ in range(calls):
                for source in ("10.0.0.1", "10.0.0.2"):
                    throttle.refuse(source)

    assert [(line["source"], line["calls"]) for line in lines] == [
        ("10.0.0.1", 1),
        ("10.0.0.2", 1),
        ("10.0.0.1", 140),
        ("10.0.0.2", 140),
    ]


def _wrong(number: int) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer gdt_{number:016x}_{'A' * 43}"),)


async def _tried(caller: Caller, metadata: tuple[tuple[str, str], ...]) -> Failure:
    return await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata, timeout=60))


async def test_wrong_keys_do_not_reach_the_database_and_valid_ones_pass(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 400 wrong keys at once only a few are looked up; a proven key passes meanwhile."""
    service = await serve(wrong_key_lookups=5.0)
    caller, flood = connect(service), connect(service)
    await caller.call("ListSessions", pb.ListSessionsRequest())
    reads: list[str] = []
    _count_reads(monkeypatch, reads)

    begun = time.monotonic()
    tries = [asyncio.create_task(_tried(flood, _wrong(number))) for number in range(400)]
    for _ in range(20):
        await caller.call("ListSessions", pb.ListSessionsRequest())
    reasons = [(await each).reason for each in tries]

    wrong = [each for each in reads if each != service.key_id]
    assert set(reasons) == {"INVALID_API_KEY", "TOO_MANY_WRONG_KEYS"}
    assert len(wrong) == reasons.count("INVALID_API_KEY") < 50 + 5 * (time.monotonic() - begun)


def _count_reads(monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    """Record the keys that are looked up; a key is read together with the state of its tenant."""
    real = Collection.aggregate

    def aggregate(collection: Collection, pipeline: Any, **named: Any) -> Any:
        key_id = pipeline[0].get("$match", {}).get("_id")
        if collection.name == "api_keys" and isinstance(key_id, str):  # not those of running turns
            reads.append(key_id)
        return real(collection, pipeline, **named)

    monkeypatch.setattr(Collection, "aggregate", aggregate)


async def test_proven_key_passes_a_throttled_source_after_its_cache_entry_expired(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a throttled proxy, a proven key is read again, and a new one must wait."""
    monkeypatch.setattr("godoty_service.tenancy.key_cache.FRESH_FOR", 0.0)
    service = await serve(wrong_key_lookups=0.1)
    caller, other = connect(service), connect(service.another_tenant())
    await caller.call("ListSessions", pb.ListSessionsRequest())
    wrong = map(_wrong, itertools.count())

    async def throttled() -> bool:
        return (await _tried(other, next(wrong))).reason == "TOO_MANY_WRONG_KEYS"

    await eventually(throttled)
    for _ in range(20):
        await caller.call("ListSessions", pb.ListSessionsRequest())
    await eventually(throttled)  # on a busy machine another look-up is allowed meanwhile
    refused = await _tried(other, other.service.metadata)
    stolen_id = await _tried(other, (("authorization", f"Bearer gdt_{service.key_id}_{'A' * 43}"),))

    for failure in (refused, stolen_id):
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WRONG_KEYS")
        assert failure.quotas == ("key_lookups/second",)
        assert 0 < (failure.retry_after or 0) <= 10


async def test_repeated_wrong_key_is_not_looked_up_again(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with an old key costs one database read every few seconds, and gets the reason each time."""
    service = await serve(wrong_key_lookups=0.1)
    caller = connect(service)
    reads: list[str] = []
    _count_reads(monkeypatch, reads)

    failures = [await _tried(caller, _wrong(7)) for _ in range(50)]

    assert {each.reason for each in failures} == {"INVALID_API_KEY"}
    assert 0 < len(reads) < 10


@pytest.mark.parametrize(
    ("trusted", "apart"), [("127.0.0.1, 10.0.0.0/8", True), (None, False), ("192.0.2.0/24", False)]
)
async def test_forwarded_address_counts_only_from_trusted_proxies(
    serve: Start, connect: Connect, *, trusted: str | None, apart: bool
) -> None:
    """Two clients of a trusted proxy are two sources; from any other peer the header changes nothing."""
    service = await serve(wrong_key_lookups=0.1, trusted_proxies=trusted)
    caller = connect(service)
    for number in range(12):
        last = await _tried(caller, (*_wrong(number), ("x-forwarded-for", "198.51.100.1, 203.0.113.7, 10.1.2.3")))
    assert last.reason == "TOO_MANY_WRONG_KEYS"

    forged = await _tried(caller, (*_wrong(100), ("x-forwarded-for", "192.0.2.9, 203.0.113.7")))
    other = await _tried(caller, (*_wrong(101), ("x-forwarded-for", "203.0.113.8")))

    assert forged.reason == "TOO_MANY_WRONG_KEYS"
    assert other.reason == ("INVALID_API_KEY" if apart else "TOO_MANY_WRONG_KEYS")


async def test_refused_source_is_logged_once_a_minute_and_counted(serve: Start, connect: Connect) -> None:
    """A hundred refused calls are one log line with the address, and a hundred in a metric without it."""
    page = free_port()
    service = await serve(wrong_key_lookups=5.0, metrics_listen=f"127.0.0.1:{page}")
    caller = connect(service)
    with capture_logs() as lines:
        for number in range(100):
            await _tried(caller, _wrong(number))

    (line,) = [each for each in lines if each["event"] == "keys_refused"]
    assert (line["source"], line["log_level"]) == ("127.0.0.1", "warning")
    assert "gdt_" not in str(line)
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{page}/metrics")).text
    assert "godoty_refused_keys_total 100.0" in text.splitlines()
    assert not any("127.0.0.1" in each for each in text.splitlines())


async def test_missing_scope_is_not_a_wrong_key(serve: Start, connect: Connect, issue: Callable[..., str]) -> None:
    """A valid key without the scope does not throttle its source, however often it is tried."""
    service = await serve(wrong_key_lookups=0.1)
    caller = connect(service)
    billing = (("authorization", f"Bearer {issue(service, scopes=frozenset({Scope.BILLING}))}"),)

    for _ in range(30):
        assert (await _tried(caller, billing)).code is grpc.StatusCode.PERMISSION_DENIED
    assert (await _tried(caller, _wrong(1))).reason == "INVALID_API_KEY"
