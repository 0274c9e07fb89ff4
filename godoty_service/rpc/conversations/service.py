"""AgentService: one short method per RPC."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.store import Agents
from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.attachments import Attachments
from godoty_service.clock import Clock
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.rpc.agents.codec import summary_message
from godoty_service.rpc.conversations import codec
from godoty_service.rpc.conversations.action_codec import action_message, decider_of, parse_decision, parse_state
from godoty_service.rpc.conversations.attachment_codec import (
    parse_attachment_id,
    piece_messages,
    upload_message,
    upload_pieces,
)
from godoty_service.rpc.conversations.model_codec import allowed_models, catalogue_state, model_messages
from godoty_service.rpc.conversations.sessions import SessionReader
from godoty_service.rpc.conversations.turn_codec import fill_event, parse_start, parse_wait, turn_message, within
from godoty_service.rpc.conversations.turn_request_codec import parse_turn_request
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.pagination import PageRequest
from godoty_service.rpc.session_copies.exports import SessionExport
from godoty_service.rpc.session_copies.forks import next_message, parse_fork
from godoty_service.rpc.session_copies.imports import SessionImport
from godoty_service.session_copies.forks import SessionForks
from godoty_service.session_copies.imports import SessionImports
from godoty_service.sessions.store import SessionStore
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policies
from godoty_service.turns.actions.service import ActionService
from godoty_service.turns.service import TurnService
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.turns.turn import TurnRequest

_SERVICE = pb.DESCRIPTOR.services_by_name["AgentService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES: dict[str, tuple[Scope, ...]] = {
    f"/{SERVICE_NAME}/{method.name}": (Scope.CONVERSE,) for method in _SERVICE.methods
}
SCOPES |= {f"/{SERVICE_NAME}/{name}": (Scope.CONVERSE, Scope.APPROVE) for name in ("ListActions", "DecideAction")}
# Their calls are long.
TURN_METHODS = frozenset(f"/{SERVICE_NAME}/{name}" for name in ("Converse", "ResumeTurn", "StartTurn", "WaitTurn"))


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Conversations with an agent, and their cost."""

    def __init__(
        self,
        *,
        turns: TurnService,
        forks: SessionForks,
        imports: SessionImports,
        actions: ActionService,
        agents: Agents,
        schemas: OutputSchemas,
        sessions: SessionStore,
        reader: SessionReader,
        exporter: SessionExport,
        deletions: SessionDeletions,
        oracle: PricingOracle,
        max_text_bytes: int,
        page_bytes: int,
        policies: Policies,
        catalogue_stale_after: timedelta,
        clock: Clock,
        attachments: Attachments,
        rules: AddressRules,
    ) -> None:
        """Create the service.

        Args:
            turns: Runs and resumes turns.
            forks: Forks sessions.
            imports: Makes sessions of exported ones.
            actions: Lists actions, and stores answers to them.
            agents: The tenants' agents.
            schemas: Reads output schemas.
            sessions: The sessions.
            reader: Reads them.
            exporter: Exports them.
            deletions: Deletes them.
            oracle: Has the catalogue of models.
            max_text_bytes: Maximum bytes of a turn's text.
            page_bytes: Bytes at which a page ends.
            policies: The tenants' policies.
            catalogue_stale_after: The age from which on the catalogue is stale.
            clock: Returns the time.
            attachments: The tenants' attachments.
            rules: The addresses from which attachments may be fetched.
        """
        self._turns = turns
        self._forks = forks
        self._imports = imports
        self._actions = actions
        self._agents = agents
        self._schemas = schemas
        self._sessions = sessions
        self._reader = reader
        self._exporter = exporter
        self._deletions = deletions
        self._oracle = oracle
        self._max_text_bytes = max_text_bytes
        self._page_bytes = page_bytes
        self._policies = policies
        self._catalogue_stale_after = catalogue_stale_after
        self._clock = clock
        self._attachments = attachments
        self._rules = rules

    async def Converse(self, request: pb.ConverseRequest, call: CallContext) -> AsyncIterator[pb.ConverseResponse]:
        """Start a turn and stream its events."""
        turn_request = await self._turn_request(request, call)
        key = call.principal
        turn = self._turns.converse(call.tenant_id, turn_request, key_id=key.key_id, key_limits=key.limits)
        async with aclosing(turn) as events:
            async for turn_id, event in events:
                response = pb.ConverseResponse()
                fill_event(response.event, turn_id, event)
                yield response

    async def StartTurn(self, request: pb.StartTurnRequest, call: CallContext) -> pb.StartTurnResponse:
        """Start a turn that needs no reader."""
        converse, key = parse_start(request), call.principal
        with within("request"):
            turn_request = await self._turn_request(converse, call)
            turn_id, session_id = await self._turns.start(
                call.tenant_id, turn_request, key_id=key.key_id, key_limits=key.limits
            )
        return pb.StartTurnResponse(turn_id=turn_id, session_id=session_id)

    async def WaitTurn(self, request: pb.WaitTurnRequest, call: CallContext) -> pb.WaitTurnResponse:
        """Return a turn when it has ended, or after a time."""
        turn_id, longest = parse_wait(request)
        return pb.WaitTurnResponse(turn=turn_message(await self._turns.wait(call.tenant_id, turn_id, longest=longest)))

    async def ResumeTurn(
        self, request: pb.ResumeTurnRequest, call: CallContext
    ) -> AsyncIterator[pb.ResumeTurnResponse]:
        """Stream the rest of a turn's events."""
        turn_id, after = codec.parse_resumption(request)
        async with aclosing(self._turns.resume(call.tenant_id, turn_id, after=after)) as events:
            async for _, event in events:
                response = pb.ResumeTurnResponse()
                fill_event(response.event, turn_id, event)
                yield response

    async def CancelTurn(self, request: pb.CancelTurnRequest, call: CallContext) -> pb.CancelTurnResponse:
        """Cancel a turn."""
        await self._turns.cancel(call.tenant_id, codec.parse_turn_id(request.turn_id))
        return pb.CancelTurnResponse()

    async def GetTurn(self, request: pb.GetTurnRequest, call: CallContext) -> pb.GetTurnResponse:
        """Return a turn."""
        turn = await self._turns.get(call.tenant_id, codec.parse_turn_id(request.turn_id))
        return pb.GetTurnResponse(turn=turn_message(turn))

    async def ListTurns(self, request: pb.ListTurnsRequest, call: CallContext) -> pb.ListTurnsResponse:
        """Return a page of turns."""
        session_id, state = codec.parse_turn_filter(request)
        query = ("turns", call.tenant_id, request.session_id, str(request.state))
        page = PageRequest(request, query, str, default_size=50)
        before = page.position[0] if page.position else None
        found = await self._turns.page(
            call.tenant_id, session_id=session_id, state=state, before=before, limit=page.limit
        )
        messages = [turn_message(each) for each in found.turns[: page.size]]
        turns, token = page.cut(found.turns, messages, position=lambda each: [each.turn_id], max_bytes=self._page_bytes)
        if not token and found.next is not None:
            token = page.next_token([found.next])
        return pb.ListTurnsResponse(turns=turns, next_page_token=token)

    async def GetSessionMetrics(
        self, request: pb.GetSessionMetricsRequest, call: CallContext
    ) -> pb.GetSessionMetricsResponse:
        """Return the metrics of a session."""
        return await self._reader.metrics(call.tenant_id, request.session_id)

    async def GetSession(self, request: pb.GetSessionRequest, call: CallContext) -> pb.GetSessionResponse:
        """Return a session."""
        return pb.GetSessionResponse(session=await self._reader.get(call.tenant_id, request.session_id))

    async def ListSessions(self, request: pb.ListSessionsRequest, call: CallContext) -> pb.ListSessionsResponse:
        """Return a page of sessions."""
        return await self._reader.page(call.tenant_id, request)

    async def ListMessages(self, request: pb.ListMessagesRequest, call: CallContext) -> pb.ListMessagesResponse:
        """Return a page of a session's messages."""
        return await self._reader.messages(call.tenant_id, request)

    async def ReadMessage(
        self, request: pb.ReadMessageRequest, call: CallContext
    ) -> AsyncIterator[pb.ReadMessageResponse]:
        """Stream a whole message in pieces."""
        async with aclosing(self._reader.pieces(call.tenant_id, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def DeleteSession(self, request: pb.DeleteSessionRequest, call: CallContext) -> pb.DeleteSessionResponse:
        """Delete a session; its ledger entries remain."""
        await self._deletions.delete(call.tenant_id, codec.parse_session_id(request.session_id))
        return pb.DeleteSessionResponse()

    async def ForkSession(self, request: pb.ForkSessionRequest, call: CallContext) -> pb.ForkSessionResponse:
        """Make a session with the messages of another one up to a point."""
        session_id, number, fork_id = parse_fork(request)
        fork = await self._forks.fork(call.tenant_id, session_id, number=number, fork_id=fork_id)
        response = pb.ForkSessionResponse(session=await self._reader.message(fork.session))
        if fork.next_message is not None:
            response.next_message.CopyFrom(next_message(fork.next_message))
        return response

    async def ExportSession(
        self, request: pb.ExportSessionRequest, call: CallContext
    ) -> AsyncIterator[pb.ExportSessionResponse]:
        """Stream a session as lines of JSON."""
        session = await self._sessions.get(call.tenant_id, codec.parse_session_id(request.session_id))
        shown, totals = await self._reader.message(session), await self._reader.totals(session)
        async with aclosing(self._exporter.lines(session, shown, totals, request)) as lines:
            async for line in lines:
                yield line

    async def ImportSession(
        self, requests: AsyncIterator[pb.ImportSessionRequest], call: CallContext
    ) -> pb.ImportSessionResponse:
        """Make a session of exported lines."""
        imported = SessionImport(requests)
        await imported.begin()
        session = await self._imports.make(call.tenant_id, imported, call.confirm)
        return pb.ImportSessionResponse(session=await self._reader.message(session))

    async def UploadAttachment(
        self, requests: AsyncIterator[pb.UploadAttachmentRequest], call: CallContext
    ) -> pb.UploadAttachmentResponse:
        """Store an attachment."""
        pieces = upload_pieces(requests)
        return upload_message(await self._attachments.upload(call.tenant_id, pieces, confirm=call.confirm))

    async def GetAttachment(
        self, request: pb.GetAttachmentRequest, call: CallContext
    ) -> AsyncIterator[pb.GetAttachmentResponse]:
        """Stream an attachment in pieces."""
        stored = await self._attachments.store.get(call.tenant_id, parse_attachment_id(request.attachment_id))
        shown: Attachment | None = stored.attachment
        async for data in self._attachments.read(call.tenant_id, stored):
            for piece in piece_messages(shown, data):
                yield piece
            shown = None

    async def ListActions(self, request: pb.ListActionsRequest, call: CallContext) -> pb.ListActionsResponse:
        """Return a page of actions."""
        session_id = codec.parse_session_id(request.session_id) if request.session_id else None
        state = parse_state(request.state)
        query = ("actions", call.tenant_id, request.session_id, str(request.state))
        page = PageRequest(request, query, str, default_size=50)
        most, before = self._page_bytes, page.position[0] if page.position else None
        found = await self._actions.page(
            call.tenant_id, session_id=session_id, state=state, before=before, limit=page.limit, most_bytes=most
        )
        messages = [action_message(each) for each in found[: page.size]]
        shown, token = page.cut(found, messages, position=lambda each: [each.call_id], max_bytes=most)
        return pb.ListActionsResponse(actions=shown, next_page_token=token)

    async def DecideAction(self, request: pb.DecideActionRequest, call: CallContext) -> pb.DecideActionResponse:
        """Store the answer to an action."""
        answer, decider = parse_decision(request, call.principal)
        return pb.DecideActionResponse(
            action=action_message(await self._actions.decide(call.tenant_id, answer, decider))
        )

    async def ListAgents(self, request: pb.ListAgentsRequest, call: CallContext) -> pb.ListAgentsResponse:
        """Return a page of the tenant's agents."""
        page = PageRequest(request, ("agents", call.tenant_id), str)
        after = page.position[0] if page.position else ""
        policy = await self._policies.get(call.tenant_id)
        found = await self._agents.lists.summaries(
            call.tenant_id, after=after, limit=page.limit, allows=policy.allows_agent
        )
        messages = [summary_message(each) for each in found[: page.size]]
        shown, token = page.cut(found, messages, position=lambda each: [each.name], max_bytes=self._page_bytes)
        return pb.ListAgentsResponse(agents=shown, next_page_token=token)

    async def ListModels(self, request: pb.ListModelsRequest, call: CallContext) -> pb.ListModelsResponse:
        """Return a page of the models that the key may use."""
        page = PageRequest(request, ("models", call.tenant_id), str)
        policy = await self._policies.get(call.tenant_id)
        catalogue, age, seen_time = self._oracle.current, self._oracle.age(), self._oracle.seen_time
        response = pb.ListModelsResponse(
            catalogue_state=catalogue_state(catalogue, age=age, stale_after=self._catalogue_stale_after),
            catalogue_time=timestamp(seen_time) if seen_time is not None else None,
        )
        if catalogue is not None:
            after = page.position[0] if page.position else ""
            found = await allowed_models(catalogue, policy, call.principal.limits, after=after, limit=page.limit)
            messages = await model_messages(catalogue, found[: page.size], now=self._clock())
            models, token = page.cut(found, messages, position=lambda each: [each], max_bytes=self._page_bytes)
            response.models.extend(models)
            response.next_page_token = token
        return response

    async def _turn_request(self, request: pb.ConverseRequest, call: CallContext) -> TurnRequest:
        """Check the request of a turn."""
        return parse_turn_request(
            request,
            output=await self._schemas.read(request.output_schema),
            catalogue=self._oracle.current,
            max_text_bytes=self._max_text_bytes,
            rules=self._rules,
            decider=decider_of(call.principal),
        )
