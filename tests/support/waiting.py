"""Waits for the work that follows a turn."""

from typing import Any

from tests.support.caller import Caller, Turn
from tests.support.service import Document, Service, eventually, soon


async def settled(caller: Caller, session_id: str = "talk") -> None:
    """Wait until no call of the session is pending."""

    async def nothing_pending() -> bool:
        return (await caller.metrics(session_id)).totals.pending_calls == 0

    await eventually(nothing_pending)


async def identified(service: Service, session_id: str = "talk") -> None:
    """Wait until the session's last call has a generation id in the ledger.

    It is stored while the answer arrives. If the server is killed before, the call's cost stays unknown.
    """
    await soon(lambda: (entries := service.entries(session_id)) and entries[-1].generation_id)


async def free(service: Service, session_id: str = "talk") -> Document:
    """Wait until the session has no lease; return its document."""

    def released() -> Document | None:
        session = service.session(session_id)
        return session if session is not None and session["lease"] is None else None

    found = await soon(released)
    assert found is not None
    return found


async def when_free(caller: Caller, text: str, session_id: str = "talk", **fields: Any) -> tuple[Turn, int]:
    """Run a turn as soon as the session is free; return it, and how often it was SESSION_BUSY before.

    A server releases a session in the database first, and a moment later in its own memory.
    """
    refused = 0

    async def served() -> Turn | None:
        nonlocal refused
        turn = await caller.converse(text, session_id=session_id, **fields)
        if turn.failure is None or turn.failure.reason != "SESSION_BUSY":
            return turn
        refused += 1
        return None

    turn = await eventually(served)
    assert turn is not None
    return turn, refused
