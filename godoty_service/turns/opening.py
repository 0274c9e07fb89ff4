"""What a turn reads before it starts: the fold of what the session has cost, and the history the model sees."""

from strands.types.content import Message, Messages

from godoty_service.metering.fold_document import fold_from_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.totals import SessionFold
from godoty_service.sessions import repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim, Session


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


async def open_history(store: MessageStore, claim: Claim, *, size: int) -> tuple[Messages, int]:
    """Read the window that the model will see, and the number of the last message.

    A session that was taken over is made whole first: the dead turn's words are kept, and its history is closed at
    the next numbers, so that whatever the dead server still writes collides.

    Raises:
        SessionLost: The dead one was not dead.
    """
    session = claim.session
    history = await store.window(session.tenant_id, session.uid, size=size)
    last_number = session.message_count
    if claim.taken_from is not None:
        kept = await store.page(session.tenant_id, session.uid, after=session.message_count, limit=2 * size)
        missing: Messages = []
        if not any(each.turn_id == claim.taken_from.turn_id for each in kept):
            missing.append(Message(role="user", content=[{"text": claim.taken_from.text}]))
        last_number = await store.highest(session.tenant_id, session.uid)
        missing.extend(repair.closing([*history, *missing]))
        if missing:
            await store.append(
                session.tenant_id,
                session.uid,
                number=last_number + 1,
                turn_id=claim.taken_from.turn_id,
                messages=missing,
            )
        history = [*history, *missing]
        last_number += len(missing)
    return repair.window(history), last_number
