"""Builds what makes sessions from others."""

from dataclasses import dataclass

from godoty_service.bootstrap.components import Components
from godoty_service.session_copies.copies import SessionCopies
from godoty_service.session_copies.forks import SessionForks
from godoty_service.session_copies.imports import SessionImports
from godoty_service.sessions.incomplete import IncompleteSessions
from godoty_service.sessions.message_copies import MessageCopies
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.store import SessionStore
from godoty_service.settings.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCopyComponents:
    """What makes sessions from others."""

    copies: SessionCopies
    forks: SessionForks
    imports: SessionImports


def build_session_copies(settings: Settings, components: Components) -> SessionCopyComponents:
    """Build what makes sessions from others."""
    conversations, collection = components.conversations, components.database.collection
    copies = SessionCopies(
        incomplete=IncompleteSessions(
            collection(SessionStore.COLLECTION), replicas=components.replicas, clock=components.clock
        ),
        leases=conversations.leases,
        deletions=conversations.deletions,
        replicas=components.replicas,
        lists=conversations.sessions.lists,
        messages=conversations.messages,
        attachments=conversations.attachments.store,
    )
    forks = SessionForks(
        copies=copies,
        sessions=conversations.sessions,
        messages=conversations.messages,
        message_copies=MessageCopies(collection(MessageStore.COLLECTION)),
        attachments=conversations.attachments.store,
        actions=conversations.actions,
    )
    imports = SessionImports(
        copies=copies,
        messages=conversations.messages,
        attachments=conversations.attachments,
        agents=conversations.agents,
        users=components.users.references,
        default_model=settings.default_model,
    )
    return SessionCopyComponents(copies=copies, forks=forks, imports=imports)
