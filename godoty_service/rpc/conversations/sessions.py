"""Reads sessions: their metrics and messages, and pages of both."""

from collections.abc import AsyncGenerator

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb

from godoty_service.aio.byte_limiter import ByteLimiter
from godoty_service.errors import MessageNotFound
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import SessionTotals
from godoty_service.rpc.conversations.codec import (
    message_pieces,
    parse_message_number,
    parse_session_filter,
    parse_session_id,
    session_message,
    to_proto,
)
from godoty_service.rpc.conversations.session_metrics_cache import SessionMetricsCache, metrics_message
from godoty_service.rpc.pagination import PageRequest, decode_time
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import SessionStore
from godoty_service.turns.session_metrics import load_totals
from godoty_service.users.references import UserReferences


class SessionReader:
    """Reads the sessions of tenants, as messages of the contract."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        messages: MessageStore,
        ledger: Ledger,
        users: UserReferences,
        page_bytes: int,
        content_limiter: ByteLimiter,
    ) -> None:
        """Create a reader.

        Args:
            sessions: The sessions.
            messages: Their messages.
            ledger: The model calls.
            users: The end users' references and names.
            page_bytes: Bytes at which a page ends, and at which a message of a page is truncated.
            content_limiter: Limits the bytes of messages that are loaded at the same time.
        """
        self._sessions = sessions
        self._messages = messages
        self._ledger = ledger
        self._users = users
        self._page_bytes = page_bytes
        self._content_limiter = content_limiter
        self._metrics_cache = SessionMetricsCache()

    async def get(self, tenant_id: str, session_id: str) -> session_pb.Session:
        """Return a session by the id that the caller gave.

        Raises:
            SessionNotFound: The tenant has none of this id.
        """
        return await self.message(await self._summary(tenant_id, session_id))

    async def message(self, session: Session) -> session_pb.Session:
        """Convert a session, with its totals and its user's name."""
        (message,) = await self._convert(session.tenant_id, [session])
        return message

    async def totals(self, session: Session) -> SessionTotals:
        """Return the totals of a session."""
        return await load_totals(self._ledger, session, doubtful=session.lease is not None)

    async def metrics(self, tenant_id: str, session_id: str) -> pb.GetSessionMetricsResponse:
        """Return the metrics of a session.

        Raises:
            SessionNotFound: The tenant has none of this id.
        """
        key = (tenant_id, parse_session_id(session_id))
        cached = self._metrics_cache.get(key)
        session, unchanged = await self._sessions.get_summary(
            *key, known=cached.version if cached is not None else None
        )
        if cached is not None and unchanged:
            return cached.message(session)
        session_totals = await self.totals(session)
        message = metrics_message(session, session_totals)
        if session.lease is None and not session.totals_stale and not session_totals.open:
            self._metrics_cache.put(key, session, message)
        return message

    async def page(self, tenant_id: str, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        """Return a page of sessions."""
        user = parse_session_filter(request)
        page = PageRequest(request, ("sessions", tenant_id, request.user), str, str, default_size=50)
        after = (decode_time(page.position[0]), page.position[1]) if page.position else None
        found = await self._sessions.lists.page(
            tenant_id,
            user=user,
            user_reference=await self._users.find(tenant_id, user) if user is not None else None,
            after=after,
            limit=page.limit,
        )
        sessions, token = page.cut(
            found,
            await self._convert(tenant_id, found[: page.size]),
            position=lambda each: [each.update_time.isoformat(), each.uid],
            max_bytes=self._page_bytes,
        )
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def messages(self, tenant_id: str, request: pb.ListMessagesRequest) -> pb.ListMessagesResponse:
        """Return a page of a session's messages.

        Raises:
            SessionNotFound: The tenant has none of this id.
        """
        session = await self._summary(tenant_id, request.session_id)
        page = PageRequest(request, ("messages", tenant_id, session.uid), int)
        after = page.position[0] if page.position else 0
        found, more = await self._messages.page(
            tenant_id, session.uid, after=after, limit=page.size, most_bytes=self._page_bytes
        )
        async with self._content_limiter.hold(sum(each.size for each in found), owner=tenant_id):
            messages = await self._messages.load(tenant_id, session.uid, found)
            response = pb.ListMessagesResponse(
                messages=[to_proto(each, max_bytes=self._page_bytes) for each in messages]
            )
        if more:
            response.next_page_token = page.next_token([found[-1].number])
        return response

    async def pieces(
        self, tenant_id: str, request: pb.ReadMessageRequest
    ) -> AsyncGenerator[pb.ReadMessageResponse, None]:
        """Return the pieces of a message.

        Raises:
            SessionNotFound: The tenant has no such session.
            MessageNotFound: The session has no message of this number.
        """
        session = await self._summary(tenant_id, request.session_id)
        number = parse_message_number(request.number)
        found = await self._messages.find(tenant_id, session.uid, number)
        async with self._content_limiter.hold(found.size if found is not None else 0, owner=tenant_id):
            for message in await self._messages.load(tenant_id, session.uid, [found] if found is not None else []):
                for piece in message_pieces(message):
                    yield piece
                return
        raise MessageNotFound(
            f"The session has no message {number}.",
            metadata={"session_id": session.session_id, "number": str(number)},
        )

    async def _summary(self, tenant_id: str, session_id: str) -> Session:
        session, _ = await self._sessions.get_summary(tenant_id, parse_session_id(session_id))
        return session

    async def _convert(self, tenant_id: str, sessions: list[Session]) -> list[session_pb.Session]:
        names = await self._users.names(tenant_id, (each.user_reference for each in sessions))
        messages = []
        for session in sessions:
            count = session.message_count
            if session.lease is not None:  # the running turn inserts messages
                count = await self._messages.highest(tenant_id, session.uid)
            user = session.user if session.user_reference is None else names.get(session.user_reference)
            totals = await self.totals(session)
            messages.append(session_message(session, totals, message_count=count, user=user))
        return messages
