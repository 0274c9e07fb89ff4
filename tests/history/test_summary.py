"""The history's window: what falls out of it is summed up, where the service is set so."""

from collections.abc import Callable

from tests.conftest import Start
from tests.service.caller import Caller
from tests.service.service import Service


async def test_what_falls_out_of_the_window_is_summed_up_once(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """The side call that a summary takes stands in the ledger and in the stream; the summary goes on to later turns."""
    caller = connect(await serve(history_messages=8, history_summary=True))
    calls = []
    for number in range(6):
        turn = await caller.converse(f"hello number {number}")
        calls.append(len(turn.calls))
        assert turn.finished.turn_totals.model_calls == len(turn.calls)

    totals = (await caller.metrics()).totals
    requests = caller.service.requests("talk")
    asked = [each for each in requests if "tools" in each]
    summaries = [each for each in requests if "tools" not in each]
    assert [1, 1, 1, 1, 2, 1] == calls
    assert sum(calls) == totals.model_calls
    assert 1 == len(summaries)
    assert "[Summarized:" in str(asked[-1]["messages"])
    assert len(asked[-1]["messages"]) <= 9
    assert 12 == len(await caller.messages())  # the conversation itself is kept whole


async def test_a_window_without_a_summary_is_the_newest_messages(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """The model sees no more than the window, which begins with the user's words; no call is spent on the rest."""
    caller = connect(await serve(history_messages=4))
    for number in range(5):
        await caller.converse(f"hello number {number}")

    last = caller.service.requests("talk")[-1]
    roles = [each["role"] for each in last["messages"]]
    assert ["system", "user", "assistant", "user", "assistant", "user"] == roles
    assert 5 == (await caller.metrics()).totals.model_calls
