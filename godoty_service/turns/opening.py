"""What a turn reads before it starts: the fold of what the session has cost, and the history the model sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from strands.types.content import Message, Messages

from godoty_service.metering.fold_document import fold_from_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.totals import SessionFold
from godoty_service.sessions import repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim, Session
from godoty_service.turns.predecessors import close_dead_turns
from godoty_service.turns.shown_turn import ShownTurn


async def opened_fold(ledger: Ledger, session: Session, *, doubtful: bool) -> SessionFold:
    """Tell what a session has cost until now, exactly.

    One read of the session is enough while no turn runs and no call is open; else the entries that the fold does
    not know are read, too.

    Args:
        ledger: Where the entries are.
        session: The session, as it was read.
        doubtful: Somebody may have written entries since it was folded.
    """
    fold = fold_from_document(session.fold)
    if not doubtful and not session.unfolded and not fold.open:
        return fold
    entries = await ledger.unfolded(session.tenant_id, session.uid, after=fold.through, also=fold.open)
    return fold.take(entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the model will see of a session.

    Attributes:
        head: What stands for the oldest messages: a summary, or nothing.
        messages: The newest messages, whose numbers end with `last_number`.
        last_number: The number of the last message.
    """

    head: Messages
    messages: Messages
    last_number: int


async def open_history(
    store: MessageStore, claim: Claim, *, size: int, shown: Mapping[str, ShownTurn] = MappingProxyType({})
) -> History:
    """Read the window that the model will see, after closing what dead turns left in it.

    Args:
        store: Where messages are.
        claim: The session.
        size: How many messages the model sees.
        shown: What the logs of dead turns show, by turn.

    Raises:
        SessionLost: A turn that was taken for dead goes on writing.
    """
    session = claim.session
    context = session.context
    last_number = session.message_count
    if claim.taken_from is not None:
        dead = (*claim.taken_from.before, claim.taken_from)
        last_number = await close_dead_turns(store, session, dead, shown)
    messages = await store.window(
        session.tenant_id,
        session.uid,
        # Behind a summary there are more than a window's only after a turn with very many tools.
        size=size if context is None else 4 * size,
        after=context.after if context is not None else 0,
    )
    if context is not None and last_number - context.after == len(messages):  # the summary ends where they begin
        head = [Message(role=each["role"], content=each["content"]) for each in context.head]
        return History(head=head, messages=messages, last_number=last_number)
    if seen := repair.window(messages):
        return History(head=[], messages=seen, last_number=last_number)
    seen = repair.tail(messages)
    head = [Message(role="user", content=[{"text": repair.LEFT_OUT}])] if seen else []
    return History(head=head, messages=seen, last_number=last_number)
