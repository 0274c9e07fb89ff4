"""Forks sessions: a new session with the messages of another one up to a point, and the agent's state at that point.

The messages are copied within the database, so that neither session depends on the other afterwards: each is deleted,
and its end user erased, by itself. The order of the steps is what makes that safe. The new session is inserted first,
with the end user of its origin, so that an erasure finds it from then on. After the copy, the origin is read again: if
it is there and not being deleted, nothing was missing, and no erasure of its user has ended before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from strands.types.content import ContentBlock, Messages

from godoty_service.actions.stores import ActionStores
from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.attachments import to_its_end
from godoty_service.attachments.blocks import attachments_in
from godoty_service.attachments.store import AttachmentStore
from godoty_service.errors import MessageNotFound, SessionBusy, SessionNotFound
from godoty_service.ids import new_id
from godoty_service.session_copies.copies import MAX_MESSAGES, SessionCopies
from godoty_service.session_copies.errors import ForkPointRefused, SessionExists, SessionTooLarge
from godoty_service.sessions.agent_states import state_text
from godoty_service.sessions.history_repair import missing_messages, result_of
from godoty_service.sessions.incomplete import Contents, NewSession
from godoty_service.sessions.message_copies import COPIED, MessageCopies, Point
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session, SessionAgent, SessionOrigin
from godoty_service.sessions.store import SessionStore, missing_session

_BUSY_RETRY: Final = 1.0  # seconds
_NOT_CARRIED_OVER: Final = "Not carried over: the conversation was forked while this call was open."
_FORKED: Final = "[The conversation was forked here.]"
_NO_STATE: Final = ("{}", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """What a user has said: the text, and what it carries."""

    text: str
    attachments: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A fork.

    Attributes:
        session: The new session.
        next_message: The user's message before which it ends; None: it ends after an answer.
    """

    session: Session
    next_message: UserMessage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """Where a session is cut.

    Attributes:
        through: The number of the last message that the fork has; 0: it has none.
        point: That message; None: it was not read.
        closing: The messages that follow it in the fork alone: they close what is open.
        next_message: The user's message that follows.
    """

    through: int
    point: Point | None = None
    closing: Messages = field(default_factory=list)
    next_message: UserMessage | None = None


