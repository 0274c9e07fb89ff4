"""What a model call can cost at the most, told before it is made: the sum to reserve.

Input: a token is never shorter than one UTF-8 byte, so the bytes of the request body and
`TEMPLATE_TOKENS` bound the tokens; each is charged at the dearest rate (prompt, cache read, cache write
of either kind). Output: the request's limit where the model honours one, else the model's own, else its
context length; reasoning is part of it, but below a limit of 2,048 the least reasoning budget of 1,024 may come on
top. With `provider.max_price`, its two prices count together. Every override that could apply, at any time, counts, and
so does the dearest of all models and providers that are given: the bound holds for whichever serves.

It does not cover what no counter shows (plugins, server tools, PDF OCR), pictures, video and files that
the request names or packs (they are no text), service tiers, providers whose prices were not given (let
the request carry `provider.max_price`), a normalising tokenizer that lengthens the text first, or the
last bits that a provider loses by adding in binary.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal, DecimalException
from itertools import count

from godoty_service.metering import money
from godoty_service.metering.catalogue import CatalogueModel, Endpoint, EndpointPrices
from godoty_service.metering.prices import UnitPrices

# Tokens that a provider may put around the request: chat templates, instructions for tool use, and hidden
# system prompts (the largest recorded: grok-4 counted 687 tokens for a one-line request).
TEMPLATE_TOKENS = 2048

# OpenAI refuses a smaller limit, and gateways that speak to it raise a request's to this.
LEAST_OUTPUT_LIMIT = 16

# OpenRouter gives a model that reasons at least so many tokens for that, and wants `max_tokens` to be above them.
LEAST_REASONING = 1024

# What is always asked for of a context, though the bytes of a long request may fill it: its tokens are fewer.
_LEAST_SHARE = 4


def upper_bound(
    *,
    request_bytes: int,
    max_output_tokens: int | None,
    models: Iterable[CatalogueModel],
    endpoint_prices: Iterable[EndpointPrices] = (),
    web_searches: int = 0,
    audio_input: bool = False,
    max_price: Mapping[str, Decimal] | None = None,
) -> Decimal | None:
    """Bound the charge of one request in US dollars, or give `None` where there is no finite bound.

    Args:
        request_bytes: the length of the body as it is sent.
        max_output_tokens: the limit that the request carries, if any.
        models: every entry that may serve: `Catalogue.offers` of the model and of each fallback.
        endpoint_prices: the providers' own prices of these models, as far as they are known.
        web_searches: how many native searches the request allows.
        audio_input: whether the request carries audio.
        max_price: the prices for one token that the request permits, "prompt" and "completion": any provider may serve
            that asks no more than both, so both count together, also where no known offer has the two.

    Raises:
        ValueError: where a size is negative.
    """
    if min(request_bytes, max_output_tokens or 0, web_searches) < 0:
        raise ValueError("sizes cannot be negative")
    input_tokens = request_bytes + TEMPLATE_TOKENS
    offers: list[CatalogueModel | Endpoint] = [
        *models,
        *(entry for listed in endpoint_prices for entry in listed.endpoints),
    ]
    permitted = [
        (rates, _output_tokens(offer, max_output_tokens))
        for offer in offers
        for rates in offer.prices.states(max_prompt_tokens=input_tokens)
    ]
    if max_price is not None:
        permitted = _crossed(permitted, max_price)
    bounds = [
        _bound(rates, input_tokens, output_tokens, web_searches, audio_input=audio_input)
        for rates, output_tokens in permitted
    ]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if known and len(known) == len(bounds) else None


def _crossed(
    permitted: list[tuple[UnitPrices, int | None]], max_price: Mapping[str, Decimal]
) -> list[tuple[UnitPrices, int | None]]:
    """Give each offer the dearest permitted prices, and all that another offer may add to them."""
    sizes = [size for _, size in permitted]
    longest = None if None in sizes else max((size for size in sizes if size is not None), default=None)
    every = [rates for rates, _ in permitted]
    prompt = _dearest(max_price.get("prompt"), *(rates.prompt for rates in every))
    completion = _dearest(max_price.get("completion"), *map(_output_rate, every))
    request = _dearest(*(rates.request for rates in every))
    return [
        (rates if _unknown(rates) else replace(rates, prompt=prompt, completion=completion, request=request), longest)
        for rates in every
    ]


def _unknown(rates: UnitPrices) -> bool:
    return rates.prompt is None or rates.completion is None


def output_limit(*, request_bytes: int, models: Iterable[CatalogueModel]) -> int | None:
    """Tell the most output tokens that a request may ask all of these models for; None: nobody said.

    A provider refuses a request whose input and limit together do not fit the context.

    Args:
        request_bytes: the length of the body as it is sent.
        models: every entry that may serve.
    """
    limits = [_output_room(model, request_bytes + TEMPLATE_TOKENS) for model in models]
    return min((limit for limit in limits if limit is not None), default=None)


def largest_limit(bound: Callable[[int], Decimal | None], *, least: int, most: int, amount: Decimal) -> int | None:
    """Return the largest output limit whose bound is within an amount; None: not even the least one's is.

    Args:
        bound: Returns the upper bound of the cost for an output limit; it never falls as the limit grows.
        least: The least limit that is of use.
        most: The largest limit that is wanted.
        amount: US dollars.
    """
    low, high = bound(least), bound(most)
    if high is not None and high <= amount:
        return most
    if low is None or high is None or low > amount:
        return None
    fitting, refused = least, most
    for step in count():
        if refused - fitting <= 1:
            break
        # Bounds are nearly linear, so two guesses find nearly all limits; every third step halves the rest.
        share = (amount - low) / (high - low) if (step + 1) % 3 else Decimal("0.5")  # no sum of money
        limit = fitting + min(max(int(share * (refused - fitting)), 1), refused - fitting - 1)
        cost = bound(limit)
        if cost is None:
            return None
        if cost <= amount:
            fitting, low = limit, cost
        else:
            refused, high = limit, cost
    return fitting


def _output_room(model: CatalogueModel, input_tokens: int) -> int | None:
    if model.context_length is None:
        return model.max_completion_tokens
    room = max(model.context_length - input_tokens, model.context_length // _LEAST_SHARE)
    return min(room, model.max_completion_tokens or room)


def _output_tokens(offer: CatalogueModel | Endpoint, max_output_tokens: int | None) -> int | None:
    if max_output_tokens is not None and offer.supports_max_tokens:
        limit = max(max_output_tokens, LEAST_OUTPUT_LIMIT)
        return max(limit, min(limit, LEAST_REASONING) + LEAST_REASONING) if offer.reasons else limit
    return offer.max_completion_tokens or offer.context_length


def _bound(
    rates: UnitPrices, input_tokens: int, output_tokens: int | None, web_searches: int, *, audio_input: bool
) -> Decimal | None:
    if output_tokens is None or rates.uncounted_fees or rates.prompt is None or rates.completion is None:
        return None
    if rates.depends or (web_searches and rates.web_search is None):
        return None
    try:
        bound = money.total(
            [
                money.multiply(_input_rate(rates, audio_input=audio_input), input_tokens),
                money.multiply(_output_rate(rates), output_tokens),
                money.multiply(rates.web_search or money.ZERO, web_searches),
                rates.request or money.ZERO,
            ]
        )
    except DecimalException:  # more than 34 digits hold
        return None
    return bound if money.is_bounded(bound) else None


def _input_rate(rates: UnitPrices, *, audio_input: bool) -> Decimal:
    """Give the most that one input token can cost: a surcharge for writing comes on top of the rest."""
    read = _dearest(rates.prompt, rates.input_cache_read)
    written = _dearest(rates.input_cache_write, rates.input_cache_write_1h)
    if audio_input:
        read = _dearest(read, rates.audio, rates.input_audio_cache)
    return money.add(read, written) if rates.cache_write_is_surcharge else max(read, written)


def _output_rate(rates: UnitPrices) -> Decimal:
    return _dearest(rates.completion, rates.internal_reasoning, rates.image_output, rates.audio_output)


def _dearest(*rates: Decimal | None) -> Decimal:
    return max((rate for rate in rates if rate is not None), default=money.ZERO)
