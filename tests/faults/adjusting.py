"""Adjusts calls while the storm goes on: each order once, however often it is repeated at whichever server."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import grpc
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import admin_service_pb2_grpc

from godoty_service.metering.call import Adjustment, CallState, ModelCall
from godoty_service.rooms import Rooms
from godoty_service.tenancy.principal import Scope
from tests.faults.world import ServerProcess, World

_AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED})
_REPEATED = 0.3  # share of orders that are sent twice though they were answered


@dataclass
class Orders:
    """The adjustments that were ordered.

    Attributes:
        amounts: What each adds, in US dollars, by its request id; those whose answer came.
        unanswered: Those that were under way when the storm ended.
    """

    amounts: dict[str, Decimal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)

    def faults(self, adjustments: Sequence[Adjustment]) -> list[str]:
        """Name each order whose entry is missing, stands twice or has another amount."""
        found: dict[str, list[Decimal]] = {}
        for each in adjustments:
            if each.why in self.amounts or each.why in self.unanswered:
                found.setdefault(each.why, []).append(each.cost)
        return [
            f"adjustment {name} of {amount} has the entries {found.get(name, [])}"
            for name, amount in self.amounts.items()
            if found.get(name, []) != [amount]
        ] + [f"adjustment {name} stands {len(costs)} times" for name, costs in found.items() if len(costs) > 1]


async def adjust(
    world: World, servers: Sequence[ServerProcess], rng: random.Random, orders: Orders, tenants: Sequence[str]
) -> None:
    """Adjust settled calls until cancelled."""
    _, key = await world.rooms.keys.issue(world.tenant_id, scopes=frozenset({Scope.ADMIN}))
    number = 0
    while True:
        await asyncio.sleep(rng.uniform(0.2, 0.8))
        call = await _settled(world.rooms, rng, rng.choice(tenants))
        if call is None:
            continue
        number += 1
        request_id, amount = f"order-{number}", Decimal(rng.randrange(1, 10**9)).scaleb(-12)
        orders.unanswered.add(request_id)
        request = pb.AdjustCallRequest(
            tenant_id=call.tenant_id,
            call_id=call.call_id,
            add_usd=f"{amount:f}",
            why=request_id,
            request_id=request_id,
            above_bound=True,
        )
        for _ in range(1 + (rng.random() < _REPEATED)):
            await _order(servers, rng, request, key)
        orders.unanswered.discard(request_id)
        orders.amounts[request_id] = amount


async def _settled(rooms: Rooms, rng: random.Random, tenant_id: str) -> ModelCall | None:
    entries = [entry async for entry in rooms.ledger.by_session(tenant_id)]
    calls = [each for each in entries if isinstance(each, ModelCall) and each.state is CallState.SETTLED]
    return rng.choice(calls) if calls else None


async def _order(servers: Sequence[ServerProcess], rng: random.Random, request: pb.AdjustCallRequest, key: str) -> None:
    """Send an order to one server after the other until it is answered.

    Raises:
        grpc.aio.AioRpcError: It was refused.
    """
    metadata = (("authorization", f"Bearer {key}"),)
    while True:
        async with grpc.aio.insecure_channel(rng.choice(servers).address) as channel:
            stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            try:
                await stub.AdjustCall(request, metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
