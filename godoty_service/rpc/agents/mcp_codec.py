"""Converts between mcp_server.proto and domain values, and checks the requests; the command line uses it, too."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from godoty.v1 import mcp_server_pb2 as pb

from godoty_service.agents.mcp.changes import ServerTerms
from godoty_service.agents.mcp.server import DEFAULT_TIMEOUT, McpServer, OAuthClient
from godoty_service.agents.mcp.tool_list import ListedTool
from godoty_service.agents.mcp.toolbox import ServerCheck
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.errors import InvalidRequest
from godoty_service.rpc.metering_codec import duration, timestamp
from godoty_service.rpc.validation import COUNTS, LENGTHS, Violations

NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_PREFIX = re.compile(r"[A-Za-z0-9_]{1,32}")
_TOOL = re.compile(r"[A-Za-z0-9_./*-]{1,128}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_VISIBLE = re.compile(r"[!-~]([ -~]*[!-~])?")
_URL = re.compile(r"[!-~]+")
_MAX_TIMEOUT = timedelta(seconds=600)
_LEAST_OUTPUT = 256
_LARGEST_OUTPUT = 1024 * 1024
# What HTTP or the protocol itself sets; `Mcp-...` as well.
_RESERVED: Final = frozenset(
    {
        *("host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding"),
        *("accept", "accept-encoding", "te", "trailer", "upgrade", "expect", "keep-alive", "last-event-id"),
        *("proxy-authorization", "proxy-connection"),
    }
)


def parse_server(request: pb.ApplyMcpServerRequest, rules: AddressRules) -> ServerTerms:
    """Return the server that a request describes.

    Args:
        request: The request.
        rules: Decides which addresses are permitted.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    server, violations = request.server, Violations()
    if not request.HasField("server"):
        raise InvalidRequest.of("server", "must be set")
    if not NAME.fullmatch(server.name):
        violations.add("server.name", f"must match {NAME.pattern}")
    check_url("server.url", server.url, rules, violations)
    headers = _headers(server, violations)
    oauth = _oauth(server, rules, violations)
    check_tool_patterns("server.allow", server.allow, violations)
    check_tool_patterns("server.deny", server.deny, violations)
    if server.prefix and not _PREFIX.fullmatch(server.prefix):
        violations.add("server.prefix", f"must match {_PREFIX.pattern}, or be empty")
    timeout = DEFAULT_TIMEOUT
    if server.HasField("timeout"):
        timeout = _timeout(server, violations)
    output_bytes = server.output_bytes if server.HasField("output_bytes") else None
    if output_bytes is not None and not _LEAST_OUTPUT <= output_bytes <= _LARGEST_OUTPUT:
        violations.add("server.output_bytes", f"must be {_LEAST_OUTPUT} to {_LARGEST_OUTPUT}")
    violations.raise_if_any()
    return ServerTerms(
        name=server.name,
        url=server.url,
        headers=headers,
        oauth=oauth,
        client_secret=server.oauth.client_secret if server.oauth.HasField("client_secret") else None,
        allow=tuple(server.allow),
        deny=tuple(server.deny),
        prefix=server.prefix or server.name.replace("-", "_"),
        timeout=timeout,
        output_bytes=output_bytes,
    )


