"""An administrator, servers that look often for what to erase, and all verifications of a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from godoty_service.tenancy.auth import Scope
from tests.e2e.admin.conftest import Admin, Godoty, admin, admin_of, godoty
from tests.e2e.turns.conftest import second_server
from tests.support.invoking import invoke
from tests.support.service import Service

__all__ = ["Admin", "Godoty", "admin", "admin_of", "godoty", "second_server"]

PROMISE = 5.0  # seconds after which a change of a tenant's state is in force on every server
ERASING: dict[str, Any] = {"erasure_interval": 0.1}


def hasten_erasure(service: Service, tenant_id: str) -> None:
    """Make a tenant's deletion an hour older than it is, so that the delay of its erasure has passed."""
    earlier = {"$dateSubtract": {"startDate": "$delete_time", "unit": "hour", "amount": 1}}
    changed = service.database["tenants"].update_one(
        {"_id": tenant_id, "delete_time": {"$ne": None}}, [{"$set": {"delete_time": earlier}}]
    )
    assert changed.modified_count == 1


async def verify(service: Service) -> None:
    """Run `godoty ledger verify` on the service's database: there must be no difference."""
    printed = await asyncio.to_thread(invoke, service, "ledger", "verify", "--tenant", service.tenant_id)
    assert printed.endswith(" 0 differences\n"), printed


@pytest.fixture
def operator(admin_of: Callable[[Service], Admin]) -> Callable[[Service], Admin]:
    """Return a function that creates an administrator whose key is another tenant's than the service's."""

    def make(service: Service) -> Admin:
        return admin_of(service.another_tenant())

    return make


def metadata(issue: Callable[..., str], service: Service, *scopes: Scope) -> tuple[tuple[str, str], ...]:
    """Return the metadata of calls with a new key of the tenant."""
    return (("authorization", f"Bearer {issue(service, scopes=frozenset(scopes))}"),)
