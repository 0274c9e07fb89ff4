"""MCP servers by gRPC: applied, read, listed, checked and deleted by their own tenant, with no secret in any answer."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from godoty.v1 import mcp_server_pb2 as pb

from godoty_service.bootstrap.components import open_components
from godoty_service.bootstrap.erasure import tenant_erasure
from openrouter_sandbox.mcp.app import CLIENT, SECRET
from tests.e2e.mcp.conftest import SETTINGS, Become, Mcp, Tenant, output
from tests.support.backends import ME
from tests.support.caller import failure_of
from tests.support.service import Service

HEADERS = [{"name": "X-Api-Key", "secret": SECRET}]


async def test_server_is_returned_without_its_secrets(tenant: Tenant, mcp: Mcp) -> None:
    """With defaults in place of what is not set; what it returned changes nothing."""
    oauth = {"token_url": mcp.url("/token"), "client_id": CLIENT, "client_secret": SECRET, "oauth_scope": "tools"}
    applied = await tenant.serve(mcp.url(), headers=HEADERS, oauth=oauth, allow=["a*"], timeout={"seconds": 5})

    found = (await tenant.call("GetMcpServer", mcp_server="crm")).server
    listed = await tenant.call("ListMcpServers")

    assert found == applied == listed.servers[0]
    assert found.prefix == "crm"
    assert found.headers == [pb.McpHeader(name="X-Api-Key")]
    assert found.oauth == pb.McpOAuthClient(token_url=mcp.url("/token"), client_id=CLIENT, oauth_scope="tools")
    again = await tenant.call("ApplyMcpServer", server=found)
    assert (again.changed, again.server) == (False, found)


async def test_check_says_what_a_server_offers(tenant: Tenant, mcp: Mcp) -> None:
    """The names that models see, their schemas, and how fast it is; a tool that cannot be used, with the reason."""
    await tenant.serve(mcp.url(), deny=["flood"])

    check = await tenant.call("CheckMcpServer", mcp_server="crm")

    assert check.problem == ""
    assert check.protocol_version == "2026-07-28"
    assert check.software == "sandbox 1.0"
    assert check.connect_duration.ToTimedelta()
    assert check.list_duration.ToTimedelta()
    tools = {each.name: each for each in check.tools}
    assert tools["echo"].offered_name == "crm_echo"
    assert json.loads(tools["count"].input_schema_json)["properties"]["number"] == {"enum": [1, 2, 3]}
    assert (tools["flood"].input_schema_json, "deny" in tools["flood"].problem) == ("", True)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/secret", "HTTP 401"),
        ("/nothing", "HTTP 404"),
        ("/nonsense?kind=html", "."),
        ("/redirect?to=https://10.0.0.1/mcp", "not permitted"),
    ],
)
async def test_check_says_what_is_wrong(tenant: Tenant, mcp: Mcp, path: str, problem: str) -> None:
    """As an answer, not as an error."""
    await tenant.serve(mcp.url(path))

    check = await tenant.call("CheckMcpServer", mcp_server="crm")

    assert problem in check.problem
    assert list(check.tools) == []


async def test_servers_of_others_do_not_exist(tenant: Tenant, mcp: Mcp, become: Become) -> None:
    """NOT_FOUND for all that names them, also in a definition."""
    await tenant.serve(mcp.url())
    other = become(tenant.caller.service.another_tenant())

    for method in ("GetMcpServer", "DeleteMcpServer", "CheckMcpServer"):
        failure = await failure_of(other.call(method, mcp_server="crm"))
        assert (failure.reason, failure.metadata) == ("MCP_SERVER_NOT_FOUND", {"mcp_server": "crm"})
    failure = await failure_of(other.agent("crm"))
    assert (failure.reason, failure.metadata) == ("MCP_SERVER_NOT_FOUND", {"mcp_server": "crm"})
    assert list((await other.call("ListMcpServers")).servers) == []
    assert (await tenant.call("GetMcpServer", mcp_server="crm")).server.name == "crm"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"url": "https://127.0.0.1/mcp"}, None),  # a network of the operator's
        ({"url": "https://10.0.0.1/mcp"}, "server.url"),
        ({"url": "https://[::1]/mcp"}, "server.url"),
        ({"url": "http://93.184.216.34/mcp"}, "server.url"),
        ({"url": "https://169.254.169.254/latest"}, "server.url"),
        ({"url": "file:///etc/passwd"}, "server.url"),
        ({"url": "https://user:pw@mcp.example/"}, "server.url"),
        ({"headers": [{"name": "Host", "secret": "a"}]}, "server.headers[0].name"),
        ({"headers": [{"name": "Mcp-Session-Id", "secret": "a"}]}, "server.headers[0].name"),
        ({"headers": [{"name": "A", "secret": "a\r\nHost: b"}]}, "server.headers[0].secret"),
        ({"headers": [{"name": "A", "secret": "a"}, {"name": "a", "secret": "b"}]}, "server.headers[1].name"),
        ({"headers": [{"name": "A"}]}, "server.headers[0].secret"),
        ({"timeout": {"seconds": 0}}, "server.timeout"),
        ({"output_bytes": 10}, "server.output_bytes"),
        ({"prefix": "a b"}, "server.prefix"),
        ({"name": "CRM"}, "server.name"),
    ],
)
async def test_invalid_fields_are_named(tenant: Tenant, fields: dict[str, Any], path: str | None) -> None:
    """No address that is refused is stored, and no header that changes the request."""
    server = {"name": "crm", "url": "https://mcp.example/mcp"} | fields

    if path is None:
        await tenant.call("ApplyMcpServer", server=server)
        return
    failure = await failure_of(tenant.call("ApplyMcpServer", server=server))

    assert (failure.reason, list(failure.fields)) == ("INVALID_FIELD", [path])


async def test_changes_are_recorded_without_secrets(tenant: Tenant, mcp: Mcp) -> None:
    """With the values before and after."""
    await tenant.serve(mcp.url(), headers=HEADERS)
    await tenant.serve(mcp.url(), headers=HEADERS, deny=["x"])
    await tenant.call("DeleteMcpServer", mcp_server="crm")

    found = list(
        tenant.caller.service.database["admin_changes"].find({"tenant_id": tenant.caller.service.tenant_id}).sort("_id")
    )
    changes = [each for each in found if "McpServer" in each["action"]]
    assert [each["action"] for each in changes] == ["ApplyMcpServer", "ApplyMcpServer", "DeleteMcpServer"]
    assert json.loads(changes[1]["old"])["deny"] == []
    assert json.loads(changes[1]["details"])["deny"] == ["x"]
    assert SECRET not in str(found)


async def test_erased_tenant_leaves_no_server(tenant: Tenant, mcp: Mcp, issue: Callable[..., str]) -> None:
    """Its secrets go with it."""
    await tenant.serve(mcp.url(), headers=HEADERS)
    service: Service = tenant.caller.service
    settings = service.backends.settings(service.database.name, **SETTINGS)
    async with open_components(settings, indexes=False) as components:
        await components.administration.lifecycle.delete(ME, service.tenant_id)
        for _ in range(5):
            await tenant_erasure(components, delay=-60, patience=timedelta(0)).run_once()

    assert service.database["mcp_servers"].count_documents({"tenant_id": service.tenant_id}) == 0


async def test_result_is_cut_to_the_limit_of_its_server(tenant: Tenant, mcp: Mcp) -> None:
    """With a note that the model sees."""
    await tenant.serve(mcp.url(), output_bytes=256)
    await tenant.agent("crm")

    succeeded, shown = output(await tenant.use("echo", f'{{"text": "{"x" * 1000}"}}'))

    assert succeeded
    assert shown == f"{'x' * 256}\n[The result is cut: 744 more characters are left out.]"
