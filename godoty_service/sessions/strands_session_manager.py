"""An asynchronous session manager for Strands: it gets the loaded history, and inserts the messages that are added."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from strands.agent import Agent
from strands.hooks import AfterInvocationEvent, AgentInitializedEvent, HookRegistry, MessageAddedEvent
from strands.session.session_manager import SessionManager
from strands.types.content import Message, Messages

from godoty_service.attachments.blocks import attachments_in
from godoty_service.citations import Citation
from godoty_service.sessions.agent_states import AgentStates, StateAfter
from godoty_service.sessions.history_repair import ends_answer
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session


class MongoSessionManager(SessionManager[Agent]):
    """Inserts one turn's messages as the agent adds them.

    A message is inserted while the agent continues, and the next hook waits for the insert. The user's text, which the
    session's lease contains as well, is inserted when the answer begins: only the lease and the ledger entry are
    written before the request. Writes are shielded: a cancelled turn's message is inserted nevertheless.

    Attributes:
        session_id: The session's name in Strands: its uid.
        history: The messages that were loaded, and those that were added since.
        last_number: The number of the last message.
        states: The agent's state after the messages that were added.
        withheld: The provider's moderation refused the turn's messages: no model sees them again.
        rejected: The provider rejected the turn's request: no model sees again what its messages carry.
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
        """Initialize the manager with a session's history.

        Args:
            store: The stored messages.
            session: The session.
            turn_id: The turn that adds messages.
            head: The messages in place of the session's oldest.
            messages: The session's newest messages.
            last_number: The number of the last of them.
        """
        self._store = store
        self._session = session
        self._turn_id = turn_id
        self._insert: asyncio.Task[None] | None = None
        self._pending: list[Message] = []  # the user's text, until the answer begins
        self._added_messages: list[Message] = []
        self._cited: list[Citation] = []  # by the answer that is not added yet
        self._citations: dict[int, tuple[Citation, ...]] = {}  # of the pending messages, by number
        self._states: dict[int, StateAfter] = {}  # likewise
        self.states = AgentStates(session.state, session.state_number)
        self.session_id = session.uid
        self.history = [*head, *messages]
        self.last_number = last_number
        first = last_number - len(messages) + 1
        # By identity: the agent retains the objects, and replaces those that it summarizes.
        self._numbers = {id(message): first + index for index, message in enumerate(messages)}
        self._stored_content = {id(message): json.dumps(message["content"]) for message in messages}
        self.withheld = False
        self.rejected = False

    @property
    def added(self) -> bool:
        """Whether the turn has added a message."""
        return bool(self._added_messages)

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register asynchronous hooks; the base class registers lambdas, whose results are never awaited."""
        registry.add_callback(AgentInitializedEvent, self._on_initialized)
        registry.add_callback(MessageAddedEvent, self._on_message)
        registry.add_callback(AfterInvocationEvent, self._on_ended)

    def initialize(self, agent: Agent, **_: Any) -> None:
        """Set the agent's messages to the history that was loaded."""
        agent.messages = list(self.history)

    async def append(self, messages: Sequence[Message], *, state: Mapping[str, Any]) -> None:
        """Insert messages that no agent added: those that complete an interrupted turn.

        Args:
            messages: The messages.
            state: The agent's state after them.

        Raises:
            SessionLost: The session was taken over.
        """
        if not self._pending:  # else no insert is running, and these are inserted with the pending ones
            await self.flush()
        self._add(messages, state)
        await self.flush()
        rejected = self.rejected and any(attachments_in(self._added_messages))
        if self.withheld or rejected:
            await self._store.withhold(
                self._session.tenant_id, self._session.uid, self._turn_id, attachments_alone=not self.withheld
            )

    def cite(self, found: Sequence[Citation]) -> None:
        """Store citations with the next message of the agent."""
        self._cited.extend(found)

    def write_pending(self) -> None:
        """Start to insert the pending messages; an earlier insert must have ended."""
        if not self._pending:
            return
        messages, self._pending = self._pending, []
        citations, self._citations = self._citations, {}
        states, self._states = self._states, {}
        self._insert = asyncio.create_task(
            self._store.append(
                self._session.tenant_id,
                self._session.uid,
                number=self.last_number - len(messages) + 1,
                turn_id=self._turn_id,
                messages=messages,
                citations=citations,
                states=states,
            )
        )

    async def flush(self) -> None:
        """Wait until the added messages are durable.

        Raises:
            SessionLost: The session was taken over.
            StorageUnavailable: They are not known to be durable.
        """
        self.write_pending()
        await self._wait_inserted()

    async def _wait_inserted(self) -> None:
        """Wait until the running insert has ended."""
        if self._insert is not None:
            await asyncio.shield(self._insert)
            self._insert = None

    def number_of(self, message: Message) -> int | None:
        """Return the number of a stored message; None: it is not stored, or its content has changed since."""
        number = self._numbers.get(id(message))
        if number is None or self._stored_content[id(message)] != json.dumps(message["content"]):
            return None
        return number

    def append_message(self, message: Message, agent: Agent, **_: Any) -> None:
        """Do nothing: the asynchronous hook inserts messages."""

    def sync_agent(self, agent: Agent, **_: Any) -> None:
        """Do nothing: the turn stores the agent's state when it ends."""

    def redact_latest_message(self, redact_message: Message, agent: Agent, **_: Any) -> None:
        """Do nothing: the model never requests a redaction."""

    def _on_initialized(self, event: AgentInitializedEvent) -> None:
        self.initialize(event.agent)

    async def _on_message(self, event: MessageAddedEvent) -> None:
        if not self.added:  # the user's text
            self._add([event.message])
            return
        await self.flush()
        self._add([event.message], event.agent.state.get() if ends_answer(event.message) else None)
        self.write_pending()

    async def _on_ended(self, event: AfterInvocationEvent) -> None:  # noqa: ARG002 - Strands' protocol names it
        await self._wait_inserted()  # without an answer the user's text stays pending: the turn may be refused

    def _add(self, messages: Sequence[Message], state: Mapping[str, Any] | None = None) -> None:
        """Number messages, and add copies of them to the pending ones; an answer is stored with the agent's state."""
        for number, message in enumerate(messages, self.last_number + 1):
            self._numbers[id(message)] = number
            self._stored_content[id(message)] = json.dumps(message["content"])
            self._pending.append(Message(role=message["role"], content=list(message["content"])))
            if self._cited and message["role"] == "assistant":
                self._citations[number], self._cited = tuple(self._cited), []
            if state is not None and ends_answer(message):
                self._states[number] = self.states.after(number, state)
        self.last_number += len(messages)
        self.history.extend(messages)
        self._added_messages.extend(messages)
