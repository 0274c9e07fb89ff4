"""Token usage and charge of a model call, parsed from the provider's responses.

The shapes are those of OpenRouter's chat and Responses APIs and of its generation record, as recorded from
2024-11 to 2026-08. An unreported value stays `None`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, DecimalException
from operator import attrgetter
from typing import Any

from godoty_service.pricing import money

# No call uses a million million of anything: a larger count is a provider's fault and counts as unknown. The bound also
# keeps sums of millions of calls within 64 bits.
_MAX_COUNT = 10**12

PIPELINE_COST = "pipeline_cost"  # of a usage object, beside its `cost`: the fees that other parts of the response have


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Counters of one model call, or sums over many; `None` means not reported.

    The finer kinds of tokens are part of `input_tokens` or `output_tokens`: adding them up counts twice.
    `reasoning_tokens` was seen one larger than `output_tokens`; it is stored as reported.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_cache_read_tokens: int | None = None  # of cache_read_tokens, those that are audio
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    video_input_tokens: int | None = None
    web_search_requests: int | None = None
    server_tool_calls: int | None = None  # run by OpenRouter itself; their fees are in no price list

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        pairs = zip(COUNTERS, _COUNTS_OF(self), _COUNTS_OF(other), strict=True)
        return TokenUsage(**{name: a if b is None else b if a is None else a + b for name, a, b in pairs})

    @classmethod
    def sum(cls, usages: Sequence["TokenUsage"]) -> "TokenUsage":
        """Return the sum by counter of many usages at once; a counter that none of them reports stays None."""
        columns = zip(*map(_COUNTS_OF, usages), strict=True)
        return cls(**{name: sum_counts(column) for name, column in zip(COUNTERS, columns, strict=False)})

    def beyond(self, counted: "TokenUsage") -> "TokenUsage | None":
        """Return the difference to usage that is counted already, by counter; None: there is none."""
        pairs = {name: (own, getattr(counted, name)) for name in COUNTERS if (own := getattr(self, name)) is not None}
        missing = {name: own - (other or 0) for name, (own, other) in pairs.items() if own != other}
        return TokenUsage(**missing) if missing else None

    def or_else(self, other: "TokenUsage") -> "TokenUsage":
        """Return these counters, each unknown one replaced by that of another report."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in COUNTERS}
        return TokenUsage(**{name: theirs if ours is None else ours for name, (ours, theirs) in pairs.items()})


