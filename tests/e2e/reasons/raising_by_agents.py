"""Raises the reasons that concern agents and MCP servers."""

from godoty.v1 import mcp_server_pb2 as mcp_pb

from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import failed, raises
from tests.support.caller import Failure, failure_of


@raises("AGENT_NOT_FOUND")
async def _no_agent(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("hi", agent="support"))


@raises("AGENT_MISMATCH")
async def _mismatch(environment: Environment) -> Failure:
    for name in ("support", "sales"):
        await environment.define(name=name)
    await environment.caller.converse("hi", agent="support")
    return failed(await environment.caller.converse("hi", agent="sales"))


@raises("AGENT_LIMIT")
async def _limit(environment: Environment) -> Failure:
    tenant_id = environment.service.tenant_id
    environment.service.database["agents"].insert_many(
        {"_id": f"{tenant_id}/a{number}", "tenant_id": tenant_id, "name": f"a{number}"} for number in range(1000)
    )
    return await failure_of(environment.define(name="one-more"))


@raises("MCP_SERVER_NOT_FOUND")
async def _no_server(environment: Environment) -> Failure:
    return await failure_of(environment.manage("GetMcpServer", mcp_pb.GetMcpServerRequest(mcp_server="crm")))


@raises("MCP_SERVER_LIMIT")
async def _server_limit(environment: Environment) -> Failure:
    tenant_id = environment.service.tenant_id
    environment.service.database["mcp_servers"].insert_many(
        {"_id": f"{tenant_id}/s{number}", "tenant_id": tenant_id, "name": f"s{number}"} for number in range(50)
    )
    server = {"name": "one-more", "url": "https://mcp.example/mcp"}
    return await failure_of(environment.manage("ApplyMcpServer", mcp_pb.ApplyMcpServerRequest(server=server)))


@raises("AGENT_NOT_ALLOWED")
async def _agent_not_allowed(environment: Environment) -> Failure:
    await environment.policy(allowed_agents=("support-*",))
    return failed(await environment.caller.converse("hi"))


@raises("TOOL_NOT_ALLOWED")
async def _tool_not_allowed(environment: Environment) -> Failure:
    await environment.policy(allowed_tools=("current_time",))
    return failed(await environment.caller.converse("hi"))
