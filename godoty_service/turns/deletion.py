"""Deletes a session. It is claimed first, so that no turn runs in it meanwhile; its ledger entries stay."""

from godoty_service.ids import new_id
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import Sessions
from godoty_service.turns.chunks import LogChunks
from godoty_service.turns.records import TurnRecords

_RECENT = 200  # messages; the turns that have not kept their logs yet are among those that wrote them


async def delete_session(
    tenant_id: str,
    session_id: str,
    *,
    sessions: Sessions,
    messages: MessageStore,
    records: TurnRecords,
    chunks: LogChunks,
) -> None:
    """Delete a session, its messages and the logs of its turns.

    A server that dies in between leaves a session that can be deleted again.

    Raises:
        SessionNotFound: The tenant has none of this id.
        SessionBusy: A turn is running in it.
    """
    session = await sessions.get(tenant_id, session_id)
    claim = await sessions.claim_existing(session, turn_id=new_id("del"))
    left = (*session.lease.before, session.lease) if session.lease is not None else ()
    dead = frozenset(each.turn_id for each in left)
    await erase(claim, sessions=sessions, messages=messages, records=records, chunks=chunks, dead=dead)


async def erase(
    claimed: Session,
    *,
    sessions: Sessions,
    messages: MessageStore,
    records: TurnRecords,
    chunks: LogChunks,
    but: str = "",
    dead: frozenset[str] = frozenset(),
) -> None:
    """Delete a claimed session and all that was said in it, but not the record of one turn that is about to begin.

    Turns that wait for the session have not begun either: they keep their records, and so their request ids. One that
    has just ended may not have kept all of its log: that is sealed. Dead ones, from which the session was taken over,
    may have said nothing yet: their records go, too.
    """
    tenant_id = claimed.tenant_id
    known = [each for each in await records.of_session(tenant_id, claimed.session_id) if each != but]
    ended = await chunks.begun(tenant_id, known)
    after = max(0, claimed.message_count - _RECENT)
    recent = await messages.page(tenant_id, claimed.uid, after=after, limit=2 * _RECENT)
    spoke = {each.turn_id for each in recent} | dead
    turns = [each for each in known if each in ended or each in spoke]
    for turn_id in turns:
        if not ended.get(turn_id):
            await chunks.seal(tenant_id, turn_id, expire_time=records.expiry())
    await chunks.delete(tenant_id, turns)
    await records.delete(tenant_id, turns)
    await messages.delete(tenant_id, claimed.uid)
    await sessions.delete(claimed)
