"""What the provider tells outside of conversations: models, their providers, generations, the account's key."""

from urllib.parse import quote

import httpx2 as httpx
import openai
from openai import AsyncOpenAI

from godoty_service.errors import ModelUnavailable
from godoty_service.openrouter import failures


class Account:
    """The provider's other endpoints, read with the account's key."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def models(self) -> bytes:
        """Read the listing of all models and their prices.

        Raises:
            ProviderError: It cannot be read.
        """
        return await self._read("/models?output_modalities=all")

    async def endpoints(self, model: str) -> bytes:
        """Read who serves a model, and at what price. The model is an id of the listing.

        Raises:
            ProviderError: It cannot be read.
        """
        return await self._read(f"/models/{model}/endpoints")

    async def generation(self, generation_id: str) -> bytes | None:
        """Read the record of a generation; None: there is none, or none yet.

        Raises:
            ProviderError: It cannot be told.
        """
        try:
            return await self._read(f"/generation?id={quote(generation_id, safe='')}")
        except ModelUnavailable:  # what a 404 means on the other paths
            return None

    async def key(self) -> bytes:
        """Read what the account's key has used.

        Raises:
            ProviderError: It cannot be read.
        """
        return await self._read("/key")

    async def _read(self, path: str) -> bytes:
        try:
            response = await self._client.get(path, cast_to=httpx.Response)
            return await response.aread()
        except (openai.APIError, httpx.HTTPError) as failure:
            raise failures.from_exception(failure) from failure
