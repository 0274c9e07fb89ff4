"""The agents of the fault load that ask: one with tools of all kinds, and one whose sub-agent's sub-agent asks."""

from typing import Any

import grpc
from godoty.v1 import agent_definition_service_pb2 as pb
from godoty.v1 import agent_definition_service_pb2_grpc as stubs

from godoty_service.bootstrap.components import Components
from godoty_service.tenancy.auth import Scope
from tests.e2e.agents.trees import asks, tools

CLERK, MANAGER = "clerk", "manager"
_STEP_THREE = "tool-loop calls=2 parallel=3"  # a tool that needs approval, a free one, and one of the caller's
CLERK_TEXTS = tuple(
    f"go @sandbox {each}"
    for each in (
        f"{_STEP_THREE} delay_ms=2",
        _STEP_THREE,
        "tool-loop calls=3 parallel=3",  # asks again
        "tool-loop calls=2 parallel=2 delay_ms=2",
        "tool-loop calls=3 parallel=3 fault=error-mid at=2 error_after=2",
    )
)
_CHECKED = 'tool=calculator input=\'{"expression": "6 * 7"}\''
MANAGER_TEXTS = tuple(
    asks("researcher", asks("checker", f"@sandbox {each}"))
    for each in (
        f"tool-loop calls=2 {_CHECKED}",
        f"tool-loop calls=2 delay_ms=2 {_CHECKED}",
        f"tool-loop calls=3 {_CHECKED}",  # asks again
        f"tool-loop calls=2 fault=error-mid at=2 error_after=2 {_CHECKED}",
        "plain tokens=9 delay_ms=2",  # asks nothing
    )
)
_APPROVED = {"builtin": "calculator", "approval": {}}
_REFUND = {"tool_name": "refund", "description": "Refunds.", "input_schema": '{"type": "object"}'}
_DEFINITIONS: tuple[dict[str, Any], ...] = (
    {"name": CLERK, "tools": [_APPROVED, {"builtin": "current_time"}, {"client": _REFUND}]},
    {"name": "checker", "tools": [_APPROVED], "model": "deepseek/deepseek-v3.2"},
    {"name": "researcher", "tools": tools("checker"), "model": "anthropic/claude-haiku-4.5"},
    {"name": MANAGER, "tools": tools("researcher")},
)


async def apply_agents(components: Components, address: str, tenant_id: str) -> None:
    """Apply the agents of a tenant.

    Args:
        components: Issue the key.
        address: The address of a server.
        tenant_id: The tenant.
    """
    _, key = await components.tenancy.api_keys.issue(tenant_id, scopes=frozenset({Scope.AGENTS}))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = stubs.AgentDefinitionServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        for each in _DEFINITIONS:
            request = pb.ApplyAgentRequest(definition={"system_prompt": "Be brief.", **each})
            await stub.ApplyAgent(request, metadata=(("authorization", f"Bearer {key}"),), timeout=90)
