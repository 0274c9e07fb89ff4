"""Calls that end before the provider's response: the comparison finds the entry of each line, and why it has no id."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc, turn_pb2

from tests.faults.cluster import Cluster, ServerProcess, open_cluster
from tests.faults.invoice_comparison import CANCELLED, LEASE_LOST
from tests.support.leases import LEASE
from tests.support.service import PATIENCE, soon

# Billed in full at once; the response, with the generation id, comes later than the call ends.
_SCENARIO = "go @sandbox websearch bill_first=1 headers_ms=60000"


@pytest.fixture
async def cluster(mongodb_uri: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A sandbox and a database."""
    name = f"godoty_test_comparison_{secrets.token_hex(4)}"
    async with open_cluster(mongodb_uri=mongodb_uri, name=name, directory=tmp_path) as opened:
        yield opened


async def test_line_of_a_cancelled_search_has_an_entry(cluster: Cluster) -> None:
    """The provider searched although the request contained no search: the entry's bound is without the fee."""
    server = cluster.server(GODOTY_LEASE="60")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = await _billed(cluster, channel)
            call.cancel()
            await cluster.settled(within=PATIENCE)
    finally:
        await server.stop()
    comparison = await cluster.compare_with_invoice()

    assert comparison.faults == []
    assert (comparison.lines, dict(comparison.reasons)) == (1, {CANCELLED: 1})


async def test_call_of_a_turn_that_lost_its_lease_is_unresolved_with_that_reason(cluster: Cluster) -> None:
    """A server that stood still for longer than its lease cancels the turn's call, like a caller."""
    server = cluster.server()
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = await _billed(cluster, channel)
            _signal(server, signal.SIGSTOP)
            await asyncio.sleep(LEASE + 1)
            _signal(server, signal.SIGCONT)
            with pytest.raises(grpc.aio.AioRpcError):
                _ = [each async for each in call]
            await cluster.settled(within=PATIENCE)
    finally:
        await server.stop()
    comparison = await cluster.compare_with_invoice()

    assert comparison.faults == []
    assert (comparison.lines, dict(comparison.reasons)) == (1, {LEASE_LOST: 1})


async def _billed(cluster: Cluster, channel: grpc.aio.Channel) -> "grpc.aio.UnaryStreamCall[Any, Any]":
    """Begin a turn; return its call when the provider has billed it, before it responds."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    call: grpc.aio.UnaryStreamCall[Any, Any] = stub.Converse(
        pb.ConverseRequest(text=_SCENARIO, limits=turn_pb2.TurnLimits(max_output_tokens=100)), metadata=cluster.metadata
    )
    await soon(cluster.sandbox.invoice.lines)
    return call


def _signal(server: ServerProcess, number: signal.Signals) -> None:
    assert server.process is not None
    server.process.send_signal(number)
