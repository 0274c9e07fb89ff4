"""Encrypted and signed reasoning is sent to the model that produced it, and to no other."""

from typing import Any

from tests.support.caller import Caller

FIRST, OTHER = "openai/gpt-5-mini", "anthropic/claude-haiku-4.5"
THINKING = "@sandbox reasoning reasoning=4 encrypted=1"


def _details(caller: Caller) -> list[list[dict[str, Any]]]:
    """Return the reasoning in the last request, by assistant message."""
    messages = caller.service.requests("talk")[-1]["messages"]
    return [each.get("reasoning_details", []) for each in messages if each["role"] == "assistant"]


async def test_reasoning_of_another_model_is_not_sent(caller: Caller) -> None:
    """After a switch the next request has the text alone; back at the first model its reasoning is sent again."""
    await caller.converse(THINKING, model=FIRST)
    await caller.converse("same model")
    same = _details(caller)
    await caller.converse(THINKING, model=OTHER)
    switched = _details(caller)
    await caller.converse("and back", model=FIRST)
    back = _details(caller)

    assert any(each["type"] == "reasoning.encrypted" for each in same[0])
    assert switched == [[], []]
    assert (back[0], back[2]) == (same[0], [])


async def test_reasoning_of_fallback_is_not_sent_to_requested_model(caller: Caller) -> None:
    """A fallback's reasoning is not sent to the model that was requested."""
    await caller.converse(f"{THINKING} skip=1", model=FIRST, fallback_models=[OTHER])
    await caller.converse("and now?", model=FIRST)

    assert _details(caller) == [[]]
