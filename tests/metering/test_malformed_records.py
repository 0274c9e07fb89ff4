"""Whatever the provider sends as a generation record, each call ends by its patience and none stops the others."""

from collections.abc import Sequence
from datetime import timedelta

from godoty_service.ids import new_id
from godoty_service.metering.call import CallState, CostSource, ModelCall
from godoty_service.metering.reconciler import Outcome
from tests.metering.bookkeeper import Bookkeeper, calls, cancelled
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.metering.record_bodies import COST, stating_a_cost, stating_nothing
from tests.service.caller import Caller

CANCELLED = "@sandbox slow first_delay_ms=0 delay_ms=10 record_ms=0"


async def leave_calls(caller: Caller, keeper: Bookkeeper, bodies: Sequence[bytes]) -> list[str]:
    """Insert one pending call for each body and leave it to reconciliation; returns their ids."""
    template = await cancelled(caller, CANCELLED)
    records = caller.service.surroundings.sandbox.records
    left = []
    for number, body in enumerate(bodies, start=template.number + 1):
        call = _another(template, number)
        assert call.generation_id is not None
        records.replace_body(call.generation_id, body)
        await keeper.ledger.insert(call)
        await keeper.ledger.leave(call)
        left.append(call.call_id)
    return left


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


async def test_malformed_record_ends_its_call_by_patience_and_stops_no_other(
    calling: Serve, bookkeep: Bookkeep
) -> None:
    """Bodies that state no cost postpone their calls; after the patience these are unresolved, and others settle."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    bodies = stating_nothing()
    left = set(await leave_calls(caller, keeper, bodies))

    outcomes = await keeper.reconciler.tick()
    assert outcomes == {Outcome.SETTLED: 1, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: len(bodies)}
    keeper.ahead = timedelta(minutes=61)
    outcomes = await keeper.reconciler.tick()

    assert outcomes == {Outcome.SETTLED: 0, Outcome.UNRESOLVED: len(bodies), Outcome.POSTPONED: 0}
    ended = [each for each in calls(caller) if each.call_id in left]
    assert {(each.state, each.cost) for each in ended} == {(CallState.UNRESOLVED, None)}
    assert await keeper.differences() == []


async def test_stated_cost_is_booked_whatever_else_the_record_says(calling: Serve, bookkeep: Bookkeep) -> None:
    """A record with a valid cost settles its call at it, also where a name, a counter or a flag is malformed."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    bodies = stating_a_cost()
    left = set(await leave_calls(caller, keeper, bodies))

    outcomes = await keeper.reconciler.tick()

    assert outcomes == {Outcome.SETTLED: len(bodies) + 1, Outcome.UNRESOLVED: 0, Outcome.POSTPONED: 0}
    ended = [each for each in calls(caller) if each.call_id in left]
    assert {(each.state, each.cost, each.cost_source) for each in ended} == {
        (CallState.SETTLED, COST, CostSource.RECONCILED)
    }
    assert all(len(each.model) <= 256 for each in ended)
    assert await keeper.differences() == []


async def test_record_is_booked_once_it_is_well_formed(calling: Serve, bookkeep: Bookkeep) -> None:
    """A record that was malformed on its first two reads settles its call on the third."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    await cancelled(caller, f"{CANCELLED} record=deep record_reads=2")

    outcomes = []
    for _ in range(3):
        outcomes.append(await keeper.reconciler.tick())
        keeper.ahead += timedelta(seconds=1)

    assert [each[Outcome.POSTPONED] for each in outcomes] == [1, 1, 0]
    assert outcomes[2][Outcome.SETTLED] == 1
