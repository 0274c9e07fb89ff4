"""Servers whose tenants may have webhooks on this machine, and receivers."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from godoty.v1 import agent_definition_service_pb2_grpc as stubs
from godoty.v1 import webhook_pb2 as pb

from godoty_service.tenancy.auth import Scope
from tests.conftest import serving
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.receiver import Receiver
from tests.support.service import Document, Service, eventually

ENCRYPTION_KEY = base64.b64encode(b"k" * 32).decode()
SETTINGS: dict[str, Any] = {
    "webhook_networks": "127.0.0.0/8",
    "encryption_keys": ENCRYPTION_KEY,
    "webhook_interval": 0.05,
    "webhook_retry_delay": 0.05,
}
ENVIRONMENT = {f"GODOTY_{name.upper()}": str(value) for name, value in SETTINGS.items()}
HOOK = "hook"
PATIENT = {"GODOTY_WEBHOOK_TIMEOUT": "60"}  # no attempt ends because the machine is busy
State = pb.DeliveryState


@dataclass(frozen=True)
class Tenant:
    """A tenant with webhooks.

    Attributes:
        caller: Runs its turns.
        stub: AgentDefinitionService.
        key: A key of the scope agents.
    """

    caller: Caller
    stub: Any
    key: str

    @property
    def service(self) -> Service:
        """The server and the tenant."""
        return self.caller.service

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of AgentDefinitionService."""
        request = getattr(pb, f"{method}Request")(**fields)
        metadata = (("authorization", f"Bearer {self.key}"),)
        return await getattr(self.stub, method)(request, metadata=metadata, timeout=90.0)

    async def apply(self, url: str, *, name: str = HOOK, rotation: dict[str, Any] | None = None, **fields: Any) -> str:
        """Apply a webhook; return its new secret, or an empty text."""
        webhook = {"name": name, "url": url, **fields}
        applied = await self.call("ApplyWebhook", webhook=webhook, **(rotation or {}))
        return str(applied.secret)

    async def webhook(self, name: str = HOOK) -> pb.Webhook:
        """Return a webhook."""
        webhooks: list[pb.Webhook] = list((await self.call("ListWebhooks")).webhooks)
        return next(each for each in webhooks if each.name == name)

    async def deliveries(self, name: str = HOOK, **fields: Any) -> list[pb.WebhookDelivery]:
        """Return the deliveries of a webhook, the newest first."""
        return list((await self.call("ListDeliveries", webhook_name=name, **fields)).deliveries)

    async def delivered(self, number: int, *, name: str = HOOK) -> list[pb.WebhookDelivery]:
        """Wait until a webhook has this number of deliveries, all with success; return them."""

        async def found() -> list[pb.WebhookDelivery]:
            all_of_it = await self.deliveries(name)
            done = all(each.state == pb.DELIVERY_STATE_DELIVERED for each in all_of_it)
            return all_of_it if done and len(all_of_it) == number else []

        return await eventually(found)

    async def attempted(self, number: int, *, name: str = HOOK) -> pb.WebhookDelivery:
        """Wait until the newest delivery of a webhook was attempted a number of times; return it."""

        async def found() -> pb.WebhookDelivery | None:
            deliveries = await self.deliveries(name)
            return deliveries[0] if deliveries and deliveries[0].attempts >= number else None

        delivery = await eventually(found)
        assert delivery is not None
        return delivery

    def end_retries(self) -> None:
        """Let the next attempt of each pending delivery be its last one, as if the time for it were over."""
        query = {"tenant_id": self.service.tenant_id, "state": "pending"}
        self.service.database["webhook_deliveries"].update_many(query, [{"$set": {"deadline": "$create_time"}}])

    def documents(self, collection: str) -> list[Document]:
        """Return the tenant's documents of a collection."""
        return list(self.service.database[collection].find({"tenant_id": self.service.tenant_id}))


Become = Callable[[Service], Tenant]


@pytest.fixture
def become(connect: Callable[[Service], Caller], issue: Callable[..., str]) -> Become:
    """Returns a tenant with a key of the scope agents."""

    def for_service(service: Service) -> Tenant:
        caller = connect(service)
        stub = stubs.AgentDefinitionServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
        return Tenant(caller, stub, issue(service, scopes=frozenset({Scope.AGENTS})))

    return for_service


@pytest.fixture(scope="module")
def webhook_server(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the database of a server that lets webhooks be on this machine."""
    with serving(backends, tmp_path_factory, **ENVIRONMENT, **PATIENT) as served:
        yield served


@pytest.fixture
def tenant(backends: Backends, webhook_server: tuple[str, str], become: Become) -> Iterator[Tenant]:
    """A tenant of that server, whose webhooks are deleted afterwards: another receiver may get the port of theirs."""
    tenant = become(backends.service(*webhook_server))
    yield tenant
    tenant.service.database["webhooks"].delete_many({"tenant_id": tenant.service.tenant_id})


@pytest.fixture
async def receive() -> AsyncIterator[Callable[[], Any]]:
    """Starts receivers."""
    async with AsyncExitStack() as stack:

        async def start() -> Receiver:
            return await stack.enter_async_context(Receiver())

        yield start


@pytest.fixture
async def receiver(receive: Callable[[], Any]) -> Receiver:
    """A receiver."""
    started: Receiver = await receive()
    return started
