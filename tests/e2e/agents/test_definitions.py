"""Definitions of agents: versions, what is refused, lists and deletion, by gRPC."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_pb2
from godoty.v1 import agent_service_pb2 as agent_service_pb

from tests.e2e.agents.conftest import INVALID, NOT_FOUND, Definer
from tests.support.caller import Caller, failure_of

WHOLE: dict[str, Any] = {
    "description": "Answers questions about orders.",
    "system_prompt": 'Today is {{today}}, {{user}}. Plan: {{ variables.plan }}. {"json": {{1}}}',
    "model": "openai/gpt-4o-mini",
    "fallback_models": ["openai/gpt-4o"],
    "parameters": {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_output_tokens": 300,
        "reasoning": {"effort": "REASONING_EFFORT_LOW"},
        "seed": 0,
        "stop": ["END"],
        "provider_json": '{"max_price": {"prompt": "1.5"}, "order": ["OpenAI"], "preferred_min_throughput": 2.5}',
    },
    "tools": [{"builtin": "current_time"}, {"builtin": "calculator"}],
    "limits": {"max_model_calls": 3, "max_output_tokens": 900, "max_cost_usd": "0.05"},
    "history": {"messages": 12, "mode": "HISTORY_MODE_SUMMARY"},
    "overridable": {"fields": ["AGENT_OVERRIDE_MODEL"]},
    "prompt_caching": True,
    "output_schema": '{"type":"object","properties":{"b":{"maximum":1.5},"a":{}},"required":["b"]}',
    "web_search": {
        "engine": "WEB_SEARCH_ENGINE_PARALLEL",
        "max_uses": 2,
        "max_results": 4,
        "max_characters": 300,
        "allowed_domains": ["example.com", "*.example.org"],
    },
    "web_fetch": {
        "engine": "WEB_FETCH_ENGINE_EXA",
        "max_uses": 1,
        "max_content_tokens": 900,
        "excluded_domains": ["example.com/private"],
    },
}


async def test_definition_comes_back_as_it_was_applied(definer: Definer) -> None:
    """Every field, also those of 0; by name, and by name and version; with who applied it, and when."""
    applied = await definer.apply(**WHOLE)

    assert applied.changed
    assert applied.agent_version == await definer.get() == await definer.get("support@1")
    assert applied.agent_version.definition == agent_pb2.AgentDefinition(name="support", **WHOLE)
    assert applied.agent_version.api_key_id == definer.key.split("_")[1]
    assert applied.agent_version.create_time.seconds > 1_700_000_000


async def test_definition_of_a_name_alone_has_no_other_fields(definer: Definer) -> None:
    """Defaults are not written into it."""
    assert (await definer.apply()).agent_version.definition == agent_pb2.AgentDefinition(name="support")


async def test_same_content_is_the_same_version(definer: Definer) -> None:
    """With any etag, so that a retry is harmless; another content is the next version, also one that was there."""
    first = await definer.apply(description="one")
    again = await definer.apply(description="one", etag="0-0")
    second = await definer.apply(description="two", etag=first.etag)
    third = await definer.apply(description="one", etag=second.etag)

    assert [each.agent_version.version for each in (first, again, second, third)] == [1, 1, 2, 3]
    assert [each.changed for each in (first, again, second, third)] == [True, False, True, True]
    assert again.etag == first.etag


async def test_fields_do_not_remain_from_the_version_before(definer: Definer) -> None:
    """A definition is whole."""
    await definer.apply(**WHOLE)
    await definer.apply(description="two")

    assert (await definer.get()).definition == agent_pb2.AgentDefinition(name="support", description="two")
    assert (await definer.get("support@1")).definition.model == "openai/gpt-4o-mini"


async def test_concurrent_applications_each_have_a_version(definer: Definer) -> None:
    """No number twice, no gap, and the newest is one of them."""
    applied = await asyncio.gather(*(definer.apply(description=f"number {each}") for each in range(8)))

    assert sorted(each.agent_version.version for each in applied) == list(range(1, 9))
    versions = (await definer.call("ListAgentVersions", agent="support")).agent_versions
    assert [each.version for each in versions] == list(range(8, 0, -1))
    assert {each.definition.description for each in versions} == {f"number {each}" for each in range(8)}
    assert await definer.get() == versions[0]


async def test_etag_of_another_state_is_refused(definer: Definer) -> None:
    """Of an older version, and of one before a deletion; the error has the present one."""
    first = await definer.apply(description="one")
    second = await definer.apply(description="two")
    failure = await failure_of(definer.apply(description="three", etag=first.etag))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert failure.metadata == {"etag": second.etag}
    assert (await failure_of(definer.call("DeleteAgent", agent="support", etag=first.etag))).reason == "ETAG_MISMATCH"
    await definer.call("DeleteAgent", agent="support", etag=second.etag)
    assert (await failure_of(definer.apply(description="three", etag=second.etag))).reason == "ETAG_MISMATCH"


async def test_unknown_model_is_refused(definer: Definer) -> None:
    """Also as a fallback; the error names the field."""
    for field, value in {"model": "openai/gpt-99", "fallback_models": ["openai/gpt-99"]}.items():
        fields: dict[str, Any] = {"model": "openai/gpt-4o-mini", field: value}
        failure = await failure_of(definer.apply(**fields))
        assert (failure.code, failure.reason) == (INVALID, "UNKNOWN_MODEL")
        assert list(failure.fields) == [f"definition.{field}"]
    assert (await failure_of(definer.get())).code is NOT_FOUND


@pytest.mark.parametrize("field", ["definition", "definition.tools[0]", "definition.parameters.reasoning"])
async def test_field_of_a_later_build_is_refused(definer: Definer, field: str) -> None:
    """The agent would not act as it is written; the error has the path of the message."""
    definition = agent_pb2.AgentDefinition(
        name="support", tools=[{"builtin": "calculator"}], parameters={"reasoning": {"max_tokens": 100}}
    )
    place: Any = {
        "definition": definition,
        "definition.tools[0]": definition.tools[0],
        "definition.parameters.reasoning": definition.parameters.reasoning,
    }[field]
    place.MergeFromString(b"\xfa\x3f\x02\x08\x01")  # the number 1023, of bytes
    request = pb.ApplyAgentRequest(definition=definition)
    metadata = (("authorization", f"Bearer {definer.key}"),)
    failure = await failure_of(definer.stub.ApplyAgent(request, metadata=metadata))

    assert (failure.code, list(failure.fields)) == (INVALID, [field])


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"builtin": "calculator"}, {"builtin": "calculator"}]}, "tools[1]"),
        ({"fallback_models": ["openai/gpt-4o"]}, "fallback_models"),
        ({"parameters": {"reasoning": {}}}, "parameters.reasoning"),
        ({"parameters": {"reasoning": {"effort": 1, "max_tokens": 1}}}, "parameters.reasoning"),
        ({"history": {"messages": 3}}, "history.messages"),
        ({"history": {"messages": 1001}}, "history.messages"),
        ({"system_prompt": "{{env.HOME}}"}, "system_prompt"),
    ],
)
async def test_definition_that_makes_no_sense_is_refused(definer: Definer, definition: Any, field: str) -> None:
    """What `tests/e2e/contract` cannot know: what fields must be together."""
    failure = await failure_of(definer.apply(**definition))

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [f"definition.{field}"])


async def test_size_of_a_whole_definition_is_limited(definer: Definer) -> None:
    """Its fields could have some MB together, which servers cache and pages would have."""
    patterns = ["x" * 128] * 100
    mcp = [{"mcp": {"mcp_server": "crm", "allow": [*patterns[:-1], str(number)]}} for number in range(21)]
    failure = await failure_of(definer.apply(tools=mcp))

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", ["definition"])


async def test_every_tenant_has_the_default_agent(definer: Definer) -> None:
    """Version 0 of `assistant` is the server's own, until one is applied, and again once that is deleted."""
    own = await definer.get("assistant")
    assert (own.version, own.api_key_id, own.HasField("create_time")) == (0, "", False)
    assert own.definition.system_prompt

    applied = await definer.apply("assistant", description="ours")
    assert (await definer.get("assistant")) == applied.agent_version
    assert applied.agent_version.version == 1
    versions = (await definer.call("ListAgentVersions", agent="assistant")).agent_versions
    assert [each.version for each in versions] == [1, 0]
    assert await definer.get("assistant@0") == own

    await definer.call("DeleteAgent", agent="assistant")
    assert await definer.get("assistant") == own
    etag = (await definer.call("GetAgent", agent="assistant")).etag
    assert (await definer.apply("assistant", description="again", etag=etag)).agent_version.version == 2
    await definer.call("DeleteAgent", agent="assistant")
    assert (await failure_of(definer.call("DeleteAgent", agent="assistant"))).reason == "AGENT_NOT_FOUND"


