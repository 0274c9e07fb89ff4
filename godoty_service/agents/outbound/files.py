"""Fetches files by HTTP from the hosts that tenants name: only from permitted addresses, without any credential."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import httpcore2

from godoty_service.agents.outbound.pool import FAILURES, HttpPool, Network, RequestFailed, failure_text, header, pieces
from godoty_service.agents.outbound.urls import REDIRECTS, host_header, redirect_target, split_url

_MAX_REDIRECTS: Final = 5
_SUCCESS: Final = 200
_HEADERS: Final = [
    (b"Accept", b"image/png, image/jpeg, image/webp, image/gif, application/pdf"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"godoty"),
]


class FileFetcher:
    """Fetches files. Each has connections and look-ups of its own, so that one tenant's hosts hold up no other's."""

    def __init__(self, network: Network, *, seconds: float) -> None:
        """Create it.

        Args:
            network: Checks addresses and certificates.
            seconds: The time that a file may take, redirects included.
        """
        self._network = network
        self._seconds = seconds

    async def fetch(self, url: str, *, tenant_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file as they arrive; the caller bounds their number.

        Args:
            url: The URL.
            tenant_id: Whose request it is.

        Raises:
            RequestFailed: It cannot be fetched; the text is for the tenant.
        """
        deadline = asyncio.get_running_loop().time() + self._seconds
        pool = HttpPool(self._network, owner=tenant_id)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._follow(pool, url)
            try:
                received = aiter(pieces(response))
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(received, None)
                    if piece is None:
                        return
                    yield piece
            finally:
                await response.aclose()
        except TimeoutError:
            raise RequestFailed(f"The file did not arrive within {self._seconds:g} s.") from None
        except FAILURES as error:
            raise RequestFailed(failure_text(error)) from error
        finally:
            await pool.aclose()

    async def _follow(self, pool: HttpPool, url: str) -> httpcore2.Response:
        """Return the response with the file, after redirects.

        Raises:
            RequestFailed: There is none.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(pool, url)
            location = header(response, "location")
            if response.status == _SUCCESS and header(response, "content-encoding") in ("", "identity"):
                return response
            await response.aclose()
            if response.status not in REDIRECTS or not location:
                raise RequestFailed(f"The server answered HTTP {response.status}, or a compressed file.")
            url = redirect_target(url, location)
        raise RequestFailed(f"The server redirects more than {_MAX_REDIRECTS} times.")

    async def _send(self, pool: HttpPool, url: str) -> httpcore2.Response:
        """Send a request, for the URL as it is composed of the parts that were checked.

        Raises:
            RequestFailed: The server did not answer.
        """
        parts = split_url(url)
        target = httpcore2.URL(
            scheme=parts.scheme.encode(),
            host=parts.host.encode(),
            port=None if parts.is_default_port else parts.port,
            target=parts.target.encode(),
        )
        headers = [(b"Host", host_header(target)), *_HEADERS]
        return await pool.send("GET", target, headers=headers, content=b"", read_timeout=self._seconds)
