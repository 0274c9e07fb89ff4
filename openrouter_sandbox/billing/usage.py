"""The usage object of a response, with every field that OpenRouter sends."""

from typing import Any

from openrouter_sandbox.decimal_json import EXACT
from openrouter_sandbox.models.pricing import Charge, Counts
from openrouter_sandbox.scenarios.scenario import Scenario


def usage_object(counts: Counts, price: Charge, *, byok: bool) -> dict[str, Any]:
    """Return the usage object; under BYOK its cost is the surcharge alone."""
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


def visible_usage(usage: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """Return the usage as sent: without cost under `no-cost`. The invoice always has the cost."""
    hidden = {"cost", "cost_details", "is_byok"} if scenario.flag("no_cost") else set()
    return {key: value for key, value in usage.items() if key not in hidden}