async def test_deleted_agent_is_hidden_and_its_versions_are_readable(definer: Definer) -> None:
    """Applied again, also with the same content, it is there again; its numbers go on."""
    first = await definer.apply(description="one")
    await definer.call("DeleteAgent", agent="support")

    assert (await failure_of(definer.get())).metadata == {"agent": "support"}
    assert await definer.get("support@1") == first.agent_version
    listed = (await definer.call("ListAgentDefinitions")).agent_versions
    assert [each.definition.name for each in listed] == ["assistant"]
    again = await definer.apply(description="one")
    assert (again.agent_version.version, again.changed) == (1, True)
    assert (await definer.apply(description="two")).agent_version.version == 2


async def test_lists_have_each_agent_in_its_place(definer: Definer, caller: Caller) -> None:
    """By name, page by page, with the server's own; ListAgents has names and descriptions alone."""
    for name in ("support", "a", "zebra", "assist", "b"):
        await definer.apply(name, description=f"{name} it is", system_prompt="secret")
    await definer.call("DeleteAgent", agent="b")
    expected = ["a", "assist", "assistant", "support", "zebra"]

    for size in (1, 2, 3, 500):
        names, token = [], ""
        while True:
            page = await definer.call("ListAgentDefinitions", page_size=size, page_token=token)
            names += [each.definition.name for each in page.agent_versions]
            if not (token := page.next_page_token):
                break
        assert names == expected, size
        shown: list[agent_pb2.AgentSummary] = []
        while True:
            request = agent_service_pb.ListAgentsRequest(page_size=size, page_token=token)
            page = await caller.call("ListAgents", request)
            shown += page.agents
            if not (token := page.next_page_token):
                break
        assert [each.name for each in shown] == expected
        assert "secret" not in str(shown)
    assert shown[-1] == agent_pb2.AgentSummary(name="zebra", description="zebra it is", version=1)


