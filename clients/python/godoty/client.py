"""The asynchronous client: conversations with Godoty's agents, and their cost."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import grpc.aio
from google.protobuf import duration_pb2

from godoty.channel import authorization, open_channel
from godoty.errors import GodotyError
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2 as attachment_pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
    from types import TracebackType

    from godoty.v1 import agent_pb2 as agent_pb

DEFAULT_TIMEOUT = 30.0
"""Default deadline of a call other than `converse`, in seconds."""

_PIECE = 256 * 1024
"""Bytes of one message of an upload."""


class GodotyClient:
    """A connection to Godoty; an asynchronous context manager.

    Every method raises `GodotyError` if its call fails.

    Args:
        target: The server, as "host:port".
        api_key: A key of the scope `converse`. It is sent with each call and never shown in a text.
        tls: None uses plain text to this machine and TLS to any other. True always uses TLS, False always plain text;
            credentials use TLS with these credentials.
        timeout: Deadline of a call other than `converse`, in seconds.

    Raises:
        ValueError: The key is empty or cannot be sent.
    """

    def __init__(
        self,
        target: str,
        api_key: str,
        *,
        tls: bool | grpc.ChannelCredentials | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._metadata = authorization(api_key)
        self._target = target
        self._timeout = timeout
        self._channel = open_channel(target, tls=tls)
        self._stub = AgentServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running turns are cancelled."""
        await self._channel.close(grace=None)

    async def converse(
        self,
        text: str,
        *,
        session_id: str = "",
        model: str = "",
        fallback_models: Sequence[str] = (),
        limits: turn_pb.TurnLimits | None = None,
        user: str = "",
        agent: str = "",
        variables: Mapping[str, str] | None = None,
        parameters: agent_pb.ModelParameters | None = None,
        output_schema: str = "",
        attachments: Sequence[str | bytes] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - gRPC's deadline, which the server sees
    ) -> AsyncGenerator[turn_pb.TurnEvent, None]:
        """Run one turn and yield its events, from `turn_started` to `turn_finished`.

        A `heartbeat` may occur at any time: the turn is running, without an event for some seconds. Skip an event that
        you do not know: later servers send others.

        Closing the generator early cancels the turn on the server. After a `break` Python closes it only on garbage
        collection; use `contextlib.aclosing` to close it at once.

        Args:
            text: The user's message.
            session_id: The session; empty for a new one with a generated id, returned in `turn_started`.
            model: The model; empty for the session's last model, else the default.
            fallback_models: The models to try, in this order, if `model` is unavailable.
            limits: Limits of the turn.
            user: The tenant's end user.
            agent: The agent, by name or name@version; empty for the session's, else the tenant's default.
            variables: Values for the placeholders of the agent's prompt.
            parameters: Parameters of the model calls, in place of the agent's, one by one.
            output_schema: A JSON schema as JSON text, by which the turn ends with a value
                (`turn_finished.output_json`); empty for that of the agent, if it has one.
            attachments: Images and documents that the message carries: ids from `upload_attachment`, or the bytes
                themselves, of which at most 1 MiB in all.
            timeout: Deadline of the whole turn, in seconds; None for no deadline.
        """
        request = pb.ConverseRequest(
            session_id=session_id,
            text=text,
            model=model,
            fallback_models=fallback_models,
            limits=limits,
            user=user,
            agent=agent,
            variables=variables,
            parameters=parameters,
            output_schema=output_schema,
            attachments=[_source(each) for each in attachments],
        )
        with _translate_errors():
            call = self._stub.Converse(request, metadata=self._metadata, timeout=timeout)
            try:
                async for response in call:
                    yield response.event
            finally:
                call.cancel()

    async def start_turn(self, request: pb.ConverseRequest) -> pb.StartTurnResponse:
        """Begin a turn that runs to its end without a reader; return its id and its session's."""
        with _translate_errors():
            response: pb.StartTurnResponse = await self._stub.StartTurn(
                pb.StartTurnRequest(request=request), metadata=self._metadata, timeout=self._timeout
            )
        return response

    async def wait_turn(self, turn_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> turn_pb.Turn:  # noqa: ASYNC109 - the server's
        """Return a turn once it has ended, or as it is after `timeout` seconds (at most 300): `state` says which."""
        longest = duration_pb2.Duration()
        longest.FromMilliseconds(int(timeout * 1000))
        request = pb.WaitTurnRequest(turn_id=turn_id, timeout=longest)
        with _translate_errors():
            response: pb.WaitTurnResponse = await self._stub.WaitTurn(
                request, metadata=self._metadata, timeout=timeout + self._timeout
            )
        return response.turn

    async def upload_attachment(self, data: bytes) -> attachment_pb.Attachment:
        """Store an image or a PDF document, for `converse`; it is deleted after a day unless a session names it."""

        async def pieces() -> AsyncIterator[pb.UploadAttachmentRequest]:
            for start in range(0, len(data), _PIECE):
                yield pb.UploadAttachmentRequest(data=data[start : start + _PIECE])

        with _translate_errors():
            response: pb.UploadAttachmentResponse = await self._stub.UploadAttachment(
                pieces(), metadata=self._metadata, timeout=self._timeout
            )
        return response.attachment

    async def get_attachment(self, attachment_id: str) -> AsyncGenerator[pb.GetAttachmentResponse, None]:
        """Yield an attachment in pieces; the first has what is known of it."""
        request = pb.GetAttachmentRequest(attachment_id=attachment_id)
        with _translate_errors():
            async for piece in self._stub.GetAttachment(request, metadata=self._metadata, timeout=self._timeout):
                yield piece

    async def session_metrics(self, session_id: str) -> pb.GetSessionMetricsResponse:
        """Return the cost and usage of a session."""
        request = pb.GetSessionMetricsRequest(session_id=session_id)
        with _translate_errors():
            response: pb.GetSessionMetricsResponse = await self._stub.GetSessionMetrics(
                request, metadata=self._metadata, timeout=self._timeout
            )
        return response

    async def get_session(self, session_id: str) -> session_pb.Session:
        """Return a session, without its messages."""
        request = pb.GetSessionRequest(session_id=session_id)
        with _translate_errors():
            response: pb.GetSessionResponse = await self._stub.GetSession(
                request, metadata=self._metadata, timeout=self._timeout
            )
        return response.session

    async def list_sessions(self, *, user: str = "", page_size: int = 0) -> AsyncGenerator[session_pb.Session, None]:
        """Yield the tenant's sessions, most recently used first; pages are requested as needed.

        Args:
            user: Only sessions of this end user; empty for all.
            page_size: Number of sessions per page; 0 for the server's default.
        """
        request = pb.ListSessionsRequest(user=user, page_size=page_size)
        while True:
            with _translate_errors():
                page: pb.ListSessionsResponse = await self._stub.ListSessions(
                    request, metadata=self._metadata, timeout=self._timeout
                )
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_messages(self, session_id: str, *, page_size: int = 0) -> AsyncGenerator[session_pb.Message, None]:
        """Yield the messages of a session, oldest first; pages are requested as needed.

        Args:
            session_id: The session.
            page_size: Number of messages per page; 0 for the server's default.
        """
        request = pb.ListMessagesRequest(session_id=session_id, page_size=page_size)
        while True:
            with _translate_errors():
                page: pb.ListMessagesResponse = await self._stub.ListMessages(
                    request, metadata=self._metadata, timeout=self._timeout
                )
            for message in page.messages:
                yield message
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def read_message(self, session_id: str, number: int) -> AsyncGenerator[pb.ReadMessageResponse, None]:
        """Yield one complete message in pieces, also one that `list_messages` truncates (`ContentBlock.truncated`)."""
        request = pb.ReadMessageRequest(session_id=session_id, number=number)
        with _translate_errors():
            async for piece in self._stub.ReadMessage(request, metadata=self._metadata, timeout=self._timeout):
                yield piece

    async def list_agents(self, *, page_size: int = 0) -> AsyncGenerator[agent_pb.AgentSummary, None]:
        """Yield the agents with which a session can begin, by name; pages are requested as needed.

        Args:
            page_size: Number of agents per page; 0 for the server's default.
        """
        request = pb.ListAgentsRequest(page_size=page_size)
        while True:
            with _translate_errors():
                page: pb.ListAgentsResponse = await self._stub.ListAgents(
                    request, metadata=self._metadata, timeout=self._timeout
                )
            for agent in page.agents:
                yield agent
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def fork_session(
        self, session_id: str, *, number: int = 0, fork_session_id: str = ""
    ) -> pb.ForkSessionResponse:
        """Make a session with the messages of another one up to a point; it has the agent's state of that point.

        Args:
            session_id: The session, which does not change.
            number: The number of an answer, after which the fork ends, or of a user message, before which it ends
                (`next_message` is that message then). 0 for all messages.
            fork_session_id: The id of the fork; empty for a generated one.
        """
        request = pb.ForkSessionRequest(session_id=session_id, number=number, fork_session_id=fork_session_id)
        with _translate_errors():
            response: pb.ForkSessionResponse = await self._stub.ForkSession(
                request, metadata=self._metadata, timeout=self._timeout
            )
        return response

    async def delete_session(self, session_id: str) -> None:
        """Delete a session's conversation; its ledger entries remain."""
        request = pb.DeleteSessionRequest(session_id=session_id)
        with _translate_errors():
            await self._stub.DeleteSession(request, metadata=self._metadata, timeout=self._timeout)


def _source(attachment: str | bytes) -> attachment_pb.AttachmentSource:
    if isinstance(attachment, bytes):
        return attachment_pb.AttachmentSource(inline=attachment)
    return attachment_pb.AttachmentSource(attachment_id=attachment)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise GodotyError.from_rpc(error) from error
