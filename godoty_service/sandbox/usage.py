"""The usage object of a response, in full as OpenRouter sends it."""

from typing import Any

from godoty_service.sandbox.exact import EXACT
from godoty_service.sandbox.scenario import Scenario
from godoty_service.sandbox.tariff import Charge, Counts


def usage_object(counts: Counts, price: Charge, *, byok: bool) -> dict[str, Any]:
    """The usage of what was consumed; under BYOK the account pays a surcharge at most."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
        "cost": counts.surcharge if byok else price.total,
        "is_byok": byok,
        "prompt_tokens_details": {
            "cached_tokens": counts.cached,
            "cache_write_tokens": counts.written,
            "audio_tokens": 0,
            "video_tokens": 0,
        },
        "cost_details": {
            "upstream_inference_cost": EXACT.subtract(price.total, counts.surcharge),
            "upstream_inference_prompt_cost": price.prompt,
            "upstream_inference_completions_cost": price.completion,
        },
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "image_tokens": 0,
            "audio_tokens": 0,
        },
    }


def shown(usage: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The usage as it is sent: without its cost under `no-cost`. The invoice knows better."""
    hidden = {"cost", "cost_details", "is_byok"} if scenario.flag("no_cost") else set()
    return {key: value for key, value in usage.items() if key not in hidden}
