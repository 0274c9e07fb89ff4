"""Erasures of end users: what they read and write while turns run, and what they find."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from godoty_service import user_erasure
from godoty_service.aio.backoff import Backoff
from godoty_service.bootstrap.components import Components, open_components
from godoty_service.mongo.collection import Collection, Document
from godoty_service.sessions.codec import new_session_document
from godoty_service.sessions.session import SessionAgent
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.turns.turn_store import TurnRecord, TurnStore
from tests.support.backends import Backends
from tests.support.service import soon

ACTOR = Actor(kind=ActorKind.SYSTEM, id="test")
DEAD: Document = {"turn_id": "turn_1", "replica_id": "", "text": "hi", "model": None, "user": None}


@pytest.fixture
async def components(backends: Backends, prepared_database: str) -> AsyncIterator[Components]:
    """The components of a living server on an empty database."""
    async with open_components(backends.settings(prepared_database, lease=600.0), migrate=True) as opened:
        await opened.replicas.heartbeat()
        yield opened
        await opened.user_erasure.stop()


async def insert_session(components: Components, tenant_id: str, session_id: str, **fields: Any) -> None:
    """Insert a session."""
    document = new_session_document(
        model="a/b", agent=SessionAgent(), user=None, user_reference=None, time=datetime.now(UTC)
    )
    ids = {"tenant_id": tenant_id, "session_id": session_id, "lease": None, "fence": 1}
    await components.database.collection("sessions").insert_one({**document, **ids, **fields})


@pytest.mark.parametrize(
    "lease",
    [
        {**DEAD, "user": "Ann"},
        {**DEAD, "predecessors": [DEAD, {**DEAD, "user": "Ann"}]},
        {"turn_id": "del_1", "replica_id": "", "text": "", "predecessors": [{**DEAD, "user": "Ann"}]},
    ],
    ids=["lease", "predecessor", "predecessor-of-a-deletion"],
)
async def test_user_whom_only_a_lease_of_schema_1_names_is_erased(components: Components, lease: Document) -> None:
    """The name stands in no entry and in no session: also in a dead turn that another one has taken over from."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    await insert_session(components, tenant_id, "talk", lease=lease)
    erased = await components.user_erasure.erase(ACTOR, tenant_id, "Ann")

    assert erased.contents.sessions == 1
    assert await components.database.collection("sessions").count({}) == 0


async def test_erasure_that_waits_for_a_turn_cancels_it_once_and_looks_less_often(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no contents of the session. A turn that takes its place is cancelled as well."""
    pauses: list[float] = []
    cancelled: list[str] = []
    read: list[Document] = []

    class Recorded(Backoff):
        def next(self, *, changed: bool = False) -> float:
            pauses.append(super().next(changed=changed))
            return pauses[-1]

    request_cancel, find = TurnStore.request_cancel, Collection.find

    async def recorded_cancel(self: TurnStore, record: TurnRecord) -> None:
        cancelled.append(record.turn_id)
        await request_cancel(self, record)

    async def recorded_find(self: Collection, query: Any, **how: Any) -> list[Document]:
        found = await find(self, query, **how)
        read.extend(found if self.name == "sessions" else ())
        return found

    monkeypatch.setattr(user_erasure, "Backoff", Recorded)
    monkeypatch.setattr(TurnStore, "request_cancel", recorded_cancel)
    monkeypatch.setattr(Collection, "find", recorded_find)
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    user = await components.users.references.of_name(tenant_id, "Ann")
    lease = {**DEAD, "replica_id": components.replicas.replica_id, "user_reference": user.reference}
    for turn_id in ("turn_1", "turn_2"):
        record = TurnRecord(
            turn_id=turn_id, tenant_id=tenant_id, session_id="talk", request_id=None, fingerprint="", replica_id="here"
        )
        assert await components.conversations.turn_store.begin(record) is None
    contents = {"state": '{"secret": 1}', "lease": lease, "user_reference": user.reference}
    await insert_session(components, tenant_id, "talk", **contents)
    erasing = asyncio.create_task(components.user_erasure.erase(ACTOR, tenant_id, "Ann"))
    await soon(lambda: len(pauses) >= 3)
    sessions = components.database.collection("sessions")
    await sessions.update_one({}, {"$set": {"lease.turn_id": "turn_2"}})
    await soon(lambda: len(cancelled) == 2 and len(pauses) >= 5)
    await sessions.update_one({}, {"$set": {"lease": None}})
    erased = await erasing

    assert cancelled == ["turn_1", "turn_2"]
    assert pauses[:5] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert read
    assert all({"state", "context", "totals"}.isdisjoint(each) for each in read)
    assert all("text" not in (each.get("lease") or {}) for each in read)
    assert erased.contents.sessions == 1


async def test_late_entry_of_an_erased_user_gets_the_reference_of_that_user(components: Components) -> None:
    """A server of schema 1 writes it after the erasure: the name is erased again, and the cost stays where it was."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    ledger = components.database.collection("ledger")
    first = await components.users.references.of_name(tenant_id, "Ann")
    entry = {"tenant_id": tenant_id, "session_uid": "ses_1"}
    await ledger.insert_one({**entry, "_id": "call_1", "number": 1, "user_reference": first.reference})
    await components.user_erasure.erase(ACTOR, tenant_id, "Ann")
    await ledger.insert_one({**entry, "_id": "call_2", "number": 2, "user": "Ann"})
    await components.user_erasure.erase(ACTOR, tenant_id, "Ann")

    stored = [(each.get("user"), each["user_reference"]) for each in await ledger.find({})]
    assert stored == [(None, first.reference)] * 2
    assert await components.database.collection("users").count({"name": "Ann"}) == 0
