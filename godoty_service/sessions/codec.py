"""Converts sessions and leases to documents and back."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from godoty_service.ids import new_id
from godoty_service.ledger.entries import FIRST_AGENT
from godoty_service.mongo.collection import Document
from godoty_service.sessions.session import HistorySummary, Lease, Session, SessionAgent, SessionOrigin

_LEASE_FIELDS = tuple(field.name for field in fields(Lease))


def new_session_document(
    *, model: str, agent: SessionAgent, user: str | None, user_reference: str | None, time: datetime
) -> Document:
    """Return the document of a new session, without its ids and lease."""
    return {
        "_id": new_id("ses"),
        "message_count": 0,
        "state": "{}",
        "context": None,
        "totals": None,
        "totals_revision": 0,
        "totals_stale": False,
        "create_time": time,
        "update_time": time,
        "model": model,
        "agent": agent.name,
        "agent_version": agent.version,
        "user": user,
        **({"user_reference": user_reference} if user_reference is not None else {}),
    }


def session_from_document(document: Document) -> Session:
    """Return the session of a document; the fields `state`, `context` and `totals` may be missing."""
    lease, summary = document["lease"], document.get("context")
    return Session(
        uid=document["_id"],
        tenant_id=document["tenant_id"],
        session_id=document["session_id"],
        user=document["user"],
        user_reference=document.get("user_reference"),
        model=document["model"],
        message_count=document["message_count"],
        state=json.loads(document.get("state", "{}")),
        summary=HistorySummary(head=json.loads(summary["head"]), after=summary["after"]) if summary else None,
        totals=document.get("totals"),
        totals_revision=document["totals_revision"],
        fence=document["fence"],
        lease=lease_from_document(lease) if lease else None,
        totals_stale=document["totals_stale"],
        create_time=document["create_time"],
        update_time=document["update_time"],
        agent=document.get("agent", FIRST_AGENT),  # an earlier build has no other
        agent_version=document.get("agent_version"),
        state_number=_state_number(document),
        origin=_origin_from_document(document.get("origin")),
        waiting_step=document.get("waiting_step") or "",
    )


def _state_number(document: Document) -> int | None:
    """Return the number of the message with the agent's state; None: an earlier build has written the state since."""
    current = document.get("state_turn_id") == document.get("last_turn_id")
    return document.get("state_number") if current else None


def origin_to_document(origin: SessionOrigin) -> Document:
    """Return the document of what a session was forked from."""
    return {"uid": origin.uid, "session_id": origin.session_id, "number": origin.number}


def _origin_from_document(document: Document | None) -> SessionOrigin | None:
    if document is None:
        return None
    return SessionOrigin(uid=document["uid"], session_id=document["session_id"], number=document["number"])


def summary_to_document(summary: HistorySummary | None) -> Document | None:
    """Return the document of a history summary, if there is one."""
    return {"head": json.dumps(summary.head), "after": summary.after} if summary is not None else None


def lease_from_document(document: Document) -> Lease:
    """Return the lease of a document; fields of later versions are ignored."""
    known: dict[str, Any] = {name: document[name] for name in _LEASE_FIELDS if name in document}
    predecessors = tuple(map(lease_from_document, document.get("predecessors", ())))
    return Lease(**{**known, "attachments": tuple(known.get("attachments", ())), "predecessors": predecessors})


def unowned_lease_document(lease: Lease) -> Document:
    """Return the document of a lease that no server holds any more."""
    return {
        "turn_id": lease.turn_id,
        "replica_id": "",
        "text": lease.text,
        "model": lease.model,
        "user": lease.user,
        "user_reference": lease.user_reference,
        **lease_fields(lease.attachments, answers=lease.answers),
        "predecessors": [unowned_lease_document(each) for each in lease.predecessors],
    }


def lease_fields(attachments: Sequence[dict[str, Any]], *, answers: bool) -> dict[str, Any]:
    """Return the fields that few leases have: what the text carries, and whether answers are in place of it."""
    return {**({"attachments": list(attachments)} if attachments else {}), **({"answers": True} if answers else {})}


def fenced(session: Session) -> Document:
    """Return the filter for a session with the fence that it was read with."""
    return {"_id": session.uid, "tenant_id": session.tenant_id, "fence": session.fence}


def with_lease(session: Session, lease: Lease) -> Document:
    """Return the filter for a session with the lease that it was read with."""
    return {**fenced(session), "lease.turn_id": lease.turn_id, "lease.replica_id": lease.replica_id}


def predecessor_documents(lease: Lease | None) -> list[Document]:
    """Return the predecessors of a lease that is taken over from another; a deletion is not one itself."""
    if lease is None:
        return []
    own = () if lease.deletes else (replace(lease, predecessors=()),)
    return [unowned_lease_document(each) for each in (*lease.predecessors, *own)]
