"""AgentService: one short method an RPC."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.errors import MessageNotFound
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.metering.totals import SessionFold
from godoty_service.rpc import requests
from godoty_service.rpc.agent_messages import event_message, metrics_message, session_message
from godoty_service.rpc.byte_limiter import ByteLimiter
from godoty_service.rpc.edge import Call
from godoty_service.rpc.message_codec import message_message, message_pieces
from godoty_service.rpc.paging import fitting, page_size, read_place, read_time, write_token
from godoty_service.rpc.seen_metrics import SeenMetrics
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import Sessions
from godoty_service.tenancy.principal import Scope
from godoty_service.turns.deletion import Deletions
from godoty_service.turns.opening import opened_fold
from godoty_service.turns.turns import Turns

_SERVICE = pb.DESCRIPTOR.services_by_name["AgentService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES = {f"/{SERVICE_NAME}/{method.name}": (Scope.CONVERSE,) for method in _SERVICE.methods}
TURN_METHODS = frozenset(f"/{SERVICE_NAME}/{name}" for name in ("Converse", "ResumeTurn"))


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Conversations with an agent, and what they cost."""

    def __init__(
        self,
        *,
        turns: Turns,
        sessions: Sessions,
        messages: MessageStore,
        deletions: Deletions,
        ledger: Ledger,
        oracle: Oracle,
        max_text_bytes: int,
        page_bytes: int,
        content_bytes: int,
    ) -> None:
        self._turns = turns
        self._sessions = sessions
        self._messages = messages
        self._deletions = deletions
        self._ledger = ledger
        self._oracle = oracle
        self._max_text_bytes = max_text_bytes
        self._page_bytes = page_bytes
        self._contents = ByteLimiter(content_bytes)
        self._seen = SeenMetrics()

    async def Converse(self, request: pb.ConverseRequest, call: Call) -> AsyncIterator[pb.ConverseResponse]:
        """Start a turn and read it as it comes."""
        wanted = requests.turn_request(request, catalogue=self._oracle.current, max_text_bytes=self._max_text_bytes)
        async with aclosing(self._turns.converse(call.tenant_id, wanted, key_id=call.principal.key_id)) as events:
            async for turn_id, sequence, event in events:
                yield event_message(turn_id, sequence, event)

    async def ResumeTurn(self, request: pb.ResumeTurnRequest, call: Call) -> AsyncIterator[pb.ResumeTurnResponse]:
        """Read the rest of a turn."""
        turn_id, after = requests.resumption(request)
        async with aclosing(self._turns.resume(call.tenant_id, turn_id, after=after)) as events:
            async for _, sequence, event in events:
                yield pb.ResumeTurnResponse(event=event_message(turn_id, sequence, event))

    async def CancelTurn(self, request: pb.CancelTurnRequest, call: Call) -> pb.CancelTurnResponse:
        """End a turn."""
        await self._turns.cancel(call.tenant_id, requests.turn_id(request.turn_id))
        return pb.CancelTurnResponse()

    async def GetSessionMetrics(self, request: pb.GetSessionMetricsRequest, call: Call) -> pb.GetSessionMetricsResponse:
        """Read what a session has cost."""
        key = (call.tenant_id, requests.session_id(request.session_id))
        seen = self._seen.get(key)
        session, unchanged = await self._sessions.look(*key, known=seen.version if seen is not None else None)
        if seen is not None and unchanged:
            return seen.message(session)
        fold = await self._fold(session)
        message = metrics_message(session, fold)
        if session.lease is None and not session.unfolded and not fold.open:
            self._seen.keep(key, session, message)
        return message

    async def GetSession(self, request: pb.GetSessionRequest, call: Call) -> pb.GetSessionResponse:
        """Read a session."""
        session, _ = await self._sessions.look(call.tenant_id, requests.session_id(request.session_id))
        return pb.GetSessionResponse(session=await self._message(session))

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> pb.ListSessionsResponse:
        """Read a page of sessions."""
        query = ("sessions", call.tenant_id, request.user)
        size = page_size(request.page_size, default=50)
        place = read_place(request.page_token, query, str, str)
        after = (read_time(place[0]), place[1]) if place else None
        page = await self._sessions.page(call.tenant_id, user=request.user or None, after=after, limit=size + 1)
        sessions = fitting([await self._message(each) for each in page[:size]], most_bytes=self._page_bytes)
        response = pb.ListSessionsResponse(sessions=sessions)
        if len(page) > len(sessions):
            last = page[len(sessions) - 1]
            response.next_page_token = write_token(query, [last.update_time.isoformat(), last.uid])
        return response

    async def ListMessages(self, request: pb.ListMessagesRequest, call: Call) -> pb.ListMessagesResponse:
        """Read a page of messages."""
        session, _ = await self._sessions.look(call.tenant_id, requests.session_id(request.session_id))
        query = ("messages", call.tenant_id, session.uid)
        size = page_size(request.page_size, default=100)
        place = read_place(request.page_token, query, int)
        found, more = await self._messages.page(
            call.tenant_id, session.uid, after=place[0] if place else 0, limit=size, most_bytes=self._page_bytes
        )
        async with self._contents.hold(sum(each.size for each in found)):
            page = await self._messages.load(call.tenant_id, session.uid, found)
            response = pb.ListMessagesResponse(
                messages=[message_message(each, most_bytes=self._page_bytes) for each in page]
            )
        if more:
            response.next_page_token = write_token(query, [found[-1].number])
        return response

    async def ReadMessage(self, request: pb.ReadMessageRequest, call: Call) -> AsyncIterator[pb.ReadMessageResponse]:
        """Read a message in pieces."""
        session, _ = await self._sessions.look(call.tenant_id, requests.session_id(request.session_id))
        number = requests.message_number(request.number)
        found = await self._messages.find(call.tenant_id, session.uid, number)
        async with self._contents.hold(found.size if found is not None else 0):
            for message in await self._messages.load(call.tenant_id, session.uid, [found] if found is not None else []):
                for piece in message_pieces(message):
                    yield piece
                return
        raise MessageNotFound(
            f"The session has no message {number}.",
            metadata={"session_id": session.session_id, "number": str(number)},
        )

    async def DeleteSession(self, request: pb.DeleteSessionRequest, call: Call) -> pb.DeleteSessionResponse:
        """Delete a session; its ledger entries stay."""
        await self._deletions.delete(call.tenant_id, requests.session_id(request.session_id))
        return pb.DeleteSessionResponse()

    async def _fold(self, session: Session) -> SessionFold:
        return await opened_fold(self._ledger, session, doubtful=session.lease is not None)

    async def _message(self, session: Session) -> pb.Session:
        count = session.message_count
        if session.lease is not None:  # the turn that runs adds some
            count = await self._messages.highest(session.tenant_id, session.uid)
        return session_message(session, await self._fold(session), message_count=count)
