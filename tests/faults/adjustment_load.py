"""Adjusts calls during the fault load: each request id must have one effect, however often and wherever it is sent."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import grpc
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import admin_service_pb2_grpc

from godoty_service.bootstrap.components import Components
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.tenancy.auth import Scope
from tests.faults.cluster import Cluster, ServerProcess

_RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED})
_DUPLICATE_SHARE = 0.3  # share of requests that are sent again after their response


@dataclass
class RequestedAdjustments:
    """The adjustments requested during the load.

    Attributes:
        amounts: The amounts added, in US dollars, by request id, of requests with a response.
        unanswered: The ids of requests without a response when the load ended.
    """

    amounts: dict[str, Decimal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)

    def mismatches(self, adjustments: Sequence[Adjustment]) -> list[str]:
        """Return a description of each request with a missing, duplicate or different ledger entry."""
        found: dict[str, list[Decimal]] = {}
        for each in adjustments:
            if each.why in self.amounts or each.why in self.unanswered:
                found.setdefault(each.why, []).append(each.cost)
        return [
            f"adjustment {name} of {amount} has entries of {found.get(name, [])}"
            for name, amount in self.amounts.items()
            if found.get(name, []) != [amount]
        ] + [f"adjustment {name} has {len(costs)} entries" for name, costs in found.items() if len(costs) > 1]


async def adjust(
    cluster: Cluster,
    servers: Sequence[ServerProcess],
    rng: random.Random,
    requested: RequestedAdjustments,
    tenants: Sequence[str],
) -> None:
    """Adjust random settled calls until cancelled."""
    _, key = await cluster.components.tenancy.api_keys.issue(cluster.tenant_id, scopes=frozenset({Scope.ADMIN}))
    number = 0
    while True:
        await asyncio.sleep(rng.uniform(0.2, 0.8))
        call = await _random_settled_call(cluster.components, rng, rng.choice(tenants))
        if call is None:
            continue
        number += 1
        request_id, amount = f"order-{number}", Decimal(rng.randrange(1, 10**9)).scaleb(-12)
        requested.unanswered.add(request_id)
        request = pb.AdjustCallRequest(
            tenant_id=call.tenant_id,
            call_id=call.call_id,
            add_usd=f"{amount:f}",
            why=request_id,
            request_id=request_id,
            above_bound=True,
        )
        for _ in range(1 + (rng.random() < _DUPLICATE_SHARE)):
            await _send(servers, rng, request, key)
        requested.unanswered.discard(request_id)
        requested.amounts[request_id] = amount


async def _random_settled_call(components: Components, rng: random.Random, tenant_id: str) -> ModelCall | None:
    entries = [entry async for entry in components.accounting.ledger.by_session(tenant_id)]
    calls = [each for each in entries if isinstance(each, ModelCall) and each.state is CallState.SETTLED]
    return rng.choice(calls) if calls else None


async def _send(servers: Sequence[ServerProcess], rng: random.Random, request: pb.AdjustCallRequest, key: str) -> None:
    """Send a request to random servers until one responds.

    Raises:
        grpc.aio.AioRpcError: The request was rejected.
    """
    metadata = (("authorization", f"Bearer {key}"),)
    while True:
        async with grpc.aio.insecure_channel(rng.choice(servers).address) as channel:
            stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            try:
                await stub.AdjustCall(request, metadata=metadata, timeout=180)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _RETRYABLE:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
