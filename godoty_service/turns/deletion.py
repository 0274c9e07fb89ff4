"""Deletes a session. It is claimed first, so that no turn runs in it meanwhile; its ledger entries stay."""

from godoty_service.ids import new_id
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.store import Sessions


async def delete_session(sessions: Sessions, messages: MessageStore, tenant_id: str, session_id: str) -> None:
    """Delete a session and its messages.

    A server that dies in between leaves a session that can be deleted again.

    Raises:
        SessionNotFound: The tenant has none of this id.
        SessionBusy: A turn is running in it.
    """
    session = await sessions.get(tenant_id, session_id)
    claim = await sessions.claim_existing(session, turn_id=new_id("del"))
    await messages.delete(tenant_id, claim.uid)
    await sessions.delete(claim)
