"""Keys that administer one tenant, and keys with models and a rate of their own."""

import asyncio
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import billing_service_pb2_grpc, tenant_pb2

from godoty_service.tenancy.auth import KeyLimits
from tests.e2e.admin.conftest import Admin
from tests.support.caller import Caller, Failure

DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
CONVERSE, BILLING = tenant_pb2.API_SCOPE_CONVERSE, tenant_pb2.API_SCOPE_BILLING
ADMIN = tenant_pb2.API_SCOPE_ADMIN
NO_KEY = "0123456789abcdef"
OF_TENANT = {"CreateApiKey", "GetApiKey", "ListApiKeys", "RevokeApiKey", "RotateApiKey", "EraseUser"}
OTHERS = [
    method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods if method.name not in OF_TENANT
]


async def bound_admin(admin: Admin, **fields: Any) -> Admin:
    """Return a client with a new key that administers the tenant of the operator's key."""
    _, text = await admin.issue(admin.service.tenant_id, ADMIN, **fields)
    return Admin(service=admin.service, key=text, stub=admin.stub, channel=admin.channel)


async def test_bound_key_manages_the_keys_of_its_tenant(admin: Admin) -> None:
    """It creates, reads, lists, rotates and revokes keys of all scopes there; the operator's flag is shown."""
    tenant_id = admin.service.tenant_id
    bound = await bound_admin(admin, display_name="Ada's")
    key, _ = await bound.issue(tenant_id, CONVERSE, BILLING, ADMIN, display_name="a bot")
    read = (await bound.call("GetApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)).api_key
    own = (await bound.call("GetApiKey", tenant_id=tenant_id, api_key_id=bound.key_id)).api_key
    operator = (await bound.call("GetApiKey", tenant_id=tenant_id, api_key_id=admin.key_id)).api_key
    assert (read, key.display_name, list(key.scopes), key.operator) == (key, "a bot", [CONVERSE, BILLING, ADMIN], False)
    assert (own.display_name, list(own.scopes), own.operator) == ("Ada's", [ADMIN], False)
    assert (list(operator.scopes), operator.operator) == ([ADMIN], True)

    rotated = await bound.call("RotateApiKey", tenant_id=tenant_id, api_key_id=key.api_key_id)
    assert (rotated.api_key.display_name, rotated.api_key.operator) == ("a bot", False)
    await bound.call("RevokeApiKey", tenant_id=tenant_id, api_key_id=rotated.api_key.api_key_id)
    listed = (await bound.call("ListApiKeys", tenant_id=tenant_id)).api_keys
    assert {key.api_key_id, rotated.api_key.api_key_id, bound.key_id} <= {each.api_key_id for each in listed}


@pytest.mark.parametrize("method", OTHERS)
async def test_bound_key_is_refused_every_other_method(admin: Admin, method: str) -> None:
    """PERMISSION_DENIED with the method, even of its own tenant, before the request is looked at."""
    bound = await bound_admin(admin)
    descriptor = pb.DESCRIPTOR.message_types_by_name[f"{method}Request"]
    fields = {"tenant_id": admin.service.tenant_id} if "tenant_id" in descriptor.fields_by_name else {}
    failure = await bound.refused(method, **fields)

    assert (failure.code, failure.reason, failure.metadata) == (DENIED, "OPERATOR_ONLY", {"method": method})


async def test_bound_key_finds_no_other_tenant(admin: Admin) -> None:
    """TENANT_NOT_FOUND, the same for a tenant that exists and for one that does not."""
    bound, other = await bound_admin(admin), await admin.tenant()
    key, text = await admin.issue(other)
    for tenant_id in (other, "tnt_none"):
        for method, fields in (
            ("CreateApiKey", {"scopes": [CONVERSE]}),
            ("GetApiKey", {"api_key_id": key.api_key_id}),
            ("ListApiKeys", {}),
            ("RevokeApiKey", {"api_key_id": key.api_key_id}),
            ("RotateApiKey", {"api_key_id": key.api_key_id}),
        ):
            failure = await bound.refused(method, tenant_id=tenant_id, **fields)
            assert (failure.code, failure.reason) == (MISSING, "TENANT_NOT_FOUND")
            assert failure.metadata == {"tenant_id": tenant_id}
            assert failure.text == f"There is no tenant {tenant_id}."
    assert len((await admin.call("ListApiKeys", tenant_id=other)).api_keys) == 1
    metadata = (("authorization", f"Bearer {text}"),)
    sessions = admin.channel.unary_unary(
        "/godoty.v1.AgentService/ListSessions",
        request_serializer=agent_pb.ListSessionsRequest.SerializeToString,
        response_deserializer=agent_pb.ListSessionsResponse.FromString,
    )
    assert await sessions(agent_pb.ListSessionsRequest(), metadata=metadata) is not None


async def test_bound_key_gets_no_key_of_the_operator(admin: Admin) -> None:
    """It neither creates one, nor receives one by a rotation, nor revokes one; the operator's key stays valid."""
    tenant_id = admin.service.tenant_id
    bound = await bound_admin(admin)
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("CreateApiKey", {"scopes": [ADMIN], "operator": True}),
        ("RotateApiKey", {"api_key_id": admin.key_id}),
        ("RevokeApiKey", {"api_key_id": admin.key_id}),
    ]
    before = await admin.changes(tenant_id)
    for method, fields in attempts:
        failure = await bound.refused(method, tenant_id=tenant_id, **fields)
        assert (failure.code, failure.reason, failure.metadata) == (DENIED, "OPERATOR_ONLY", {"method": method})
    assert await admin.changes(tenant_id) == before


async def test_bound_key_creates_no_key_with_wider_limits(admin: Admin) -> None:
    """A key with models and a rate creates and rotates keys within them."""
    tenant_id = admin.service.tenant_id
    bound = await bound_admin(admin, models=["openai/*"], turns_per_minute=10)
    wide, _ = await admin.issue(tenant_id, models=["openai/*"])
    refused: list[tuple[str, dict[str, Any]]] = [
        ("CreateApiKey", {"scopes": [CONVERSE]}),
        ("CreateApiKey", {"scopes": [CONVERSE], "models": ["openai/*"]}),
        ("CreateApiKey", {"scopes": [CONVERSE], "models": ["openai/*"], "turns_per_minute": 11}),
        ("CreateApiKey", {"scopes": [CONVERSE], "models": ["*"], "turns_per_minute": 1}),
        ("RotateApiKey", {"api_key_id": wide.api_key_id}),
    ]
    for method, fields in refused:
        assert (await bound.refused(method, tenant_id=tenant_id, **fields)).reason == "OPERATOR_ONLY"
    narrow, _ = await bound.issue(tenant_id, models=["openai/gpt-*", "openai/o3"], turns_per_minute=10)
    rotated = await bound.call("RotateApiKey", tenant_id=tenant_id, api_key_id=narrow.api_key_id)

    assert (list(rotated.api_key.models), rotated.api_key.turns_per_minute) == (["openai/gpt-*", "openai/o3"], 10)


async def test_bound_key_reads_no_bill(admin: Admin) -> None:
    """The scope `admin` of one tenant is not `billing`; with both it reads its own tenant's bill, and no other's."""
    stub = billing_service_pb2_grpc.BillingServiceStub(admin.channel)  # type: ignore[no-untyped-call] # generated
    other = await admin.tenant()

    async def budget(key: str, tenant_id: str) -> Failure | None:
        metadata = (("authorization", f"Bearer {key}"),)
        try:
            await stub.GetBudget(billing_pb.GetBudgetRequest(tenant_id=tenant_id), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Failure.of(error)
        return None

    bound = await bound_admin(admin)
    denied = await budget(bound.key, "")
    assert denied is not None
    assert (denied.reason, denied.metadata) == ("SCOPE_MISSING", {"scope": "billing"})
    _, both = await admin.issue(admin.service.tenant_id, ADMIN, BILLING)
    assert await budget(both, "") is None
    missing = await budget(both, other)
    assert missing is not None
    assert missing.reason == "TENANT_NOT_FOUND"


async def test_key_of_an_earlier_build_is_the_operators(admin: Admin) -> None:
    """Its document has the scope `admin` and no limits; an earlier build does not know the scope of a bound key."""
    keys = admin.service.database["api_keys"]
    bound = await bound_admin(admin)
    stored = keys.find_one({"_id": bound.key_id})
    assert stored is not None
    assert stored["scopes"] == ["tenant_admin"]
    keys.update_one({"_id": admin.key_id}, {"$unset": {"display_name": "", "models": "", "turns_per_minute": ""}})
    found = (await admin.call("GetApiKey", tenant_id=admin.service.tenant_id, api_key_id=admin.key_id)).api_key
    assert (found.operator, list(found.models), found.HasField("turns_per_minute")) == (True, [], False)
    assert await admin.tenant()


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("operator", {"operator": True}),
        ("models", {"models": [""]}),
        ("models", {"models": ["openai/[a-z]"]}),
        ("models", {"models": ["a"] * 101}),
        ("turns_per_minute", {"turns_per_minute": -1}),
        ("display_name", {"display_name": "x" * 201}),
        ("display_name", {"display_name": "two\nlines"}),
    ],
)
async def test_invalid_terms_are_refused(admin: Admin, field: str, fields: dict[str, Any]) -> None:
    """An operator's key without the scope, patterns that are none, a negative rate, an unreadable name."""
    failure = await admin.refused(
        "CreateApiKey", **({"tenant_id": admin.service.tenant_id, "scopes": [CONVERSE]} | fields)
    )
    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [field])


