"""A request of each RPC with no more fields than it needs, and the tenants that send it.

An RPC that is added to the contract needs a line in `NEEDED`, and a value in `Party.values` for each field of a new
name.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from godoty import v1
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import tenant_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from godoty_service.tenancy.auth import Scope
from godoty_service.webhooks.deliveries import delivery_to_document
from godoty_service.webhooks.delivery import Delivery, DeliveryState
from tests.support.caller import Failure
from tests.support.media import png
from tests.support.service import Service, until

METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for module in pkgutil.iter_modules(v1.__path__)
    if module.name.endswith("_service_pb2")
    for service in importlib.import_module(f"godoty.v1.{module.name}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
NAMES = [method.name for method in METHODS]

# The fields that each RPC needs.
NEEDED: dict[str, tuple[str, ...]] = {
    "AdjustCall": ("tenant_id", "call_id", "add_usd", "why", "request_id"),
    "ApplyAgent": ("definition",),
    "ApplyMcpServer": ("server",),
    "ApplyWebhook": ("webhook",),
    "CancelTurn": ("turn_id",),
    "CheckMcpServer": ("mcp_server",),
    "Converse": ("text",),
    "CreateApiKey": ("tenant_id", "scopes"),
    "CreateTenant": ("display_name",),
    "DecideAction": ("action_result",),
    "DeleteAgent": ("agent",),
    "DeleteMcpServer": ("mcp_server",),
    "DeleteSession": ("session_id",),
    "DeleteTenant": ("tenant_id",),
    "DeleteWebhook": ("webhook_name",),
    "EraseUser": ("tenant_id", "user"),
    "ExportLedger": (),
    "ExportSession": ("session_id",),
    "ForkSession": ("session_id",),
    "GetAgent": ("agent",),
    "GetAttachment": ("attachment_id",),
    "GetApiKey": ("tenant_id", "api_key_id"),
    "GetBudget": (),
    "GetMcpServer": ("mcp_server",),
    "GetPolicy": ("tenant_id",),
    "GetSession": ("session_id",),
    "GetSessionMetrics": ("session_id",),
    "GetTenant": ("tenant_id",),
    "GetTurn": ("turn_id",),
    "GetUsage": ("start_time", "end_time"),
    "ImportSession": ("lines",),
    "ListActions": (),
    "ListAdminChanges": (),
    "ListAgentDefinitions": (),
    "ListAgentVersions": ("agent",),
    "ListAgents": (),
    "ListApiKeys": ("tenant_id",),
    "ListDeliveries": ("webhook_name",),
    "ListLedgerEntries": (),
    "ListMcpServers": (),
    "ListMessages": ("session_id",),
    "ListModels": (),
    "ListSessions": (),
    "ListTenants": (),
    "ListTurns": (),
    "ListWebhooks": (),
    "ReadMessage": ("session_id", "number"),
    "RedeliverEvent": ("webhook_name", "event_id"),
    "ResumeTenant": ("tenant_id",),
    "ResumeTurn": ("turn_id",),
    "RevokeApiKey": ("tenant_id", "api_key_id"),
    "RotateApiKey": ("tenant_id", "api_key_id"),
    "SetProviderKey": ("tenant_id",),
    "StartTurn": ("request",),
    "SuspendTenant": ("tenant_id",),
    "UploadAttachment": ("data",),
    "UpdatePolicy": ("tenant_id", "policy"),
    "UpdateTenant": ("tenant_id", "tenant"),
    "WaitTurn": ("turn_id",),
}
_URL = "https://127.0.0.1:1/mcp"  # where nothing listens
# The fields that an element of a repeated field needs, or a message that is optional as a whole.
ELEMENTS: dict[str, dict[str, Any]] = {
    "godoty.v1.ActionResult": {"action_id": "act_0", "approve": {}},
    "godoty.v1.AgentDefinition": {"name": "helper"},
    "godoty.v1.AgentTool": {"builtin": "calculator"},
    "godoty.v1.AttachmentSource": {"inline": png()},
    "godoty.v1.Budget": {"window": 1, "limit_usd": "1"},
    "godoty.v1.ConverseRequest": {"text": "hello"},
    "godoty.v1.ClientTool": {"tool_name": "look", "description": "Finds."},
    "godoty.v1.ClientToolOutput": {"output_text": "done"},
    "godoty.v1.McpHeader": {"name": "X-Key", "secret": "hidden"},
    "godoty.v1.McpOAuthClient": {"token_url": _URL, "client_id": "me", "client_secret": "hidden"},
    "godoty.v1.McpServer": {"name": "crm", "url": _URL},
    "godoty.v1.McpToolset": {"mcp_server": "crm"},
    "godoty.v1.SubAgent": {"agent": "other", "description": "Knows."},
    "godoty.v1.Webhook": {"name": "hook", "url": _URL},
}

_SESSION, _USER = "talk", "alice"
_YEAR = 366 * 24 * 3600
_numbers = itertools.count()


@dataclass(frozen=True)
class Outcome:
    """The end of a call: its responses, and its failure."""

    responses: list[Any]
    failure: Failure | None = None


@dataclass(frozen=True)
class Party:
    """A tenant with something in each list.

    Attributes:
        service: The server and the tenant.
        channel: A blocking channel to the server.
        key: A key with all scopes, the operator's.
        bound: A key for the tenant alone, with all other scopes.
        values: By the name of a field, what this tenant sends in it.
    """

    service: Service
    channel: grpc.Channel
    key: str
    bound: str
    values: dict[str, Any]

    @classmethod
    def new(cls, service: Service, channel: grpc.Channel) -> Party:
        """Create two sessions of one turn each for a tenant, two more keys, and a policy."""
        issue = service.backends.issue_key
        key, bound, spare = (
            issue(service.database.name, service.tenant_id, scopes=scopes)
            for scopes in (frozenset(Scope), frozenset(Scope) - {Scope.ADMIN}, frozenset({Scope.CONVERSE}))
        )
        party = cls(service, channel, key, bound, {})
        turns = [party.converse(session_id) for session_id in (_SESSION, "other")]
        until(lambda: all(each.cost is not None for each in service.entries(_SESSION)))
        until(lambda: (service.session(_SESSION) or {"lease": ""})["lease"] is None)
        name = f"helper-{next(_numbers)}"
        party.values.update(
            agent=name,
            definition={"name": name, "description": "the first"},
            mcp_server=f"{name}-1",
            server={"name": f"{name}-1", "url": _URL},
            webhook_name=f"{name}-1",
            event_id=f"evt_{next(_numbers):032x}",
            tenant_id=service.tenant_id,
            session_id=_SESSION,
            turn_id=turns[0][0].event.turn_id,
            call_id=service.entries(_SESSION)[0].call_id,
            api_key_id=spare.split("_")[1],
            number=1,
            user=_USER,
            text="hello",
            request={"text": "hello"},
            data=png(),
            lines='{"begin": {"format": 1}}\n{"end": {}}',
            display_name="acme",
            scopes=[tenant_pb2.API_SCOPE_CONVERSE],
            add_usd="0.000000001",
            why="a test",
            request_id=f"request-{next(_numbers)}",
            start_time={"seconds": turns[0][0].event.time.seconds - _YEAR},
            end_time={"seconds": turns[0][0].event.time.seconds + 3600},
            policy={"turns_per_minute": 1000},
            tenant={"display_name": "acme"},
        )
        party.values["action_result"] = party.asked(f"asker-{name}")
        uploaded = party.ask(by_name("UploadAttachment"), party.request(by_name("UploadAttachment")))
        party.values["attachment_id"] = uploaded.responses[0].attachment.attachment_id
        for _ in range(2):  # so that there are changes to list
            assert party.ask(by_name("UpdatePolicy"), party.request(by_name("UpdatePolicy"))).failure is None
        for description in ("the second", "the third"):  # of which there are versions to list
            assert party.ask(by_name("ApplyAgent"), party.request(by_name("ApplyAgent"))).failure is None
            party.values["definition"] = {"name": name, "description": description}
        for number in (2, 1):  # so that there are servers to list
            party.values["server"] = {"name": f"{name}-{number}", "url": _URL}
            assert party.ask(by_name("ApplyMcpServer"), party.request(by_name("ApplyMcpServer"))).failure is None
        party.values["server"]["deny"] = ["x"]  # so that there is something to change
        for number in (2, 1):  # so that there are webhooks to list
            party.values["webhook"] = {"name": f"{name}-{number}", "url": _URL, "event_types": ["webhook.disabled"]}
            assert party.ask(by_name("ApplyWebhook"), party.request(by_name("ApplyWebhook"))).failure is None
        party.values["webhook"]["description"] = "x"
        party.deliver()
        return party

    def deliver(self) -> None:
        """Store two deliveries of the webhook, of which one is of the event."""
        database, tenant_id = self.service.database, self.service.tenant_id
        webhook = database["webhooks"].find_one({"tenant_id": tenant_id, "name": self.values["webhook_name"]})
        assert webhook is not None
        now = webhook["create_time"]
        for place, event_id in enumerate((f"evt_{next(_numbers):032x}", self.values["event_id"])):
            delivery = Delivery(
                delivery_id=f"delivery_{tenant_id}_{place}",
                tenant_id=tenant_id,
                webhook=webhook["name"],
                webhook_uid=webhook["uid"],
                event_id=event_id,
                event_type="turn.finished",
                order=place,
                turn_id=None,
                session_id=None,
                user_reference=None,
                body="{}",
                state=DeliveryState.DELIVERED,
                next_time=now,
                deadline=now,
                create_time=now,
            )
            database["webhook_deliveries"].insert_one(
                delivery_to_document(delivery, expire_time=now + timedelta(days=7))
            )

    def request(self, method: MethodDescriptor, *, without: str = "", **fields: Any) -> Any:
        """Return a request with the fields that the RPC needs.

        Args:
            method: The RPC.
            without: The name of a needed field to leave out.
            fields: Further fields.
        """
        needed = {name: self.values[name] for name in NEEDED[method.name] if name != without}
        return new_message(method.input_type)(**(needed | fields))

    def converse(self, session_id: str) -> list[agent_pb.ConverseResponse]:
        """Run a turn."""
        request = agent_pb.ConverseRequest(session_id=session_id, text="hello", user=_USER)
        outcome = self.ask(by_name("Converse"), request)
        assert outcome.failure is None, outcome.failure
        return outcome.responses

    def asked(self, agent: str) -> dict[str, Any]:
        """Run two turns that ask for an approval; return an answer to the second one."""
        tools = [{"builtin": "calculator", "approval": {}}]
        applying = by_name("ApplyAgent")
        applied = self.ask(applying, new_message(applying.input_type)(definition={"name": agent, "tools": tools}))
        assert applied.failure is None, applied.failure
        text = "@sandbox tool-loop calls=2 tool=calculator"
        for session_id in ("asked-before", "asked"):
            outcome = self.ask(
                by_name("Converse"), agent_pb.ConverseRequest(session_id=session_id, text=text, agent=agent, user=_USER)
            )
            assert outcome.failure is None, outcome.failure
        (action,) = outcome.responses[-1].event.turn_finished.actions
        return {"action_id": action.action_id, "approve": {}}

    def ask(self, method: MethodDescriptor, request: Message, *, key: str | None = None) -> Outcome:
        """Call an RPC and read its whole answer."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        decode = new_message(method.output_type).FromString
        metadata = (("authorization", f"Bearer {key or self.key}"),)
        responses: list[Any] = []
        try:
            if method.server_streaming:
                stream = self.channel.unary_stream(path, type(request).SerializeToString, decode)
                responses.extend(stream(request, metadata=metadata, timeout=60))
            else:
                unary = self.channel.unary_unary(path, type(request).SerializeToString, decode)
                responses.append(unary(request, metadata=metadata, timeout=60))
        except grpc.RpcError as error:
            return Outcome(responses, Failure.of(error))
        return Outcome(responses)

    def written(self) -> dict[str, Any]:
        """Return what calls of this tenant write: the ids of its documents, and the whole of those it configures."""
        database, tenant_id = self.service.database, self.service.tenant_id
        names: tuple[str, ...] = (
            "sessions",
            "messages",
            "turns",
            "ledger",
            "api_keys",
            "budgets",
            "provider_keys",
            "admin_changes",
        )
        names += ("actions", "steps", "agents", "agent_versions", "mcp_servers", "attachments", "attachment_chunks")
        names += ("webhooks", "webhook_deliveries")
        found: dict[str, Any] = {
            name: {each["_id"] for each in database[name].find({"tenant_id": tenant_id}, {"_id": 1})} for name in names
        }
        found["keys"] = list(database["api_keys"].find({"tenant_id": tenant_id}, {"last_use_time": 0}).sort("_id"))
        found["of servers"] = list(database["mcp_servers"].find({"tenant_id": tenant_id}).sort("_id"))
        webhooks = database["webhooks"].find({"tenant_id": tenant_id}, {"revision": 1, "secrets": 1, "url": 1})
        found["of webhooks"] = list(webhooks.sort("_id"))
        found["of agents"] = list(database["agents"].find({"tenant_id": tenant_id}).sort("_id"))
        for name in ("tenants", "policies"):
            found[name] = database[name].find_one({"_id": tenant_id})
        return found


