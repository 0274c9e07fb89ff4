"""Whatever a provider answered, what the session keeps can be sent again: by the schema, and by strict providers.

60 answers; GODOTY_TEST_LONG=1 takes 2,000. GODOTY_TEST_SEED=n takes the same ones again.
"""

import json
from typing import Any

import grpc
import jsonschema
import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.openrouter.portable import Portable
from godoty_service.sandbox.conversation import Conversation
from godoty_service.sandbox.strictness import check
from tests.answers.gateway import DATA, SAID, Gateway, response
from tests.fuzz.test_mutated_answers import SEED, Mutator
from tests.service.caller import Caller

SHORT, LONG = 60, 2_000
SCHEMA = jsonschema.Draft202012Validator(json.loads((DATA / "openapi" / "chat_request.json").read_text()))
MISTRAL = "mistralai/mistral-medium-3.1"


def check_request(request: dict[str, Any]) -> None:
    """Check a request by OpenRouter's schema, and by the rules of three providers."""
    SCHEMA.validate(request)
    check(Conversation(request), "openai,anthropic")
    check(Conversation({"messages": Portable((MISTRAL,)).messages(request["messages"])}), "mistral")


def _reply(mutator: Mutator) -> bytes:
    data = mutator.input()
    return response(data, "application/json" if data.lstrip()[:1] == b"{" else "text/event-stream")


async def _one(caller: Caller, gateway: Gateway, mutator: Mutator, number: int) -> None:
    """Take a turn whose first answer is mutated, and the turn after it."""
    session_id = f"s{number}"
    gateway.replies = [SAID] * len(gateway.requests) + [_reply(mutator), SAID]
    first = await caller.converse("hi", session_id=session_id)
    assert first.failure is None or first.failure.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    turn = await caller.converse("and now?", session_id=session_id)
    assert turn.failure is None, turn.failure
    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    check_request(gateway.requests[-1])


async def _many(begin: Any, number: int) -> None:
    caller, gateway = await begin(SAID)
    mutator = Mutator(SEED)
    for place in range(number):
        try:
            await _one(caller, gateway, mutator, place)
        except BaseException:
            print(f"GODOTY_TEST_SEED={SEED}, answer {place}")  # noqa: T201 - how to take it again
            raise


async def test_session_goes_on_after_any_answer(begin: Any) -> None:
    """No answer is INTERNAL, and the turn after it is served: its request is one that every provider takes."""
    await _many(begin, SHORT)


@pytest.mark.long
async def test_session_goes_on_after_many_answers(begin: Any) -> None:
    """The same, for long."""
    await _many(begin, LONG)
