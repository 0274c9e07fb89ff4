"""The provider's message of an error is in the entry, in the log, and readable by the tenant of the request."""

import asyncio
from collections.abc import Callable

import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc

from godoty_service.tenancy.auth import Scope
from tests.e2e.rpc.conftest import LoggedServer
from tests.integration.billing.caller import BillingCaller
from tests.support.backends import ACCOUNT
from tests.support.caller import Caller
from tests.support.invoking import invoke
from tests.support.service import Service

Connect = Callable[[Service], Caller]
WORDS = "temperature must be below 2"


@pytest.mark.parametrize(
    "prompt",
    [
        f'@sandbox error-before status=400 message="{WORDS}"',
        f'@sandbox error-200 body_status=400 message="{WORDS}"',
        f'@sandbox error-mid n=2 code=400 message="{WORDS}"',
    ],
)
async def test_refusal_has_the_providers_message(caller: Caller, prompt: str) -> None:
    """Before the answer, instead of it, and during it; the status text stays the service's own."""
    turn = await caller.converse(prompt)

    assert turn.failure is not None
    assert turn.failure.reason == "PROVIDER_REJECTED_REQUEST"
    assert turn.failure.metadata["provider_message"] == WORDS
    assert WORDS not in turn.failure.text
    (entry,) = caller.service.entries("talk")
    assert entry.error_message == WORDS
    assert [call.error_message for call in turn.calls] == [WORDS]


async def test_message_is_in_the_log(logged_server: LoggedServer, logged_caller: Caller) -> None:
    """As it is in the entry: without keys and cut."""
    text = f"{WORDS}, says Bearer sk-or-v1-{'0a' * 20}: {'too hot ' * 100}"
    await logged_caller.converse(f'@sandbox error-before status=400 message="{text}"')

    (entry,) = logged_caller.service.entries("talk")
    (line,) = await logged_server.lines("provider_error", call_id=entry.call_id)
    assert line["provider_message"] == entry.error_message
    assert line["provider_message"].startswith(f"{WORDS}, says [key] too hot")
    assert len(line["provider_message"]) == 500


async def test_each_failed_attempt_has_its_message(caller: Caller) -> None:
    """A request that was attempted three times has three entries with a message; the caller gets the last."""
    turn = await caller.converse('@sandbox error-before status=503 message="no instance is free"')

    assert turn.failure is not None
    assert turn.failure.metadata["provider_message"] == "no instance is free"
    assert [entry.error_message for entry in caller.service.entries("talk")] == ["no instance is free"] * 3


async def test_message_is_shown_by_billing_and_by_the_command(
    caller: Caller, connect: Connect, issue: Callable[..., str]
) -> None:
    """ListLedgerEntries, ExportLedger and `godoty ledger list` have it; an entry without an error has none."""
    await caller.converse(f'@sandbox error-before status=400 message="{WORDS}"')
    await caller.converse("hi")
    service = caller.service
    biller = BillingCaller(service, caller.channel, issue(service, scopes=frozenset({Scope.BILLING})))

    listed = [each.call.error_message for each in await biller.all_entries()]
    exported = [entry.call.error_message for answer in await biller.export() for entry in answer.entries]
    printed = await asyncio.to_thread(invoke, service, "ledger", "list", service.tenant_id)

    assert listed == exported == [WORDS, ""]
    assert f"provider_rejected_request: {WORDS}" in printed


async def test_message_is_sanitized_and_truncated(caller: Caller) -> None:
    """A provider that echoes the request's key: it is removed everywhere; the message has at most 500 characters."""
    text = f"\x1b[31mkey {ACCOUNT} and Bearer sk-or-v1-{'0a' * 20} of {caller.service.api_key}: {'too hot ' * 100}"
    turn = await caller.converse(f'@sandbox error-before status=400 message="{text}"')

    (entry,) = caller.service.entries("talk")
    assert turn.failure is not None
    assert entry.error_message == turn.failure.metadata["provider_message"]
    assert entry.error_message is not None
    assert entry.error_message.startswith("[31mkey [key] and [key] of [key]: too hot too hot")
    assert len(entry.error_message) == 500


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_message_about_the_services_account_is_for_the_operator_alone(
    logged_server: LoggedServer, logged_caller: Caller, status: int
) -> None:
    """The tenant, its entry and its export do not have it; the log does."""
    service = logged_caller.service
    turn = await logged_caller.converse(
        f'@sandbox error-before status={status} message="your account of 7 dollars is empty"'
    )

    assert turn.failure is not None
    assert turn.failure.reason == "PROVIDER_ACCOUNT_REFUSED"
    (entry,) = service.entries("talk")
    assert entry.error_message is None
    assert "7 dollars" not in repr(turn)
    (line,) = await logged_server.lines("provider_error", call_id=entry.call_id)
    assert line["provider_message"] == "your account of 7 dollars is empty"
    assert line["provider_code"] == str(status)
    assert (line["tenant_id"], line["session_id"], line["turn_id"]) == (service.tenant_id, "talk", entry.turn_id)


async def test_message_about_the_tenants_own_account_is_for_the_tenant(
    logged_caller: Caller, issue: Callable[..., str]
) -> None:
    """A tenant with its own provider key needs the reason of its refusal."""
    caller, service = logged_caller, logged_caller.service
    own, key = "sandbox-key-of-a-tenant", issue(service, scopes=frozenset({Scope.ADMIN}))
    request = admin_pb.SetProviderKeyRequest(tenant_id=service.tenant_id, provider_key=own)
    stub = admin_service_pb2_grpc.AdminServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    await stub.SetProviderKey(request, metadata=(("authorization", f"Bearer {key}"),))

    turn = await caller.converse(f'@sandbox error-before status=402 message="{own} has no credits left"')

    assert turn.failure is not None
    assert turn.failure.metadata["provider_message"] == "[key] has no credits left"
    (entry,) = service.entries("talk")
    assert entry.error_message == "[key] has no credits left"
