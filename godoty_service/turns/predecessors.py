"""Closes what turns have left in whose session one server after the other died."""

from dataclasses import replace

from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim
from godoty_service.turns.opening import open_history
from godoty_service.turns.recovery import Recovery

_MESSAGES = 1_000  # more than the turns of a few dead servers can have written


async def close_predecessors(store: MessageStore, claim: Claim, *, size: int) -> None:
    """Make the history whole up to the turn from which the session was taken over.

    That turn may have died before it had closed what the ones before it had left. Once it has written a message of
    its own, it had.

    Raises:
        SessionLost: A dead one was not dead.
    """
    dead, session = claim.taken_from, claim.session
    if dead is None or not dead.before:
        return
    kept = await store.page(session.tenant_id, session.uid, after=session.message_count, limit=_MESSAGES)
    if any(each.turn_id == dead.turn_id for each in kept):
        return
    for each in dead.before:
        await open_history(store, replace(claim, taken_from=each), size=size)


async def close_logs(recovery: Recovery, claim: Claim) -> None:
    """Say in the logs of the turns from which the session was taken over that they were interrupted."""
    if claim.taken_from is not None:
        for each in (*claim.taken_from.before, claim.taken_from):
            await recovery.interrupt_by_id(claim.session.tenant_id, each.turn_id)