COUNTERS = tuple(field.name for field in fields(TokenUsage))
_COUNTS_OF = attrgetter(*COUNTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCharge:
    """The provider's report of one call: its usage and its charge, in US dollars.

    Under BYOK (the tenant's own provider account) `cost` is 0 or a fee, and that account pays `upstream_cost`.
    Otherwise the upstream cost is for information and never added to `cost`. `tool_fees` is the part of `cost` that is
    fees for tools and plugins, if the provider reports it.
    """

    usage: TokenUsage
    cost: Decimal | None = None
    upstream_cost: Decimal | None = None
    is_byok: bool | None = None
    tool_fees: Decimal | None = None


def from_openrouter(usage: Mapping[str, Any]) -> ProviderCharge:
    """Parse the `usage` object of a completion, by the field names of the chat or of the Responses API.

    Args:
        usage: The object as `money.loads` returns it. Null and missing both mean not reported.

    Raises:
        TypeError: An amount is a float.
    """
    counters, cost = _counters(usage), _charge(usage.get("cost"))
    return ProviderCharge(
        usage=counters,
        cost=cost,
        upstream_cost=_upstream_cost(_part(usage, "cost_details"), counters),
        is_byok=_flag(usage.get("is_byok")),
        tool_fees=_tool_fees(usage, cost),
    )


def from_generation(data: Mapping[str, Any]) -> ProviderCharge:
    """Parse a generation record: the `data` of `GET /generation?id=`, as `money.loads` returns it.

    It reports no cache writes and no number of searches (`num_search_results` counts results, not requests).

    Raises:
        TypeError: An amount is a float.
    """
    prompt, completion = _count(data, "native_tokens_prompt"), _count(data, "native_tokens_completion")
    cost = _charge(data.get("total_cost"))
    return ProviderCharge(
        usage=TokenUsage(
            input_tokens=prompt,
            output_tokens=completion,
            total_tokens=None if prompt is None or completion is None else prompt + completion,
            cache_read_tokens=_count(data, "native_tokens_cached"),
            reasoning_tokens=_count(data, "native_tokens_reasoning"),
            image_output_tokens=_count(data, "native_tokens_completion_images"),
        ),
        cost=cost if cost is not None else _charge(data.get("usage")),
        upstream_cost=_charge(data.get("upstream_inference_cost")),
        is_byok=_flag(data.get("is_byok")),
    )


def _counters(usage: Mapping[str, Any]) -> TokenUsage:
    prompt = _part(usage, "prompt_tokens_details", "input_tokens_details")
    completion = _part(usage, "completion_tokens_details", "output_tokens_details")
    tools = _part(usage, "server_tool_use_details", "server_tool_use")
    return TokenUsage(
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        total_tokens=_count(usage, "total_tokens"),
        cache_read_tokens=_count(prompt, "cached_tokens"),
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        reasoning_tokens=_count(completion, "reasoning_tokens"),
        audio_input_tokens=_count(prompt, "audio_tokens"),
        audio_cache_read_tokens=_count(_part(usage, "cost_details"), "input_audio_cache_read_tokens"),
        audio_output_tokens=_count(completion, "audio_tokens"),
        image_output_tokens=_count(completion, "image_tokens"),
        video_input_tokens=_count(prompt, "video_tokens"),
        web_search_requests=_count(tools, "web_search_requests"),
        server_tool_calls=_count(tools, "tool_calls_executed", "tool_calls_requested"),
    )


def _tool_fees(usage: Mapping[str, Any], cost: Decimal | None) -> Decimal | None:
    """Return the fees of server tools and of plugins together; None: neither is reported, or they exceed the charge."""
    parts = (_part(usage, "cost_details").get("server_tool_cost"), usage.get(PIPELINE_COST))
    known = [fee for each in parts if (fee := _charge(each)) is not None]
    try:
        fees = money.total(known) if known else None
    except DecimalException:  # more than 34 digits
        return None
    return fees if fees is None or cost is None or fees <= cost else None


def _upstream_cost(details: Mapping[str, Any], counters: TokenUsage) -> Decimal | None:
    """Return the reported upstream cost, else the sum of its two parts; the parts include no search or tool fee."""
    reported = _charge(details.get("upstream_inference_cost"))
    if reported is not None or counters.web_search_requests or counters.server_tool_calls:
        return reported
    parts = [
        _amount(details, "upstream_inference_prompt_cost", "upstream_inference_input_cost"),
        _amount(details, "upstream_inference_completions_cost", "upstream_inference_output_cost"),
    ]
    known = [part for part in parts if part is not None]
    return money.total(known) if len(known) == len(parts) else None


def sum_counts(counts: Sequence[int | None]) -> int | None:
    """Return the sum of the reported counts; None: none is reported."""
    known = [count for count in counts if count is not None] if None in counts else counts
    return sum(known) if known else None  # type: ignore[arg-type] # no None is among them


def _part(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((part for name in names if isinstance(part := usage.get(name), Mapping)), {})


def _count(part: Mapping[str, Any], *names: str) -> int | None:
    return next((count for name in names if (count := whole_number(part.get(name))) is not None), None)


def whole_number(value: Any) -> int | None:
    """Parse a count from a provider's response; a negative, absurd or fractional one is unknown."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return int(value) if 0 <= value <= _MAX_COUNT and value == int(value) else None


def _amount(part: Mapping[str, Any], *names: str) -> Decimal | None:
    return next((amount for name in names if (amount := _charge(part.get(name))) is not None), None)


def _charge(value: Any) -> Decimal | None:
    amount = money.parse_charge(value)
    return amount if amount is not None and money.is_bounded(amount) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
