"""Builds what manages webhooks, and the loops that notify them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.pool import Network
from godoty_service.budgets.store import BudgetStore
from godoty_service.budgets.thresholds import BudgetThresholds
from godoty_service.clock import Clock
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.unresolved_outbox import UnresolvedOutbox
from godoty_service.mongo.client import Database
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.policies import Policies
from godoty_service.turns.event_log.outbox import TurnOutbox
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.turn_store import TurnStore
from godoty_service.webhooks.backlog import Backlog
from godoty_service.webhooks.changes import WebhookChanges, WebhookComponents
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.delivery import DeliveryState
from godoty_service.webhooks.dispatch.dispatcher import DispatchLimits, WebhookDispatcher
from godoty_service.webhooks.dispatch.endpoints import Endpoints
from godoty_service.webhooks.dispatch.retries import RetrySchedule
from godoty_service.webhooks.dispatch.sender import WebhookSender
from godoty_service.webhooks.erasure import WebhookErasure
from godoty_service.webhooks.outbox.budget_marks import BudgetMarks
from godoty_service.webhooks.outbox.dead_turns import DeadTurns
from godoty_service.webhooks.outbox.publisher import Observe, Publisher
from godoty_service.webhooks.outbox.sweep import Outbox
from godoty_service.webhooks.sealing import Encryption
from godoty_service.webhooks.store import Webhooks
from godoty_service.webhooks.subscribers import Subscribers

WEBHOOK_STORES = (Webhooks, Deliveries)  # those with indexes


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookLoops:
    """What runs in the background.

    Attributes:
        outbox: Publishes events.
        dispatcher: Delivers them.
        backlog: What is not delivered yet.
    """

    outbox: Outbox
    dispatcher: WebhookDispatcher
    backlog: Backlog


def build_subscribers(database: Database, clock: Clock, *, secret_box: Encryption) -> Subscribers:
    """Build the list of the tenants that are notified, which turns and their deletion need."""
    return Subscribers(Webhooks(database.collection(Webhooks.COLLECTION), secret_box=secret_box), clock=clock)


def build_webhooks(
    settings: Settings,
    database: Database,
    clock: Clock,
    subscribers: Subscribers,
    *,
    secret_box: Encryption,
    policies: Policies,
    replicas: ReplicaHeartbeats,
) -> WebhookComponents:
    """Build what manages webhooks.

    Args:
        settings: The settings.
        database: The database.
        clock: Returns the current time.
        subscribers: The tenants that are notified.
        secret_box: Encrypts secrets.
        policies: Return the budgets of tenants.
        replicas: Names this server.
    """
    collection = database.collection(Webhooks.COLLECTION)
    webhooks = Webhooks(collection, secret_box=secret_box)
    endpoints = Endpoints(collection, owner=replicas.replica_id, clock=clock)
    deliveries = Deliveries(
        database.collection(Deliveries.COLLECTION),
        schedule=RetrySchedule(
            first=timedelta(seconds=settings.webhook_retry_delay),
            window=timedelta(seconds=settings.webhook_retry_window),
        ),
        retention=timedelta(seconds=settings.webhook_retention),
        clock=clock,
    )
    thresholds = BudgetThresholds(database.collection(BudgetStore.COLLECTION), budgets_of=policies.budgets)
    marks = BudgetMarks(database.collection(BudgetMarks.COLLECTION))
    turns = TurnOutbox(database.collection(EventLogStore.COLLECTION))
    calls = UnresolvedOutbox(database.collection(Ledger.COLLECTION))
    return WebhookComponents(
        webhooks=webhooks,
        deliveries=deliveries,
        endpoints=endpoints,
        subscribers=subscribers,
        changes=WebhookChanges(
            webhooks=webhooks,
            deliveries=deliveries,
            endpoints=endpoints,
            subscribers=subscribers,
            thresholds=thresholds,
            marks=marks,
            clock=clock,
        ),
        rules=AddressRules(settings.webhook_allowed_networks),
        turns=turns,
        calls=calls,
        erasure=WebhookErasure(webhooks=webhooks, deliveries=deliveries, marks=marks, turns=turns, calls=calls),
        thresholds=thresholds,
        marks=marks,
        clock=clock,
    )


def build_loops(
    settings: Settings,
    components: WebhookComponents,
    *,
    ledger: Ledger,
    turn_store: TurnStore,
    recovery: Recovery,
    replicas: ReplicaHeartbeats,
    clock: Clock,
    observe: Observe,
    observe_attempt: Callable[[DeliveryState], None] = lambda _: None,
) -> WebhookLoops:
    """Build the loops.

    Args:
        settings: The settings.
        components: What manages webhooks.
        ledger: The ledger.
        turn_store: The records of turns.
        recovery: Ends the turns of dead servers.
        replicas: Returns which servers are alive.
        clock: Returns the current time.
        observe: Called with each event.
        observe_attempt: Called with the state of a delivery after each attempt.
    """
    network = Network(rules=components.rules, connect_timeout=settings.connect_timeout)
    timeout = timedelta(seconds=settings.webhook_timeout)
    dispatcher = WebhookDispatcher(
        webhooks=components.webhooks,
        endpoints=components.endpoints,
        deliveries=components.deliveries,
        sender=WebhookSender(network, components.webhooks, timeout=timeout, clock=clock),
        limits=DispatchLimits(endpoints=settings.webhook_endpoints, of_tenant=settings.webhook_tenant_endpoints),
        clock=clock,
        observe=observe_attempt,
    )
    outbox = Outbox(
        publisher=Publisher(components.webhooks, components.deliveries, components.endpoints, observe=observe),
        webhooks=components.webhooks,
        endpoints=components.endpoints,
        subscribers=components.subscribers,
        turns=components.turns,
        dead_turns=DeadTurns(turn_store, recovery, replicas),
        calls=components.calls,
        ledger=ledger,
        thresholds=components.thresholds,
        marks=components.marks,
        clock=clock,
    )
    backlog = Backlog(components.webhooks, components.deliveries, clock=clock)
    return WebhookLoops(outbox=outbox, dispatcher=dispatcher, backlog=backlog)