class SessionForks:
    """Forks sessions, by tenant."""

    def __init__(
        self,
        *,
        copies: SessionCopies,
        sessions: SessionStore,
        messages: MessageStore,
        message_copies: MessageCopies,
        attachments: AttachmentStore,
        actions: ActionStores,
    ) -> None:
        """Create it.

        Args:
            copies: Makes sessions.
            sessions: The sessions.
            messages: Their messages.
            message_copies: Copies messages.
            attachments: What messages name.
            actions: The steps in which sessions wait.
        """
        self._copies = copies
        self._sessions = sessions
        self._messages = messages
        self._message_copies = message_copies
        self._attachments = attachments
        self._actions = actions

    async def fork(self, tenant_id: str, session_id: str, *, number: int | None, fork_id: str | None) -> Fork:
        """Fork a session; the same fork again, by its id, is returned as it is.

        Args:
            tenant_id: The tenant.
            session_id: The session, which does not change.
            number: The number of an answer, after which the fork ends, or of the user's words, before which it ends;
                None: it has all messages of the turns that have ended.
            fork_id: The caller's id of the fork; None: one is generated.

        Raises:
            SessionNotFound: The tenant has no such session, or it is being deleted.
            MessageNotFound: It has no such message.
            ForkPointRefused: It cannot be cut at this message.
            SessionBusy: The message is of a turn that has not ended.
            SessionExists: The tenant has another session with the id of the fork.
            SessionTooLarge: It has too many messages.
            AttachmentLimit: Too many sessions name an attachment of it.
            SessionLost: The end user is being erased.
        """
        origin = await self._read(tenant_id, session_id)
        cut = await self._cut(origin, number)
        if cut.through > MAX_MESSAGES:
            raise SessionTooLarge.of(MAX_MESSAGES)
        source = SessionOrigin(uid=origin.uid, session_id=session_id, number=cut.through)
        made = await self._earlier(tenant_id, fork_id, source) if fork_id is not None else None
        if made is None:
            try:
                made = await self._make(origin, cut, source, fork_id or new_id("session"))
            except SessionExists:  # perhaps by the same request, a moment ago
                made = await self._earlier(tenant_id, fork_id or "", source)
                if made is None:
                    raise
        return Fork(session=made, next_message=cut.next_message)

    async def _read(self, tenant_id: str, session_id: str) -> Session:
        """Return the session to fork, with the end user that it has or is about to have."""
        session = await self._sessions.get(tenant_id, session_id)
        if session.lease is not None and session.lease.deletes:
            raise missing_session(session_id)
        return session.as_requested()

    async def _earlier(self, tenant_id: str, fork_id: str, source: SessionOrigin) -> Session | None:
        """Return the fork that an earlier request has made; None: there is no session with its id.

        Raises:
            SessionExists: Another session has its id.
        """
        try:
            found = await self._sessions.get(tenant_id, fork_id)
        except SessionNotFound:
            return None
        if found.origin != source:
            raise SessionExists.of(fork_id)
        return found

    async def _cut(self, origin: Session, number: int | None) -> _Cut:
        """Return where to cut a session."""
        if number is None and not origin.message_count:
            return _Cut(through=0)
        place = number or origin.message_count
        point = await self._message_copies.point(origin.tenant_id, origin.uid, place)
        if point is None:
            metadata = {"session_id": origin.session_id, "number": str(place)}
            raise MessageNotFound(f"The session has no message {place}.", metadata=metadata)
        if point.is_users:
            cut = _Cut(through=place - 1, next_message=_user_message(point))
        elif point.ends_answer:
            cut = _Cut(through=place, point=point)
        elif point.tool_uses and place == origin.message_count:  # the turn has ended, and its calls are open
            cut = _Cut(through=place, point=point, closing=_closing(point, await self._known_results(origin)))
        else:
            raise ForkPointRefused.of(origin.session_id, place)
        if cut.through > origin.message_count:
            raise SessionBusy("The message is of a turn that has not ended.", retry_after=_BUSY_RETRY)
        return cut

    async def _known_results(self, origin: Session) -> dict[str, ContentBlock]:
        """Return the results of the calls of the step in which a session waits that have run, by tool call id."""
        if not origin.waiting_step:
            return {}
        calls = await self._actions.calls.of_step(origin.tenant_id, origin.waiting_step)
        own = {each.tool_call_id: each.result for each in calls if not each.path}
        return {each: result_of(each, result) for each, result in own.items() if result is not None}

    async def _make(self, origin: Session, cut: _Cut, source: SessionOrigin, fork_id: str) -> Session:
        """Make the fork."""
        tenant_id, summary = origin.tenant_id, origin.summary
        new = NewSession(
            model=origin.model,
            agent=SessionAgent(origin.agent, origin.agent_version),
            user=origin.user,
            user_reference=origin.user_reference,
        )
        async with self._copies.making(tenant_id, new) as session:
            await to_its_end(self._fill(origin, cut, session))
            state, state_number = await self._state(origin, cut)
            await self._check_unchanged(origin)
            contents = Contents(
                message_count=cut.through + len(cut.closing),
                state=state,
                state_number=state_number,
                summary=summary if summary is not None and summary.after <= cut.through else None,
                origin=source,
            )
            return await self._copies.complete(session, fork_id, contents)

    async def _fill(self, origin: Session, cut: _Cut, session: Session) -> None:
        """Copy the messages, and name what they carry; a cancel waits for it, so that what follows finds all of it."""
        tenant_id = origin.tenant_id
        if named := await self._attachments.named(tenant_id, origin.uid):
            last = cut.through + (cut.next_message is not None)
            carried = await self._message_copies.attachment_ids(tenant_id, origin.uid, through=last)
            carried |= {each.attachment_id for each in attachments_in(cut.closing)}
            await self._attachments.name_all(tenant_id, named & carried, session_uid=session.uid)
        await self._message_copies.copy(tenant_id, origin.uid, to=session.uid, through=cut.through)
        if cut.closing:
            await self._messages.append(
                tenant_id, session.uid, number=cut.through + 1, turn_id=COPIED, messages=cut.closing
            )

    async def _state(self, origin: Session, cut: _Cut) -> tuple[str, int | None]:
        """Return the agent's state at the cut, and the number of the message that stores it.

        It is empty if a server of an earlier build has run the turn, which did not store it with its messages.
        """
        if cut.through == origin.message_count:
            return state_text(origin.state), origin.state_number
        point = cut.point
        if point is None and cut.through:
            point = await self._message_copies.point(origin.tenant_id, origin.uid, cut.through)
        if point is None or not point.state_number:
            return _NO_STATE
        text = await self._message_copies.state(origin.tenant_id, origin.uid, point.state_number)
        return (text, point.state_number) if text is not None else _NO_STATE

    async def _check_unchanged(self, origin: Session) -> None:
        """Check that the origin is there, not being deleted, and of the same end user.

        Raises:
            SessionNotFound: It is being deleted, or is deleted.
            SessionBusy: It has an end user, which it had not before.
        """
        found = await self._read(origin.tenant_id, origin.session_id)
        if found.uid != origin.uid:
            raise missing_session(origin.session_id)
        if (found.user, found.user_reference) != (origin.user, origin.user_reference):
            raise SessionBusy("The session has an end user since a moment ago.", retry_after=_BUSY_RETRY)


def _user_message(point: Point) -> UserMessage:
    texts = [block["text"] for block in point.message["content"] if "text" in block]
    return UserMessage(text="\n".join(texts), attachments=tuple(attachments_in([point.message])))


def _closing(point: Point, known: Mapping[str, ContentBlock]) -> Messages:
    """Return the messages that close the open calls of a message: no branch acts on what the other one was asked."""
    return missing_messages([point.message], note=_FORKED, results=known, otherwise=_NOT_CARRIED_OVER)