async def test_pages_of_long_prompts_are_bounded(definer: Definer) -> None:
    """40 versions with a prompt of 32,768 characters, most of them escaped in JSON: a page has about 1 MiB."""
    for number in range(40):
        await definer.apply(description=str(number), system_prompt="\n" * 32_768)
    sizes, numbers, token = [], [], ""
    while True:
        page = await definer.call("ListAgentVersions", agent="support", page_token=token)
        sizes.append(page.ByteSize())
        numbers += [each.version for each in page.agent_versions]
        if not (token := page.next_page_token):
            break

    assert numbers == list(range(40, 0, -1))
    assert len(sizes) == 2
    assert max(sizes) < 1_100_000


async def test_scope_agents_is_needed_and_is_no_other(
    definer: Definer, caller: Caller, other_tenant: Caller, define: Callable[[Caller], Definer]
) -> None:
    """A key of the scope converse applies nothing, one of the scope agents begins no turn; tenants see their own."""
    await definer.apply()
    theirs = define(other_tenant)
    metadata = caller.service.metadata
    failure = await failure_of(definer.stub.ListAgentDefinitions(pb.ListAgentDefinitionsRequest(), metadata=metadata))
    assert failure.metadata == {"scope": "agents"}
    as_agents = (("authorization", f"Bearer {definer.key}"),)
    request = agent_service_pb.ListAgentsRequest()
    assert (await failure_of(caller.stub.ListAgents(request, metadata=as_agents))).metadata == {"scope": "converse"}

    for call in (theirs.get(), theirs.get("support@1"), theirs.call("DeleteAgent", agent="support")):
        assert (await failure_of(call)).reason == "AGENT_NOT_FOUND"
    assert (await failure_of(theirs.call("ListAgentVersions", agent="support"))).reason == "AGENT_NOT_FOUND"


async def test_changes_are_recorded_before_they_are_made(definer: Definer) -> None:
    """By name and version, with their author, without prompts."""
    await definer.apply(system_prompt="secret", description="one")
    await definer.apply(system_prompt="secret", description="one")
    await definer.apply(description="two")
    await definer.call("DeleteAgent", agent="support")
    changes = list(definer.service.database["admin_changes"].find({"tenant_id": definer.service.tenant_id}).sort("_id"))

    assert [each["action"] for each in changes] == ["ApplyAgent", "ApplyAgent", "DeleteAgent"]
    assert {each["by"] for each in changes} == {definer.key.split("_")[1]}
    assert [json.loads(each["old"]) if each["old"] else None for each in changes] == [
        None,
        {"agent": "support", "version": 1, "deleted": False},
        {"agent": "support", "version": 2, "deleted": False},
    ]
    assert [json.loads(each["details"]) for each in changes] == [
        {"agent": "support", "version": 1, "deleted": False},
        {"agent": "support", "version": 2, "deleted": False},
        {"agent": "support", "version": 2, "deleted": True},
    ]
    assert "secret" not in str(changes)
