"""What the model calls of a turn's agents may still use together."""

import asyncio

import pytest
from strands.types.exceptions import MaxTokensReachedException

from godoty_service.openrouter.call_limits import CallLimits, ModelCallsSpent


def test_model_calls_count_for_all_callers() -> None:
    """The lowest limit holds; a repeated request is counted once."""
    turn = CallLimits(model_calls=3)
    first, second = CallLimits(model_calls=2, caller=turn), CallLimits(caller=turn)
    first.take_call()
    first.return_call()
    first.take_call()
    first.take_call()
    with pytest.raises(ModelCallsSpent):
        first.take_call()
    second.take_call()
    with pytest.raises(ModelCallsSpent):
        second.take_call()


async def test_request_waits_for_tokens_that_another_one_has_reserved() -> None:
    """What a request does not use is free again; without any left, and none reserved, there is an error."""
    turn = CallLimits(output_tokens=100)
    first = await turn.reserve()
    assert first.tokens == 100
    waiting = asyncio.create_task(CallLimits(output_tokens=60, caller=turn).reserve())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.lower(80)
    second = await waiting
    assert second.tokens == 20
    first.release(used=80)
    first.release(used=80)
    second.release(used=20)
    with pytest.raises(MaxTokensReachedException):
        await turn.reserve()


async def test_unlimited_tokens_are_not_reserved() -> None:
    """Two requests run at once."""
    limits = CallLimits()
    assert [(await limits.reserve()).tokens for _ in range(2)] == [None, None]