def by_name(name: str) -> MethodDescriptor:
    """Return an RPC."""
    (found,) = [method for method in METHODS if method.name == name]
    return found


def new_message(descriptor: Descriptor) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(descriptor)


def put(message: Any, path: list[FieldDescriptor], value: Any) -> None:
    """Set a field inside a message; messages on the way are created with what they need."""
    *parents, last = path
    for field in parents:
        place = getattr(message, field.name)
        assert field.message_type is not None
        if field.is_repeated and not place:
            place.add(**ELEMENTS.get(field.message_type.full_name, {}))
        message = place[0] if field.is_repeated else place
        if not field.is_repeated and not message.ByteSize():
            message.SetInParent()
            message.MergeFrom(type(message)(**ELEMENTS.get(field.message_type.full_name, {})))
    if is_map(last):
        getattr(message, last.name).clear()
        getattr(message, last.name).update(value)
    elif last.is_repeated:
        del getattr(message, last.name)[:]
        getattr(message, last.name).extend(value)
    elif last.message_type is not None:
        getattr(message, last.name).CopyFrom(value)
    else:
        setattr(message, last.name, value)


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def path_of(path: list[FieldDescriptor]) -> str:
    """Return a field's path as an error names it; of repeated messages, the first is meant."""
    *parents, last = path
    return "".join(f"{each.name}[0]." if each.is_repeated else f"{each.name}." for each in parents) + last.name
