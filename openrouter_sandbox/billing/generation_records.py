"""Generation records: `GET /generation?id=` serves a generation's usage and cost some time after its end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from openrouter_sandbox.accounts import authenticate, json_response
from openrouter_sandbox.billing.malformed import absent_response, malformed_response
from openrouter_sandbox.conversation import RequestError
from openrouter_sandbox.scenarios.scenario import Scenario
from openrouter_sandbox.settings import SandboxSettings


@dataclass
class _Record:
    """A stored generation record.

    Attributes:
        account: The account that may read it.
        visible_at: Monotonic time in seconds from which it is served.
        data: The record.
        malformed: The response served in its place; None serves the record.
        reads: Number of reads that get `malformed` before the record is served; None for all reads.
    """

    account: str
    visible_at: float
    data: dict[str, Any]
    malformed: Response | None
    reads: int | None


class GenerationRecords:
    """The records by generation id; a record is visible to its own account only, after its delay."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._records: dict[str, _Record] = {}
        self._bodies: dict[str, tuple[int, bytes]] = {}

    def add(self, generation_id: str, account: str, delay_ms: int, data: dict[str, Any], scenario: Scenario) -> None:
        """Store a record that is served after `delay_ms`; a negative delay never serves it.

        The scenario's `record=NAME` serves a malformed body in its place, for `record_reads=N` reads or for all.
        """
        visible_at = time.monotonic() + delay_ms / 1000 if delay_ms >= 0 else float("inf")
        reads = scenario.number("record_reads") if scenario.has("record_reads") else None
        instead = malformed_response(scenario.text("record")) if scenario.has("record") else None
        self._records[generation_id] = _Record(account, visible_at, data, instead, reads)

    def serve(self, generation_id: str) -> bool:
        """Serve a generation's record from now on; return False if there is none yet."""
        record = self._records.get(generation_id)
        if record is not None:
            record.visible_at = 0.0
        return record is not None

    def replace_body(self, generation_id: str, body: bytes, *, status: int = 200) -> None:
        """Serve this body for a generation in place of its record."""
        self._bodies[generation_id] = (status, body)

    async def get(self, request: Request) -> Response:
        """Serve `GET /generation?id=`."""
        if self._settings.record_endpoint:
            return absent_response(self._settings.record_endpoint)
        account, generation_id = authenticate(request), request.query_params.get("id")
        if not generation_id:
            raise RequestError(400, "Generation ID is required")
        if generation_id in self._bodies:
            status, body = self._bodies[generation_id]
            return Response(body, status, media_type="application/json")
        record = self._records.get(generation_id)
        if record is None or record.account != account or time.monotonic() < record.visible_at:
            raise RequestError(404, f"Generation {generation_id} not found")
        if record.malformed is not None and record.reads != 0:
            record.reads = None if record.reads is None else record.reads - 1
            return record.malformed
        return json_response({"data": record.data})

    def clear(self) -> None:
        """Remove all records."""
        self._records.clear()
        self._bodies.clear()


def generation_record(usage: Mapping[str, Any], **known: Any) -> dict[str, Any]:
    """Return the `/generation` record for a usage object; `known` sets further fields."""
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
