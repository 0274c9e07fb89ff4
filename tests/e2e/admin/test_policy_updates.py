"""Changes of single fields of a policy: masks, etags, concurrent changes, and limits of 0."""

import asyncio
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import tenant_pb2

from godoty_service.bootstrap.components import open_components
from godoty_service.tenancy.errors import EtagMismatch
from godoty_service.tenancy.lifecycle import NewTenant
from godoty_service.tenancy.policies import Policies, Policy, PolicyChange
from tests.e2e.admin.conftest import Admin, full_policy, without_etag
from tests.support.backends import ME
from tests.support.caller import Caller, failure_of
from tests.support.service import Service, eventually

ABORTED, INVALID = grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED, DENIED = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED
FULL = full_policy()


async def update(admin: Admin, policy: tenant_pb2.Policy, *paths: str, **fields: Any) -> tenant_pb2.Policy:
    """Change the policy of the administrator's tenant; without paths the mask is unset."""
    mask = {"update_mask": {"paths": paths}} if paths else {}
    answer = await admin.call("UpdatePolicy", tenant_id=admin.service.tenant_id, policy=policy, **mask, **fields)
    found: tenant_pb2.Policy = answer.policy
    return found


def changed(**fields: Any) -> tenant_pb2.Policy:
    """Return the full policy with other values; None: unset."""
    policy = without_etag(FULL)
    for name, value in fields.items():
        policy.ClearField(name)
        if value is not None:
            policy.MergeFrom(tenant_pb2.Policy(**{name: value}))
    return policy


NAMES = [each.name for each in tenant_pb2.Policy.DESCRIPTOR.fields if each.name != "etag"]


@pytest.mark.parametrize("name", NAMES)
async def test_mask_changes_its_field_alone(admin: Admin, name: str) -> None:
    """To the value in the policy, or to unset if that has none; other fields that the policy sets are ignored."""
    await update(admin, FULL, "*")
    ignored = tenant_pb2.Policy(default_model="openai/gpt-4o", max_output_tokens=7, turns_per_minute=8)
    ignored.ClearField(name)
    needed_by_fallbacks = name == "default_model"
    if needed_by_fallbacks:
        await update(admin, tenant_pb2.Policy(), "default_fallback_models")
    unset = await update(admin, ignored, name)

    expected = changed(**{name: None})
    if needed_by_fallbacks:
        expected.ClearField("default_fallback_models")
    assert without_etag(unset) == expected
    restored = await update(admin, FULL, name)
    expected.MergeFrom(tenant_pb2.Policy(**{name: getattr(FULL, name)}))
    assert without_etag(restored) == expected == await admin.policy(admin.service.tenant_id)


async def test_without_a_mask_the_fields_that_are_set_change(admin: Admin) -> None:
    """A field set to its empty value changes, too; an empty list is not set; what is not set stays."""
    await update(admin, FULL, "*")
    given = tenant_pb2.Policy(max_output_tokens=0, zero_data_retention=False, default_model="openai/gpt-4o")
    found = await update(admin, given)

    expected = changed(max_output_tokens=0, zero_data_retention=None, default_model="openai/gpt-4o")
    assert without_etag(found) == expected


async def test_all_fields_change_by_an_asterisk(admin: Admin) -> None:
    """Also beside other paths; the mask of a policy without any field unsets all."""
    await update(admin, FULL, "*")
    found = await update(admin, tenant_pb2.Policy(concurrent_turns=1), "budgets", "*")
    assert without_etag(found) == tenant_pb2.Policy(concurrent_turns=1)
    assert without_etag(await update(admin, tenant_pb2.Policy(), "*")) == tenant_pb2.Policy()


@pytest.mark.parametrize(
    "path",
    ["", "etag", "turns", "policy.budgets", "budgets.limit_usd", "budgets[0]", "**", "provider", "maxOutputTokens"],
)
async def test_unknown_path_is_named_and_nothing_changes(admin: Admin, path: str) -> None:
    """No field, an output-only field, a part of a field, or a name that is not the contract's."""
    tenant_id = admin.service.tenant_id
    mask = {"paths": ["turns_per_minute", path]}
    failure = await admin.refused("UpdatePolicy", tenant_id=tenant_id, policy=FULL, update_mask=mask)

    assert (failure.code, failure.reason) == (INVALID, "INVALID_FIELD")
    assert list(failure.fields) == ["update_mask.paths[1]"]
    assert path in failure.fields["update_mask.paths[1]"]
    assert await admin.policy(tenant_id) == tenant_pb2.Policy()


