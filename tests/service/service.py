"""A tenant of a running server, and what the server wrote for him: in its database, and on the provider's invoice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.database import Database

from godoty_service.metering.documents import call_from_document
from godoty_service.turns.workbench import pseudonym

if TYPE_CHECKING:
    from godoty_service.metering.call import ModelCall
    from godoty_service.sandbox.invoice import Line
    from tests.service.surroundings import Surroundings

Document = dict[str, Any]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Place:
    """A server: where it listens, and what it stands on."""

    target: str
    database: Database[Document]
    surroundings: Surroundings


@dataclass(frozen=True)
class Service:
    """A server, and a tenant of it who is nobody else's.

    Attributes:
        place: The server.
        tenant_id: The tenant.
        api_key: His key, with the scope `converse`.
        key_id: Its id.
    """

    place: Place
    tenant_id: str
    api_key: str
    key_id: str

    @property
    def target(self) -> str:
        """host:port of the server."""
        return self.place.target

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call carries."""
        return (("authorization", f"Bearer {self.api_key}"),)

    @property
    def database(self) -> Database[Document]:
        """The server's database."""
        return self.place.database

    @property
    def surroundings(self) -> Surroundings:
        """What the server stands on."""
        return self.place.surroundings

    def another_tenant(self) -> Service:
        """Make another tenant of the same server."""
        return self.surroundings.service(self.target, self.database.name)

    def at(self, target: str) -> Service:
        """The same tenant, at another server on the same database."""
        place = Place(target=target, database=self.database, surroundings=self.surroundings)
        return Service(place=place, tenant_id=self.tenant_id, api_key=self.api_key, key_id=self.key_id)

    def session(self, session_id: str) -> Document | None:
        """The session's document."""
        return self.database["sessions"].find_one({"tenant_id": self.tenant_id, "session_id": session_id})

    def entries(self, session_id: str) -> list[ModelCall]:
        """The session's ledger entries in the order of their numbers, those of deleted namesakes included."""
        return [call_from_document(each) for each in self.entry_documents(session_id)]

    def entry_documents(self, session_id: str) -> list[Document]:
        """The same as the database has them."""
        query = {"tenant_id": self.tenant_id, "session_id": session_id}
        return list(self.database["ledger"].find(query).sort([("start_time", 1), ("number", 1)]))

    def footprint(self) -> dict[str, int]:
        """How many documents the tenant has, by collection."""
        names = ("sessions", "messages", "ledger")
        return {name: self.database[name].count_documents({"tenant_id": self.tenant_id}) for name in names}

    def upstream_name(self, session_id: str) -> str:
        """The session's name on the provider's side."""
        session = self.session(session_id)
        assert session is not None
        return pseudonym(self.tenant_id, session["_id"])

    def requests(self, session_id: str) -> list[Document]:
        """The bodies of the session's requests, as they arrived at the provider; without a session there are none."""
        if self.session(session_id) is None:
            return []
        name = self.upstream_name(session_id)
        entries = self.surroundings.ask(self.surroundings.sandbox.journal.entries)
        return [each["body"] for each in entries if each["body"].get("session_id") == name]

    def invoice(self, session_id: str) -> list[Line]:
        """The session's lines on the provider's invoice."""
        name = self.upstream_name(session_id)
        return self.surroundings.ask(lambda: self.surroundings.sandbox.invoice.lines(session=name))

    def invoiced(self, session_id: str) -> Decimal:
        """Their sum."""
        name = self.upstream_name(session_id)
        return self.surroundings.ask(lambda: self.surroundings.sandbox.invoice.total(session=name))


def plain(amount: Decimal) -> str:
    """Write an amount as the API does, by other means than the service's."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def until(condition: Callable[[], bool], *, within: float = 20.0) -> None:
    """Wait, blocking, until something holds.

    Raises:
        AssertionError: It did not, in time.
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


async def eventually(condition: Callable[[], Awaitable[Found]], *, within: float = 20.0) -> Found:
    """Wait until what a coroutine function returns is true, and return it.

    Raises:
        AssertionError: It was not, in time.
    """
    deadline = time.monotonic() + within
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


async def soon(condition: Callable[[], Found], *, within: float = 20.0) -> Found:
    """Wait until what a plain function returns is true, and return it.

    Raises:
        AssertionError: It was not, in time.
    """

    async def answer() -> Found:
        return condition()

    return await eventually(answer, within=within)
