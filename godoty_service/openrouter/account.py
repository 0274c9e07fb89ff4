"""The provider's other endpoints: models, their providers, generation records, the account's key."""

from dataclasses import dataclass
from urllib.parse import quote

import httpx2 as httpx

from godoty_service.errors import ModelUnavailable, ProviderError, ProviderUnavailable
from godoty_service.openrouter import exact, failures
from godoty_service.openrouter.bounded_body import UnreadableBody, read_bounded
from godoty_service.openrouter.client import OpenRouterClient
from godoty_service.openrouter.record_keeping import NO_SUCH_PATH, RecordKeeping


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How large a body may be, in bytes.

    Attributes:
        listing: Of a list of models, of providers, or the account's key.
        record: Of a generation record.
    """

    listing: int
    record: int


class Account:
    """The provider's other endpoints, read with the account's key."""

    def __init__(self, client: OpenRouterClient, *, limits: BodyLimits, records: RecordKeeping) -> None:
        """Build it.

        Args:
            client: Speaks with the account's key.
            limits: How large a body may be.
            records: Learns from the answers whether the upstream keeps generation records.
        """
        self._client = client
        self._limits = limits
        self._records = records

    async def models(self) -> bytes:
        """Read the listing of all models and their prices.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read("/models?output_modalities=all")

    async def endpoints(self, model: str) -> bytes:
        """Read who serves a model, and at what price. The model is an id of the listing.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read(f"/models/{model}/endpoints")

    async def generation(self, generation_id: str) -> bytes | None:
        """Read the record of a generation; None: there is none, or none yet.

        Raises:
            ProviderError: The answer is another error.
            ValueError: The record is too large, or in an unknown encoding.
        """
        path = f"/generation?id={quote(generation_id, safe='')}"
        status, headers, body = await self._ask(path, most=self._limits.record)
        self._records.learn(status, body)
        if httpx.codes.is_success(status):
            if body is None:
                raise ValueError("a generation record that is too large, or in an unknown encoding")
            return body
        error = self._error(status, headers, body)
        if isinstance(error, ModelUnavailable) or (status in NO_SUCH_PATH and not self._records.kept):
            return None  # the former is what a 404 means on the other paths
        raise error

    async def key(self) -> bytes:
        """Read what the account's key has used.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read("/key")

    async def _read(self, path: str) -> bytes:
        status, headers, body = await self._ask(path, most=self._limits.listing)
        if not httpx.codes.is_success(status):
            raise self._error(status, headers, body)
        if body is None:
            raise ProviderUnavailable("The provider's answer is too large, or in an unknown encoding.")
        return body

    def _error(self, status: int, headers: httpx.Headers, body: bytes | None) -> ProviderError:
        secrets = (self._client.api_key,)
        return failures.from_body(status, exact.loads_or_none(body or b""), headers, secrets=secrets)

    async def _ask(self, path: str, *, most: int) -> tuple[int, httpx.Headers, bytes | None]:
        """Return an answer's status, headers and body; a body that is too large or cannot be decoded is None.

        Raises:
            ProviderError: No answer came.
        """
        try:
            response = await self._client.fetch(path)
            try:
                body: bytes | None = await read_bounded(response, most=most)
            except UnreadableBody:
                body = None
        except httpx.HTTPError as failure:
            raise failures.from_exception(failure) from failure
        return response.status_code, response.headers, body
