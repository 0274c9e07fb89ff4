"""Reads the provider's other endpoints: models, their providers, generation records, the key's usage."""

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx2 as httpx
import structlog

from godoty_service.errors import ModelUnavailable, ProviderError, ProviderUnavailable
from godoty_service.openrouter import decimal_json, errors
from godoty_service.openrouter.client import OpenRouterClient
from godoty_service.openrouter.transport import UnreadableBody, read_bounded

log = structlog.get_logger(__name__)

GenerationRecords = Literal["auto", "kept", "none"]

_NO_SUCH_PATH = frozenset({404, 405, 501})
_NOT_FOUND = 404
_SUCCESS = 200


def is_openrouter(base_url: str) -> bool:
    """Return whether a base URL is OpenRouter's own."""
    host = urlsplit(base_url).hostname or ""
    return host == "openrouter.ai" or host.endswith(".openrouter.ai")


class RecordSupport:
    """Whether the upstream retains generation records: as configured, else as the answers of `/generation` show.

    OpenRouter does; most compatible gateways have no such path. OpenRouter answers 404 also for a record that does not
    exist yet, but as JSON: `{"error": {"code": 404, …}}`. A path that does not exist is answered by 405, 501, or a 404
    of another shape. Such an answer counts only until the upstream has answered as OpenRouter does, and never for
    OpenRouter itself, in whose place a proxy may send an error page.

    Attributes:
        available: Records may exist.
    """

    def __init__(self, *, base_url: str, configured: GenerationRecords) -> None:
        """Build it.

        Args:
            base_url: The upstream's.
            configured: "kept" and "none" decide; "auto" learns.
        """
        known = configured == "kept" or is_openrouter(base_url)
        self.available = configured != "none"
        self._is_certain = known or not self.available

    @property
    def is_certain(self) -> bool:
        """Whether no answer can change it any more."""
        return self._is_certain

    def learn(self, status: int, body: bytes | None) -> None:
        """Learn from an answer of `/generation`; None: its body was too large to be read."""
        if self._is_certain:
            return
        answer = decimal_json.loads_or_none(body or b"")
        if _is_record(status, answer) or _is_missing_record(status, answer):
            self._is_certain = self.available = True
        elif status in _NO_SUCH_PATH and self.available:
            self.available = False
            log.warning("upstream_keeps_no_generation_records", status=status)


def _is_record(status: int, answer: Any) -> bool:
    return status == _SUCCESS and isinstance(answer, dict) and isinstance(answer.get("data"), dict)


def _is_missing_record(status: int, answer: Any) -> bool:
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return status == _NOT_FOUND and type(code) is int and code == _NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Largest size of a body, in bytes.

    Attributes:
        listing: Of a list of models, of providers, or the key's usage.
        record: Of a generation record.
    """

    listing: int
    record: int


class OpenRouterApi:
    """The provider's other endpoints, read with one key."""

    def __init__(self, client: OpenRouterClient, *, limits: BodyLimits, record_support: RecordSupport) -> None:
        """Build it.

        Args:
            client: Sends the requests.
            limits: Largest sizes of the answers.
            record_support: Learns from the answers whether the upstream retains generation records.
        """
        self._client = client
        self._limits = limits
        self._record_support = record_support

    async def models(self) -> bytes:
        """Return the listing of all models and their prices.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read("/models?output_modalities=all")

    async def endpoints(self, model: str) -> bytes:
        """Return the listing of a model's providers and their prices. The model is an id of the model listing.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read(f"/models/{model}/endpoints")

    async def tools(self) -> bytes:
        """Return the listing of the provider's server tools and their prices.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read("/tools")

    async def generation(self, generation_id: str) -> bytes | None:
        """Return the record of a generation; None: it does not exist, or not yet.

        Raises:
            ProviderError: The answer is another error.
            ValueError: The record is too large, or in an unknown encoding.
        """
        path = f"/generation?id={quote(generation_id, safe='')}"
        status, headers, body = await self._get(path, max_size=self._limits.record)
        self._record_support.learn(status, body)
        if httpx.codes.is_success(status):
            if body is None:
                raise ValueError("a generation record that is too large, or in an unknown encoding")
            return body
        error = self._error(status, headers, body)
        if isinstance(error, ModelUnavailable) or (status in _NO_SUCH_PATH and not self._record_support.available):
            return None  # ModelUnavailable is the meaning of a 404 on the other paths
        raise error

    async def key(self) -> bytes:
        """Return the usage of the key.

        Raises:
            ProviderError: It cannot be read, or is too large.
        """
        return await self._read("/key")

    async def _read(self, path: str) -> bytes:
        status, headers, body = await self._get(path, max_size=self._limits.listing)
        if not httpx.codes.is_success(status):
            raise self._error(status, headers, body)
        if body is None:
            raise ProviderUnavailable("The provider's answer is too large, or in an unknown encoding.")
        return body

    def _error(self, status: int, headers: httpx.Headers, body: bytes | None) -> ProviderError:
        secrets = (self._client.api_key,)
        return errors.from_body(status, decimal_json.loads_or_none(body or b""), headers, secrets=secrets)

    async def _get(self, path: str, *, max_size: int) -> tuple[int, httpx.Headers, bytes | None]:
        """Return an answer's status, headers and body; the body is None if it is too large or cannot be decoded.

        Raises:
            ProviderError: No answer came.
        """
        try:
            response = await self._client.fetch(path)
            try:
                body: bytes | None = await read_bounded(response, max_size=max_size)
            except UnreadableBody:
                body = None
        except httpx.HTTPError as failure:
            raise errors.from_exception(failure) from failure
        return response.status_code, response.headers, body
