"""Makes sessions of exported ones, perhaps of another tenant or server."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from strands.types.content import Messages

from godoty_service.agents.definitions import AgentReference
from godoty_service.agents.selection import AgentSelection
from godoty_service.agents.store import Agents
from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.attachments import Attachments, to_its_end
from godoty_service.attachments.blocks import block_of, left_out, result_block_of
from godoty_service.citations import Citation
from godoty_service.errors import QuotaExceeded, SessionBusy
from godoty_service.ids import new_id
from godoty_service.session_copies.copies import MAX_MESSAGES, SessionCopies
from godoty_service.session_copies.errors import SessionTooLarge
from godoty_service.session_copies.history import ImportedHistory
from godoty_service.session_copies.imported_attachments import AttachmentPiece, ImportedAttachments
from godoty_service.sessions.agent_states import state_text
from godoty_service.sessions.incomplete import Contents, NewSession
from godoty_service.sessions.message_copies import COPIED
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session, SessionAgent
from godoty_service.users.references import EndUser, UserReferences

NAMED: Final = "named"  # in a block of an import: the attachment that it names, which the tenant may not have
_NOT_IMPORTED: Final = "the session was imported without it"
_BATCH: Final = 64  # messages
_BATCH_SIZE: Final = 1024 * 1024  # characters of the texts of a batch
_AT_ONCE: Final = 8  # imports of one server: each may have a message of 1 MiB and a batch in memory
_SHARE: Final = 2  # one tenant's imports are at most one part in this many of them
_RETRY_AFTER: Final = 1.0  # seconds
Confirm = Callable[[], Awaitable[None]]


class TooManyImports(QuotaExceeded):
    """The server receives as many imports as it may."""

    reason = "RATE_LIMITED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMessage:
    """A message of an import.

    Attributes:
        role: "user" or "assistant".
        content: Blocks of Strands, with `NAMED` ones in place of those that name attachments.
        size: The characters of its texts.
        citations: What it cites.
    """

    role: str
    content: list[dict[str, Any]]
    size: int
    citations: tuple[Citation, ...] = ()


class ImportedSession(Protocol):
    """What a caller sends."""

    model: str | None
    agent: AgentReference | None
    user: str | None
    session_id: str | None

    def contents(self) -> AsyncGenerator[ImportedMessage | AttachmentPiece, None]:
        """Yield the messages, and the pieces of attachments, as they arrive.

        Raises:
            InvalidRequest: What arrives is no export.
        """

    @property
    def state(self) -> Mapping[str, Any]:
        """The agent's state, once all messages were read."""


@dataclass(slots=True)
class _Import:
    """An import that is being received.

    Attributes:
        session: The session, which no reader sees.
        attachments: What the messages name.
        pending: The messages that are not stored yet.
        citations: What they cite, by number.
        size: The characters of their texts.
        number: The number of the last message, stored or pending.
    """

    session: Session
    attachments: ImportedAttachments
    pending: Messages = field(default_factory=list)
    citations: dict[int, Sequence[Citation]] = field(default_factory=dict)
    size: int = 0
    number: int = 0


