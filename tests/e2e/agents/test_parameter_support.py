"""Turns of agents whose tools or parameters some providers of their model ignore."""

from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import turn_pb2 as turn_pb

from tests.e2e.agents.conftest import Definer
from tests.support.caller import Caller, Turn

# In the sandbox the first provider of both ignores tools; of the second model, the other one ignores seeds.
SOME_TOOLS, APART = "mistralai/mistral-large-2512", "mistralai/codestral-2508"
NO_SEED = "anthropic/claude-haiku-4.5"
TOOL = {"builtin": "calculator"}
REQUIRED = {"require_parameters": True}


async def calculate(caller: Caller, **fields: Any) -> Turn:
    """Run a turn in which the model calls the calculator, if it is offered it."""
    text = '@sandbox tool-loop calls=2 tool=calculator input=\'{"expression": "6*7"}\''
    return await caller.converse(text, agent="support", **fields)


def routings(caller: Caller) -> list[Any]:
    """Return the routing preferences of the session's requests."""
    return [each.get("provider") for each in caller.service.requests("talk")]


async def test_provider_that_ignores_tools_does_not_serve(definer: Definer, caller: Caller) -> None:
    """Another one does; without the requirement the agent would have no tools."""
    await definer.apply(model=SOME_TOOLS, tools=[TOOL])

    turn = await calculate(caller)

    assert [(each.name, each.errors) for each in turn.finished.tools] == [("calculator", 0)]
    assert routings(caller) == [REQUIRED, REQUIRED]
    assert {each.provider for each in caller.service.entries("talk")} == {"Together"}


@pytest.mark.parametrize(
    ("preferences", "sent"),
    [
        ('{"require_parameters": false}', {"require_parameters": False}),
        ('{"order": ["Mistral"]}', {"order": ["Mistral"]}),
        ('{"only": ["Mistral"]}', {"only": ["Mistral"]}),
    ],
)
async def test_choice_of_the_definition_holds(
    definer: Definer, caller: Caller, preferences: str, sent: dict[str, Any]
) -> None:
    """Of what providers must support, or of the providers themselves."""
    await definer.apply(model=SOME_TOOLS, tools=[TOOL], parameters={"provider_json": preferences})

    turn = await calculate(caller)

    assert not turn.finished.tools
    assert routings(caller) == [sent]
    assert [each.provider for each in caller.service.entries("talk")] == ["Mistral"]


async def test_choice_of_the_request_holds(definer: Definer, caller: Caller) -> None:
    """It replaces the definition's."""
    await definer.apply(model=SOME_TOOLS, tools=[TOOL])

    await calculate(caller, parameters={"provider_json": '{"require_parameters": false}'})

    assert routings(caller) == [{"require_parameters": False}]


async def test_choice_of_the_policy_holds(restricted: Callable[..., Any], define: Callable[[Caller], Definer]) -> None:
    """It is the operator's."""
    caller = await restricted(provider={"require_parameters": False, "sort": "price"})
    await define(caller).apply(model=SOME_TOOLS, tools=[TOOL])

    await calculate(caller)

    assert routings(caller) == [{"require_parameters": False, "sort": "price"}]


async def test_other_preferences_remain(definer: Definer, caller: Caller) -> None:
    """The requirement stands beside them, and beside the bound of the price under a limit on costs."""
    await definer.apply(model=SOME_TOOLS, tools=[TOOL], parameters={"provider_json": '{"ignore": ["Groq"]}'})

    await calculate(caller, limits={"max_cost_usd": "1"})

    first, _ = routings(caller)
    assert first.keys() == {"ignore", "max_price", "require_parameters"}


async def test_requirement_that_leaves_no_provider_is_given_up(definer: Definer, caller: Caller) -> None:
    """The turn goes on as without it, in later calls as well; the refused request is free, and in the ledger."""
    await definer.apply(model=APART, tools=[TOOL], parameters={"seed": 1})

    turn = await calculate(caller)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert routings(caller) == [REQUIRED, None]
    entries = caller.service.entries("talk")
    assert [(each.attempt, each.error, each.provider) for each in entries] == [
        (1, "model_unavailable", None),
        (2, None, "Mistral"),
    ]
    assert entries[0].cost == 0
    assert caller.service.invoiced("talk") == entries[1].cost


async def test_requirement_of_the_definition_is_not_given_up(definer: Definer, caller: Caller) -> None:
    """It says itself that no other provider may serve."""
    await definer.apply(
        model=APART, tools=[TOOL], parameters={"seed": 1, "provider_json": '{"require_parameters": true}'}
    )

    turn = await calculate(caller)

    assert turn.failure is not None
    assert turn.failure.reason == "MODEL_UNAVAILABLE"
    assert routings(caller) == [REQUIRED]


@pytest.mark.parametrize(
    ("definition", "required"),
    [
        ({"model": SOME_TOOLS, "parameters": {"stop": ["END"]}}, True),
        ({"model": SOME_TOOLS, "parameters": {"seed": 1, "temperature": 0.5}}, False),
        ({"model": NO_SEED, "tools": [TOOL]}, True),
        ({"model": NO_SEED, "tools": [TOOL], "parameters": {"seed": 1}}, False),  # none of its providers has seeds
        ({"model": SOME_TOOLS, "fallback_models": [NO_SEED], "tools": [TOOL], "parameters": {"seed": 1}}, False),
    ],
)
async def test_support_is_required_where_the_answer_depends_on_it(
    definer: Definer,
    caller: Caller,
    definition: dict[str, Any],
    required: bool,  # noqa: FBT001 - a case
) -> None:
    """By tools and stop texts, if the model and its fallbacks support all parameters of the request."""
    await definer.apply(**definition)

    await caller.converse("hello", agent="support")

    assert routings(caller) == [REQUIRED if required else None]
