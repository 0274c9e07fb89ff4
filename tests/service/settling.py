"""Waiting for what a turn leaves to others."""

from tests.service.caller import Caller
from tests.service.service import Document, Service, eventually, soon


async def settled(caller: Caller, session_id: str = "talk") -> None:
    """Wait until no call of the session is pending."""

    async def nothing_pending() -> bool:
        return (await caller.metrics(session_id)).totals.pending_calls == 0

    await eventually(nothing_pending, within=10)


async def free(service: Service, session_id: str = "talk") -> Document:
    """Wait until nobody holds the session any more; returns its document."""

    def unheld() -> Document | None:
        session = service.session(session_id)
        return session if session is not None and session["lease"] is None else None

    found = await soon(unheld)
    assert found is not None
    return found
