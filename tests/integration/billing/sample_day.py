"""A day of May 2026, and settled calls in it."""

import asyncio
from datetime import UTC, datetime, timedelta

from godoty_service.usage.grouping import NamedGroup
from tests.integration.billing.harness import Tenant, usage_query

NOON = datetime(2026, 5, 4, 12, 0, 0, 1000, tzinfo=UTC)
NO_GROUP: tuple[NamedGroup, ...] = ()
DAY = usage_query(NOON - timedelta(hours=12), NOON + timedelta(hours=12))


async def fill(tenant: Tenant, calls: int) -> None:
    """Insert settled calls."""
    opened = []
    for number in range(calls):
        session = f"{tenant.tenant_id}.{number}"  # of its own, so that the next number is always 1
        opened.append(await tenant.open(NOON + timedelta(minutes=number % 300), session_uid=session))
    await asyncio.gather(*(tenant.close(call, NOON + timedelta(hours=6)) for call in opened))
