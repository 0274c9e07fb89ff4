"""Deletes a session. It is claimed first, so that no turn runs in it meanwhile; its ledger entries stay."""

from godoty_service.ids import new_id
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import Sessions
from godoty_service.turns.chunks import LogChunks
from godoty_service.turns.records import TurnRecords


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
    await erase(claim, sessions=sessions, messages=messages, records=records, chunks=chunks)


async def erase(
    claimed: Session,
    *,
    sessions: Sessions,
    messages: MessageStore,
    records: TurnRecords,
    chunks: LogChunks,
    but: str = "",
) -> None:
    """Delete a claimed session and all that was said in it, but not the record of one turn that is about to begin."""
    turns = [each for each in await records.of_session(claimed.tenant_id, claimed.session_id) if each != but]
    await chunks.delete(claimed.tenant_id, turns)
    await records.delete(claimed.tenant_id, turns)
    await messages.delete(claimed.tenant_id, claimed.uid)
    await sessions.delete(claimed)
