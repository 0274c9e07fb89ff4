"""Identifies the repetition of an administrator's request (AIP-155).

The id and a hash of the request are stored with what the request creates, under a unique index. So a request creates
one thing, whichever server gets its repetition and wherever the first one was interrupted.
"""

import hashlib
from dataclasses import dataclass

from godoty_service.errors import RequestIdReused
from godoty_service.mongo.collection import Document
from godoty_service.tenancy.audit import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """A request that has an id.

    Attributes:
        request_id: The caller's id of it.
        fingerprint: Distinguishes it from other requests with the same id: its method, author and content.
    """

    request_id: str
    fingerprint: str

    @classmethod
    def of(cls, request_id: str, *, actor: Actor, method: str, content: bytes) -> "AdminRequest | None":
        """Return the request; None: the caller gave it no id."""
        if not request_id:
            return None
        text = f"{method}\0{actor.kind}\0{actor.id}\0".encode()
        return cls(request_id=request_id, fingerprint=hashlib.sha256(text + content).hexdigest())

    def fields(self) -> Document:
        """Return the fields of a document that the request creates."""
        return {"request_id": self.request_id, "request_hash": self.fingerprint}

    def check_same(self, document: Document) -> None:
        """Check that a document with the request's id was created by the same request.

        Raises:
            RequestIdReused: It was another one.
        """
        if document["request_hash"] != self.fingerprint:
            raise RequestIdReused("The request id was used for another request.")


def request_fields(request: AdminRequest | None) -> Document:
    """Return the fields of a document that a request creates; none if the request has no id."""
    return {} if request is None else request.fields()
