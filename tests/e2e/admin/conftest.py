"""Administrators of the shared server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2

from godoty_service.tenancy.auth import Scope
from tests.conftest import ENCRYPTION_KEY
from tests.support.caller import Failure, failure_of
from tests.support.invoking import invoke
from tests.support.service import Service

__all__ = ["ENCRYPTION_KEY", "Admin", "Godoty", "admin", "admin_of", "full_policy", "godoty", "without_etag"]

Godoty = Callable[..., str]


@dataclass
class Admin:
    """A client of AdminService with a key of the scope `admin`.

    Attributes:
        service: A server, and the tenant whose key it is.
        key: The key.
        stub: AdminService.
        channel: What it is called over.
    """

    service: Service
    key: str
    stub: Any
    channel: grpc.aio.Channel

    @property
    def key_id(self) -> str:
        """Return the id of the key, the author in the audit log."""
        return self.key.split("_")[1]

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method."""
        request = getattr(pb, f"{method}Request")(**fields)
        return await getattr(self.stub, method)(
            request, metadata=(("authorization", f"Bearer {self.key}"),), timeout=30
        )

    async def refused(self, method: str, **fields: Any) -> Failure:
        """Call a method that must fail."""
        return await failure_of(self.call(method, **fields))

    async def tenant(self, name: str = "acme") -> str:
        """Create a tenant."""
        return str((await self.call("CreateTenant", display_name=name)).tenant.tenant_id)

    async def set_policy(self, tenant_id: str, policy: tenant_pb2.Policy) -> tenant_pb2.Policy:
        """Replace a tenant's policy; return it without its etag."""
        answer = await self.call("UpdatePolicy", tenant_id=tenant_id, policy=policy, update_mask={"paths": ["*"]})
        return without_etag(answer.policy)

    async def policy(self, tenant_id: str) -> tenant_pb2.Policy:
        """Return a tenant's policy without its etag."""
        return without_etag((await self.call("GetPolicy", tenant_id=tenant_id)).policy)

    async def issue(self, tenant_id: str, *scopes: int, **fields: Any) -> tuple[tenant_pb2.ApiKey, str]:
        """Issue a key."""
        answer = await self.call(
            "CreateApiKey", tenant_id=tenant_id, scopes=scopes or [tenant_pb2.API_SCOPE_CONVERSE], **fields
        )
        return answer.api_key, answer.text

    async def changes(self, tenant_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the audit log, newest first: author, method and new values."""
        answer = await self.call("ListAdminChanges", tenant_id=tenant_id)
        return [(each.actor.id, each.method, json.loads(each.new_value_json)) for each in answer.changes]


def full_policy(**others: Any) -> tenant_pb2.Policy:
    """Return a policy with every field set.

    Args:
        others: Fields with other values.
    """
    fields: dict[str, Any] = {
        "allowed_models": ["openai/*"],
        "default_model": "openai/gpt-4o-mini",
        "default_fallback_models": ["openai/gpt-4o"],
        "max_output_tokens": 1000,
        "turns_per_minute": 60,
        "concurrent_turns": 5,
        "provider_json": '{"sort": "price"}',
        "zero_data_retention": True,
        "budgets": [budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="5", hard=True)],
    }
    return tenant_pb2.Policy(**(fields | others))


def without_etag(policy: tenant_pb2.Policy) -> tenant_pb2.Policy:
    """Return a policy without its etag."""
    found = tenant_pb2.Policy()
    found.CopyFrom(policy)
    found.ClearField("etag")
    return found


@pytest.fixture
async def admin_of(issue: Callable[..., str]) -> AsyncIterator[Callable[[Service], Admin]]:
    """Return a function that creates administrators; their channels are closed after the test."""
    channels: list[grpc.aio.Channel] = []

    def make(service: Service) -> Admin:
        channel = grpc.aio.insecure_channel(service.target)
        channels.append(channel)
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        key = issue(service, scopes=frozenset({Scope.ADMIN}))
        return Admin(service=service, key=key, stub=stub, channel=channel)

    yield make
    for channel in channels:
        await channel.close(None)


@pytest.fixture
async def admin(service: Service, admin_of: Callable[[Service], Admin]) -> Admin:
    """Return an administrator of the shared server, whose tenant is new for each test."""
    return admin_of(service)


@pytest.fixture
def godoty(service: Service) -> Godoty:
    """Return a function that runs a command on the shared server's database and returns its output."""

    def run(*arguments: str, typed: str | None = None, **environment: str) -> str:
        return invoke(service, *arguments, typed=typed, **{"GODOTY_ENCRYPTION_KEYS": ENCRYPTION_KEY, **environment})

    return run
