"""A conversation: its session, its model, and its turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from grpc import StatusCode

from godoty.chat import history
from godoty.chat.formatting import format_attachment, format_totals
from godoty.chat.turn import TurnRecord, TurnView
from godoty.errors import GodotyError
from godoty.reasons import SessionNotFound
from godoty.types import ActionState, UserMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from godoty.chat.screen import Screen
    from godoty.chat.status import Status
    from godoty.client import AsyncGodoty
    from godoty.turns.async_turn import AsyncTurn
    from godoty.types import Session


class Conversation:
    """A conversation in one session.

    Args:
        client: The client.
        screen: Where it is shown.
        status: Follows it.
        session_id: The session; empty for a new one.
        model: The model; empty for the agent's, the session's last model, or the default.
        agent: The agent of new sessions; empty for the default.
        variables: Values for the agent's prompt.
        history: Number of earlier messages that are shown.
        show_reasoning: The model's reasoning is shown as it arrives.

    Attributes:
        messages: The user's earlier messages of the session, as far as they were shown.
        last: What happened in the latest turn.
    """

    def __init__(
        self,
        client: AsyncGodoty,
        screen: Screen,
        status: Status,
        *,
        session_id: str,
        model: str,
        agent: str = "",
        variables: Mapping[str, str] | None = None,
        history: int = 0,
        show_reasoning: bool = False,
    ) -> None:
        self.client = client
        self.screen = screen
        self.session_id = session_id
        self.model = model
        self.agent = agent
        self.messages: list[str] = []
        self.last = TurnRecord()
        self.show_reasoning = show_reasoning
        self._status = status
        self._history = history
        self._variables = variables or {}
        self._begins = True  # a session that exists keeps its own agent
        self._attachments: list[str] = []  # ids, of the next message
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def begun(self) -> bool:
        """Whether the session exists."""
        return not self._begins

    async def open(self, session_id: str) -> None:
        """Open a session and show its latest messages and its cost."""
        try:
            session = await self.client.sessions.get(session_id) if session_id else None
        except SessionNotFound:
            session = None
        self.session_id, self._begins, self.last = session_id, session is None, TurnRecord()
        if session is None:
            self._status.open(session_id, None)
            with_agent = f", agent {self.agent}" if self.agent else ""
            name = f", {session_id}" if session_id else ""
            self.screen.line(f"A new session{name}{with_agent}.", style="bold")
            return
        self.screen.line(_title(session), style="bold")
        if self._history:
            self.messages += await history.show(self.client, self.screen, session, self._history)
        metrics = await self.client.sessions.metrics(session_id)
        self._status.open(session_id, metrics.totals)
        self.screen.line(f"so far: {format_totals(metrics.totals)}", style="green")
        if self.screen.interactive:
            await self.find_actions()

    async def send(self, text: str) -> None:
        """Run a turn and show its events as they arrive."""
        turn = self.client.converse(
            text,
            session=self.session_id,
            model=self.model,
            agent=self.agent if self._begins else "",
            variables=self._variables,
            attachments=self._attachments,
        )
        await self._show(turn)
        await self.answer_actions()

    async def answer_actions(self) -> None:
        """Ask for what the session waits for, and go on with the answers."""
        while self.last.actions:
            asked, self.last.actions = self.last.actions, []
            answers = [answer for action in asked if (answer := await self.screen.decide(action)) is not None]
            if not answers:
                names = ", ".join(action.name for action in asked)
                self.screen.line(
                    f"The session waits for an answer to {names}: /approve asks again, a message goes on without it.",
                    style="yellow",
                )
                return
            await self._show(self.client.converse("", session=self.session_id, action_results=answers))

    async def find_actions(self) -> None:
        """Ask for what the session waits for, as the server has it."""
        open_actions = self.client.actions.list(session_id=self.session_id, state=ActionState.OPEN)
        try:
            self.last.actions = [action async for action in open_actions]
        except GodotyError as error:
            if error.code is not StatusCode.UNIMPLEMENTED:  # an earlier server has no actions
                raise
        await self.answer_actions()

    async def retry(self, text: str = "") -> None:
        """Send the last message again, or a text in its place, in a fork of the session that ends before it."""
        number = (await self.last_message())[0]
        if not number:
            self.screen.error("there is no message to send again")
            return
        message = await self.fork(number) or UserMessage()
        self._attachments = [*(each.attachment_id for each in message.attachments), *self._attachments]
        self.screen.message(text or message.text)
        await self.send(text or message.text)

    async def fork(self, number: int = 0) -> UserMessage | None:
        """Go on in a fork of the session, which ends before a message of the user's; 0: it has all messages."""
        origin = self.session_id
        fork = await self.client.sessions.fork(origin, number=number)
        self.session_id, self._begins = fork.session.session_id, False
        self._status.open(self.session_id, None)
        place = f" before message {number}" if number else ""
        self.screen.line(f"Session {self.session_id}, forked from {origin}{place}.", style="bold")
        return fork.next_message

    async def last_message(self) -> tuple[int, str]:
        """Return the number and the text of the user's last message; 0: there is none."""
        return await history.last_message(self.client, self.session_id) if self.session_id else (0, "")

    async def attach(self, path: str) -> None:
        """Upload a file, which the next message carries."""
        try:
            attachment = await self.client.attachments.upload(path)
        except OSError as error:
            self.screen.error(f"{path}: {error.strerror or error}")
            return
        self._attachments.append(attachment.attachment_id)
        self.screen.line(f"attached to the next message: {format_attachment(attachment)}")

    async def leave(self) -> None:
        """Wait until turns that were left are cancelled."""
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def show_cancelled(self) -> None:
        """Show that the turn was cancelled, and what it has cost."""
        parts = ["Cancelled."]
        try:
            if self.last.turn_id:
                turn = await self.client.turns.get(self.last.turn_id)
                parts.append(f"turn: {format_totals(turn.totals, turns=False)}")
            if self.session_id:
                metrics = await self.client.sessions.metrics(self.session_id)
                self._status.settle(turn.totals if self.last.turn_id else None, metrics.totals)
                parts.append(f"session: {format_totals(metrics.totals)}")
        except GodotyError:
            parts.append("/cost shows the cost so far.")
        self.screen.line(" ".join([parts[0], " | ".join(parts[1:])]).strip(), style="yellow")

    async def _show(self, turn: AsyncTurn[None]) -> None:
        """Show a turn; then ask for what it waits for, and go on."""
        view = TurnView(self.screen, self._status, show_reasoning=self.show_reasoning)
        self.last = view.record
        self._status.begin(lambda: turn.connected)
        self.screen.activity("sending")
        try:
            async for event in turn:
                self._attachments = []  # the turn has begun; one that is refused can be sent again with them
                self.session_id, self._begins = turn.session_id, False
                self.last.lost_connections = turn.lost_connections
                view.show(event)
        finally:
            self._status.end()
            view.end()
            await asyncio.shield(self._left(turn))

    def _left(self, turn: AsyncTurn[None]) -> asyncio.Task[None]:
        """Cancel a turn that has not ended, even if the chat is left meanwhile."""
        task = asyncio.get_running_loop().create_task(turn.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


def _title(session: Session) -> str:
    agent = f", agent {session.agent}" if session.agent else ""
    last_model = f", last model {session.model}" if session.model else ""
    return f"Session {session.session_id}{agent}{last_model}."
