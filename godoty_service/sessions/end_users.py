"""Acquires sessions for end users, who may be erased at any time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.session import Claim
from godoty_service.users.references import EndUser, UserReferences

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
    """
    while True:
        user = await users.of_name(tenant_id, name) if name is not None else None
        claim = await attempt(user)
        try:
            if user is None or not claim.names_user or await users.confirm(tenant_id, user):
                return await _with_reference(users, claim)
        except BaseException:
            await asyncio.shield(leases.release(claim.session))
            raise
        await leases.undo(claim.session)


async def _with_reference(users: UserReferences, claim: Claim) -> Claim:
    session = claim.session
    if session.user is None or session.user_reference is not None:
        return claim
    references = await users.of_names(session.tenant_id, [session.user])
    return replace(claim, session=replace(session, user_reference=references[session.user]))
