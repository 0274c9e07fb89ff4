"""Policies, by gRPC: stored exactly, checked field by field, in force on all servers within seconds."""

import json
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.mongo.client import open_database
from godoty_service.pricing.money import format_usd
from godoty_service.rpc import admin_codec
from godoty_service.tenancy.policies import NO_POLICY, Policies, Policy
from godoty_service.tenancy.routing import read_preferences
from tests.e2e.admin.conftest import Admin

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DAY, MONTH, TOTAL = budget_pb2.BUDGET_WINDOW_DAY, budget_pb2.BUDGET_WINDOW_MONTH, budget_pb2.BUDGET_WINDOW_TOTAL
FULL = pb.Policy(
    allowed_models=["openai/*", "anthropic/claude-*"],
    default_model="openai/gpt-4o-mini",
    default_fallback_models=["openai/gpt-4o"],
    max_output_tokens=1000,
    turns_per_minute=60,
    concurrent_turns=5,
    provider_json='{"order": ["openai", "deepinfra/fp8"], "allow_fallbacks": false, "max_price": {"prompt": "2.50"}}',
    zero_data_retention=True,
    budgets=[
        budget_pb2.Budget(window=DAY, limit_usd="0.0000000000000000000000001", hard=True),
        budget_pb2.Budget(window=MONTH, limit_usd="999999.9999999999999999999999999"),
        budget_pb2.Budget(window=TOTAL, limit_usd="12.5"),
    ],
)


async def test_policy_is_stored_as_it_was_set(admin: Admin) -> None:
    """All of it, to the last decimal; without a policy there are no limits."""
    tenant_id = await admin.tenant()
    none = await admin.call("GetPolicy", tenant_id=tenant_id)
    answer = await admin.call("SetPolicy", tenant_id=tenant_id, policy=FULL)
    kept = await admin.call("GetPolicy", tenant_id=tenant_id)

    assert (none.policy, none.has_provider_key) == (pb.Policy(), False)
    assert answer.policy == kept.policy == FULL


async def test_new_policy_replaces_the_whole_old_one(admin: Admin) -> None:
    """A field that it omits has no limit any more."""
    tenant_id = await admin.tenant()
    await admin.call("SetPolicy", tenant_id=tenant_id, policy=FULL)
    await admin.call("SetPolicy", tenant_id=tenant_id, policy=pb.Policy(turns_per_minute=1))
    assert (await admin.call("GetPolicy", tenant_id=tenant_id)).policy == pb.Policy(turns_per_minute=1)

    await admin.call("SetPolicy", tenant_id=tenant_id, policy=pb.Policy())
    assert (await admin.call("GetPolicy", tenant_id=tenant_id)).policy == pb.Policy()


async def test_policy_is_in_force_on_another_server_within_3_seconds(admin: Admin) -> None:
    """A server that has just cached the old one reads the new one in time."""
    now = 100.0
    tenant_id = await admin.tenant()
    deployment = admin.service.deployment
    database = open_database(uri=deployment.backends.mongodb_uri, name=deployment.database.name)
    elsewhere = Policies(database.collection("policies"), tick=lambda: now)
    assert await elsewhere.get(tenant_id) == NO_POLICY

    await admin.call("SetPolicy", tenant_id=tenant_id, policy=FULL)
    now += 3.0
    found = await elsewhere.get(tenant_id)
    await database.close()

    assert [budget.limit for budget in found.budgets][:1] == [Decimal("0.0000000000000000000000001")]
    assert found.provider == json.loads(FULL.provider_json)
    assert found.allows("openai/gpt-4o")
    assert not found.allows("google/gemini")


FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("policy.allowed_models", {"allowed_models": [""]}),
    ("policy.allowed_models", {"allowed_models": ["openai/[a-z]"]}),
    ("policy.allowed_models", {"allowed_models": ["openai/gpt?"]}),
    ("policy.allowed_models", {"allowed_models": ["оpenai/*"]}),  # noqa: RUF001 - its first letter is Cyrillic
    ("policy.allowed_models", {"allowed_models": ["a"] * 101}),
    ("policy.default_model", {"default_model": "openai/*"}),
    ("policy.default_model", {"default_model": "openai/gpt-4o", "allowed_models": ["anthropic/*"]}),
    ("policy.default_fallback_models", {"default_fallback_models": ["openai/gpt-4o"]}),
    (
        "policy.default_fallback_models",
        {"default_model": "openai/gpt-4o", "default_fallback_models": ["openai/gpt-4o"] * 9},
    ),
    ("policy.max_output_tokens", {"max_output_tokens": -1}),
    ("policy.turns_per_minute", {"turns_per_minute": -(2**31)}),
    ("policy.concurrent_turns", {"concurrent_turns": -5}),
    ("policy.provider_json", {"provider_json": "[]"}),
    ("policy.provider_json", {"provider_json": "{"}),
    ("policy.provider_json", {"provider_json": '{"$where": "1"}'}),
    ("policy.provider_json", {"provider_json": '{"zdr": "yes"}'}),
    ("policy.provider_json", {"provider_json": '{"order": "openai"}'}),
    ("policy.provider_json", {"provider_json": '{"order": ["\\ud800"]}'}),
    ("policy.provider_json", {"provider_json": '{"max_price": {"prompt": -1}}'}),
    ("policy.provider_json", {"provider_json": '{"max_price": {"prompt": 1e999}}'}),
    ("policy.provider_json", {"provider_json": '{"preferred_min_throughput": NaN}'}),
    ("policy.provider_json", {"provider_json": '{"sort": "cheapest"}'}),
    ("policy.provider_json", {"provider_json": "[" * 8000}),
    ("policy.provider_json", {"provider_json": '{"order": ["' + "x" * 8192 + '"]}'}),
    ("policy.budgets[0].window", {"budgets": [budget_pb2.Budget(limit_usd="1")]}),
    ("policy.budgets[0].window", {"budgets": [budget_pb2.Budget.FromString(b"\x08\x63\x12\x011")]}),
    ("policy.budgets[1].window", {"budgets": [budget_pb2.Budget(window=DAY, limit_usd="1")] * 2}),
    *(
        ("policy.budgets[0].limit_usd", {"budgets": [budget_pb2.Budget(window=DAY, limit_usd=limit)]})
        for limit in ("", "0", "0.0", "-1", "+1", "1e3", "NaN", "Infinity", " 1", "1,5", "1.", ".5", "１")  # noqa: RUF001 - no ASCII digit
    ),
    ("policy.budgets[0].limit_usd", {"budgets": [budget_pb2.Budget(window=DAY, limit_usd="1000000.1")]}),
    (
        "policy.budgets[0].limit_usd",
        {"budgets": [budget_pb2.Budget(window=DAY, limit_usd="0.00000000000000000000000001")]},
    ),
]


@pytest.mark.parametrize(("field", "fields"), FIELDS, ids=range(len(FIELDS)))
async def test_invalid_field_is_named_and_nothing_changes(admin: Admin, field: str, fields: dict[str, Any]) -> None:
    """INVALID_ARGUMENT with the field; the policy stays, and nothing is recorded."""
    tenant_id = admin.service.tenant_id
    failure = await admin.refused("SetPolicy", tenant_id=tenant_id, policy=pb.Policy(**fields))

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [field])
    assert (await admin.call("GetPolicy", tenant_id=tenant_id)).policy == pb.Policy()
    assert await admin.changes(tenant_id) == []


async def test_all_invalid_fields_are_named_in_one_error(admin: Admin) -> None:
    """Each invalid field, and a missing policy."""
    bad = pb.Policy(max_output_tokens=-1, provider_json="x", budgets=[budget_pb2.Budget()], allowed_models=["?"])
    failure = await admin.refused("SetPolicy", policy=bad)
    missing = await admin.refused("SetPolicy", tenant_id="tnt")

    assert set(failure.fields) == {
        "tenant_id",
        "policy.max_output_tokens",
        "policy.provider_json",
        "policy.allowed_models",
        "policy.budgets[0].window",
        "policy.budgets[0].limit_usd",
    }
    assert list(missing.fields) == ["policy"]


@pytest.mark.parametrize("fields", [{"default_model": "openai/gpt-99"}, {"default_fallback_models": ["openai/gpt-99"]}])
async def test_unknown_default_model_is_refused(admin: Admin, fields: dict[str, Any]) -> None:
    """UNKNOWN_MODEL, with the model and the field."""
    policy = pb.Policy(**{"default_model": "openai/gpt-4o", **fields})
    failure = await admin.refused("SetPolicy", tenant_id=admin.service.tenant_id, policy=policy)

    assert (failure.code, failure.reason) == (INVALID, "UNKNOWN_MODEL")
    assert failure.metadata == {"model": "openai/gpt-99"}
    assert list(failure.fields) == [f"policy.{next(iter(fields))}"]


@given(
    st.text(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["order", "sort", "max_price", "prompt", "p50", "zdr", "$ne", "a.b"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ).map(json.dumps)
)
def test_any_preferences_are_accepted_or_refused(text: str) -> None:
    """Never another error; accepted preferences can be sent to the provider unchanged."""
    try:
        found = read_preferences(text)
    except ValueError:
        return
    assert found is None or read_preferences(json.dumps(found, allow_nan=False)) == found


@given(limit=st.decimals(min_value="0.0000000000000000000000001", max_value="1000000", places=25, allow_nan=False))
def test_each_limit_is_stored_exactly(limit: Decimal) -> None:
    """A limit of 25 decimals is unchanged."""
    request = pb.SetPolicyRequest(
        tenant_id="t", policy=pb.Policy(budgets=[budget_pb2.Budget(window=DAY, limit_usd=format_usd(limit))])
    )
    _, policy = admin_codec.parse_policy(request, catalogue=None)

    assert isinstance(policy, Policy)
    assert policy.budgets[0].limit == limit
