"""Deletes a session. It is claimed first, so that no turn runs in it meanwhile; its ledger entries stay."""

from godoty_service.ids import new_id
from godoty_service.sessions.messages import MessageStore
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
    await chunks.delete(tenant_id, await records.delete_of_session(tenant_id, session_id))
    await messages.delete(tenant_id, claim.uid)
    await sessions.delete(claim)