@pytest.mark.parametrize("fields", [{"update_mask": {}}, {}])
async def test_change_of_no_field_is_refused(admin: Admin, fields: dict[str, Any]) -> None:
    """An empty mask, and no mask beside a policy without fields: it would unset nothing, which looks like success."""
    failure = await admin.refused(
        "UpdatePolicy", tenant_id=admin.service.tenant_id, policy=tenant_pb2.Policy(), **fields
    )
    assert (failure.code, list(failure.fields)) == (INVALID, ["update_mask"])


async def test_stale_etag_is_refused_and_an_empty_one_overwrites(admin: Admin) -> None:
    """Each change has a new etag, also one to an earlier value; the refusal names the present one."""
    tenant_id = admin.service.tenant_id
    read = (await admin.call("GetPolicy", tenant_id=tenant_id)).policy
    one = await update(admin, tenant_pb2.Policy(turns_per_minute=1), etag=read.etag)
    two = await update(admin, tenant_pb2.Policy(turns_per_minute=2), etag=one.etag)
    again = await update(admin, tenant_pb2.Policy(turns_per_minute=1))
    assert len({read.etag, one.etag, two.etag, again.etag}) == 4

    for stale in (read.etag, one.etag, two.etag, "x"):
        failure = await admin.refused(
            "UpdatePolicy", tenant_id=tenant_id, policy=tenant_pb2.Policy(concurrent_turns=9), etag=stale
        )
        assert (failure.code, failure.reason, failure.metadata) == (ABORTED, "ETAG_MISMATCH", {"etag": again.etag})
    kept = (await admin.call("GetPolicy", tenant_id=tenant_id)).policy
    assert kept == again
    assert [action for _, action, _ in await admin.changes(tenant_id)] == ["UpdatePolicy"] * 3


async def test_first_policy_is_set_by_one_of_two(admin: Admin) -> None:
    """A tenant without a policy has an etag, too: of two changes that are based on it, one is made."""
    tenant_id = await admin.tenant()
    etag = (await admin.call("GetPolicy", tenant_id=tenant_id)).policy.etag
    attempts = await asyncio.gather(
        *(
            admin.call("UpdatePolicy", tenant_id=tenant_id, policy=tenant_pb2.Policy(turns_per_minute=n), etag=etag)
            for n in range(2)
        ),
        return_exceptions=True,
    )
    (refused,) = [each for each in attempts if isinstance(each, grpc.aio.AioRpcError)]
    assert refused.code() is ABORTED


async def test_concurrent_changes_of_different_fields_are_all_made(admin: Admin) -> None:
    """Administrators change a field each, on a tenant that had no policy: none loses another's value."""
    tenant_id = await admin.tenant()

    async def change(name: str, values: range) -> None:
        for value in values:
            fields: dict[str, Any] = {name: value}
            await admin.call("UpdatePolicy", tenant_id=tenant_id, policy=tenant_pb2.Policy(**fields))

    names = ("max_output_tokens", "turns_per_minute", "concurrent_turns")
    await asyncio.gather(*(change(name, range(1, 9)) for name in names))

    expected: dict[str, Any] = dict.fromkeys(names, 8)
    assert await admin.policy(tenant_id) == tenant_pb2.Policy(**expected)


async def test_change_of_an_earlier_build_makes_an_etag_stale(admin: Admin) -> None:
    """During a rolling upgrade: a server of the build before replaces the values and counts no revision."""
    read = await update(admin, tenant_pb2.Policy(turns_per_minute=1))
    admin.service.database["policies"].update_one(
        {"_id": admin.service.tenant_id}, {"$set": {"turns_per_minute": None, "concurrent_turns": 3}}
    )
    failure = await admin.refused(
        "UpdatePolicy", tenant_id=admin.service.tenant_id, policy=tenant_pb2.Policy(turns_per_minute=2), etag=read.etag
    )
    assert failure.reason == "ETAG_MISMATCH"
    assert await admin.policy(admin.service.tenant_id) == tenant_pb2.Policy(concurrent_turns=3)


async def test_zero_in_a_document_of_an_earlier_build_sets_no_bound(caller: Caller, admin: Admin) -> None:
    """There 0 and None both meant no limit; a change of another field leaves that as it is."""
    tenant_id = caller.service.tenant_id
    await update(admin, tenant_pb2.Policy(allowed_models=["openai/*"]))
    zeros = {"max_output_tokens": 0, "turns_per_minute": 0, "concurrent_turns": None}
    caller.service.database["policies"].update_one({"_id": tenant_id}, {"$set": zeros, "$unset": {"revision": ""}})

    assert await admin.policy(tenant_id) == tenant_pb2.Policy(allowed_models=["openai/*"])
    found = await update(admin, tenant_pb2.Policy(concurrent_turns=4))
    assert without_etag(found) == tenant_pb2.Policy(allowed_models=["openai/*"], concurrent_turns=4)
    assert await eventually(lambda: _served(caller))


async def _served(caller: Caller) -> bool:
    return (await caller.converse("hello")).failure is None


