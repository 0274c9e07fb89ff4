"""The methods of a client, by subject."""

from __future__ import annotations

from typing import Generic, TypeVar

from godoty.calls import Namespace, Paged, Streamed, Unary
from godoty.connection import AsyncConnection, Connection
from godoty.operations import actions, admin, agents, attachments, billing, mcp_servers, sessions, turns, webhooks

_C = TypeVar("_C", Connection, AsyncConnection)


class Sessions(Namespace[_C]):
    """Sessions: conversations, their messages and their cost."""

    get = Unary(sessions.get)
    list = Paged(sessions.list_sessions)
    messages = Paged(sessions.messages)
    read_message = Streamed(sessions.read_message)
    metrics = Unary(sessions.metrics)
    fork = Unary(sessions.fork)
    export = Streamed(sessions.export)
    import_ = Unary(sessions.import_)
    delete = Unary(sessions.delete)


class Turns(Namespace[_C]):
    """Turns that run without a reader, or were started before."""

    start = Unary(turns.start)
    wait = Unary(turns.wait)

    get = Unary(turns.get)
    list = Paged(turns.list_turns)
    cancel = Unary(turns.cancel)


class Actions(Namespace[_C]):
    """Tool calls that wait for an answer: approvals, and results of client tools (scope converse or approve)."""

    list = Paged(actions.list_actions)
    decide = Unary(actions.decide)


class Agents(Namespace[_C]):
    """Agents: `list` is for those who talk to them (scope converse), all else for those who define them (agents)."""

    list = Paged(agents.list_agents)
    apply = Unary(agents.apply)
    get = Unary(agents.get)
    definitions = Paged(agents.definitions)
    versions = Paged(agents.versions)
    delete = Unary(agents.delete)


class Models(Namespace[_C]):
    """The provider's models."""

    list = Paged(agents.list_models)


class Attachments(Namespace[_C]):
    """Attachments: images and PDF documents that messages carry."""

    upload = Unary(attachments.upload)
    get = Streamed(attachments.get)


class McpServers(Namespace[_C]):
    """MCP servers, whose tools agents can use (scope agents)."""

    apply = Unary(mcp_servers.apply)
    get = Unary(mcp_servers.get)
    list = Paged(mcp_servers.list_servers)
    delete = Unary(mcp_servers.delete)
    check = Unary(mcp_servers.check)


class Webhooks(Namespace[_C]):
    """Endpoints that are notified of events (scope agents)."""

    apply = Unary(webhooks.apply)
    list = Paged(webhooks.list_webhooks)
    delete = Unary(webhooks.delete)
    deliveries = Paged(webhooks.deliveries)
    redeliver = Unary(webhooks.redeliver)


class Billing(Namespace[_C]):
    """Usage, ledger and budgets (scope billing)."""

    usage = Unary(billing.usage)
    usage_rows = Paged(billing.usage_rows)
    entries = Paged(billing.entries)
    export = Streamed(billing.export)
    budgets = Unary(billing.budgets)


class Admin(Namespace[_C]):
    """Tenants, API keys and policies (scope admin)."""

    create_tenant = Unary(admin.create_tenant)
    get_tenant = Unary(admin.get_tenant)
    list_tenants = Paged(admin.list_tenants)
    update_tenant = Unary(admin.update_tenant)
    suspend_tenant = Unary(admin.suspend_tenant)
    resume_tenant = Unary(admin.resume_tenant)
    delete_tenant = Unary(admin.delete_tenant)
    create_api_key = Unary(admin.create_api_key)
    get_api_key = Unary(admin.get_api_key)
    list_api_keys = Paged(admin.list_api_keys)
    revoke_api_key = Unary(admin.revoke_api_key)
    rotate_api_key = Unary(admin.rotate_api_key)
    get_policy = Unary(admin.get_policy)
    update_policy = Unary(admin.update_policy)
    set_provider_key = Unary(admin.set_provider_key)
    adjust_call = Unary(admin.adjust_call)
    erase_user = Unary(admin.erase_user)
    list_changes = Paged(admin.list_changes)


class Subjects(Generic[_C]):
    """The methods of a client, by subject.

    Attributes:
        sessions: Conversations, their messages and their cost.
        turns: Turns that run without a reader, or were started before.
        actions: Tool calls that wait for an answer.
        agents: Agents, and their definitions.
        models: The provider's models.
        attachments: Images and PDF documents.
        mcp_servers: MCP servers of the tenant.
        webhooks: Endpoints that are notified of events.
        billing: Usage, ledger and budgets.
        admin: Tenants, API keys and policies.
    """

    def __init__(self, connection: _C) -> None:
        self._connection: _C = connection
        self.sessions: Sessions[_C] = Sessions(connection)
        self.turns: Turns[_C] = Turns(connection)
        self.actions: Actions[_C] = Actions(connection)
        self.agents: Agents[_C] = Agents(connection)
        self.models: Models[_C] = Models(connection)
        self.attachments: Attachments[_C] = Attachments(connection)
        self.mcp_servers: McpServers[_C] = McpServers(connection)
        self.webhooks: Webhooks[_C] = Webhooks(connection)
        self.billing: Billing[_C] = Billing(connection)
        self.admin: Admin[_C] = Admin(connection)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.target!r})"