class SessionImports:
    """Makes sessions of exported ones, by tenant."""

    def __init__(
        self,
        *,
        copies: SessionCopies,
        messages: MessageStore,
        attachments: Attachments,
        agents: Agents,
        users: UserReferences,
        default_model: str,
    ) -> None:
        """Create it.

        Args:
            copies: Makes sessions.
            messages: The sessions' messages.
            attachments: What messages name.
            agents: The tenants' agents.
            users: The references of end users.
            default_model: The model of a session whose export and agent name none.
        """
        self._copies = copies
        self._messages = messages
        self._attachments = attachments
        self._agents = agents
        self._users = users
        self._default_model = default_model
        self._running: Counter[str] = Counter()  # by tenant

    async def make(self, tenant_id: str, imported: ImportedSession, confirm: Confirm) -> Session:
        """Make a session of what a caller sends.

        Args:
            tenant_id: The tenant.
            imported: What is sent.
            confirm: Checks again, once all has arrived, that the caller may send it.

        Raises:
            InvalidRequest: It is no export.
            AgentNotFound: The tenant has no such agent.
            SessionExists: The tenant has a session with this id.
            SessionTooLarge: It has too many messages, or names or carries too many attachments.
            AttachmentRejected, AttachmentLimit, UploadsBusy: An attachment that it carries cannot be stored.
            TooManyImports: Retry later.
            SessionBusy: The end user was erased meanwhile: retry.
        """
        with self._counted(tenant_id):
            new, user = await self._new(tenant_id, imported)
            async with self._copies.making(tenant_id, new) as session:
                if user is not None and not await self._users.confirm(tenant_id, user):
                    raise SessionBusy("The end user is being erased.", retry_after=_RETRY_AFTER)
                with ImportedAttachments(self._attachments, session) as attachments:
                    count = await self._receive(_Import(session, attachments), imported)
                await confirm()
                state = state_text(imported.state)
                contents = Contents(message_count=count, state=state, state_number=0 if state == "{}" else None)
                return await self._copies.complete(session, imported.session_id or new_id("session"), contents)

    @contextmanager
    def _counted(self, tenant_id: str) -> Iterator[None]:
        """Count an import while the block runs."""
        own = max(1, _AT_ONCE // _SHARE)
        if self._running[tenant_id] >= own or self._running.total() >= _AT_ONCE:
            text = f"The server receives {_AT_ONCE} imports, or {own} of the tenant: retry when one has ended."
            raise TooManyImports(text, quota="imports/concurrent", retry_after=_RETRY_AFTER)
        self._running[tenant_id] += 1
        try:
            yield
        finally:
            self._running[tenant_id] -= 1
            if not self._running[tenant_id]:
                del self._running[tenant_id]

    async def _new(self, tenant_id: str, imported: ImportedSession) -> tuple[NewSession, EndUser | None]:
        """Return what the session begins with, and its end user."""
        selection = AgentSelection(self._agents, tenant_id, imported.agent)
        await selection.read()
        version = await selection.version("", selection.name, pinned=selection.pinned, created=True)
        user = await self._users.of_name(tenant_id, imported.user) if imported.user is not None else None
        new = NewSession(
            model=imported.model or version.definition.model or self._default_model,
            agent=SessionAgent(selection.name, selection.pinned),
            user=None,
            user_reference=user.reference if user is not None else None,
        )
        return new, user

    async def _receive(self, making: _Import, imported: ImportedSession) -> int:
        """Store the messages as they arrive; return the number of the last one."""
        history = ImportedHistory()
        async with aclosing(imported.contents()) as arriving:
            async for each in arriving:
                if isinstance(each, AttachmentPiece):
                    await making.attachments.add(each)
                    continue
                await making.attachments.end()
                content = [await self._resolved(making, block) for block in each.content]
                self._append(making, history.add(each.role, content), size=each.size, citations=each.citations)
                if len(making.pending) >= _BATCH or making.size >= _BATCH_SIZE:
                    await to_its_end(self._store(making))
        await making.attachments.end()
        self._append(making, history.end())
        await to_its_end(self._store(making))
        return making.number

    def _append(
        self, making: _Import, messages: Messages, *, size: int = 0, citations: Sequence[Citation] = ()
    ) -> None:
        making.pending += messages
        making.number += len(messages)
        making.size += size
        if citations and messages and messages[-1]["role"] == "assistant":
            making.citations[making.number] = citations
        if making.number > MAX_MESSAGES:
            raise SessionTooLarge.of(MAX_MESSAGES)

    async def _store(self, making: _Import) -> None:
        """Store the pending messages, and name what they carry."""
        if not making.pending:
            return
        tenant_id, uid = making.session.tenant_id, making.session.uid
        if making.attachments.named:
            await self._attachments.store.name_all(tenant_id, making.attachments.named, session_uid=uid)
        await self._messages.append(
            tenant_id,
            uid,
            number=making.number - len(making.pending) + 1,
            turn_id=COPIED,
            messages=making.pending,
            citations=making.citations,
        )
        making.pending, making.citations, making.size = [], {}, 0
        making.attachments.named.clear()

    async def _resolved(self, making: _Import, block: dict[str, Any]) -> dict[str, Any]:
        """Return a block with the attachments that it names, or notes in place of those that the tenant lacks."""
        if NAMED in block:
            named: Attachment = block[NAMED]
            found = await making.attachments.look_up(named.attachment_id)
            return block_of(found) if found is not None else {"text": left_out(named, _NOT_IMPORTED)}
        if "toolResult" in block:
            content: list[dict[str, Any]] = []
            for each in block["toolResult"]["content"]:
                if NAMED not in each:
                    content.append(each)
                elif (found := await making.attachments.look_up(each[NAMED].attachment_id)) is not None:
                    content.append(result_block_of(found))
                else:
                    content.append({"text": left_out(each[NAMED], _NOT_IMPORTED)})
            return {"toolResult": {**block["toolResult"], "content": content}}
        return block
