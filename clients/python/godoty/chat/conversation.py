"""A conversation in the terminal: its session, its model, its history and its metrics."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from godoty.chat.formatting import (
    count_of,
    format_attachment,
    format_cache_savings,
    format_cost,
    format_duration,
    format_tokens,
    format_totals,
)
from godoty.chat.turn import TurnView
from godoty.errors import GodotyError
from godoty.v1 import session_pb2 as session_pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from godoty.chat.screen import Screen
    from godoty.client import GodotyClient
    from godoty.v1.metering_pb2 import LatencySummary

_PAGE = 500
_SESSIONS = 20
_NO_RESULT = session_pb.ToolResult(status=session_pb.TOOL_CALL_STATUS_ERROR, output="no result")


class Conversation:
    """A conversation in one session.

    Attributes:
        session_id: The session; empty until the server has generated the id of a new one.
        model: The model; empty for the agent's, the session's last model, or the default.
    """

    def __init__(
        self,
        client: GodotyClient,
        screen: Screen,
        *,
        session_id: str,
        model: str,
        agent: str = "",
        variables: Mapping[str, str] | None = None,
        history: int = 0,
    ) -> None:
        self._client = client
        self._screen = screen
        self._history = history
        self.session_id = session_id
        self.model = model
        self._agent = agent
        self._variables = variables
        self._begins = True  # a session that exists keeps its own agent
        self._attachments: list[str] = []  # of the next message

    async def open(self, session_id: str) -> None:
        """Open a session and show its latest messages and its cost."""
        try:
            session = await self._client.get_session(session_id) if session_id else None
        except GodotyError as error:
            if error.reason != "SESSION_NOT_FOUND":
                raise
            session = None
        self.session_id = session_id
        self._begins = session is None
        if session is None:
            self._screen.line(f"A new session, {session_id}." if session_id else "A new session.", style="bold")
            return
        agent = f", agent {session.agent}" if session.agent else ""
        last_model = f", last model {session.model}" if session.model else ""
        self._screen.line(f"Session {session_id}{agent}{last_model}.", style="bold")
        if self._history:
            await self._show_history(session.message_count)
        metrics = await self._client.session_metrics(session_id)
        self._screen.line(f"so far: {format_totals(metrics.totals)}", style="green")

    async def send(self, text: str) -> None:
        """Run a turn and show its events as they arrive."""
        view = TurnView(self._screen)
        events = self._client.converse(
            text,
            session_id=self.session_id,
            model=self.model,
            agent=self._agent if self._begins else "",
            variables=self._variables,
            attachments=self._attachments,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    self._attachments = []  # the turn has begun; one that is refused can be sent again with them
                    view.show(event)
                    self.session_id = view.session_id or self.session_id
        finally:
            self._screen.end_line()

    async def retry(self, text: str = "") -> None:
        """Send the last message again, or a text in its place, in a fork of the session that ends before it."""
        number = await self._last_message() if self.session_id else 0
        if not number:
            self._screen.error("there is no message to send again")
            return
        origin = self.session_id
        fork = await self._client.fork_session(origin, number=number)
        self.session_id = fork.session.session_id
        self._begins = False
        self._attachments = [*(each.attachment_id for each in fork.next_message.attachments), *self._attachments]
        self._screen.line(f"Session {self.session_id}, forked from {origin} before message {number}.", style="bold")
        await self.send(text or fork.next_message.text)

    async def attach(self, path: str) -> None:
        """Upload a file, which the next message carries."""
        try:
            data = await asyncio.to_thread(_read_file, path)
        except OSError as error:
            self._screen.error(f"{path}: {error.strerror or error}")
            return
        attachment = await self._client.upload_attachment(data)
        self._attachments.append(attachment.attachment_id)
        self._screen.line(f"attached to the next message: {format_attachment(attachment)}")

    async def show_sessions(self) -> None:
        """List the most recently used sessions."""
        rows: list[tuple[str, ...]] = []
        async with aclosing(self._client.list_sessions(page_size=_SESSIONS)) as sessions:
            async for session in sessions:
                if len(rows) == _SESSIONS:
                    break
                rows.append(_session_row(session))
        title = f"The last {count_of(len(rows), 'session')}; /open ID opens one"
        self._screen.table(title, ("session", "cost", "messages", "model", "last used (UTC)"), rows)

    async def show_metrics(self) -> None:
        """Show the cost and the latency of the session."""
        if not self.session_id:
            self._screen.line("The session starts with the first message; so far it has no cost.")
            return
        metrics = await self._client.session_metrics(self.session_id)
        self._screen.line(f"{self.session_id}: {format_totals(metrics.totals)}", style="green")
        if savings := format_cache_savings(metrics.cache_savings):
            self._screen.line(savings)
        self._screen.table(
            "By model",
            ("model", "cost", "calls", "tokens"),
            (
                (
                    each.model,
                    format_cost(each.totals.cost_usd),
                    str(each.totals.model_calls),
                    format_tokens(each.totals.usage),
                )
                for each in metrics.by_model
            ),
        )
        self._screen.table(
            "Latency: median / 95th percentile / last",
            ("provider", "calls", "first token", "whole answer"),
            (
                (
                    each.provider or "all",
                    str(each.model_calls),
                    _summary(each.time_to_first_token) if each.HasField("time_to_first_token") else "no token received",
                    _summary(each.duration),
                )
                for each in metrics.latency
            ),
        )

    async def _last_message(self) -> int:
        """Return the number of the user's last message; 0: there is none."""
        number = 0
        try:
            async for message in self._client.list_messages(self.session_id, page_size=_PAGE):
                kinds = {block.WhichOneof("block") for block in message.content}
                if message.role == session_pb.ROLE_USER and "tool_result" not in kinds:
                    number = message.number
        except GodotyError as error:
            if error.reason != "SESSION_NOT_FOUND":  # else it begins with its first message
                raise
        return number

    async def _show_history(self, count: int) -> None:
        latest: deque[session_pb.Message] = deque(maxlen=self._history)
        async for message in self._client.list_messages(self.session_id, page_size=_PAGE):
            latest.append(message)
        if count > len(latest):
            self._screen.line(f"… {count_of(count - len(latest), 'earlier message')} …", style="dim")
        results = {
            block.tool_result.tool_call_id: block.tool_result
            for message in latest
            for block in message.content
            if block.HasField("tool_result")
        }
        for message in latest:
            self._show_message(message, results)

    def _show_message(self, message: session_pb.Message, results: dict[str, session_pb.ToolResult]) -> None:
        for block in message.content:
            match block.WhichOneof("block"):
                case "text" if message.role == session_pb.ROLE_USER:
                    self._screen.line(f"> {block.text}", style="bold")
                case "text":
                    self._screen.line(block.text)
                case "reasoning":
                    self._screen.line(block.reasoning, style="dim")
                case "attachment":
                    self._screen.line(f"[{format_attachment(block.attachment)}]", style="dim")
                case "tool_use":
                    use = block.tool_use
                    result = results.get(use.tool_call_id, _NO_RESULT)
                    failed = result.status == session_pb.TOOL_CALL_STATUS_ERROR
                    self._screen.tool(use.name, use.input_json, result.output, failed=failed)
            if block.truncated:
                self._screen.line(f"… truncated: {block.size:,} bytes in total …", style="dim")


def _read_file(path: str) -> bytes:
    return Path(path).expanduser().read_bytes()


def _session_row(session: session_pb.Session) -> tuple[str, ...]:
    used = session.update_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    return session.session_id, format_cost(session.cost_usd), str(session.message_count), session.model, used


def _summary(summary: LatencySummary) -> str:
    return " / ".join(format_duration(duration) for duration in (summary.median, summary.p95, summary.last))
