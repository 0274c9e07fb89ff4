"""Each request to the provider carries the service's attribution headers, `HTTP-Referer` and `X-Title`, of any kind."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2, admin_service_pb2_grpc

from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.server import Sandbox
from tests.conftest import Start
from tests.e2e.admin.conftest import ENCRYPTION_KEY
from tests.support.caller import Caller
from tests.support.service import LONG_PAUSE, Service, soon

SITE, APP = "https://attribution.example", "Attribution test"
KINDS = {"turn", "summary", "catalogue", "provider prices", "generation record"}
NO_GENERATION = "id=gen-0-none"  # requested to learn whether the upstream retains records


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A provider to which no other test sends requests."""
    async with Sandbox() as started:
        yield started


@pytest.fixture
async def caller(serve: Start, connect: Callable[[Service], Caller], sandbox: Sandbox) -> Caller:
    """Calls a server with attribution settings, short histories, and frequent reconciliation."""
    attribution: dict[str, Any] = {"site_url": SITE, "app_name": APP, "encryption_keys": ENCRYPTION_KEY}
    history: dict[str, Any] = {"history_messages": 8, "history_summary": True}
    return connect(await serve(openrouter_base_url=sandbox.base_url, reconcile_interval=0.05, **attribution, **history))


def kind_of(entry: dict[str, Any]) -> str:
    """Return the kind of a logged request."""
    path = entry.get("path")
    if path is None:
        return "turn" if "tools" in entry["body"] else "summary"
    if "/generation" in path:
        return "probe" if NO_GENERATION in path else "generation record"
    return "provider prices" if path.endswith("/endpoints") else "catalogue"


def headers_by_kind(sandbox: Sandbox) -> dict[str, set[tuple[str | None, str | None]]]:
    """Return the attribution headers of all requests in the sandbox's request log, by kind."""
    found: dict[str, set[tuple[str | None, str | None]]] = {}
    for entry in [*sandbox.request_log.entries(), *sandbox.request_log.reads()]:
        headers = entry["headers"]
        found.setdefault(kind_of(entry), set()).add((headers.get("http-referer"), headers.get("x-title")))
    return found


async def cancel_call(caller: Caller, session_id: str) -> None:
    """Cancel a turn after its first words: its cost is read from the generation record."""
    call = caller.start("@sandbox slow tokens=200 delay_ms=20", session_id=session_id)
    async for response in call:
        if response.HasField("text_delta"):
            break
    call.cancel()


async def wait_for_kinds(sandbox: Sandbox, kinds: set[str]) -> None:
    """Wait until requests of all these kinds have arrived."""
    await soon(lambda: kinds <= headers_by_kind(sandbox).keys(), pause=LONG_PAUSE)


async def test_each_kind_of_request_has_attribution_headers(caller: Caller, sandbox: Sandbox) -> None:
    """A turn's model call, a summary, the catalogue, a provider price list, a generation record."""
    for number in range(6):
        await caller.converse(f"hello number {number}")
    await cancel_call(caller, "cancelled")
    await wait_for_kinds(sandbox, KINDS)

    found = headers_by_kind(sandbox)
    assert found.keys() >= KINDS
    assert found == {kind: {(SITE, APP)} for kind in found}


async def test_requests_with_tenants_own_key_have_attribution_headers(
    caller: Caller, sandbox: Sandbox, issue: Callable[..., str]
) -> None:
    """The client of another key has the headers as well, for a turn and for its generation record."""
    key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
    async with grpc.aio.insecure_channel(caller.service.target) as channel:
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        request = admin_service_pb2.SetProviderKeyRequest(
            tenant_id=caller.service.tenant_id, provider_key="sandbox-of-a-tenant-itself"
        )
        await stub.SetProviderKey(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)
    sandbox.request_log.clear()
    await cancel_call(caller, "own")
    await wait_for_kinds(sandbox, {"turn", "generation record"})

    assert {each["account"] for each in sandbox.request_log.entries()} == {"sandbox-of-a-tenant-itself"}
    found = headers_by_kind(sandbox)
    assert found == {kind: {(SITE, APP)} for kind in found}