ZEROS = [
    ({"turns_per_minute": 0}, EXHAUSTED, "RATE_LIMITED", ("turns/minute",)),
    ({"concurrent_turns": 0}, EXHAUSTED, "TOO_MANY_TURNS", ("turns/concurrent",)),
    ({"max_output_tokens": 0}, DENIED, "OUTPUT_NOT_ALLOWED", ()),
]


@pytest.mark.parametrize("request_id", ["", "order-7"])
@pytest.mark.parametrize(("fields", "code", "reason", "quotas"), ZEROS, ids=[next(iter(each[0])) for each in ZEROS])
async def test_limit_of_zero_refuses_before_anything_happens(
    caller: Caller,
    admin: Admin,
    *,
    fields: dict[str, Any],
    code: grpc.StatusCode,
    reason: str,
    quotas: tuple[str, ...],
    request_id: str,
) -> None:
    """Nothing is sent or charged, no session and no turn is left, and no retry is advised; unset, turns run again."""
    service = caller.service
    await update(admin, tenant_pb2.Policy(**fields))
    turn = await caller.converse("hello", request_id=request_id)
    failure = turn.failure

    assert failure is not None
    assert (failure.code, failure.reason, failure.quotas) == (code, reason, quotas)
    assert failure.retry_after is None
    assert turn.responses == ()
    assert service.requests("talk") == []
    for collection in ("sessions", "messages", "turns", "ledger"):
        assert service.database[collection].count_documents({"tenant_id": service.tenant_id}) == 0
    missing = await failure_of(caller.call("GetSession", agent_pb.GetSessionRequest(session_id="talk")))
    assert missing.reason == "SESSION_NOT_FOUND"

    await update(admin, tenant_pb2.Policy(), *fields)
    assert await eventually(lambda: _served(caller))


async def test_unknown_budget_of_a_later_build_survives_other_changes(admin: Admin, service: Service) -> None:
    """A change that does not name the budgets leaves those that this build cannot read."""
    await update(admin, tenant_pb2.Policy(budgets=FULL.budgets))
    week = {"window": "week", "limit": 9, "hard": True}
    policies = service.database["policies"]
    policies.update_one({"_id": admin.service.tenant_id}, {"$push": {"budgets": week}})
    await update(admin, tenant_pb2.Policy(turns_per_minute=5))

    found = policies.find_one({"_id": admin.service.tenant_id})
    assert found is not None
    assert week in found["budgets"]


async def test_model_that_left_the_catalogue_blocks_no_other_change(admin: Admin, service: Service) -> None:
    """A default model that was set before is checked against the catalogue only if it is set again."""
    await update(admin, tenant_pb2.Policy(default_model="openai/gpt-4o"))
    gone = {"$set": {"default_model": "openai/gone"}}
    service.database["policies"].update_one({"_id": admin.service.tenant_id}, gone)
    assert (await update(admin, tenant_pb2.Policy(turns_per_minute=5))).default_model == "openai/gone"
    for policy in (tenant_pb2.Policy(default_model="openai/gone"), tenant_pb2.Policy(allowed_models=["anthropic/*"])):
        failure = await admin.refused("UpdatePolicy", tenant_id=admin.service.tenant_id, policy=policy)
        assert list(failure.fields) == ["policy.default_model"]


async def test_change_that_is_overtaken_is_tried_again(backends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what the other change has left; if others are always faster, it is ABORTED and not made."""
    async with open_components(backends.settings(backends.empty_database())) as components:
        admin = components.administration
        tenant = await admin.lifecycle.create(ME, NewTenant(display_name="acme"))
        await admin.update_policy(ME, tenant.tenant_id, PolicyChange(policy=Policy(concurrent_turns=1)))
        real, collection, overtaken = Policies.update, components.database.collection("policies"), 3

        async def overtake(policies: Policies, tenant_id: str, change: PolicyChange, **named: Any) -> bool:
            nonlocal overtaken
            overtaken -= 1
            if overtaken >= 0:
                await collection.update_one({"_id": tenant_id}, {"$inc": {"revision": 1, "concurrent_turns": 1}})
            return await real(policies, tenant_id, change, **named)

        monkeypatch.setattr(Policies, "update", overtake)
        change = PolicyChange(policy=Policy(turns_per_minute=1), fields={"turns_per_minute"})
        made = await admin.update_policy(ME, tenant.tenant_id, change)
        assert made.policy == Policy(turns_per_minute=1, concurrent_turns=4)

        overtaken = 1000
        with pytest.raises(EtagMismatch):
            await admin.update_policy(ME, tenant.tenant_id, PolicyChange(policy=Policy(turns_per_minute=2)))
        assert (await components.tenancy.policies.read(tenant.tenant_id)).turns_per_minute == 1
