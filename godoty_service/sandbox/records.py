"""Generation records: what `GET /generation?id=` tells about a generation, some time after its end."""

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from godoty_service.sandbox.accounts import authenticate, json_response
from godoty_service.sandbox.conversation import RequestError


class Records:
    """The records by generation id; each is seen by its own account only, and not before its time."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[str, float, dict[str, Any]]] = {}

    def add(self, generation_id: str, account: str, delay_ms: int, record: dict[str, Any]) -> None:
        """File a record that answers 404 for `delay_ms` more; a negative delay means for ever."""
        visible_at = time.monotonic() + delay_ms / 1000 if delay_ms >= 0 else float("inf")
        self._records[generation_id] = (account, visible_at, record)

    async def get(self, request: Request) -> Response:
        """`GET /generation?id=`."""
        account, wanted = authenticate(request), request.query_params.get("id")
        if not wanted:
            raise RequestError(400, "Generation ID is required")
        owner, visible_at, record = self._records.get(wanted, ("", 0.0, {}))
        if owner != account or time.monotonic() < visible_at:
            raise RequestError(404, f"Generation {wanted} not found")
        return json_response({"data": record})

    def clear(self) -> None:
        """Forget every record."""
        self._records.clear()


def generation_record(usage: Mapping[str, Any], **known: Any) -> dict[str, Any]:
    """The `/generation` record of a usage, with what else is known of the generation."""
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cost, upstream = usage.get("cost", Decimal(0)), usage.get("cost_details") or {}
    byok = bool(usage.get("is_byok"))
    return {
        "api_type": "completions",
        "app_id": None,
        "cache_discount": None,
        "data_region": "global",
        "is_byok": byok,
        "moderation_latency": None,
        "native_tokens_prompt": usage.get("prompt_tokens"),
        "native_tokens_completion": usage.get("completion_tokens"),
        "native_tokens_reasoning": completion.get("reasoning_tokens", 0),
        "native_tokens_cached": prompt.get("cached_tokens", 0),
        "native_tokens_completion_images": 0,
        "tokens_prompt": usage.get("prompt_tokens"),
        "tokens_completion": usage.get("completion_tokens"),
        "num_media_prompt": None,
        "num_media_completion": None,
        "num_search_results": None,
        "origin": "",
        "service_tier": None,
        "total_cost": cost,
        "upstream_id": None,
        "upstream_inference_cost": upstream.get("upstream_inference_cost") if byok else 0,
        "usage": cost,
        **known,
    }
