"""Builds what makes sessions from others."""

from dataclasses import dataclass

from godoty_service.bootstrap import Components
from godoty_service.session_copies.copies import SessionCopies
from godoty_service.session_copies.forks import SessionForks
from godoty_service.sessions.incomplete import IncompleteSessions
from godoty_service.sessions.message_copies import MessageCopies
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.store import SessionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCopyComponents:
    """What makes sessions from others."""

    copies: SessionCopies
    forks: SessionForks


def build_session_copies(components: Components) -> SessionCopyComponents:
    """Build what makes sessions from others."""
    conversations, collection = components.conversations, components.database.collection
    copies = SessionCopies(
        incomplete=IncompleteSessions(
            collection(SessionStore.COLLECTION), replicas=components.replicas, clock=components.clock
        ),
        leases=conversations.leases,
        deletions=conversations.deletions,
        replicas=components.replicas,
    )
    forks = SessionForks(
        copies=copies,
        sessions=conversations.sessions,
        messages=conversations.messages,
        message_copies=MessageCopies(collection(MessageStore.COLLECTION)),
        attachments=conversations.attachments.store,
    )
    return SessionCopyComponents(copies=copies, forks=forks)
