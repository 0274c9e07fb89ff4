"""Checks of attachments run in threads: two at a time, one of a tenant, and each to its end."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from godoty_service.attachments import content
from godoty_service.attachments.content import ContentInspector, ContentLimits
from tests.support.media import pdf


class Pages:
    """Counts pages once it is allowed to; records what has begun."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._allowed = threading.Semaphore(0)

    def __call__(self, data: bytes) -> int:
        """Count pages."""
        assert data
        self.threads.append(threading.get_ident())
        self._allowed.acquire()
        return 1

    def allow(self, number: int) -> None:
        """Let checks end."""
        self._allowed.release(number)

    async def begun(self, number: int) -> None:
        """Wait until as many checks have begun."""
        while len(self.threads) < number:
            await asyncio.sleep(0.001)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Counts the pages of documents."""
    made = Pages()
    monkeypatch.setattr(content, "count_pages", made)
    return made


@pytest.fixture
def check() -> Callable[[str], "asyncio.Task[object]"]:
    """Checks a document of a tenant."""
    inspector = ContentInspector(ContentLimits())
    return lambda tenant_id: asyncio.ensure_future(inspector.inspect(tenant_id, "att_1", pdf()))


async def settle() -> None:
    """Let tasks get as far as they can without a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_small_file_is_not_checked_on_the_loop(
    pages: Pages, check: Callable[[str], "asyncio.Task[object]"]
) -> None:
    """A kilobyte may expand to a megabyte, and a document of 30 KiB took seconds."""
    pages.allow(1)
    assert len(pdf()) < 1000
    await check("acme")

    assert pages.threads[0] != threading.get_ident()


async def test_tenant_has_one_check_at_a_time(pages: Pages, check: Callable[[str], "asyncio.Task[object]"]) -> None:
    """Another tenant's file waits for none of its files."""
    own = [check("acme") for _ in range(3)]
    await pages.begun(1)
    other = check("other")
    await pages.begun(2)
    await settle()
    assert len(pages.threads) == 2
    pages.allow(4)
    await asyncio.gather(other, *own)

    assert len(pages.threads) == 4


async def test_check_counts_until_its_thread_ends(pages: Pages, check: Callable[[str], "asyncio.Task[object]"]) -> None:
    """Callers that leave do not start one thread after the other; one that leaves the queue delays no other."""
    left = [check("acme"), check("other")]
    await pages.begun(2)
    for each in left:
        each.cancel()
    waiting = [check("acme"), check("third")]
    await settle()
    gone = check("third")
    await settle()
    gone.cancel()
    await settle()
    assert len(pages.threads) == 2
    pages.allow(4)
    await asyncio.gather(*waiting)

    assert len(pages.threads) == 4
    assert all(each.cancelled() for each in (*left, gone))
