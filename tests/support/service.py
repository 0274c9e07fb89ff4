"""A tenant of a running server, and its data in the database and on the provider's invoice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from godoty_service.ledger.codec import call_from_document
from godoty_service.turns.agents.models import pseudonym

if TYPE_CHECKING:
    from godoty_service.ledger.entries import ModelCall
    from openrouter_sandbox.billing.invoice import Line
    from tests.support.backends import Backends

Document = dict[str, Any]
PATIENCE = 180.0  # seconds: a busy machine is slow, and only a failure waits that long
_PAUSE = 0.01  # seconds between two checks: some conditions hold for a moment
LONG_PAUSE = 0.2  # for checks that cost much, of conditions that remain
Found = TypeVar("Found")


@dataclass(frozen=True)
class Deployment:
    """A server: its address, its database and its backends."""

    target: str
    database: Database[Document]
    backends: Backends


@dataclass(frozen=True)
class Service:
    """A server, and a tenant of it that no other test uses.

    Attributes:
        deployment: The server.
        tenant_id: The tenant.
        api_key: A key of the tenant, with the scope `converse`.
        key_id: The id of the key.
    """

    deployment: Deployment
    tenant_id: str
    api_key: str
    key_id: str

    @property
    def target(self) -> str:
        """host:port of the server."""
        return self.deployment.target

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call."""
        return (("authorization", f"Bearer {self.api_key}"),)

    @property
    def database(self) -> Database[Document]:
        """The server's database."""
        return self.deployment.database

    @property
    def backends(self) -> Backends:
        """MongoDB and the sandbox."""
        return self.deployment.backends

    def another_tenant(self) -> Service:
        """Create another tenant of the same server."""
        return self.backends.service(self.target, self.database.name)

    def with_key(self, api_key: str) -> Service:
        """Return the same tenant with another of its keys."""
        return Service(
            deployment=self.deployment, tenant_id=self.tenant_id, api_key=api_key, key_id=api_key.split("_")[1]
        )

    def at(self, target: str) -> Service:
        """Return the same tenant at another server on the same database."""
        deployment = Deployment(target=target, database=self.database, backends=self.backends)
        return Service(deployment=deployment, tenant_id=self.tenant_id, api_key=self.api_key, key_id=self.key_id)

    def session(self, session_id: str) -> Document | None:
        """Return the session's document, or None."""
        return self.database["sessions"].find_one({"tenant_id": self.tenant_id, "session_id": session_id})

    def entries(self, session_id: str) -> list[ModelCall]:
        """Return the session's ledger entries by number, including those of deleted sessions of the same id."""
        return [call_from_document(each) for each in self.entry_documents(session_id)]

    def entry_documents(self, session_id: str) -> list[Document]:
        """Return the documents of the session's ledger entries."""
        query = {"tenant_id": self.tenant_id, "session_id": session_id}
        return list(self.database["ledger"].find(query).sort([("start_time", 1), ("number", 1)]))

    def document_counts(self) -> dict[str, int]:
        """Return the number of the tenant's documents by collection."""
        names = ("sessions", "messages", "ledger")
        return {name: self.database[name].count_documents({"tenant_id": self.tenant_id}) for name in names}

    def provider_session_id(self, session_id: str) -> str:
        """Return the session's id at the provider."""
        session = self.session(session_id)
        assert session is not None
        return pseudonym(self.tenant_id, session["_id"])

    def requests(self, session_id: str) -> list[Document]:
        """Return the bodies of the session's requests, as the provider received them; without a session none."""
        if self.session(session_id) is None:
            return []
        name = self.provider_session_id(session_id)
        entries = self.backends.ask(self.backends.sandbox.request_log.entries)
        return [each["body"] for each in entries if each["body"].get("session_id") == name]

    def invoice(self, session_id: str) -> list[Line]:
        """Return the session's lines on the provider's invoice."""
        name = self.provider_session_id(session_id)
        return self.backends.ask(lambda: self.backends.sandbox.invoice.lines(session=name))

    def invoiced(self, session_id: str) -> Decimal:
        """Return the sum of the session's lines on the invoice."""
        name = self.provider_session_id(session_id)
        return self.backends.ask(lambda: self.backends.sandbox.invoice.total(session=name))


def stored_bytes(service: Service, *, tenant_id: str | None = None) -> bytes:
    """Return all documents of the database, or of a tenant, as they are stored: what is in clear can be found there."""
    query = {"$or": [{"tenant_id": tenant_id}, {"_id": tenant_id}]} if tenant_id is not None else {}
    return b"".join(each for _, each in _stored(service, query))


def collections_with(service: Service, text: str) -> set[str]:
    """Return the collections with a document that contains a text of ASCII characters, in any field."""
    return {name for name, each in _stored(service, {}) if text.encode() in each}


def _stored(service: Service, query: Document) -> Iterator[tuple[str, bytes]]:
    """Yield the documents of all collections as they are stored, each with the name of its collection."""
    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    database: Database[RawBSONDocument] = service.database.with_options(options)
    for name in database.list_collection_names():
        for each in database[name].find(query):
            yield name, bytes(each.raw)


def format_amount(amount: Decimal) -> str:
    """Format an amount as the API does, independently of the service's code."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _pauses(within: float, pause: float = _PAUSE) -> Iterator[float]:
    """Yield the seconds until the next check of a condition.

    Raises:
        AssertionError: The time is over.
    """
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        yield pause
    raise AssertionError("the condition did not hold in time")


def until(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Block until a condition holds.

    Raises:
        AssertionError: It did not hold in time.
    """
    pauses = _pauses(within)
    while not condition():
        time.sleep(next(pauses))


async def eventually(
    condition: Callable[[], Awaitable[Found]], *, within: float = PATIENCE, pause: float = _PAUSE
) -> Found:
    """Wait until a coroutine function returns a true value, and return it.

    Raises:
        AssertionError: It did not in time.
    """
    pauses = _pauses(within, pause)
    while not (found := await condition()):
        await asyncio.sleep(next(pauses))
    return found


async def soon(condition: Callable[[], Found], *, within: float = PATIENCE, pause: float = _PAUSE) -> Found:
    """Wait until a function returns a true value, and return it.

    Raises:
        AssertionError: It did not in time.
    """

    async def answer() -> Found:
        return condition()

    return await eventually(answer, within=within, pause=pause)
