"""Strands' session manager, asynchronous all the way: it is handed what was loaded, and keeps what is added."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from strands.agent import Agent
from strands.hooks import AfterInvocationEvent, AgentInitializedEvent, HookRegistry, MessageAddedEvent
from strands.session.session_manager import SessionManager
from strands.types.content import Message, Messages

from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session


class MongoSessionManager(SessionManager[Agent]):
    """Keeps one turn's messages as the agent adds them.

    A message is written while the agent goes on, and the next hook waits for it. The user's words, which the turn's
    claim keeps as well, are written when the answer begins: nothing of the database stands before the request but the
    claim and the ledger's entry. Writes are shielded: a cancelled turn's message lands all the same.

    Attributes:
        session_id: The name by which Strands knows the session: our id of it.
        history: What was loaded, and what was added since.
        last_number: The number of the last message.
        added: The turn has added something.
        withheld: A moderation refused the turn's words: no model sees them again.
    """

    def __init__(
        self,
        store: MessageStore,
        session: Session,
        *,
        turn_id: str,
        head: Messages,
        messages: Messages,
        last_number: int,
    ) -> None:
        """Take up a session.

        Args:
            store: Where messages are kept.
            session: The session.
            turn_id: The turn that adds to it.
            head: What stands for its oldest messages.
            messages: Its newest messages.
            last_number: The number of the last of them.
        """
        self._store = store
        self._session = session
        self._turn_id = turn_id
        self._writing: asyncio.Task[None] | None = None
        self._held: list[Message] = []  # the user's words, until the answer begins
        self.session_id = session.uid
        self.history = [*head, *messages]
        self.last_number = last_number
        first = last_number - len(messages) + 1
        # By identity: the agent keeps the objects, and takes others in place of those that it sums up.
        self._numbers = {id(message): first + place for place, message in enumerate(messages)}
        self._as_kept = {id(message): json.dumps(message["content"]) for message in messages}
        self.added = False
        self.withheld = False

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register asynchronous hooks; the base class registers lambdas, which nobody awaits."""
        registry.add_callback(AgentInitializedEvent, self._on_initialized)
        registry.add_callback(MessageAddedEvent, self._on_message)
        registry.add_callback(AfterInvocationEvent, self._on_ended)

    def initialize(self, agent: Agent, **_: Any) -> None:
        """Give the agent the history that was loaded."""
        agent.messages = list(self.history)

    async def append(self, messages: Sequence[Message]) -> None:
        """Keep messages that no agent added: those that close a broken turn.

        Raises:
            SessionLost: The session was taken over.
        """
        if not self._held:  # else nothing is being written yet, and these are written with what is held
            await self.flush()
        self._take(messages)
        await self.flush()
        if self.withheld:
            await self._store.withhold(self._session.tenant_id, self._session.uid, self._turn_id)

    def write_held(self) -> None:
        """Begin to write what is held; what was written before must have landed."""
        if not self._held:
            return
        messages, self._held = self._held, []
        self._writing = asyncio.create_task(
            self._store.append(
                self._session.tenant_id,
                self._session.uid,
                number=self.last_number - len(messages) + 1,
                turn_id=self._turn_id,
                messages=messages,
            )
        )

    async def flush(self) -> None:
        """Wait until what was added is durable.

        Raises:
            SessionLost: The session was taken over.
            StorageUnavailable: It is not known to be durable.
        """
        self.write_held()
        await self._written()

    async def _written(self) -> None:
        """Wait until what is being written is durable."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def number_of(self, message: Message) -> int | None:
        """Tell under which number a message is kept; None: it is not, or not as it is now."""
        number = self._numbers.get(id(message))
        if number is None or self._as_kept[id(message)] != json.dumps(message["content"]):
            return None
        return number

    def append_message(self, message: Message, agent: Agent, **_: Any) -> None:
        """Do nothing: the asynchronous hook keeps messages."""

    def sync_agent(self, agent: Agent, **_: Any) -> None:
        """Do nothing: the turn keeps the agent's state when it ends."""

    def redact_latest_message(self, redact_message: Message, agent: Agent, **_: Any) -> None:
        """Do nothing: the model never asks for it."""

    def _on_initialized(self, event: AgentInitializedEvent) -> None:
        self.initialize(event.agent)

    async def _on_message(self, event: MessageAddedEvent) -> None:
        if not self.added:  # the user's words
            self._take([event.message])
            return
        await self.flush()
        self._take([event.message])
        self.write_held()

    async def _on_ended(self, event: AfterInvocationEvent) -> None:  # noqa: ARG002 - Strands' protocol names it
        await self._written()  # the words of a turn that got no answer are held: it may have been refused

    def _take(self, messages: Sequence[Message]) -> None:
        """Number messages, and hold them as they are now."""
        for number, message in enumerate(messages, self.last_number + 1):
            self._numbers[id(message)] = number
            self._as_kept[id(message)] = json.dumps(message["content"])
            self._held.append(Message(role=message["role"], content=list(message["content"])))
        self.last_number += len(messages)
        self.history.extend(messages)
        self.added = self.added or bool(messages)
