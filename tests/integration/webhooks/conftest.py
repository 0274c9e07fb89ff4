"""Servers without a listener, whose outbox and dispatcher run when the test says so."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.bootstrap.turns import build_recovery
from godoty_service.bootstrap.webhooks import WebhookLoops, build_loops
from godoty_service.ids import new_id
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import Totals
from godoty_service.settings.settings import Settings
from godoty_service.turns.event_log.events import StopReason, TextDelta, TurnFinished
from godoty_service.turns.event_log.outbox import ended_turn
from godoty_service.turns.event_log.store import Chunk
from godoty_service.turns.turn_store import TurnRecord
from godoty_service.webhooks.changes import Values, WebhookTerms
from godoty_service.webhooks.event import WebhookEvent
from godoty_service.webhooks.webhook import Webhook
from tests.support.backends import Backends
from tests.support.receiver import Receiver

SETTINGS: dict[str, Any] = {
    "webhook_networks": "127.0.0.0/8",
    "encryption_keys": base64.b64encode(b"k" * 32).decode(),
    "webhook_retry_delay": 0.05,
}


async def unrecorded(_: Values | None, __: Values | None) -> None:
    """Record nothing."""


@dataclass
class Server:
    """A server.

    Attributes:
        settings: Its settings.
        components: Its components.
        events: The events that it has published.
        loops: Its outbox and its dispatcher.
    """

    settings: Settings
    components: Components
    events: list[WebhookEvent] = field(default_factory=list)
    loops: WebhookLoops = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what it was about to do, as a new process does."""
        components = self.components
        self.loops = build_loops(
            self.settings,
            components.webhooks,
            ledger=components.accounting.ledger,
            turn_store=components.conversations.turn_store,
            recovery=build_recovery(components),
            replicas=components.replicas,
            clock=components.clock,
            observe=self.events.append,
        )

    async def apply(self, tenant_id: str, url: str, *, name: str = "hook", **terms: Any) -> Webhook:
        """Apply a webhook."""
        webhook, _, _ = await self.components.webhooks.changes.apply(
            tenant_id, WebhookTerms(name=name, url=url, **terms), etag="", rotation=None, record=unrecorded
        )
        return webhook

    async def dispatch(self) -> None:
        """Deliver to the endpoints that are due, until they are released."""
        dispatcher = self.loops.dispatcher
        await dispatcher.start_due()
        for _, task in list(dispatcher._running.values()):
            await task

    async def end_turn(self, tenant_id: str, *, session_id: str = "talk", replica_id: str = "gone") -> str:
        """Store a turn's record and the end of its log, as a server does; return its id."""
        turn_id = await self.begin_turn(tenant_id, session_id=session_id, replica_id=replica_id)
        now = int(self.components.clock().timestamp() * 1000)
        finished = TurnFinished(
            stop_reason=StopReason.END_TURN,
            turn_totals=Totals(),
            session_totals=Totals(),
            cycle_durations=(),
            tools=(),
        )
        end = ended_turn((turn_id, tenant_id, session_id), finished, user_reference=None, time=now, error=None)
        await self.store(turn_id, tenant_id, 1, finished, outbox=end)
        return turn_id

    async def begin_turn(self, tenant_id: str, *, session_id: str = "talk", replica_id: str = "gone") -> str:
        """Store a turn's record and the beginning of its log, as a server does; return its id."""
        record = TurnRecord(
            turn_id=new_id("turn"),
            tenant_id=tenant_id,
            session_id=session_id,
            request_id=None,
            fingerprint="",
            replica_id=replica_id,
        )
        await self.components.conversations.turn_store.begin(record)
        await self.store(record.turn_id, tenant_id, 0, TextDelta("a"))
        return record.turn_id

    async def store(self, turn_id: str, tenant_id: str, index: int, event: Any, **fields: Any) -> None:
        """Store a chunk of a log with one event."""
        conversations = self.components.conversations
        chunk = Chunk(
            turn_id=turn_id,
            tenant_id=tenant_id,
            index=index,
            first=index + 1,
            events=(event,),
            ended=bool(fields),
            error=None,
            writer="gone",
            expire_time=conversations.turn_store.log_expiry(),
            **fields,
        )
        await conversations.event_logs.append([chunk])

    async def unresolve(self, tenant_id: str, turn_id: str) -> str:
        """Store an unresolved call; return its id."""
        ledger, now = self.components.accounting.ledger, self.components.clock()
        call = ModelCall(
            call_id=new_id("call"),
            tenant_id=tenant_id,
            session_uid=f"uid-{turn_id}",
            session_id="talk",
            turn_id=turn_id,
            number=1,
            state=CallState.PENDING,
            requested_model="a/b",
            provider_key_id="key",
            start_time=now,
            agent="assistant",
            owner="gone",
        )
        await ledger.insert(call)
        unresolved = replace(call, state=CallState.UNRESOLVED, settle_time=now + timedelta(milliseconds=1))
        assert await ledger.close(unresolved)
        return call.call_id


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(backends: Backends) -> AsyncIterator[StartServer]:
    """Starts servers on one database; they have one clock, as each reads the database's to within a round trip."""
    async with AsyncExitStack() as stack:
        database, servers = backends.empty_database(), list[Server]()

        async def start_server(*, indexes: bool = True, **settings: Any) -> Server:
            chosen = backends.settings(database, **SETTINGS | settings)
            components = await stack.enter_async_context(open_components(chosen, migrate=True, indexes=indexes))
            servers.append(Server(chosen, components))
            components.clock._origin = servers[0].components.clock._origin
            components.webhooks.subscribers._tick = lambda: 0.0  # a busy machine takes seconds
            await components.replicas.heartbeat()
            await components.webhooks.subscribers.refresh()
            return servers[-1]

        yield start_server


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with Receiver() as started:
        yield started
