"""Conversations with Godoty's agents, and what they cost."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import grpc.aio

from godoty.channel import authorization, open_channel
from godoty.errors import GodotyError
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from types import TracebackType

DEFAULT_TIMEOUT = 30.0
"""Seconds that a call other than `converse` may take."""


class GodotyClient:
    """A connection to Godoty, to be used as an asynchronous context manager.

    Every call raises `GodotyError` when it fails.

    Args:
        target: The server, as "host:port".
        api_key: A key of the scope `converse`. It is sent with each call and shown nowhere.
        tls: None speaks plain text to this machine and TLS to any other. True speaks TLS in any case, False
            plain text in any case; credentials speak TLS with these.
        timeout: How long a call other than `converse` may take, in seconds.

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
        """Closes the connection; turns that still run over it are cancelled."""
        await self._channel.close(grace=None)

    async def converse(
        self,
        text: str,
        *,
        session_id: str = "",
        model: str = "",
        fallback_models: Sequence[str] = (),
        limits: pb.TurnLimits | None = None,
        user: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - gRPC's deadline, which the server sees
    ) -> AsyncGenerator[pb.ConverseResponse, None]:
        """Runs one turn and yields what happens in it, from `turn_started` to `turn_finished`.

        A `heartbeat` may come at any time: nothing has happened for some seconds, and the turn goes on.

        Leaving early cancels the turn on the server. Python closes a generator that `break` left only when
        the garbage collector comes, so whoever may leave early uses `contextlib.aclosing`.

        Args:
            text: What the user says.
            session_id: The session; empty for a new one, whose id `turn_started` tells.
            model: The model to ask; empty for the one that the session used last.
            fallback_models: The models to try when `model` cannot answer.
            limits: Bounds on the turn.
            user: The tenant's end user.
            timeout: How long the whole turn may take, in seconds; None for no bound.
        """
        request = pb.ConverseRequest(
            session_id=session_id,
            text=text,
            model=model,
            fallback_models=fallback_models,
            limits=limits,
            user=user,
        )
        with _translated():
            call = self._stub.Converse(request, metadata=self._metadata, timeout=timeout)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    async def session_metrics(self, session_id: str) -> pb.GetSessionMetricsResponse:
        """Tells what a session has cost and used."""
        request = pb.GetSessionMetricsRequest(session_id=session_id)
        with _translated():
            response: pb.GetSessionMetricsResponse = await self._stub.GetSessionMetrics(
                request, metadata=self._metadata, timeout=self._timeout
            )
        return response

    async def get_session(self, session_id: str) -> pb.Session:
        """Reads a session, without its messages."""
        request = pb.GetSessionRequest(session_id=session_id)
        with _translated():
            response: pb.GetSessionResponse = await self._stub.GetSession(
                request, metadata=self._metadata, timeout=self._timeout
            )
        return response.session

    async def list_sessions(self, *, user: str = "", page_size: int = 0) -> AsyncGenerator[pb.Session, None]:
        """Yields the tenant's sessions, the last used first, a page at a time.

        Args:
            user: Only those of this end user; empty for all.
            page_size: How many to ask for at once; 0 for as many as the server likes.
        """
        request = pb.ListSessionsRequest(user=user, page_size=page_size)
        while True:
            with _translated():
                page: pb.ListSessionsResponse = await self._stub.ListSessions(
                    request, metadata=self._metadata, timeout=self._timeout
                )
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_messages(self, session_id: str, *, page_size: int = 0) -> AsyncGenerator[pb.Message, None]:
        """Yields the messages of a session, the oldest first, a page at a time.

        Args:
            session_id: The session.
            page_size: How many to ask for at once; 0 for as many as the server likes.
        """
        request = pb.ListMessagesRequest(session_id=session_id, page_size=page_size)
        while True:
            with _translated():
                page: pb.ListMessagesResponse = await self._stub.ListMessages(
                    request, metadata=self._metadata, timeout=self._timeout
                )
            for message in page.messages:
                yield message
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def read_message(self, session_id: str, number: int) -> AsyncGenerator[pb.ReadMessageResponse, None]:
        """Yields one message in pieces, whole: also what `list_messages` shows cut (`ContentBlock.truncated`)."""
        request = pb.ReadMessageRequest(session_id=session_id, number=number)
        with _translated():
            async for piece in self._stub.ReadMessage(request, metadata=self._metadata, timeout=self._timeout):
                yield piece

    async def delete_session(self, session_id: str) -> None:
        """Deletes a session's conversation; its ledger entries stay."""
        request = pb.DeleteSessionRequest(session_id=session_id)
        with _translated():
            await self._stub.DeleteSession(request, metadata=self._metadata, timeout=self._timeout)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise GodotyError.from_rpc(error) from error
