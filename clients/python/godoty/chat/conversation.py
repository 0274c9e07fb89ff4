"""A conversation in the terminal: its session, its model, its history and its metrics."""

from __future__ import annotations

from collections import deque
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
from godoty.reasons import SessionNotFound
from godoty.types import (
    Attachment,
    ContentBlock,
    LatencySummary,
    Message,
    Role,
    Session,
    ToolCallStatus,
    ToolResult,
    ToolUse,
    UserMessage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from godoty.chat.screen import Screen
    from godoty.client import AsyncGodoty

_PAGE = 500
_SESSIONS = 20
_NO_RESULT = ToolResult(status=ToolCallStatus.ERROR, output="no result")


class Conversation:
    """A conversation in one session.

    Attributes:
        session_id: The session; empty until the server has generated the id of a new one.
        model: The model; empty for the agent's, the session's last model, or the default.
    """

    def __init__(
        self,
        client: AsyncGodoty,
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
        self._variables = variables or {}
        self._begins = True  # a session that exists keeps its own agent
        self._attachments: list[str] = []  # of the next message

    async def open(self, session_id: str) -> None:
        """Open a session and show its latest messages and its cost."""
        try:
            session = await self._client.sessions.get(session_id) if session_id else None
        except SessionNotFound:
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
        metrics = await self._client.sessions.metrics(session_id)
        self._screen.line(f"so far: {format_totals(metrics.totals)}", style="green")

    async def send(self, text: str) -> None:
        """Run a turn and show its events as they arrive."""
        view = TurnView(self._screen)
        turn = self._client.converse(
            text,
            session=self.session_id,
            model=self.model,
            agent=self._agent if self._begins else "",
            variables=self._variables,
            attachments=self._attachments,
        )
        try:
            async with turn:
                async for event in turn:
                    self._attachments = []  # the turn has begun; one that is refused can be sent again with them
                    view.show(event)
                    self.session_id = turn.session_id
        finally:
            self._screen.end_line()

    async def retry(self, text: str = "") -> None:
        """Send the last message again, or a text in its place, in a fork of the session that ends before it."""
        number = await self._last_message() if self.session_id else 0
        if not number:
            self._screen.error("there is no message to send again")
            return
        origin = self.session_id
        fork = await self._client.sessions.fork(origin, number=number)
        self.session_id = fork.session.session_id
        self._begins = False
        message = fork.next_message or UserMessage()
        self._attachments = [*(each.attachment_id for each in message.attachments), *self._attachments]
        self._screen.line(f"Session {self.session_id}, forked from {origin} before message {number}.", style="bold")
        await self.send(text or message.text)

    async def attach(self, path: str) -> None:
        """Upload a file, which the next message carries."""
        try:
            attachment = await self._client.attachments.upload(path)
        except OSError as error:
            self._screen.error(f"{path}: {error.strerror or error}")
            return
        self._attachments.append(attachment.attachment_id)
        self._screen.line(f"attached to the next message: {format_attachment(attachment)}")

    async def show_sessions(self) -> None:
        """List the most recently used sessions."""
        rows: list[tuple[str, ...]] = []
        async for session in self._client.sessions.list(page_size=_SESSIONS):
            rows.append(_session_row(session))
            if len(rows) == _SESSIONS:
                break
        title = f"The last {count_of(len(rows), 'session')}; /open ID opens one"
        self._screen.table(title, ("session", "cost", "messages", "model", "last used (UTC)"), rows)

    async def show_metrics(self) -> None:
        """Show the cost and the latency of the session."""
        if not self.session_id:
            self._screen.line("The session starts with the first message; so far it has no cost.")
            return
        metrics = await self._client.sessions.metrics(self.session_id)
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
                    _summary(each.time_to_first_token) if each.time_to_first_token is not None else "no token received",
                    _summary(each.duration),
                )
                for each in metrics.latency
            ),
        )

    async def _last_message(self) -> int:
        """Return the number of the user's last message; 0: there is none."""
        number = 0
        try:
            async for message in self._client.sessions.messages(self.session_id, page_size=_PAGE):
                if message.role is Role.USER and not any(block.tool_result for block in message.content):
                    number = message.number
        except SessionNotFound:  # it begins with its first message
            pass
        return number

    async def _show_history(self, count: int) -> None:
        latest: deque[Message] = deque(maxlen=self._history)
        async for message in self._client.sessions.messages(self.session_id, page_size=_PAGE):
            latest.append(message)
        if count > len(latest):
            self._screen.line(f"… {count_of(count - len(latest), 'earlier message')} …", style="dim")
        results = {
            block.tool_result.tool_call_id: block.tool_result
            for message in latest
            for block in message.content
            if block.tool_result is not None
        }
        for message in latest:
            self._show_message(message, results)

    def _show_message(self, message: Message, results: dict[str, ToolResult]) -> None:
        for block in message.content:
            match block:
                case ContentBlock(text=str(text)) if message.role is Role.USER:
                    self._screen.line(f"> {text}", style="bold")
                case ContentBlock(text=str(text)):
                    self._screen.line(text)
                case ContentBlock(reasoning=str(text)):
                    self._screen.line(text, style="dim")
                case ContentBlock(attachment=Attachment() as attachment):
                    self._screen.line(f"[{format_attachment(attachment)}]", style="dim")
                case ContentBlock(tool_use=ToolUse() as use):
                    result = results.get(use.tool_call_id, _NO_RESULT)
                    failed = result.status is ToolCallStatus.ERROR
                    self._screen.tool(use.name, use.input_json, result.output, failed=failed)
            if block.truncated:
                self._screen.line(f"… truncated: {block.size:,} bytes in total …", style="dim")


def _session_row(session: Session) -> tuple[str, ...]:
    used = f"{session.update_time:%Y-%m-%d %H:%M:%S}"
    return session.session_id, format_cost(session.cost_usd), str(session.message_count), session.model, used


def _summary(summary: LatencySummary) -> str:
    return " / ".join(format_duration(duration) for duration in (summary.median, summary.p95, summary.last))