def with_key(caller: Caller, connect: Any, text: str) -> Caller:
    """Return a caller with another key of the same tenant."""
    found: Caller = connect(caller.service.with_key(text))
    return found


async def test_key_has_models_of_its_own(caller: Caller, connect: Any, admin: Admin) -> None:
    """A model must be allowed by the key and by the policy; another key of the tenant is not affected."""
    tenant_id = caller.service.tenant_id
    await admin.set_policy(tenant_id, tenant_pb2.Policy(allowed_models=["openai/*", "anthropic/*"]))
    _, text = await admin.issue(tenant_id, models=["openai/gpt-4o*", "google/*"])
    limited = with_key(caller, connect, text)
    for model in ("anthropic/claude-haiku-4.5", "google/gemini-2.5-flash"):
        refused = (await limited.converse("hello", model=model)).failure
        assert refused is not None
        assert (refused.code, refused.reason, refused.metadata) == (DENIED, "MODEL_NOT_ALLOWED", {"model": model})
    fallback = await limited.converse(
        "hello", model="openai/gpt-4o-mini", fallback_models=["anthropic/claude-haiku-4.5"]
    )
    assert fallback.failure is not None
    assert fallback.failure.reason == "MODEL_NOT_ALLOWED"
    assert caller.service.requests("talk") == []
    assert caller.service.database["sessions"].count_documents({"tenant_id": tenant_id}) == 0

    assert (await limited.converse("hello", model="openai/gpt-4o-mini")).finished
    assert (await caller.converse("hello", model="anthropic/claude-haiku-4.5")).finished
    session = await limited.converse("the session's model now")
    assert session.failure is not None
    assert session.failure.reason == "MODEL_NOT_ALLOWED"


