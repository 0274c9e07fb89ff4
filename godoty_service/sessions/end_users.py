"""Acquires sessions for end users, who may be erased at any time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from godoty_service.errors import SessionBusy
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.session import Claim, OtherEndUser
from godoty_service.users.references import EndUser, UserReferences

_BUSY_RETRY = 1.0  # seconds
Attempt = Callable[[EndUser | None], Awaitable[Claim]]


async def acquire_for_user(
    users: UserReferences, leases: LeaseHolders, tenant_id: str, name: str | None, attempt: Attempt
) -> Claim:
    """Acquire a session for the end user that a name stands for at this time.

    If the user is erased meanwhile, the session is released and acquired for the new user of the name. A session that
    has the user already needs no such check: an erasure that was ordered before acquires that session itself.

    Args:
        users: The references.
        leases: Releases the session.
        tenant_id: The tenant.
        name: The name that the request has; None: none.
        attempt: Acquires the session for a user.

    Returns:
        The claim. Its session has the reference of its end user, also if a build of schema 1 stored the name alone.

    Raises:
        SessionBusy: A turn has it, or an erasure deletes it, which is that of an earlier user of the name.
        OtherEndUser: It belongs to another end user.
    """
    while True:
        user = await users.of_name(tenant_id, name) if name is not None else None
        try:
            claim = await attempt(user)
        except OtherEndUser as other:
            if other.owner is not None and await users.is_erased(tenant_id, other.owner):
                raise _being_deleted() from other
            raise
        erased = False
        try:
            if user is None or not claim.names_user or await users.confirm(tenant_id, user):
                erased = user is not None and claim.had_name and not await _owns_name(users, tenant_id, user)
                if not erased:
                    return await _with_reference(users, claim)
        except BaseException:
            await asyncio.shield(leases.release(claim.session))
            raise
        await leases.undo(claim.session)
        if erased:
            raise _being_deleted()


async def _owns_name(users: UserReferences, tenant_id: str, user: EndUser) -> bool:
    """Return whether stored data with a user's name is that user's, and not that of one who is being erased."""
    return (await users.of_names(tenant_id, [user.name]))[user.name] == user.reference


def _being_deleted() -> SessionBusy:
    return SessionBusy("The session is being deleted with its end user.", retry_after=_BUSY_RETRY)


async def _with_reference(users: UserReferences, claim: Claim) -> Claim:
    session = claim.session
    if session.user is None or session.user_reference is not None:
        return claim
    references = await users.of_names(session.tenant_id, [session.user])
    return replace(claim, session=replace(session, user_reference=references[session.user]))
