"""The caches of policies and provider keys: a burst of calls costs one read, and a change takes effect at once."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from godoty_service.tenancy.encryption import SecretBox
from godoty_service.tenancy.policies import NO_POLICY, Policies, Policy
from godoty_service.tenancy.provider_keys import ProviderKeys


class Documents:
    """A stand-in for a collection of one document.

    Attributes:
        document: The document, if there is one.
        reads: The reads that have begun.
        first_answer: The first read is answered when this is set.
    """

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None
        self.reads = 0
        self.first_answer = asyncio.Event()
        self.first_answer.set()

    async def find_one(self, *_: Any, **__: Any) -> dict[str, Any] | None:
        """Read the document as it is now."""
        self.reads += 1
        found = self.document
        if self.reads == 1:
            await self.first_answer.wait()
        else:
            await asyncio.sleep(0)
        return found

    async def find(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """Read all documents."""
        found = await self.find_one()
        return [] if found is None else [found]

    async def update_one(self, _: Any, update: dict[str, Any], **__: Any) -> bool:
        """Write the document."""
        self.document = update["$set"]
        return True

    async def insert_one(self, document: dict[str, Any]) -> None:
        """Write the document."""
        self.document = document

    async def update_many(self, *_: Any, **__: Any) -> None:
        """Retire nothing."""


@pytest.fixture
def documents() -> Documents:
    return Documents()


def policies_of(documents: Any) -> Policies:
    """Return the policies of a server."""
    return Policies(documents)


def provider_keys_of(documents: Any) -> ProviderKeys:
    """Return the provider keys of a server."""
    return ProviderKeys(documents, sealer=SecretBox.of(base64.b64encode(bytes(32)).decode()))


READERS: dict[str, Callable[[Documents], Callable[[], Awaitable[object]]]] = {
    "policy": lambda documents: partial(policies_of(documents).get, "tenant"),
    "provider key": lambda documents: partial(provider_keys_of(documents).get, "tenant"),
    "readable keys": lambda documents: provider_keys_of(documents).readable_ids,
}


@pytest.mark.parametrize("name", READERS)
async def test_burst_is_one_read(documents: Documents, name: str) -> None:
    """Calls that start together share a read, and the next ones use its value, also if there is none."""
    read = READERS[name](documents)
    await asyncio.gather(*(read() for _ in range(50)))
    await read()

    assert documents.reads == 1


async def test_policy_that_is_set_during_a_read_takes_effect_at_once(documents: Documents) -> None:
    """The read may be older than the change: its answer is not cached."""
    policies = policies_of(documents)
    documents.first_answer.clear()
    before = asyncio.create_task(policies.get("tenant"))
    while not documents.reads:
        await asyncio.sleep(0)
    changed = Policy(default_model="maker/model")
    await policies.set("tenant", changed)
    documents.first_answer.set()

    assert await before == NO_POLICY
    assert await policies.get("tenant") == changed


async def test_provider_key_that_is_set_during_a_read_takes_effect_at_once(documents: Documents) -> None:
    """The same."""
    keys = provider_keys_of(documents)
    documents.first_answer.clear()
    before = asyncio.create_task(keys.get("tenant"))
    while not documents.reads:
        await asyncio.sleep(0)
    await keys.insert(keys.seal("tenant", "secret"))
    documents.first_answer.set()

    assert await before is None
    found = await keys.get("tenant")
    assert found is not None
    assert found.secret == "secret"
