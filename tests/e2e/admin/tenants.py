"""Tenants who try to access each other's data: their ids, their texts, and what a response must not contain."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from godoty.v1 import (
    admin_service_pb2_grpc,
    agent_definition_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    billing_service_pb2_grpc,
)
from google.protobuf.message import Message

from godoty_service.tenancy.auth import Scope

TIMEOUT = 30.0
# The service's own key and the models are the same for all; a request id is any text of the caller's, also a turn id.
_SHARED = {"provider_key_id", "model_id", "request_id"}
_LEAST = 8  # a shorter text identifies no tenant


@dataclass
class Tenant:
    """A tenant.

    Attributes:
        tenant_id: Its id.
        keys: A key for each scope.
        mark: Is in each of its texts; no other tenant ever sends it.
        user: The end user of its sessions; equally unique.
        secret: The secret of its MCP servers, which no one may receive, not even the tenant.
        sessions: Ids of its existing sessions.
        made: Ids under which it created sessions, some of them other tenants'.
        ids: Its ids of turns, calls, keys and pages, in the order in which they arrived.
        erased: Ids of its turns that were erased; ledger entries still have them.
        said: All text that it has sent, including other tenants' ids.
    """

    tenant_id: str
    keys: dict[Scope, str]
    mark: str = field(default_factory=lambda: f"mark-{secrets.token_hex(8)}")
    user: str = field(default_factory=lambda: f"user-{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: f"secret-{secrets.token_hex(8)}")
    sessions: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    ids: dict[str, None] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    @property
    def agent(self) -> str:
        """The name of an agent that no other tenant has; the operator sees it among the changes, unlike a text."""
        return self.mark.replace("mark-", "agent-")

    @property
    def server(self) -> str:
        """The name of an MCP server that no other tenant has; the operator sees it, too."""
        return self.mark.replace("mark-", "server-")

    @property
    def planted(self) -> Iterator[str]:
        """Return what no other tenant may receive."""
        yield from (self.mark, self.user, self.agent, self.server, self.tenant_id, *self.sessions, *self.ids)
        yield from (key.split("_")[1] for key in self.keys.values())


@dataclass(frozen=True)
class Answer:
    """A response: its messages, or a status."""

    code: grpc.StatusCode
    messages: list[Any]


class IsolationCheck:
    """Calls a server as several tenants, and searches each response for the data of the others."""

    def __init__(self, channel: grpc.Channel, tenants: list[Tenant]) -> None:
        self.tenants = tenants
        self._deleted: list[Tenant] = []
        self._stubs: dict[str, Any] = {
            "definitions": agent_definition_service_pb2_grpc.AgentDefinitionServiceStub(channel),  # type: ignore[no-untyped-call] # generated
            "agent": agent_service_pb2_grpc.AgentServiceStub(channel),  # type: ignore[no-untyped-call] # generated
            "billing": billing_service_pb2_grpc.BillingServiceStub(channel),  # type: ignore[no-untyped-call] # generated
            "admin": admin_service_pb2_grpc.AdminServiceStub(channel),  # type: ignore[no-untyped-call] # generated
        }

    @property
    def everyone(self) -> tuple[Tenant, ...]:
        """The tenants, and those that were deleted."""
        return (*self.tenants, *self._deleted)

    def replace(self, deleted: Tenant, replacement: Tenant) -> None:
        """Continue with another tenant instead of a deleted one, whose data are still searched for."""
        self.tenants[self.tenants.index(deleted)] = replacement
        self._deleted.append(deleted)

    def ask(self, who: Tenant, scope: Scope, service: str, method: str, request: Any) -> Answer:
        """Call a method as a tenant, and search the response."""
        who.said.append(str(request))
        metadata = (("authorization", f"Bearer {who.keys[scope]}"),)
        call = getattr(self._stubs[service], method)
        messages: list[Any] = []
        try:
            sent = iter([request]) if method in ("ImportSession", "UploadAttachment") else request
            answer = call(sent, metadata=metadata, timeout=TIMEOUT)
            messages.extend([answer] if isinstance(answer, Message) else answer)
        except grpc.RpcError as error:
            refusal: Any = error
            self._search(who, f"{refusal.details()}{refusal.trailing_metadata()}".encode(), service, scope)
            return Answer(refusal.code(), messages)
        self._search(who, b"".join(each.SerializeToString() for each in messages), service, scope)
        for each in messages:
            self._learn(who, each, scope)
        return Answer(grpc.StatusCode.OK, messages)

    def _search(self, who: Tenant, body: bytes, service: str, scope: Scope) -> None:
        """Search for secrets, and for data of other tenants that this one never sent itself.

        Raises:
            AssertionError: There are some.
        """
        assert not any(each.secret.encode() in body for each in self.everyone), "a secret was returned"
        others = [each for each in self.everyone if each is not who]
        if scope is Scope.ADMIN and service != "agent":  # may read all tenants, but none of their texts
            planted = [each.mark for each in others]
        else:
            planted = [text for each in others for text in each.planted]
        for text in planted:
            if text.encode() in body:
                assert any(text in said for said in who.said), f"{text} of another tenant reached {who.tenant_id}"

    def _learn(self, who: Tenant, message: Any, scope: Scope) -> None:
        """Record the ids in a response that name something of this tenant."""
        if scope is Scope.ADMIN:
            return
        for each, value in message.ListFields():
            if each.message_type is not None:
                for inner in value if each.is_repeated else [value]:
                    self._learn(who, inner, scope)
            elif isinstance(value, str) and _names(each.name, value) and not self._is_anothers(who, value):
                who.ids[value] = None

    def _is_anothers(self, who: Tenant, text: str) -> bool:
        return any(text in planted for each in self.tenants if each is not who for planted in each.planted)


def _names(field_name: str, value: str) -> bool:
    """Return whether a field contains an id of one tenant."""
    is_id = field_name.endswith("_id") and field_name not in _SHARED
    return len(value) >= _LEAST and (is_id or field_name in ("next_page_token", "cursor"))


def converse(who: Tenant, session_id: str, **fields: Any) -> agent_service_pb2.ConverseRequest:
    """Request a turn whose text contains the tenant's mark."""
    return agent_service_pb2.ConverseRequest(session_id=session_id, text=f"{who.mark} says hello", **fields)
