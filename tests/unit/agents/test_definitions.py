import json
from decimal import Decimal

import pytest

from godoty_service.agents.codec import definition_from_text, definition_to_text
from godoty_service.agents.definitions import (
    AgentDefinition,
    AgentLimits,
    AgentReference,
    BuiltInTool,
    HistoryMode,
    HistorySettings,
    McpTools,
    ModelParameters,
    Override,
    Reasoning,
    ReasoningEffort,
)
from godoty_service.agents.server_tools import Domains, FetchEngine, SearchEngine, WebFetch, WebSearch

DEFAULTS = AgentDefinition(name="a", web_search=WebSearch(), web_fetch=WebFetch())
WHOLE = AgentDefinition(
    name="support",
    description="d",
    system_prompt="{{today}} ü",
    model="a/b",
    fallback_models=("c/d",),
    parameters=ModelParameters(
        temperature=0.0,
        top_p=0.25,
        max_output_tokens=7,
        reasoning=Reasoning(effort=ReasoningEffort.NONE),
        seed=0,
        stop=("END",),
        provider={"order": ["X"], "max_price": {"prompt": "0.10"}},
    ),
    tools=(BuiltInTool(name="calculator"), McpTools(server="orders", allow=("find",))),
    limits=AgentLimits(max_model_calls=2, max_output_tokens=3, max_cost=Decimal("0.0500")),
    history=HistorySettings(messages=12, mode=HistoryMode.SUMMARY),
    overridable=frozenset({Override.MODEL}),
    prompt_caching=True,
    web_search=WebSearch(
        engine=SearchEngine.EXA, max_uses=1, max_results=2, max_characters=300, domains=Domains(allowed=("a.example",))
    ),
    web_fetch=WebFetch(
        engine=FetchEngine.EXA, max_uses=1, max_content_tokens=900, domains=Domains(excluded=("b.example",))
    ),
)


@pytest.mark.parametrize(
    "definition", [WHOLE, DEFAULTS, AgentDefinition(name="a"), AgentDefinition(name="a", overridable=frozenset())]
)
def test_definition_survives_its_text(definition: AgentDefinition) -> None:
    """Every field, also 0, empty and none; the text is the same each time."""
    text = definition_to_text(definition)

    assert definition_from_text(definition.name, text) == definition
    assert definition_to_text(definition_from_text(definition.name, text)) == text


def test_what_only_a_later_build_knows_is_ignored() -> None:
    """Fields, tools, modes, efforts and overrides."""
    content = json.loads(definition_to_text(WHOLE))
    content |= {"later": {}, "tools": [{"later": "other"}, *content["tools"]]}
    content["parameters"] |= {"verbosity": 1, "reasoning": {"effort": "endless"}}
    content["history"] |= {"mode": "forked"}
    content["overridable"] += ["tools"]
    content["web_search"] |= {"engine": "later", "mode": "deep"}
    content["web_fetch"] |= {"engine": "later"}
    found = definition_from_text("support", json.dumps(content))

    assert (found.tools, found.overridable) == (WHOLE.tools, WHOLE.overridable)
    assert (found.history.mode, found.history.messages) == (None, 12)
    assert found.parameters.reasoning is None
    assert found.web_search is not None
    assert found.web_fetch is not None
    assert (found.web_search.engine, found.web_search.max_uses, found.web_fetch.engine) == (None, 1, None)


def test_parameters_are_overridden_one_by_one() -> None:
    """A value of 0 counts as set; an empty list does not."""
    own = ModelParameters(temperature=1.0, seed=3, stop=("a",), reasoning=Reasoning(max_tokens=9))
    by = ModelParameters(temperature=0.0, top_p=0.5, stop=())

    assert own.overridden(by) == ModelParameters(
        temperature=0.0, top_p=0.5, seed=3, stop=("a",), reasoning=Reasoning(max_tokens=9)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", AgentReference("a")), ("a@0", AgentReference("a", 0)), ("a@2147483647", AgentReference("a", 2**31 - 1))],
)
def test_reference_is_a_name_and_perhaps_a_version(text: str, expected: AgentReference) -> None:
    """As requests write it."""
    assert AgentReference.parse(text) == expected


@pytest.mark.parametrize("text", ["a@", "a@x", "a@-1", "a@1.0", "a@1@2", "a@2147483648", "a@\u0663", "a@" + "9" * 5000])
def test_version_that_is_no_number_is_refused(text: str) -> None:
    """Also one that is too large."""
    with pytest.raises(ValueError, match="not a version"):
        AgentReference.parse(text)
