"""Callers that fork sessions; the ledger is verified after each test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.e2e.admin.conftest import Admin, admin, admin_of
from tests.e2e.agents.conftest import Definer, define, definer
from tests.e2e.attachments.conftest import Attacher
from tests.e2e.turns.conftest import second_caller, second_server, verify_ledger_afterwards
from tests.e2e.turns.test_operations import Operations, operations
from tests.support.caller import Caller
from tests.support.service import Service

__all__ = [
    "Admin",
    "Definer",
    "Operations",
    "admin",
    "admin_of",
    "define",
    "definer",
    "operations",
    "second_caller",
    "second_server",
    "verify_ledger_afterwards",
]

FORKED = "[The conversation was forked here.]"


class Forker(Attacher):
    """Calls a server as one tenant, and forks its sessions."""

    async def fork(self, session_id: str = "talk", **fields: Any) -> pb.ForkSessionResponse:
        """Fork a session."""
        request = pb.ForkSessionRequest(session_id=session_id, **fields)
        found: pb.ForkSessionResponse = await self.caller.call("ForkSession", request)
        return found

    async def delete(self, session_id: str) -> None:
        """Delete a session."""
        await self.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))

    def stored(self) -> dict[str, int]:
        """Return the number of the tenant's sessions and messages, those that no reader sees included."""
        counts = self.service.document_counts()
        return {name: counts[name] for name in ("sessions", "messages")}

    def uid(self, session_id: str) -> str:
        """Return the generated id of a session."""
        session = self.service.session(session_id)
        assert session is not None
        return str(session["_id"])


@pytest.fixture
def forker(caller: Caller) -> Forker:
    """Forks as a new tenant of the shared server."""
    return Forker(caller)


@pytest.fixture
def fork_at(connect: Callable[[Service], Caller]) -> Callable[[Service], Forker]:
    """Connects forkers."""
    return lambda service: Forker(connect(service))