async def test_key_has_a_rate_of_its_own(caller: Caller, connect: Any, admin: Admin) -> None:
    """Its turns above the rate are refused with the delay, also by another server; other keys' turns start."""
    tenant_id = caller.service.tenant_id
    await admin.set_policy(tenant_id, tenant_pb2.Policy(turns_per_minute=60))
    key, text = await admin.issue(tenant_id, turns_per_minute=2)
    limited = with_key(caller, connect, text)
    for _ in range(2):
        assert (await limited.converse("hello")).finished
    for _ in range(5):  # they use up none of the tenant's turns
        refused = (await limited.converse("hello")).failure
        assert refused is not None
        assert (refused.code, refused.reason, refused.quotas) == (EXHAUSTED, "RATE_LIMITED", ("key_turns/minute",))
        assert 20 < (refused.retry_after or 0) <= 30.01
    assert (await caller.converse("hello")).finished
    counted = {each["_id"]: each for each in caller.service.database["turn_limits"].find()}
    assert counted[f"key:{key.api_key_id}"]["tokens"] < 1.5
    assert counted[tenant_id]["tokens"] > 55


async def test_key_with_a_rate_of_zero_starts_no_turn(caller: Caller, connect: Any, admin: Admin) -> None:
    """RATE_LIMITED without a delay; nothing is created."""
    _, text = await admin.issue(caller.service.tenant_id, turns_per_minute=0)
    refused = (await with_key(caller, connect, text).converse("hello")).failure

    assert refused is not None
    assert (refused.reason, refused.retry_after, refused.quotas) == ("RATE_LIMITED", None, ("key_turns/minute",))
    assert caller.service.database["sessions"].count_documents({"tenant_id": caller.service.tenant_id}) == 0


async def test_concurrent_turns_of_a_key_share_its_rate(caller: Caller, connect: Any, admin: Admin) -> None:
    """Of ten turns at once, as many start as the rate allows."""
    _, text = await admin.issue(caller.service.tenant_id, turns_per_minute=3)
    limited = with_key(caller, connect, text)
    turns = await asyncio.gather(*(limited.converse("hello", session_id=f"s{n}") for n in range(10)))

    assert sum(turn.failure is None for turn in turns) == 3


def test_limits_that_cover_others() -> None:
    """Patterns and rates: only those that allow no more are covered."""
    wide = KeyLimits(models=("openai/*", "x/y"), turns_per_minute=5)
    for models, rate, covered in (
        (("openai/gpt-*",), 5, True),
        (("openai/*", "x/y"), 0, True),
        (("openai*",), 5, False),
        (("x/*",), 5, False),
        (("*",), 5, False),
        ((), 5, False),
        (("x/y",), None, False),
        (("x/y",), 6, False),
    ):
        assert wide.covers(KeyLimits(models=models, turns_per_minute=rate)) is covered
    assert KeyLimits().covers(KeyLimits())
