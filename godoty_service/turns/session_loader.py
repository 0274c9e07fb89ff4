"""Loads the history that a turn's model sees, after completing the messages of dead turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from strands.types.content import Message, Messages

from godoty_service.sessions import history_repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim
from godoty_service.turns.recovery import LoggedTurn, complete_dead_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The part of a session that the model sees.

    Attributes:
        head: The messages in place of the oldest ones: a summary or a note; may be empty.
        messages: The newest messages; the last of them has the number `last_number`.
        last_number: The number of the session's last message; 0 if it has none.
    """

    head: Messages
    messages: Messages
    last_number: int


EMPTY_HISTORY = History(head=[], messages=[], last_number=0)


async def load_history(
    store: MessageStore, claim: Claim, *, size: int, logged: Mapping[str, LoggedTurn] = MappingProxyType({})
) -> History:
    """Read the window that the model sees, after completing the messages of dead turns.

    Args:
        store: The messages.
        claim: The acquired session.
        size: The number of messages that the model sees.
        logged: What the event logs of dead turns show, by turn id.

    Raises:
        SessionLost: A turn that was considered dead is still writing.
    """
    session, summary = claim.session, claim.session.summary
    last_number = session.message_count
    if claim.taken_from is not None:
        dead = (*claim.taken_from.predecessors, claim.taken_from)
        last_number = await complete_dead_turns(store, session, dead, logged)
    messages = await store.window(
        session.tenant_id,
        session.uid,
        # More messages than a window follow a summary only after a turn with very many tool calls.
        size=size if summary is None else 4 * size,
        after=summary.after if summary is not None else 0,
    )
    if summary is not None and last_number - summary.after == len(messages):  # they follow the summary without a gap
        head = [Message(role=each["role"], content=each["content"]) for each in summary.head]
        return History(head=head, messages=messages, last_number=last_number)
    if found := history_repair.window(messages):
        return History(head=[], messages=found, last_number=last_number)
    found = history_repair.assistant_suffix(messages)
    head = [Message(role="user", content=[{"text": history_repair.LEFT_OUT}])] if found else []
    return History(head=head, messages=found, last_number=last_number)
