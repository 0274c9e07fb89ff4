"""With any malformed generation record, its call ends at its timeout and does not stop the others."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from godoty_service.ids import new_id
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.metering.generation_record import decode_record
from godoty_service.metering.reconciler import Outcome
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, calls, cancelled
from tests.e2e.metering.record_bodies import COST, stating_a_cost, stating_a_cost_beside_wrong_fields, stating_nothing
from tests.support.caller import Caller
from tests.support.service import Service

SESSIONS = 6
Connect = Callable[[Service], Caller]
CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=0"


async def defer_calls(caller: Caller, harness: ReconcilerHarness, bodies: Sequence[bytes]) -> list[str]:
    """Insert one pending call for each body and defer it to reconciliation; return their ids."""
    template = await cancelled(caller, CANCELLED)
    records = caller.service.backends.sandbox.records

    async def defer(number: int, body: bytes) -> str:
        call = _another(template, number)
        assert call.generation_id is not None
        records.replace_body(call.generation_id, body)
        await harness.ledger.insert(call)
        assert await harness.ledger.defer(call)
        return call.call_id

    numbered = enumerate(bodies, start=template.number + 1)
    return await asyncio.gather(*(defer(*each) for each in numbered))


def in_sessions(caller: Caller, connect: Connect) -> list[Caller]:
    """Return callers of as many sessions: the sums of one are read again with each of its calls that closes."""
    return [caller, *(connect(caller.service.another_tenant()) for _ in range(SESSIONS - 1))]


async def defer_among(callers: Sequence[Caller], harness: ReconcilerHarness, bodies: Sequence[bytes]) -> set[str]:
    """Defer one call for each body, spread over sessions; return their ids."""
    found = [await defer_calls(each, harness, bodies[place::SESSIONS]) for place, each in enumerate(callers)]
    return {call_id for ids in found for call_id in ids}


def _another(call: ModelCall, number: int) -> ModelCall:
    values = {name: getattr(call, name) for name in ("tenant_id", "session_uid", "session_id", "turn_id")}
    return ModelCall(
        **values,
        call_id=new_id("call"),
        number=number,
        state=CallState.PENDING,
        requested_model=call.requested_model,
        generation_id=new_id("gen"),
        provider_key_id=call.provider_key_id,
        upper_bound=call.upper_bound,
        evidence=call.evidence,
        start_time=call.start_time,
        agent=call.agent,
        owner=call.owner,
    )


async def test_malformed_record_ends_its_call_at_the_timeout(
    start_caller: StartCaller, start_harness: StartHarness, connect: Connect
) -> None:
    """Bodies without a cost postpone their calls; after the timeout these are unresolved, and others settle."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    bodies = stating_nothing()
    callers = in_sessions(caller, connect)
    deferred = await defer_among(callers, harness, bodies)

    outcomes = await harness.reconciler.tick()
    assert outcomes == {Outcome.SETTLED: SESSIONS, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: len(bodies)}
    harness.ahead = timedelta(minutes=61)
    outcomes = await harness.reconciler.tick()

    assert outcomes == {Outcome.SETTLED: 0, Outcome.UNRESOLVED: len(bodies), Outcome.POSTPONED: 0}
    ended = [each for caller in callers for each in calls(caller) if each.call_id in deferred]
    assert len(ended) == len(bodies)
    assert {(each.state, each.cost) for each in ended} == {(CallState.UNRESOLVED, None)}
    assert await harness.differences() == []


async def test_stated_cost_settles_despite_other_malformed_fields(
    start_caller: StartCaller, start_harness: StartHarness, connect: Connect
) -> None:
    """A record with a valid cost settles its call, even if a name, a counter or a flag is malformed, or half of them.

    Each of them with each wrong value is decoded; of those with one wrong field, one a field is reconciled.
    """
    single = stating_a_cost()
    decoded = [decode_record(body) for body in single]
    assert {each.charge.cost for each in decoded} == {COST}
    assert all(len(name or "") <= 256 for each in decoded for name in (each.model, each.provider, each.finish_reason))
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    bodies = [*stating_a_cost_beside_wrong_fields(), *single[:: len(single) // 12 + 1]]
    callers = in_sessions(caller, connect)
    deferred = await defer_among(callers, harness, bodies)

    outcomes = await harness.reconciler.tick()

    assert outcomes == {Outcome.SETTLED: len(bodies) + SESSIONS, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: 0}
    ended = [each for caller in callers for each in calls(caller) if each.call_id in deferred]
    assert len(ended) == len(bodies)
    assert {(each.state, each.cost, each.cost_source) for each in ended} == {
        (CallState.SETTLED, COST, CostSource.RECONCILED)
    }
    assert all(len(each.model) <= 256 for each in ended)
    assert await harness.differences() == []


async def test_call_settles_once_its_record_is_well_formed(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A record that was malformed on its first two reads settles its call on the third."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    await cancelled(caller, f"{CANCELLED} record=deep record_reads=2")

    outcomes = []
    for _ in range(3):
        outcomes.append(await harness.reconciler.tick())
        harness.ahead += timedelta(seconds=1)

    assert [each[Outcome.POSTPONED] for each in outcomes] == [1, 1, 0]
    assert outcomes[2][Outcome.SETTLED] == 1
