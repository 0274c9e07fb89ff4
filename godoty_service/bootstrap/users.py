"""Builds what concerns end users: their references, the names that builds of schema 1 stored, and erasures."""

from dataclasses import dataclass
from typing import Protocol

from godoty_service.clock import Clock
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.migrations.schema import Schema
from godoty_service.mongo.client import Database
from godoty_service.sessions.store import SessionStore
from godoty_service.tenancy.admin import Administration
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.turns.turn_store import TurnStore
from godoty_service.user_erasure import UserErasure
from godoty_service.users.erasures import ErasureOrders
from godoty_service.users.references import UserReferences
from godoty_service.users.stored_names import StoredNames
from godoty_service.webhooks.erasure import WebhookErasure

_REFERENCES_SINCE = 2  # the schema whose servers write references of end users in place of names


@dataclass(frozen=True, slots=True, kw_only=True)
class UserComponents:
    """End users of tenants."""

    references: UserReferences
    stored_names: StoredNames
    orders: ErasureOrders


class Conversations(Protocol):
    """What is erased with an end user."""

    @property
    def sessions(self) -> SessionStore:
        """The sessions."""

    @property
    def deletions(self) -> SessionDeletions:
        """Their deletions."""

    @property
    def turn_store(self) -> TurnStore:
        """The records of turns."""


def build_users(database: Database, schema: Schema, clock: Clock, replicas: ReplicaHeartbeats) -> UserComponents:
    """Build what turns and queries need of end users."""
    collection = database.collection(UserReferences.COLLECTION)
    references = UserReferences(collection, clock=clock)
    return UserComponents(
        references=references,
        stored_names=StoredNames(
            database,
            references,
            old_servers=lambda: schema.old_servers(_REFERENCES_SINCE, replicas.lease),
            owner=replicas.replica_id,
        ),
        orders=ErasureOrders(collection),
    )


def build_user_erasure(
    users: UserComponents,
    conversations: Conversations,
    replicas: ReplicaHeartbeats,
    administration: Administration,
    webhooks: WebhookErasure,
) -> UserErasure:
    """Build the service that erases end users."""
    return UserErasure(
        orders=users.orders,
        users=users.references,
        stored_names=users.stored_names,
        sessions=conversations.sessions.lists,
        deletions=conversations.deletions,
        turn_store=conversations.turn_store,
        replicas=replicas,
        administration=administration,
        webhooks=webhooks,
    )
