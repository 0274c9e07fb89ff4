"""Definitions and the override that the first builds did not have."""

import json
from itertools import combinations

from godoty_service.agents.codec import definition_from_text, definition_to_text
from godoty_service.agents.definitions import AgentDefinition, Override

FIRST = {Override.MODEL, Override.FALLBACK_MODELS, Override.PARAMETERS}


def test_default_is_written_as_the_first_builds_wrote_it() -> None:
    """So that the same definition is the same version after an upgrade."""
    content = json.loads(definition_to_text(AgentDefinition(name="a")))

    assert content["overridable"] == ["fallback_models", "model", "parameters"]
    assert not {"output_schema", "output_schema_overridable"} & content.keys()


def test_lists_of_the_first_builds_are_read() -> None:
    """All three stood for all; a shorter list is what may be replaced, and nothing else."""
    for count in range(4):
        for some in combinations(sorted(FIRST), count):
            text = definition_to_text(AgentDefinition(name="a"))
            content = json.loads(text) | {"overridable": list(some)}
            found = definition_from_text("a", json.dumps(content)).overridable

            assert found == (frozenset(Override) if len(some) == 3 else frozenset(some))


def test_every_list_is_read_as_it_was_written() -> None:
    """With the schema among the fields, and without."""
    for count in range(len(Override) + 1):
        for some in combinations(sorted(Override), count):
            definition = AgentDefinition(name="a", overridable=frozenset(some), output_schema='{"type":"object"}')

            assert definition_from_text("a", definition_to_text(definition)) == definition