def parse_name(name: str) -> str:
    """Check the name of a server.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest.of("mcp_server", f"must match {NAME.pattern}")
    return name


def server_message(server: McpServer) -> pb.McpServer:
    """Convert a server, without its secrets."""
    message = pb.McpServer(
        name=server.name,
        url=server.url,
        headers=[pb.McpHeader(name=each) for each in server.header_names],
        allow=server.allow,
        deny=server.deny,
        prefix=server.prefix,
        timeout=duration(server.timeout),
        output_bytes=server.output_bytes,
        etag=server.etag,
        create_time=timestamp(server.create_time),
        update_time=timestamp(server.update_time),
    )
    if (oauth := server.oauth) is not None:
        client = pb.McpOAuthClient(token_url=oauth.token_url, client_id=oauth.client_id, oauth_scope=oauth.scope)
        message.oauth.CopyFrom(client)
    return message


def check_message(check: ServerCheck) -> pb.CheckMcpServerResponse:
    """Convert what a check found."""
    return pb.CheckMcpServerResponse(
        problem=check.problem,
        protocol_version=check.protocol_version,
        software=check.software,
        connect_duration=duration(check.connect) if check.connect is not None else None,
        list_duration=duration(check.list) if check.list is not None else None,
        tools=[_tool_message(each) for each in check.tools.tools] if check.tools is not None else (),
        tools_left_out=check.tools.left_out if check.tools is not None else 0,
    )


def _tool_message(tool: ListedTool) -> pb.McpTool:
    return pb.McpTool(
        name=tool.name,
        offered_name=tool.offered_name,
        description=tool.description,
        input_schema_json="" if tool.problem else json.dumps(tool.schema, ensure_ascii=False),
        problem=tool.problem,
    )


def _timeout(server: pb.McpServer, violations: Violations) -> timedelta:
    if not server.timeout.seconds and not server.timeout.nanos:
        violations.add("server.timeout", "must be more than 0")
        return DEFAULT_TIMEOUT
    return violations.read_duration("server.timeout", server.timeout, most=_MAX_TIMEOUT)


def check_url(
    field: str, url: str, rules: AddressRules, violations: Violations, networks: str = "GODOTY_MCP_NETWORKS"
) -> None:
    """Add a URL that cannot be that of a server, or whose address is not permitted in any case.

    Args:
        field: The path of its field.
        url: The URL.
        rules: The addresses that are permitted.
        violations: The violations.
        networks: The setting that permits others.
    """
    if len(url) > LENGTHS["url"]:
        violations.add(field, f"must have at most {LENGTHS['url']} characters")
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not _URL.fullmatch(url) or not host or parts.scheme not in ("http", "https"):
        violations.add(field, "must be a URL with https:// and a host")
    elif parts.username is not None or "#" in url:
        violations.add(field, "must have no user, password and fragment")
    elif not rules.permits_host(host, encrypted=parts.scheme == "https"):
        violations.add(field, "must have https:// and a public address, or one of " + networks)


def _headers(server: pb.McpServer, violations: Violations) -> dict[str, str | None]:
    headers: dict[str, str | None] = {}
    if len(server.headers) > COUNTS["headers"]:
        violations.add("server.headers", f"must be at most {COUNTS['headers']}")
        return headers
    names = [each.name.lower() for each in server.headers]
    for index, header in enumerate(server.headers):
        path, name = f"server.headers[{index}]", header.name.lower()
        if not _HEADER.fullmatch(name) or name in _RESERVED or name.startswith("mcp-"):
            violations.add(f"{path}.name", f"must match {_HEADER.pattern}, and be no header of HTTP or MCP itself")
        elif names.index(name) < index:
            violations.add(f"{path}.name", "must be no name of another header")
        elif name == "authorization" and server.HasField("oauth"):
            violations.add(f"{path}.name", "must not be Authorization, which has the access token of `oauth`")
        if header.HasField("secret"):
            _check_visible(f"{path}.secret", header.secret, violations)
        headers[header.name] = header.secret if header.HasField("secret") else None
    return headers


def _oauth(server: pb.McpServer, rules: AddressRules, violations: Violations) -> OAuthClient | None:
    if not server.HasField("oauth"):
        return None
    oauth = server.oauth
    check_url("server.oauth.token_url", oauth.token_url, rules, violations)
    _check_visible("server.oauth.client_id", oauth.client_id, violations)
    if oauth.HasField("client_secret"):
        _check_visible("server.oauth.client_secret", oauth.client_secret, violations)
    if oauth.oauth_scope:
        _check_visible("server.oauth.oauth_scope", oauth.oauth_scope, violations)
    return OAuthClient(token_url=oauth.token_url, client_id=oauth.client_id, scope=oauth.oauth_scope)


def _check_visible(path: str, text: str, violations: Violations) -> None:
    longest = LENGTHS[path.rpartition(".")[2]]
    if len(text) > longest or not _VISIBLE.fullmatch(text):
        violations.add(path, f"must have 1 to {longest} printable ASCII characters, no space at either end")


def check_tool_patterns(field: str, patterns: Sequence[str], violations: Violations) -> None:
    """Add a field with names of tools, or patterns with `*`, of which one is invalid or which are too many."""
    most = COUNTS["allow"]
    if len(patterns) > most or not all(_TOOL.fullmatch(each) for each in patterns):
        violations.add(field, f"must be at most {most}, each of which matches {_TOOL.pattern}")
